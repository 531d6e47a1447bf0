"""What the API shows of rules, scenes and schedules, and what is asked of their storage and of the outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from gateway.core.flow import AlarmChange, Severity, StateDelta
from gateway.core.scope import Scope
from gateway.things.ports import Page, PageRequest


class RuleStatus(msgspec.Struct, kw_only=True):
    """One rule file.

    state: running; broken, when the file's present content does not load (a version loaded before goes on); or stopped
        after too many strikes.
    """

    name: str
    path: str
    state: Literal["running", "broken", "stopped"]
    description: str = ""
    subscriptions: list[dict[str, str]] = []
    evaluated: int = 0
    errors: int = 0
    strikes: int = 0
    last_error: str = ""
    last_error_at_ms: int | None = None
    loaded_at_ms: int | None = None


class SceneStatus(msgspec.Struct, kw_only=True):
    """One scene file."""

    name: str
    path: str
    state: Literal["ready", "broken"]
    description: str = ""
    last_error: str = ""
    running: int = 0


class SceneRun(msgspec.Struct, kw_only=True):
    """One run of a scene. `log` holds its last lines; `error` says why it failed."""

    id: str
    tenant_id: str
    scene: str
    status: Literal["running", "sleeping", "succeeded", "failed", "cancelled"] = "running"
    args: dict[str, Any] = {}
    started_by: str = ""
    started_at_ms: int = 0
    ended_at_ms: int | None = None
    wakes_at_ms: int | None = None
    error: str = ""
    log: list[str] = []


class Schedule(msgspec.Struct, kw_only=True):
    """Starts a scene by a cron expression in a time zone."""

    id: str
    tenant_id: str
    scene: str
    cron: str
    timezone: str = "UTC"
    args: dict[str, Any] = {}
    enabled: bool = True
    created_at_ms: int = 0
    last_run_at_ms: int | None = None
    next_run_at_ms: int | None = None


class Notice(msgspec.Struct, frozen=True):
    """What a rule or scene wants people to be told. `actor` is `rule:<name>` or `scene:<name>`."""

    tenant_id: str
    actor: str
    channel: str
    title: str
    text: str = ""
    severity: Severity = "info"
    device_id: str | None = None


class WantedReport(msgspec.Struct, frozen=True):
    """A report that a scene asks for: a plugin's, over a property from `from_ms` (inclusive) to `to_ms` (exclusive)."""

    plugin_id: str
    device_id: str
    property_id: str
    from_ms: int
    to_ms: int
    args: dict[str, Any] = {}


class RuleEffects(Protocol):
    """What rules and scenes may do to the outside; the composition root wires it to alarms and commands."""

    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> None:
        """Raise and clear alarms and keep the rules' state, in one transaction."""
        ...

    async def command(
        self, tenant_id: str, device_id: str, name: str, args: dict[str, Any], actor: str, timeout_s: float
    ) -> dict[str, Any]:
        """Send a command and wait for its end; returns `{id, status, error}`. Never raises for a refused command."""
        ...

    async def call_plugin(self, plugin_id: str, args: dict[str, Any], timeout_s: float, most_bytes: int) -> Any:
        """Call a plugin that rules and scenes may call; its answer has at most `most_bytes` of MessagePack.

        Raises GatewayError, saying why there is no answer.
        """
        ...

    async def run_report(self, tenant_id: str, wanted: WantedReport, actor: str) -> dict[str, Any]:
        """Make a report and keep it; returns `{id, points, row_count, summary}`.

        Raises GatewayError, saying why there is none.
        """
        ...

    async def notify(self, notices: Sequence[Notice]) -> list[str]:
        """Queue notifications of one tenant, durably; returns of each, in order, why it was refused, or "".

        Raises StorageFailed or NotReady with none of them queued: ask again.
        """
        ...

    async def run_scene(self, tenant_id: str, scene: str, args: dict[str, Any], actor: str) -> None:
        """Start a run of a scene. Raises GatewayError when it cannot start."""
        ...


class SceneRepository(Protocol):
    """Rows of scene runs and schedules."""

    async def save_run(self, run: SceneRun) -> None:
        """Insert or replace by id."""
        ...

    async def fail_open_runs(self, error: str, at_ms: int) -> int:
        """End every running or sleeping run as failed (a start after a crash); returns how many."""
        ...

    async def get_run(self, scope: Scope, run_id: str) -> SceneRun:
        """Raises NotFound."""
        ...

    async def list_runs(self, scope: Scope, scene: str | None, page: PageRequest) -> Page[SceneRun]:
        """Runs of the tenant, newest first."""
        ...

    async def all_schedules(self) -> list[Schedule]:
        """Every schedule of every tenant, for the start."""
        ...

    async def save_schedule(self, scope: Scope, schedule: Schedule) -> None:
        """Insert or replace by id, with audit."""
        ...

    async def note_schedule_run(self, schedule: Schedule) -> None:
        """Keep when a schedule ran and runs next, and nothing else of it; not audited, as nobody changed it."""
        ...

    async def delete_schedule(self, scope: Scope, schedule_id: str) -> None:
        """Raises NotFound; with audit."""
        ...
