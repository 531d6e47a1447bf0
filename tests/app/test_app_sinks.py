from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import structlog
from fakes.rules_fakes import until

from gateway.app.sinks import SinkFleet, read_sink
from gateway.core.bus import Bus
from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError
from gateway.core.flow import Event, Message
from gateway.core.tasks import Backoff, Supervisor
from gateway.extensions.hookspecs import SinkKind


class ListConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str
    label: str = ""


class ListSink:
    """Keeps what it is given; refuses the first `refusals` writes and waits while `held`."""

    made: ClassVar[list[ListSink]] = []

    def __init__(self, name: str, config: ListConfig, *, home: Path, clock: Any) -> None:
        self.name = name
        self.items: list[int] = []
        self.refusals = 0
        self.free = asyncio.Event()
        self.free.set()
        self.closed = False
        self.made.append(self)

    async def open(self) -> None:
        self.closed = False

    async def write(self, messages: list[Message], events: list[Event]) -> None:
        await self.free.wait()
        if self.refusals:
            self.refusals -= 1
            raise ConnectionResetError("the other side is away")
        self.items += [item.seq for item in [*messages, *events]]

    async def close(self) -> None:
        self.closed = True


KINDS = {"list": SinkKind(ListConfig, ListSink)}


@asynccontextmanager
async def fleet(*names: str) -> AsyncIterator[tuple[SinkFleet, Bus, list[ListSink]]]:
    ListSink.made = []
    bus, supervisor = Bus(), Supervisor(SystemClock())
    sinks = SinkFleet(KINDS, bus, supervisor, SystemClock(), Backoff(first_s=0.001, most_s=0.002))
    await sinks.start({name: {"type": "list"} for name in names}, Path())
    with structlog.testing.capture_logs():
        yield sinks, bus, ListSink.made
        await sinks.stop()
        await supervisor.stop()


def message(seq: int) -> Message:
    return Message("default", "meter", "d1", 1, 1000, 2000, {}, None, seq)


def figures(sinks: SinkFleet, name: str) -> dict[str, float]:
    return {
        sample.name.removeprefix("gateway_sink_").removesuffix("_total"): sample.value
        for sample in sinks.samples()
        if sample.labels.get("sink") == name
    }


async def test_a_sink_gets_messages_and_events_in_their_order() -> None:
    async with fleet("a") as (sinks, bus, (a,)):
        for start in range(0, 30, 10):
            bus.messages.publish([message(seq) for seq in range(start, start + 10)])
        bus.events.publish([Event("default", "device.online", 1, "d1", {}, 100)])
        await until(lambda: len(a.items) == 31)
        assert [seq for seq in a.items if seq < 100] == list(range(30))
        assert figures(sinks, "a")["written"] == 31


async def test_a_refused_batch_is_tried_again_and_nothing_is_lost_or_doubled() -> None:
    async with fleet("a") as (sinks, bus, (a,)):
        a.refusals = 3
        for seq in range(20):
            bus.messages.publish([message(seq)])
        await until(lambda: len(a.items) == 20)
        assert a.items == list(range(20))
        assert figures(sinks, "a")["failures"] == 3


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("this, too, is the extension's code")


@pytest.mark.parametrize("failure", [asyncio.CancelledError, Speechless])
async def test_nothing_that_a_sink_raises_ends_its_feed_or_loses_a_batch(
    failure: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [failure()]

    async def write(self: ListSink, messages: list[Message], events: list[Event]) -> None:
        if first:
            raise first.pop()
        self.items += [item.seq for item in [*messages, *events]]

    monkeypatch.setattr(ListSink, "write", write)
    async with fleet("a") as (sinks, bus, (a,)):
        bus.messages.publish([message(1)])
        await until(lambda: a.items == [1])
        assert (figures(sinks, "a")["failures"], figures(sinks, "a")["written"]) == (1, 1)


async def test_a_sink_that_hangs_holds_up_no_other_and_sheds_the_oldest() -> None:
    async with fleet("slow", "quick") as (sinks, bus, (slow, quick)):
        slow.free.clear()
        for start in range(0, 60_000, 1000):
            bus.messages.publish([message(seq) for seq in range(start, start + 1000)])
            await asyncio.sleep(0)
        await until(lambda: len(quick.items) == 60_000)
        assert figures(sinks, "slow")["waiting"] <= 50_000
        assert figures(sinks, "slow")["shed"] > 0
        slow.free.set()
        await until(lambda: slow.items[-1:] == [59_999])
        assert len(slow.items) + figures(sinks, "slow")["shed"] == 60_000


async def test_a_stop_writes_what_waits_and_closes() -> None:
    async with fleet("a") as (_, bus, (a,)):
        bus.messages.publish([message(seq) for seq in range(5000)])
    assert a.items == list(range(5000))
    assert a.closed


async def test_sinks_stop_together_not_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    together = asyncio.Barrier(3)

    async def close(self: ListSink) -> None:
        await together.wait()  # one after the other would wait for each other until they are given up
        self.closed = True

    monkeypatch.setattr(ListSink, "close", close)
    async with fleet("a", "b", "c") as (_, bus, sinks):
        bus.messages.publish([message(1)])
    assert [one.closed for one in sinks] == [True, True, True]


async def test_a_sink_that_fails_or_hangs_while_it_opens_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hanging(ListSink):
        async def open(self) -> None:
            await asyncio.Event().wait()

    class Failing(ListSink):
        async def open(self) -> None:
            raise RuntimeError("not today")

    monkeypatch.setattr("gateway.app.sinks._OPEN_S", 0.05)
    kinds = KINDS | {"hanging": SinkKind(ListConfig, Hanging), "failing": SinkKind(ListConfig, Failing)}
    ListSink.made = []
    bus, supervisor = Bus(), Supervisor(SystemClock())
    sinks = SinkFleet(kinds, bus, supervisor, SystemClock())
    with structlog.testing.capture_logs():
        await sinks.start({name: {"type": name} for name in ("hanging", "failing", "list")}, Path())
        bus.messages.publish([message(1)])
        await sinks.stop()
        await supervisor.stop()
    assert ListSink.made[-1].items == [1]
    assert sinks.left_out == 2


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"type": "lisst"}, r"sinks\.a: unknown type `lisst`; did you mean `list`"),
        ({}, r"sinks\.a: has no `type`"),
        ({"type": "list", "lable": "x"}, "did you mean `label`"),
    ],
)
def test_a_wrong_entry_names_itself_and_the_nearest_word(plain: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_sink("a", plain, KINDS)
