"""What the API needs of the gateway: the rooms' services through small ports, filled by the composition root."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from gateway.alarms.model import Alarm, AlarmFilter
from gateway.api.plugin_port import Plugins
from gateway.core.bus import Bus
from gateway.core.clock import Clock
from gateway.core.metrics import Samples
from gateway.core.scope import Scope
from gateway.extensions.discovery import Extensions
from gateway.identity.access import Access
from gateway.identity.logins import Logins
from gateway.identity.model import AuditRepository
from gateway.identity.users import Users
from gateway.notify.model import ChannelStatus, Draft, Notification, NotificationFilter
from gateway.reports.model import Report, ReportFilter, ReportRequest
from gateway.rules.model import RuleStatus, SceneRepository, SceneRun, SceneStatus, Schedule
from gateway.things.model import Command, Device, Product
from gateway.things.normalise import Normaliser
from gateway.things.ports import DeviceFilter, HistoryRepository, Page, PageRequest


class Catalog(Protocol):
    """Products and devices."""

    def products(self, scope: Scope) -> list[Product]:
        """Products of the tenant."""
        ...

    def product(self, scope: Scope, product_id: str) -> Product:
        """Raises NotFound."""
        ...

    async def create_product(self, scope: Scope, product: Product) -> Product:
        """Raises Conflict, Rejected."""
        ...

    async def replace_product(self, scope: Scope, product: Product) -> Product:
        """Raises NotFound, Conflict for a product that a file declares, Rejected."""
        ...

    async def delete_product(self, scope: Scope, product_id: str) -> None:
        """Raises NotFound, Conflict."""
        ...

    def device(self, scope: Scope, device_id: str) -> Device:
        """Raises NotFound."""
        ...

    async def create_device(
        self, scope: Scope, device_id: str, product_id: str, *, name: str, tags: dict[str, str], enabled: bool
    ) -> Device:
        """Raises NotFound for the product, Conflict, Rejected."""
        ...

    async def update_device(
        self,
        scope: Scope,
        device_id: str,
        *,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        enabled: bool | None = None,
    ) -> Device:
        """Raises NotFound, Rejected."""
        ...

    async def delete_device(self, scope: Scope, device_id: str) -> None:
        """Raises NotFound."""
        ...

    async def set_credential(self, scope: Scope, device_id: str, credential: str | None) -> None:
        """None lets the device register anew. Raises NotFound, Rejected."""
        ...

    async def list_devices(self, scope: Scope, which: DeviceFilter, page: PageRequest) -> Page[Device]:
        """Devices of the tenant; raises Rejected for a sort it does not know."""
        ...

    def normaliser(self, tenant_id: str, product_id: str) -> Normaliser:
        """The compiled thing model of a product. Raises NotFound."""
        ...


class Commands(Protocol):
    """Functions invoked on devices."""

    async def send(self, scope: Scope, device_id: str, name: str, args: dict[str, Any], timeout_s: float) -> Command:
        """Queue or send, and return at once. Raises NotFound, Rejected, Conflict."""
        ...

    async def get(self, scope: Scope, command_id: str) -> Command:
        """Raises NotFound."""
        ...

    async def list(self, scope: Scope, device_id: str, page: PageRequest) -> Page[Command]:
        """Commands of a device, newest first. Raises NotFound."""
        ...


class Alarms(Protocol):
    """Alarms for people."""

    async def list_alarms(self, scope: Scope, which: AlarmFilter, page: PageRequest) -> Page[Alarm]:
        """Alarms of the tenant, newest first."""
        ...

    async def get_alarm(self, scope: Scope, alarm_id: str) -> Alarm:
        """Raises NotFound."""
        ...

    async def acknowledge(self, scope: Scope, alarm_id: str) -> Alarm:
        """Raises NotFound."""
        ...

    async def clear(self, scope: Scope, alarm_id: str) -> Alarm:
        """Raises NotFound, Conflict when cleared already."""
        ...


class Rules(Protocol):
    """Rule files of the tenant `default`."""

    def statuses(self) -> list[RuleStatus]:
        """Every rule file."""
        ...

    async def restart_rule(self, name: str) -> RuleStatus:
        """Load it afresh, strikes forgotten. Raises NotFound."""
        ...


class Scenes(Protocol):
    """Scene files of the tenant `default`, and their runs."""

    def scenes(self) -> list[SceneStatus]:
        """Every scene file."""
        ...

    async def run(self, scope: Scope, scene: str, args: dict[str, Any]) -> SceneRun:
        """Start and return at once. Raises NotFound, Rejected, NotReady."""
        ...

    async def cancel(self, scope: Scope, run_id: str) -> SceneRun:
        """Raises NotFound, Conflict when it has ended."""
        ...


class Schedules(Protocol):
    """Cron entries that start scenes."""

    async def list(self, scope: Scope) -> list[Schedule]:
        """Schedules of the tenant."""
        ...

    async def create(self, scope: Scope, schedule: Schedule) -> Schedule:
        """Raises Rejected for a wrong cron expression, time zone or scene."""
        ...

    async def update(self, scope: Scope, schedule: Schedule) -> Schedule:
        """Raises NotFound, Rejected."""
        ...

    async def delete(self, scope: Scope, schedule_id: str) -> None:
        """Raises NotFound."""
        ...


class Notifications(Protocol):
    """What people are told, and the channels of the tenant `default`."""

    def channels(self) -> list[ChannelStatus]:
        """Every channel, without its secrets."""
        ...

    async def send(self, scope: Scope, draft: Draft) -> Notification:
        """Queue, durably. Raises NotFound for the channel, Rejected, Conflict while its queue is full."""
        ...

    async def get(self, scope: Scope, notification_id: str) -> Notification:
        """Raises NotFound."""
        ...

    async def list(self, scope: Scope, which: NotificationFilter, page: PageRequest) -> Page[Notification]:
        """Notifications of the tenant, newest first."""
        ...


class Reports(Protocol):
    """Reports of the tenant."""

    async def run(self, scope: Scope, request: ReportRequest) -> Report:
        """Make one and keep it. Raises NotFound, Rejected, NotReady, CodecError."""
        ...

    async def get_report(self, scope: Scope, report_id: str) -> Report:
        """With its rows. Raises NotFound."""
        ...

    async def list_reports(self, scope: Scope, which: ReportFilter, page: PageRequest) -> Page[Report]:
        """Without their rows, newest first."""
        ...

    async def delete_report(self, scope: Scope, report_id: str) -> None:
        """Raises NotFound."""
        ...


class ListenerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One listener. `counters` are totals since the start, by stable name."""

    name: str
    type: str
    state: str
    host: str = ""
    port: int = 0
    product_id: str = ""
    connections: int = 0
    counters: dict[str, float] = {}


class Listeners(Protocol):
    """Device listeners."""

    def listeners(self) -> list[ListenerStatus]:
        """Every configured listener."""
        ...


class PartReport(msgspec.Struct, frozen=True, kw_only=True):
    """A supervised part. `detail` (its last failure) is shown to who is logged in."""

    state: str
    restarts: int = 0
    detail: str = ""
    since: str = ""


class ProcessReport(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the gateway."""

    name: str
    pid: int
    rss_bytes: int
    cpu_percent: float


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """State of the gateway. `memory_rss_bytes` and `cpu_percent` (100 is one core) add up all its processes."""

    status: Literal["ok", "degraded"]
    version: str
    uptime_s: float
    parts: dict[str, PartReport]
    database: str
    disk_free_bytes: int
    cpu_percent: float
    memory_rss_bytes: int
    loop_lag_ms: float
    processes: list[ProcessReport]
    wasm: dict[str, str]


class Health(Protocol):
    """Takes the gateway's pulse."""

    async def report(self) -> HealthReport:
        """State as it stands now; never raises for a part that is ill."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the API stands on."""

    clock: Clock
    version: str
    access: Access
    logins: Logins
    users: Users
    audit: AuditRepository
    catalog: Catalog
    commands: Commands
    history: HistoryRepository
    alarms: Alarms
    rules: Rules
    scenes: Scenes
    scene_runs: SceneRepository
    schedules: Schedules
    notifications: Notifications
    reports: Reports
    plugins: Plugins
    listeners: Listeners
    health: Health
    bus: Bus
    samples: Samples
    extensions: Extensions = field(default_factory=Extensions)
