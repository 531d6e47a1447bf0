"""The alarm and what is asked of its storage."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from gateway.core.flow import AlarmChange, Event, Severity, StateDelta
from gateway.core.scope import Scope
from gateway.things.ports import Page, PageRequest


class Alarm(msgspec.Struct, kw_only=True):
    """One alarm, from its raising to its clearing.

    rule: name of the rule that raised it; together with the device it is unique among active alarms.
    occurrences: how often it was raised while active.
    """

    id: str
    tenant_id: str
    device_id: str
    rule: str
    severity: Severity = "warning"
    message: str = ""
    data: dict[str, Any] = {}
    state: Literal["active", "cleared"] = "active"
    acknowledged: bool = False
    acknowledged_by: str = ""
    occurrences: int = 1
    raised_at_ms: int = 0
    last_raised_at_ms: int = 0
    acknowledged_at_ms: int | None = None
    cleared_at_ms: int | None = None
    cleared_by: str = ""


class AlarmFilter(msgspec.Struct, frozen=True):
    """Which alarms of a list; None does not filter."""

    device_id: str | None = None
    rule: str | None = None
    state: Literal["active", "cleared"] | None = None
    acknowledged: bool | None = None
    severity: Severity | None = None


class AlarmRepository(Protocol):
    """Rows of alarms. The database itself guarantees one active alarm per (tenant, device, rule)."""

    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> list[Event]:
        """Carry out changes and keep the rules' state in one transaction; return the stored events.

        Raising what is active adds the change's `occurrences`, takes over its severity, message and data, and makes
        no event; clearing what is not active does nothing.
        """
        ...

    async def active_alarms(self) -> list[Alarm]:
        """Every active alarm of every tenant, for the start."""
        ...

    async def load_state(self) -> list[StateDelta]:
        """What every rule remembers, for the start."""
        ...

    async def acknowledge(self, scope: Scope, alarm_id: str) -> tuple[Alarm, list[Event]]:
        """Acknowledge with audit; raises NotFound. Twice is the same as once."""
        ...

    async def clear(self, scope: Scope, alarm_id: str) -> tuple[Alarm, list[Event]]:
        """Clear by hand with audit, and forget what the rule remembers of the device.

        Raises NotFound, Conflict when cleared already.
        """
        ...

    async def get_alarm(self, scope: Scope, alarm_id: str) -> Alarm:
        """Raises NotFound."""
        ...

    async def list_alarms(self, scope: Scope, which: AlarmFilter, page: PageRequest) -> Page[Alarm]:
        """Alarms of the tenant, newest first."""
        ...
