from pathlib import Path
from typing import Any

import pytest
from fakes.memory import MemoryAlarms, MemoryStore
from fakes.traffic import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from gateway.alarms import service as service_module
from gateway.alarms.model import Alarm, AlarmFilter
from gateway.alarms.service import AlarmService
from gateway.core.bus import Bus, Overflow
from gateway.core.errors import Conflict, NotFound, StorageFailed
from gateway.core.flow import AlarmChange, Event, StateDelta
from gateway.core.scope import system_scope
from gateway.storage.alarms import SqlAlarmRepository
from gateway.storage.config import DatabaseConfig
from gateway.storage.database import Database
from gateway.things.ports import PageRequest

US = system_scope("ann")


class CountedAlarms(MemoryAlarms):
    """Counts transactions and remembers what each was asked."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.asked: list[tuple[list[AlarmChange], list[StateDelta]]] = []

    @override
    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> list[Event]:
        events = await super().apply(changes, deltas)
        self.asked.append((list(changes), list(deltas)))
        return events


class Room:
    """The service over rows in memory, with somebody who listens."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.rows = CountedAlarms(self.store)
        self.bus = Bus()
        self.heard = self.bus.events.subscribe("test", 10_000, Overflow.REJECT)
        self.service = AlarmService(self.rows, self.bus)

    def events(self) -> list[str]:
        return [event.type for event in self.heard.take_all(10_000)]

    async def alarms(self) -> list[Alarm]:
        return (await self.service.list_alarms(US, AlarmFilter(), PageRequest())).items

    async def only(self) -> Alarm:
        (alarm,) = await self.alarms()
        return alarm

    async def again(self) -> AlarmService:
        """The service as a new start makes it."""
        self.service = AlarmService(self.rows, self.bus)
        await self.service.load()
        return self.service


def raised(device: str = "d", severity: Any = "major", at_ms: int = 1, **fields: Any) -> AlarmChange:
    return AlarmChange("raise", "default", device, "overspeed", at_ms, severity, **fields)


def cleared(device: str = "d", at_ms: int = 2) -> AlarmChange:
    return AlarmChange("clear", "default", device, "overspeed", at_ms)


def state(value: int, device: str = "d") -> StateDelta:
    return StateDelta("default", "overspeed", device, {"n": value})


async def test_a_raise_is_durable_and_published_when_apply_returns() -> None:
    room = Room()
    await room.service.apply([raised(message="fast")], [state(1)])
    alarm = await room.only()
    assert (alarm.state, alarm.message, alarm.occurrences) == ("active", "fast", 1)
    assert room.events() == ["alarm.raised"]
    assert room.store.states == {("default", "overspeed", "d"): {"n": 1}}


async def test_repeats_cost_no_transaction_until_they_are_flushed_as_one() -> None:
    room = Room()
    await room.service.apply([raised()], [])
    for number in range(100):
        await room.service.apply([raised(at_ms=number, message=f"m{number}"), raised(at_ms=number)], [state(number)])
    assert len(room.rows.asked) == 1
    await room.service.flush()
    assert len(room.rows.asked) == 2
    alarm = await room.only()
    assert (alarm.occurrences, alarm.last_raised_at_ms) == (201, 99)
    assert room.store.states == {("default", "overspeed", "d"): {"n": 99}}
    assert room.events() == ["alarm.raised"]
    await room.service.flush()
    assert len(room.rows.asked) == 2


async def test_another_severity_is_written_at_once_with_the_repeats_before_it() -> None:
    room = Room()
    await room.service.apply([raised(severity="warning"), raised(severity="warning")], [])
    await room.service.apply([raised(severity="critical")], [])
    alarm = await room.only()
    assert (alarm.severity, alarm.occurrences) == ("critical", 3)
    await room.service.flush()
    assert (await room.only()).occurrences == 3


async def test_a_clear_is_written_at_once_after_the_repeats_before_it() -> None:
    room = Room()
    await room.service.apply([raised(), raised(), cleared()], [])
    alarm = await room.only()
    assert (alarm.state, alarm.occurrences) == ("cleared", 2)
    assert room.events() == ["alarm.raised", "alarm.cleared"]
    await room.service.apply([raised()], [])
    assert [each.state for each in await room.alarms()].count("active") == 1


async def test_clearing_what_is_not_active_costs_nothing() -> None:
    room = Room()
    await room.service.apply([cleared(), cleared("e")], [])
    assert room.rows.asked == []
    assert room.events() == []


async def test_state_without_changes_is_durable_when_apply_returns() -> None:
    room = Room()
    await room.service.apply([], [state(1), state(2, "e")])
    assert len(room.store.states) == 2


async def test_a_newer_state_is_never_overwritten_by_one_that_waited() -> None:
    room = Room()
    await room.service.apply([raised()], [state(1)])
    await room.service.apply([raised()], [state(2)])
    await room.service.apply([cleared()], [state(3)])
    await room.service.flush()
    assert room.store.states == {("default", "overspeed", "d"): {"n": 3}}


async def test_a_batch_that_is_not_stored_did_not_happen_and_may_be_asked_again() -> None:
    room = Room()
    await room.service.apply([raised("e")], [])
    batch = ([raised("e"), raised(), raised(), cleared("e")], [state(1)])
    for _ in range(2):
        room.rows.fail_next = StorageFailed("disk full")
        with pytest.raises(StorageFailed):
            await room.service.apply(*batch)
    await room.service.apply(*batch)
    await room.service.flush()
    found = {alarm.device_id: (alarm.state, alarm.occurrences) for alarm in await room.alarms()}
    assert found == {"d": ("active", 2), "e": ("cleared", 2)}
    assert room.events() == ["alarm.raised", "alarm.raised", "alarm.cleared"]


async def test_repeats_that_could_not_be_flushed_are_kept() -> None:
    room = Room()
    await room.service.apply([raised(), raised()], [])
    room.rows.fail_next = StorageFailed("disk full")
    with pytest.raises(StorageFailed):
        await room.service.flush()
    await room.service.flush()
    assert (await room.only()).occurrences == 2


async def test_after_a_start_an_active_alarm_is_known() -> None:
    room = Room()
    await room.service.apply([raised()], [state(7)])
    service = AlarmService(room.rows, room.bus)
    assert await service.load() == [state(7)]
    await service.apply([raised()], [])
    await service.flush()
    assert (await room.only()).occurrences == 2


async def test_after_a_person_cleared_it_the_next_raise_is_a_new_alarm() -> None:
    room = Room()
    await room.service.apply([raised(), raised()], [])
    first = await room.service.clear(US, (await room.only()).id)
    assert (first.state, first.cleared_by) == ("cleared", "ann")
    await room.service.flush()
    await room.service.apply([raised()], [])
    assert sorted(alarm.state for alarm in await room.alarms()) == ["active", "cleared"]
    assert room.events() == ["alarm.raised", "alarm.cleared", "alarm.raised"]
    with pytest.raises(Conflict):
        await room.service.clear(US, first.id)


async def test_a_person_who_clears_lets_the_rule_forget_and_what_it_still_remembers_is_not_written() -> None:
    room = Room()
    heard: list[Alarm] = []
    room.service = AlarmService(room.rows, room.bus, heard.append)
    await room.service.apply([raised()], [])
    await room.service.apply([raised()], [state(1), state(2, "e")])
    alarm = await room.service.clear(US, (await room.only()).id)
    assert heard == [alarm]
    await room.service.flush()
    assert room.store.states == {("default", "overspeed", "e"): {"n": 2}}
    with pytest.raises(Conflict):
        await room.service.clear(US, alarm.id)
    await room.service.apply([raised(), cleared()], [])
    assert heard == [alarm], "a rule that clears needs no telling"


async def test_what_the_rule_remembers_goes_in_the_transaction_that_clears_by_hand(tmp_path: Path) -> None:
    database = Database(tmp_path / "gateway.db", FakeClock(), DatabaseConfig())
    await database.open()
    try:
        service = AlarmService(SqlAlarmRepository(database), Bus())
        await service.apply([raised()], [state(1), state(2, "e")])
        (alarm,) = (await service.list_alarms(US, AlarmFilter(), PageRequest())).items
        await service.clear(US, alarm.id)
        assert await SqlAlarmRepository(database).load_state() == [state(2, "e")]
    finally:
        await database.close()


async def test_a_person_acknowledges_once() -> None:
    room = Room()
    await room.service.apply([raised()], [])
    alarm = await room.only()
    for _ in range(2):
        acknowledged = await room.service.acknowledge(US, alarm.id)
        assert (acknowledged.acknowledged, acknowledged.acknowledged_by) == (True, "ann")
    assert room.events() == ["alarm.raised", "alarm.acknowledged"]
    assert await room.service.get_alarm(US, alarm.id) == acknowledged
    with pytest.raises(NotFound):
        await room.service.acknowledge(system_scope("bob", "other"), alarm.id)


async def test_the_alarms_of_a_deleted_device_are_forgotten() -> None:
    room = Room()
    await room.service.apply([raised(), raised(), raised("e")], [])
    await room.service.apply([raised()], [state(1)])
    room.store.alarms = {key: alarm for key, alarm in room.store.alarms.items() if alarm.device_id == "e"}
    room.service.device_deleted("default", "d")
    await room.service.flush()
    assert (await room.only()).device_id == "e"
    assert room.store.states == {}
    await room.service.apply([raised()], [])
    assert len(await room.alarms()) == 2


async def test_a_storm_is_flushed_in_transactions_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MOST_PER_FLUSH", 10)
    room = Room()
    storm = [raised(f"d{number}") for number in range(35)]
    await room.service.apply(storm, [])
    await room.service.apply(storm, [state(number, f"d{number}") for number in range(35)])
    await room.service.flush()
    assert all(len(changes) <= 10 and len(states) <= 10 for changes, states in room.rows.asked[1:])
    assert {alarm.occurrences for alarm in room.store.alarms.values()} == {2}
    assert len(room.store.states) == 35


async def test_figures_count_alarms_by_what_became_of_them() -> None:
    room = Room()
    await room.service.apply([raised(), raised("e"), raised(), cleared("e")], [])
    figures = {sample.name: sample.value for sample in room.service.samples()}
    assert figures == {
        "gateway_alarms_active": 1,
        "gateway_alarms_raised_total": 2,
        "gateway_alarms_cleared_total": 1,
        "gateway_alarms_repeated_total": 1,
    }


steps = st.lists(
    st.one_of(
        st.lists(
            st.builds(raised, st.sampled_from("de"), st.sampled_from(["warning", "major"]), st.integers(1, 9))
            | st.builds(cleared, st.sampled_from("de")),
            max_size=5,
        ),
        st.sampled_from(["flush", "restart", "fail"]),
    ),
    max_size=12,
)


@given(steps)
async def test_whatever_is_asked_the_rows_end_as_if_each_change_had_been_written(steps: list[Any]) -> None:
    room = Room()
    plain = MemoryAlarms()
    for step in steps:
        if step == "flush":
            await room.service.flush()
        elif step == "restart":
            await room.service.flush()
            await room.again()
        elif step == "fail":
            room.rows.fail_next = StorageFailed("disk full")
            with pytest.raises(StorageFailed):
                await room.service.apply([], [state(1)])
        else:
            await room.service.apply(step, [])
            await plain.apply(step, [])
    await room.service.flush()
    assert sorted(map(_essence, room.store.alarms.values())) == sorted(map(_essence, plain.store.alarms.values()))


def _essence(alarm: Alarm) -> tuple[Any, ...]:
    return (alarm.device_id, alarm.state, alarm.severity, alarm.occurrences, alarm.last_raised_at_ms, alarm.message)
