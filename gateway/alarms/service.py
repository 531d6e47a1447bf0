"""The alarm service: carries out what rules ask, and shows alarms to people.

Owns which alarms are active, so that asking for what is so already costs no transaction. Does not know how alarms are
stored, nor why a rule raised one.

A raise of an active alarm with the same severity is a repeat. Repeats are added up per alarm, and rule state that comes
with nothing but repeats is kept by its newest version; `flush` writes both, about once a second. An alarm's
`occurrences` is thus right a moment later, and after a crash short of at most that moment. Everything else (a first
raise, another severity, a clear) is durable when `apply` returns. What waits is bounded: one entry per active alarm and
one state per rule and device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, TypeAlias

import msgspec

from gateway.alarms.model import Alarm, AlarmFilter, AlarmRepository
from gateway.core.bus import Bus
from gateway.core.flow import AlarmChange, Severity, StateDelta
from gateway.core.metrics import Sample
from gateway.core.scope import Scope
from gateway.things.ports import Page, PageRequest

AlarmKey: TypeAlias = tuple[str, str, str]
"""Tenant, device, rule: what is unique among active alarms."""

FLUSH_EVERY_S: Final = 1.0
"""How long repeats are added up."""

MOST_PER_FLUSH: Final = 1_000
"""Repeats and states written in one transaction, so that an alarm storm leaves room for other writers."""


class AlarmService:
    """Alarms of all tenants. `load` it before rules run; run `run` beside it; `flush` it at the end."""

    def __init__(
        self, repository: AlarmRepository, bus: Bus, on_cleared: Callable[[Alarm], None] | None = None
    ) -> None:
        """Start without a known alarm; `on_cleared` hears of every alarm that a person cleared."""
        self._repository = repository
        self._on_cleared = on_cleared
        self._bus = bus
        self._active: dict[AlarmKey, Severity] = {}
        self._repeats: dict[AlarmKey, AlarmChange] = {}
        self._states: dict[AlarmKey, StateDelta] = {}
        self._writing = asyncio.Lock()
        self.raised = 0
        self.cleared = 0
        self.repeated = 0

    async def load(self) -> list[StateDelta]:
        """Learn which alarms are active; return what every rule remembers."""
        self._active = {_key(alarm): alarm.severity for alarm in await self._repository.active_alarms()}
        return await self._repository.load_state()

    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> None:
        """Carry out a batch of a rule host, in order, and publish what came of it.

        Raises StorageFailed, with nothing of the batch carried out: ask again.
        """
        async with self._writing:
            plan = _Plan(self._active, self._repeats)
            for change in changes:
                plan.add(change)
            if plan.changes or (deltas and not changes):
                overtaken = {_state_key(delta): delta for delta in deltas}
                waiting = [delta for key, delta in self._states.items() if key not in overtaken]
                await self._write(plan.changes, [*waiting[:MOST_PER_FLUSH], *overtaken.values()])
            else:
                self._states.update((_state_key(delta), delta) for delta in deltas)
            self._take_over(plan)

    async def run(self) -> None:
        """Write what waits, for ever. Raises StorageFailed; what waits is kept."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write the repeats and states that wait now, in transactions of bounded size."""
        for _ in range(1 + max(len(self._repeats), len(self._states)) // MOST_PER_FLUSH):
            async with self._writing:
                repeats = dict(islice(self._repeats.items(), MOST_PER_FLUSH))
                states = list(islice(self._states.values(), MOST_PER_FLUSH))
                if not repeats and not states:
                    return
                await self._write(list(repeats.values()), states)
                for key in repeats:
                    self._repeats.pop(key, None)

    def device_deleted(self, tenant_id: str, device_id: str) -> None:
        """The alarms of a device are gone with it."""
        for known in (self._active, self._repeats):
            for key in [key for key in known if key[:2] == (tenant_id, device_id)]:
                del known[key]
        for key in [key for key in self._states if key[:2] == (tenant_id, device_id)]:
            del self._states[key]

    def samples(self) -> Iterable[Sample]:
        """Figures for `/metrics`."""
        yield Sample("gateway_alarms_active", "Alarms that are active.", "gauge", {}, len(self._active))
        yield Sample("gateway_alarms_raised_total", "Alarms raised.", "counter", {}, self.raised)
        yield Sample("gateway_alarms_cleared_total", "Alarms cleared.", "counter", {}, self.cleared)
        text = "Raises of an alarm that was active already."
        yield Sample("gateway_alarms_repeated_total", text, "counter", {}, self.repeated)

    # For people.

    async def list_alarms(self, scope: Scope, which: AlarmFilter, page: PageRequest) -> Page[Alarm]:
        """Alarms of the tenant, newest first."""
        return await self._repository.list_alarms(scope, which, page)

    async def get_alarm(self, scope: Scope, alarm_id: str) -> Alarm:
        """Raises NotFound."""
        return await self._repository.get_alarm(scope, alarm_id)

    async def acknowledge(self, scope: Scope, alarm_id: str) -> Alarm:
        """Say that a person saw it; twice is the same as once. Raises NotFound."""
        alarm, events = await self._repository.acknowledge(scope, alarm_id)
        if events:
            self._bus.events.publish(events)
        return alarm

    async def clear(self, scope: Scope, alarm_id: str) -> Alarm:
        """Clear by hand; its rule forgets the device. Raises NotFound, Conflict when cleared already."""
        async with self._writing:
            alarm, events = await self._repository.clear(scope, alarm_id)
            if self._active.pop(_key(alarm), None) is not None:
                self.cleared += 1
            self._repeats.pop(_key(alarm), None)
            self._states.pop(_key(alarm), None)
            if self._on_cleared is not None:
                self._on_cleared(alarm)
        if events:
            self._bus.events.publish(events)
        return alarm

    # How it is kept.

    async def _write(self, changes: list[AlarmChange], states: list[StateDelta]) -> None:
        """One transaction; once it is durable its states wait no more and its events are published."""
        events = await self._repository.apply(changes, states)
        for state in states:
            self._states.pop(_state_key(state), None)
        if events:
            self._bus.events.publish(events)

    def _take_over(self, plan: _Plan) -> None:
        """What was planned is so."""
        for key, severity in plan.active.items():
            if severity is None:
                self._active.pop(key, None)
            else:
                self._active[key] = severity
        for key, repeat in plan.repeats.items():
            if repeat is None:
                self._repeats.pop(key, None)
            else:
                self._repeats[key] = repeat
        self.raised += plan.raised
        self.cleared += plan.cleared
        self.repeated += plan.repeated


class _Plan:
    """What a batch would change, laid over what is so, until it is durable. None in it means gone."""

    def __init__(self, active: dict[AlarmKey, Severity], repeats: dict[AlarmKey, AlarmChange]) -> None:
        self._active = active
        self._repeats = repeats
        self.active: dict[AlarmKey, Severity | None] = {}
        self.repeats: dict[AlarmKey, AlarmChange | None] = {}
        self.changes: list[AlarmChange] = []
        self.raised = self.cleared = self.repeated = 0

    def add(self, change: AlarmChange) -> None:
        key = (change.tenant_id, change.device_id, change.rule)
        severity = self.active[key] if key in self.active else self._active.get(key)
        waiting = self.repeats[key] if key in self.repeats else self._repeats.get(key)
        if change.what == "clear":
            if severity is None:
                return
            if waiting is not None:
                self.changes.append(waiting)
            self._write(key, change, None)
            self.cleared += 1
        elif severity == change.severity:
            self.repeats[key] = _added(waiting, change)
            self.repeated += change.occurrences
        else:
            self._write(key, _added(waiting, change), change.severity)
            self.raised += severity is None

    def _write(self, key: AlarmKey, change: AlarmChange, severity: Severity | None) -> None:
        self.changes.append(change)
        self.active[key] = severity
        self.repeats[key] = None


def _added(waiting: AlarmChange | None, change: AlarmChange) -> AlarmChange:
    """The newer raise, standing for both. A late message does not turn back when it was raised last."""
    if waiting is None:
        return change
    occurrences = waiting.occurrences + change.occurrences
    return msgspec.structs.replace(change, occurrences=occurrences, at_ms=max(waiting.at_ms, change.at_ms))


def _key(alarm: Alarm) -> AlarmKey:
    return (alarm.tenant_id, alarm.device_id, alarm.rule)


def _state_key(delta: StateDelta) -> AlarmKey:
    return (delta.tenant_id, delta.device_id, delta.rule)
