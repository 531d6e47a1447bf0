"""The contract of AlarmRepository, on the database and in memory."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
import sqlalchemy as sa
from fakes.rooms import OTHER, SCOPE, Rooms, over_database
from fakes.traffic import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.alarms.model import Alarm, AlarmFilter
from gateway.core.errors import Conflict, NotFound, Rejected
from gateway.core.flow import AlarmChange, StateDelta
from gateway.storage import tables
from gateway.storage.alarms import carry_out
from gateway.storage.database import Database
from gateway.things.ports import PageRequest

NO_FILTER = AlarmFilter()


def change(
    what: Literal["raise", "clear"], at_ms: int = 1, device: str = "d", rule: str = "r", **fields: object
) -> AlarmChange:
    return AlarmChange(what, str(fields.pop("tenant_id", "default")), device, rule, at_ms, **fields)  # type: ignore[arg-type]  # fields of the struct


async def only(rooms: Rooms) -> Alarm:
    (alarm,) = (await rooms.alarms.list_alarms(SCOPE, NO_FILTER, PageRequest())).items
    return alarm


async def test_raising_makes_an_active_alarm_and_one_event(rooms: Rooms) -> None:
    events = await rooms.alarms.apply([change("raise", 5, severity="major", message="hot", data={"t": 90})], [])
    alarm = await only(rooms)
    assert (alarm.state, alarm.severity, alarm.message, alarm.data) == ("active", "major", "hot", {"t": 90})
    assert (alarm.raised_at_ms, alarm.last_raised_at_ms, alarm.occurrences) == (5, 5, 1)
    (event,) = events
    assert (event.type, event.at_ms, event.device_id, event.seq) == ("alarm.raised", 5, "d", 1)
    assert (event.data["alarm_id"], event.data["rule"], event.data["severity"]) == (alarm.id, "r", "major")


async def test_raising_again_counts_without_a_second_alarm_or_event(rooms: Rooms) -> None:
    await rooms.alarms.apply([change("raise", 5)], [])
    again = change("raise", 9, severity="critical", message="hotter", data={"x": 1}, occurrences=41)
    assert await rooms.alarms.apply([again], []) == []
    alarm = await only(rooms)
    assert (alarm.occurrences, alarm.severity, alarm.message, alarm.data) == (42, "critical", "hotter", {"x": 1})
    assert (alarm.raised_at_ms, alarm.last_raised_at_ms) == (5, 9)


async def test_a_late_raise_does_not_move_the_last_one_back(rooms: Rooms) -> None:
    await rooms.alarms.apply([change("raise", 5)], [])
    await rooms.alarms.apply([change("raise", 3)], [])
    assert (await only(rooms)).last_raised_at_ms == 5


async def test_clearing_ends_the_alarm_and_the_next_raise_is_a_new_one(rooms: Rooms) -> None:
    await rooms.alarms.apply([change("raise", 1)], [])
    (cleared,) = await rooms.alarms.apply([change("clear", 2)], [])
    assert (cleared.type, cleared.at_ms) == ("alarm.cleared", 2)
    assert [event.type for event in await rooms.alarms.apply([change("raise", 3)], [])] == ["alarm.raised"]
    states = [a.state for a in (await rooms.alarms.list_alarms(SCOPE, NO_FILTER, PageRequest())).items]
    assert states == ["active", "cleared"]
    assert [alarm.raised_at_ms for alarm in await rooms.alarms.active_alarms()] == [3]


async def test_clearing_what_is_not_active_does_nothing(rooms: Rooms) -> None:
    assert await rooms.alarms.apply([change("clear")], []) == []
    assert (await rooms.alarms.list_alarms(SCOPE, NO_FILTER, PageRequest())).total == 0


async def test_one_batch_may_raise_clear_and_raise_again(rooms: Rooms) -> None:
    await rooms.alarms.apply([change("raise", 1)], [])
    batch = [change("clear", 2), change("raise", 3), change("clear", 4), change("raise", 5), change("raise", 6)]
    events = await rooms.alarms.apply(batch, [])
    assert [event.type for event in events] == ["alarm.cleared", "alarm.raised", "alarm.cleared", "alarm.raised"]
    assert [event.seq for event in events] == [2, 3, 4, 5]
    (active,) = await rooms.alarms.active_alarms()
    assert (active.raised_at_ms, active.occurrences) == (5, 2)
    assert (await rooms.alarms.list_alarms(SCOPE, NO_FILTER, PageRequest())).total == 3


async def test_alarms_are_apart_by_tenant_device_and_rule(rooms: Rooms) -> None:
    batch = [
        change("raise", device="a"),
        change("raise", device="b"),
        change("raise", device="a", rule="s"),
        change("raise", device="a", tenant_id="other"),
    ]
    assert len(await rooms.alarms.apply(batch, [])) == 4
    await rooms.alarms.apply([change("clear", device="a")], [])
    assert len(await rooms.alarms.active_alarms()) == 3


async def test_rule_state_is_kept_with_the_alarms_and_forgotten_when_empty(rooms: Rooms) -> None:
    await rooms.alarms.apply(
        [change("raise")],
        [StateDelta("default", "r", "d", {"n": 1}), StateDelta("default", "r", "d", {"n": 2, "l": [None]})],
    )
    await rooms.alarms.apply([], [StateDelta("default", "s", "d", {"n": 3})])
    assert sorted((s.rule, s.data) for s in await rooms.alarms.load_state()) == [
        ("r", {"n": 2, "l": [None]}),
        ("s", {"n": 3}),
    ]
    await rooms.alarms.apply([], [StateDelta("default", "r", "d", {})])
    assert [s.rule for s in await rooms.alarms.load_state()] == ["s"]


async def test_acknowledging_twice_is_the_same_as_once(rooms: Rooms) -> None:
    await rooms.alarms.apply([change("raise")], [])
    alarm_id = (await only(rooms)).id
    first, events = await rooms.alarms.acknowledge(SCOPE, alarm_id)
    assert (first.acknowledged, first.acknowledged_by) == (True, "ann")
    assert [event.type for event in events] == ["alarm.acknowledged"]
    rooms.clock.ms += 1000
    assert await rooms.alarms.acknowledge(SCOPE, alarm_id) == (first, [])
    assert await rooms.alarms.get_alarm(SCOPE, alarm_id) == first
    assert (await rooms.audit.list_audit(SCOPE, PageRequest(), entity="alarm")).total == 1


async def test_clearing_by_hand_names_the_person_and_is_refused_twice(rooms: Rooms) -> None:
    await rooms.alarms.apply([change("raise")], [])
    alarm_id = (await only(rooms)).id
    cleared, events = await rooms.alarms.clear(SCOPE, alarm_id)
    assert (cleared.state, cleared.cleared_by, cleared.cleared_at_ms) == ("cleared", "ann", rooms.clock.ms)
    assert [event.type for event in events] == ["alarm.cleared"]
    with pytest.raises(Conflict):
        await rooms.alarms.clear(SCOPE, alarm_id)
    assert [event.type for event in await rooms.alarms.apply([change("raise", 9)], [])] == ["alarm.raised"]


async def test_another_tenants_alarm_is_not_found(rooms: Rooms) -> None:
    await rooms.alarms.apply([change("raise")], [])
    alarm_id = (await only(rooms)).id
    for ask in (rooms.alarms.get_alarm, rooms.alarms.acknowledge, rooms.alarms.clear):
        with pytest.raises(NotFound):
            await ask(OTHER, alarm_id)
    assert (await rooms.alarms.list_alarms(OTHER, NO_FILTER, PageRequest())).total == 0
    assert not (await only(rooms)).acknowledged


async def test_a_list_is_filtered_by_each_condition_and_newest_first(rooms: Rooms) -> None:
    await rooms.alarms.apply([change("raise", 1, "a"), change("raise", 2, "b", "s", severity="critical")], [])
    await rooms.alarms.apply([change("clear", 3, "a")], [])
    (b,) = await rooms.alarms.active_alarms()
    await rooms.alarms.acknowledge(SCOPE, b.id)

    async def devices(**which: object) -> list[str]:
        page = await rooms.alarms.list_alarms(SCOPE, AlarmFilter(**which), PageRequest())  # type: ignore[arg-type]  # its fields
        return [alarm.device_id for alarm in page.items]

    assert await devices() == ["b", "a"]
    assert await devices(device_id="a") == ["a"]
    assert await devices(rule="s") == ["b"]
    assert await devices(state="cleared") == ["a"]
    assert await devices(acknowledged=True) == ["b"]
    assert await devices(acknowledged=False) == ["a"]
    assert await devices(severity="critical") == ["b"]
    assert await devices(rule="s' OR 1=1 --") == []
    with pytest.raises(Rejected):
        await rooms.alarms.list_alarms(SCOPE, NO_FILTER, PageRequest(sort="message"))


async def test_two_raises_at_the_same_time_make_one_alarm(database: Database, clock: FakeClock) -> None:
    rooms = over_database(database, clock)
    both = await asyncio.gather(*(rooms.alarms.apply([change("raise", at)], []) for at in range(8)))
    assert sum(len(events) for events in both) == 1
    assert (await only(rooms)).occurrences == 8


async def test_the_database_itself_refuses_a_second_active_alarm(database: Database, clock: FakeClock) -> None:
    rooms = over_database(database, clock)
    await rooms.alarms.apply([change("raise")], [])
    async with database.read() as connection:
        row = dict((await connection.execute(sa.select(tables.alarm))).mappings().one())
    with pytest.raises(sa.exc.IntegrityError):
        async with database.write(SCOPE) as transaction:
            await transaction.execute(sa.insert(tables.alarm).values(row | {"id": "second"}))


async def test_changes_states_and_events_are_kept_together_or_not_at_all(database: Database, clock: FakeClock) -> None:
    rooms = over_database(database, clock)
    with pytest.raises(sa.exc.IntegrityError):  # no such tenant
        await rooms.alarms.apply([change("raise")], [StateDelta("nobody", "r", "d", {"a": 1})])
    assert await rooms.alarms.active_alarms() == []
    assert await rooms.alarms.load_state() == []
    async with database.read() as connection:
        assert (await connection.execute(sa.select(tables.event))).all() == []


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["raise", "clear"]), st.sampled_from(["a", "b"])), max_size=12))
def test_raises_and_clears_balance_whatever_their_order(steps: list[tuple[Literal["raise", "clear"], str]]) -> None:
    active: dict[tuple[str, str, str], Alarm] = {}
    touched, events = carry_out(
        active, [change(what, at, device) for at, (what, device) in enumerate(steps)], FakeClock()
    )
    raised = sum(event.type == "alarm.raised" for event in events)
    assert raised - len(active) == sum(event.type == "alarm.cleared" for event in events)
    assert len(touched) == raised
    assert sum(alarm.occurrences for alarm in touched) == sum(what == "raise" for what, _ in steps)
    assert {device for _, device, _ in active} == {
        device for device in ("a", "b") if next((w for w, d in reversed(steps) if d == device), "clear") == "raise"
    }
