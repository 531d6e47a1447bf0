"""The outbox writes in order, once, and keeps what cannot be written yet."""

from __future__ import annotations

import asyncio
from typing import Self

import pytest
from fakes.rules_fakes import RecordingEffects, until

from gateway.core.clock import SystemClock
from gateway.core.errors import NotReady, Rejected, StorageFailed
from gateway.core.flow import AlarmChange, StateDelta
from gateway.core.tasks import Supervisor
from gateway.rules.outbox import Outbox


def raised(number: int) -> AlarmChange:
    return AlarmChange("raise", "default", f"d{number}", "r", number)


FORGOTTEN = StateDelta("default", "r", "d1", {})


def delta(n: int, device: str = "d1") -> StateDelta:
    return StateDelta("default", "r", device, {"n": n})


class Room:
    def __init__(self, most: int = 4, keep_s: float = 0.02) -> None:
        self.effects = RecordingEffects()
        self.outbox = Outbox(self.effects, most, keep_s)
        self.supervisor = Supervisor(SystemClock())

    async def __aenter__(self) -> Self:
        self.supervisor.start("outbox", self.outbox.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.supervisor.stop()


async def test_states_wait_for_company_and_only_the_newest_is_written() -> None:
    async with Room() as room:
        room.outbox.keep([delta(1)])
        room.outbox.keep([delta(2), delta(7, "d2")])
        await until(lambda: room.effects.applied)
        await asyncio.sleep(0.1)
    assert room.effects.applied == [([], [delta(2), delta(7, "d2")])]


async def test_an_alarm_does_not_wait_for_the_states() -> None:
    async with Room(keep_s=3600.0) as room:
        room.outbox.keep([delta(1), delta(7, "d2")])
        await asyncio.sleep(0.05)
        await room.outbox.put([raised(1)], [delta(2)])
        await until(lambda: room.effects.applied)
        assert room.effects.applied == [([raised(1)], [delta(2)])]
        assert await room.outbox.drain(5.0)
    assert room.effects.applied[1:] == [([], [delta(7, "d2")])], "the older state of d1 must not come after the newer"


async def test_a_failing_database_delays_everything_and_loses_nothing() -> None:
    room = Room()
    room.effects.failures = [StorageFailed("disk full"), NotReady("locked")]
    async with room:
        for number in range(3):
            await room.outbox.put([raised(number)], [delta(number)])
        await until(lambda: len(room.effects.applied) == 3)
    assert room.effects.changes == [raised(0), raised(1), raised(2)]
    assert room.outbox.retries == 2


async def test_what_the_database_will_never_take_is_counted_and_lets_the_next_pass() -> None:
    room = Room()
    room.effects.failures = [Rejected("no such device")]
    async with room:
        await room.outbox.put([raised(1)], [])
        await room.outbox.put([raised(2)], [])
        await until(lambda: room.effects.changes == [raised(2)])
    assert room.outbox.refused == 1


async def test_a_full_outbox_lets_its_caller_wait() -> None:
    room = Room(most=2)
    await room.outbox.put([raised(1)], [])
    await room.outbox.put([raised(2)], [])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(room.outbox.put([raised(3)], []), 0.05)
    async with room:
        await asyncio.wait_for(room.outbox.put([raised(3)], []), 5.0)
        await until(lambda: len(room.effects.changes) == 3)


async def test_forgotten_states_and_alarms_are_not_written_wherever_they_wait() -> None:
    room = Room(most=1)
    room.outbox.keep([delta(1), delta(9, "d2")])
    await room.outbox.put([raised(2)], [delta(2)])
    room.supervisor.spawn("put", room.outbox.put([raised(1), raised(2)], [delta(3)]))
    await asyncio.sleep(0)
    room.outbox.forget_states("default", "d1", ["r"])
    room.outbox.forget_alarms("default", "d1")
    async with room:
        await until(lambda: len(room.effects.applied) == 3)
    assert room.effects.applied == [([raised(2)], []), ([raised(2)], []), ([], [delta(9, "d2"), FORGOTTEN])]


async def test_a_drain_that_is_too_short_says_so() -> None:
    room = Room()
    room.effects.failures = [StorageFailed("disk full")] * 100
    async with room:
        await room.outbox.put([raised(1)], [])
        assert not await room.outbox.drain(0.05)
        assert len(room.outbox) == 1


async def test_a_write_cut_by_a_crash_of_the_part_is_written_again() -> None:
    class Crashing(RecordingEffects):
        crashed = False

        async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> None:
            if not self.crashed:
                self.crashed = True
                raise RuntimeError("a bug")
            await super().apply(changes, deltas)

    room = Room()
    room.effects = Crashing()
    room.outbox = Outbox(room.effects, 4, 0.02)
    async with room:
        await room.outbox.put([raised(1)], [])
        await until(lambda: room.effects.changes == [raised(1)])
