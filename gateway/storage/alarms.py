"""Rows of alarms and of what rules remember, changed together with the events that tell of it.

Owns how a change meets the present state. Knows no rule. A batch of changes costs a fixed number of statements,
because the journal waits while one is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from typing_extensions import override

from gateway.alarms.model import Alarm, AlarmFilter, AlarmRepository
from gateway.core.clock import Clock
from gateway.core.errors import Conflict, NotFound
from gateway.core.flow import AlarmChange, Event, StateDelta
from gateway.core.ids import new_id
from gateway.core.scope import Scope, system_scope
from gateway.storage.database import Database, Transaction
from gateway.storage.rows import Sorts, from_row, page_of, to_row, upsert
from gateway.storage.tables import alarm as _table
from gateway.storage.tables import rule_state
from gateway.things.ports import Page, PageRequest

_SORTS = Sorts(
    "-raised_at_ms", _table.c.id, _table.c.raised_at_ms, _table.c.last_raised_at_ms, _table.c.severity, _table.c.state
)
_CHUNK = 1_000
"""Alarms looked up by one statement; SQLite takes 32,766 parameters, three for each."""

Identity = tuple[str, str, str]


class SqlAlarmRepository(AlarmRepository):
    """Alarms in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> list[Event]:
        if not changes and not deltas:
            return []
        async with self._database.write(system_scope("rules")) as transaction:
            active = await _active(transaction, changes)
            touched, events = carry_out(active, changes, self._database.clock)
            if touched:
                await _store(transaction, touched)
            await _remember(transaction, deltas)
            return await transaction.publish(events)

    @override
    async def active_alarms(self) -> list[Alarm]:
        query = sa.select(_table).where(_table.c.state == "active").order_by(_table.c.tenant_id, _table.c.id)
        async with self._database.read() as connection:
            return [from_row(row, Alarm) for row in (await connection.execute(query)).mappings()]

    @override
    async def load_state(self) -> list[StateDelta]:
        async with self._database.read() as connection:
            return [from_row(row, StateDelta) for row in (await connection.execute(sa.select(rule_state))).mappings()]

    @override
    async def acknowledge(self, scope: Scope, alarm_id: str) -> tuple[Alarm, list[Event]]:
        async with self._database.write(scope) as transaction:
            before = await _found(transaction, alarm_id)
            if before.acknowledged:
                return before, []
            after = msgspec.structs.replace(
                before, acknowledged=True, acknowledged_by=scope.actor, acknowledged_at_ms=transaction.now_ms
            )
            return after, await _change_by_hand(transaction, "acknowledge", before, after)

    @override
    async def clear(self, scope: Scope, alarm_id: str) -> tuple[Alarm, list[Event]]:
        async with self._database.write(scope) as transaction:
            before = await _found(transaction, alarm_id)
            if before.state == "cleared":
                raise Conflict("the alarm is cleared already")
            after = msgspec.structs.replace(
                before, state="cleared", cleared_by=scope.actor, cleared_at_ms=transaction.now_ms
            )
            # A rule that remembers that it raised would be silent for as long as the condition lasts.
            await _remember(transaction, [StateDelta(after.tenant_id, after.rule, after.device_id, {})])
            return after, await _change_by_hand(transaction, "clear", before, after)

    @override
    async def get_alarm(self, scope: Scope, alarm_id: str) -> Alarm:
        async with self._database.read() as connection:
            row = (await connection.execute(_one(scope, alarm_id))).mappings().first()
        if row is None:
            raise NotFound(f"no alarm {alarm_id}")
        return from_row(row, Alarm)

    @override
    async def list_alarms(self, scope: Scope, which: AlarmFilter, page: PageRequest) -> Page[Alarm]:
        query = sa.select(_table).where(_table.c.tenant_id == scope.tenant_id)
        for name, wanted in msgspec.structs.asdict(which).items():
            if wanted is not None:
                query = query.where(_table.c[name] == wanted)
        order = _SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, Alarm))


def carry_out(
    active: dict[Identity, Alarm], changes: Sequence[AlarmChange], clock: Clock
) -> tuple[list[Alarm], list[Event]]:
    """What changes make of the active alarms: every alarm they touched, in order, and the events that tell of it.

    Changes `active` as it goes.
    """
    touched: dict[str, Alarm] = {}
    events: list[Event] = []
    for change in changes:
        identity = (change.tenant_id, change.device_id, change.rule)
        alarm = active.get(identity)
        if change.what == "clear":
            if alarm is None:
                continue
            del active[identity]
            alarm.state, alarm.cleared_at_ms, alarm.cleared_by = "cleared", change.at_ms, f"rule:{change.rule}"
            events.append(event_of("alarm.cleared", alarm, change.at_ms))
        elif alarm is None:
            alarm = active[identity] = _raised(change, new_id(clock))
            events.append(event_of("alarm.raised", alarm, change.at_ms))
        else:
            alarm.occurrences += change.occurrences
            alarm.severity, alarm.message, alarm.data = change.severity, change.message, change.data
            alarm.last_raised_at_ms = max(alarm.last_raised_at_ms, change.at_ms)
        touched[alarm.id] = alarm
    return list(touched.values()), events


def event_of(kind: str, alarm: Alarm, at_ms: int) -> Event:
    """The outbox event that tells of an alarm."""
    data = {
        "alarm_id": alarm.id,
        "rule": alarm.rule,
        "severity": alarm.severity,
        "message": alarm.message,
        "data": alarm.data,
    }
    return Event(alarm.tenant_id, kind, at_ms, alarm.device_id, data)


def _raised(change: AlarmChange, alarm_id: str) -> Alarm:
    return Alarm(
        id=alarm_id,
        tenant_id=change.tenant_id,
        device_id=change.device_id,
        rule=change.rule,
        severity=change.severity,
        message=change.message,
        data=change.data,
        occurrences=change.occurrences,
        raised_at_ms=change.at_ms,
        last_raised_at_ms=change.at_ms,
    )


async def _active(transaction: Transaction, changes: Sequence[AlarmChange]) -> dict[Identity, Alarm]:
    identities = list({(change.tenant_id, change.device_id, change.rule) for change in changes})
    columns = sa.tuple_(_table.c.tenant_id, _table.c.device_id, _table.c.rule)
    found: dict[Identity, Alarm] = {}
    for at in range(0, len(identities), _CHUNK):
        query = sa.select(_table).where(_table.c.state == "active", columns.in_(identities[at : at + _CHUNK]))
        for row in (await transaction.execute(query)).mappings():
            alarm = from_row(row, Alarm)
            found[alarm.tenant_id, alarm.device_id, alarm.rule] = alarm
    return found


async def _store(transaction: Transaction, alarms: list[Alarm]) -> None:
    # What is cleared goes first, so that one identity cleared and raised again is never active twice.
    rows = [to_row(alarm) for alarm in sorted(alarms, key=lambda alarm: alarm.state == "active")]
    statement = sqlite.insert(_table)
    keys = [column.name for column in _table.primary_key]
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    await transaction.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


async def _remember(transaction: Transaction, deltas: Sequence[StateDelta]) -> None:
    # Of the same rule and device the last counts.
    newest = {(delta.tenant_id, delta.rule, delta.device_id): delta for delta in deltas}
    kept = [to_row(delta) for delta in newest.values() if delta.data]
    if kept:
        statement = sqlite.insert(rule_state)
        keys = [column.name for column in rule_state.primary_key]
        await transaction.execute(
            statement.on_conflict_do_update(index_elements=keys, set_={"data": statement.excluded.data}), kept
        )
    forgotten = [{"t": d.tenant_id, "r": d.rule, "d": d.device_id} for d in newest.values() if not d.data]
    if forgotten:
        await transaction.execute(
            sa.delete(rule_state).where(
                rule_state.c.tenant_id == sa.bindparam("t"),
                rule_state.c.rule == sa.bindparam("r"),
                rule_state.c.device_id == sa.bindparam("d"),
            ),
            forgotten,
        )


async def _found(transaction: Transaction, alarm_id: str) -> Alarm:
    row = await transaction.row(_one(transaction.scope, alarm_id))
    if row is None:
        raise NotFound(f"no alarm {alarm_id}")
    return from_row(row, Alarm)


async def _change_by_hand(transaction: Transaction, action: str, before: Alarm, after: Alarm) -> list[Event]:
    await transaction.execute(upsert(_table, to_row(after)))
    await transaction.audit(action, "alarm", after.id, to_row(before), to_row(after))
    kind = "alarm.acknowledged" if action == "acknowledge" else "alarm.cleared"
    return await transaction.publish([event_of(kind, after, transaction.now_ms)])


def _one(scope: Scope, alarm_id: str) -> sa.Select[Any]:
    return sa.select(_table).where(_table.c.tenant_id == scope.tenant_id, _table.c.id == alarm_id)
