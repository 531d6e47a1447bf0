"""The whole API over memory: real identity, catalog and alarms; the other services as small fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from fakes.identity_fakes import CHEAP, IdentityRoom
from fakes.memory import MemoryAlarms, MemoryDevices, MemoryProducts, MemoryScenes, MemoryStore, page_of
from fakes.notify_fakes import MemoryNotifications, NotifyRoom
from fakes.plugins_port import FakePlugins
from fakes.report_fakes import ReportRoom

from gateway.alarms.service import AlarmService
from gateway.api.application import create_app
from gateway.api.config import HttpConfig
from gateway.api.parts import HealthReport, ListenerStatus, PartReport, Parts, ProcessReport
from gateway.api.plugin_port import Plugins
from gateway.api.server import HttpServer
from gateway.core.bus import Bus
from gateway.core.errors import Conflict, NotFound
from gateway.core.flow import AlarmChange, DeadLetter, Event, Message, Quality
from gateway.core.metrics import Sample
from gateway.core.scope import Scope, system_scope
from gateway.extensions.discovery import Extensions
from gateway.extensions.hookspecs import ApiCall, ApiRoute
from gateway.rules.model import RuleStatus, SceneRun, SceneStatus, Schedule
from gateway.storage.alarms import SqlAlarmRepository
from gateway.storage.audit import SqlAuditRepository
from gateway.storage.database import Database
from gateway.storage.devices import SqlDeviceRepository
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.notifications import SqlNotificationRepository
from gateway.storage.products import SqlProductRepository
from gateway.storage.scenes import SqlSceneRepository
from gateway.storage.users import SqlTokenRepository, SqlUserRepository
from gateway.things.catalog import Catalog
from gateway.things.credentials import Credentials
from gateway.things.model import Command, Product, Property, ThingModel
from gateway.things.ports import Aggregate, Bucket, HistoryPoint, Page, PageRequest, PropertyValue, TimeRange


async def _example(call: ApiCall) -> dict[str, Any]:
    if call.path["id"] == "broken":
        raise ZeroDivisionError("a canary of the extension")
    return {"id": call.path["id"], "query": dict(call.query), "body": call.body, "tenant": call.scope.tenant_id}


EXAMPLE_ROUTES = [ApiRoute(method, "things/{id}", _example) for method in ("GET", "POST", "PUT", "PATCH", "DELETE")]


class FakeHistory:
    """History of lists that the test fills; events come from the shared store."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.values: list[PropertyValue] = []
        self.history: list[HistoryPoint] = []
        self.letters: list[DeadLetter] = []
        self.asked: list[tuple[Any, ...]] = []

    async def latest(self, scope: Scope, device_id: str) -> list[PropertyValue]:
        return self.values

    async def points(
        self, scope: Scope, device_id: str, property_id: str, span: TimeRange, page: PageRequest
    ) -> Page[HistoryPoint]:
        self.asked.append((device_id, property_id, span, page))
        return page_of(self.history, page, "observed_at_ms", ("observed_at_ms",))

    async def aggregate(
        self,
        scope: Scope,
        device_id: str,
        property_id: str,
        span: TimeRange,
        how: Aggregate,
        interval_ms: int,
        page: PageRequest,
    ) -> Page[Bucket]:
        self.asked.append((device_id, property_id, span, how, interval_ms, page))
        return Page([Bucket(0, 1.5)], 1, page.page, page.limit)

    async def events(
        self, scope: Scope, device_id: str | None, after_seq: int, page: PageRequest, types: Sequence[str] = ()
    ) -> Page[Event]:
        found = [
            event
            for event in self.store.events
            if event.tenant_id == scope.tenant_id
            and event.seq > after_seq
            and device_id in {None, event.device_id}
            and (not types or event.type in types)
        ]
        return page_of(found, page, "seq", ("seq",))

    async def dead_letters(self, scope: Scope, page: PageRequest) -> Page[DeadLetter]:
        return Page(self.letters, len(self.letters), page.page, page.limit)


class FakeCommands:
    """Commands that go nowhere."""

    def __init__(self) -> None:
        self.sent: list[Command] = []

    async def send(self, scope: Scope, device_id: str, name: str, args: dict[str, Any], timeout_s: float) -> Command:
        command = Command(
            id=f"c{len(self.sent)}",
            tenant_id=scope.tenant_id,
            device_id=device_id,
            name=name,
            args=args,
            requested_by=scope.actor,
            timeout_s=timeout_s,
        )
        self.sent.append(command)
        return command

    async def get(self, scope: Scope, command_id: str) -> Command:
        for command in self.sent:
            if (command.id, command.tenant_id) == (command_id, scope.tenant_id):
                return command
        raise NotFound("no such command")

    async def list(self, scope: Scope, device_id: str, page: PageRequest) -> Page[Command]:
        found = [command for command in self.sent if command.device_id == device_id]
        return page_of(found, page, "-created_at_ms", ("created_at_ms", "name", "status"))


class FakeRules:
    """One rule file."""

    def __init__(self) -> None:
        self.rule = RuleStatus(name="speeding", path="scripts/rules/speeding.lua", state="stopped", strikes=3)

    def statuses(self) -> list[RuleStatus]:
        return [self.rule]

    async def restart_rule(self, name: str) -> RuleStatus:
        self.rule = RuleStatus(name=name, path=self.rule.path, state="running")
        return self.rule


class FakeScenes:
    """One scene file whose runs never end."""

    def __init__(self, rows: MemoryScenes) -> None:
        self.rows = rows

    def scenes(self) -> list[SceneStatus]:
        return [SceneStatus(name="locate", path="scripts/scenes/locate.lua", state="ready")]

    async def run(self, scope: Scope, scene: str, args: dict[str, Any]) -> SceneRun:
        run = SceneRun(
            id=f"r{len(self.rows.runs)}", tenant_id=scope.tenant_id, scene=scene, args=args, started_by=scope.actor
        )
        await self.rows.save_run(run)
        return run

    async def cancel(self, scope: Scope, run_id: str) -> SceneRun:
        run = await self.rows.get_run(scope, run_id)
        if run.status == "cancelled":
            raise Conflict("the run has ended")
        run.status = "cancelled"
        await self.rows.save_run(run)
        return run


class FakeSchedules:
    """Schedules as they are stored."""

    def __init__(self, rows: MemoryScenes) -> None:
        self.rows = rows

    async def list(self, scope: Scope) -> list[Schedule]:
        return [one for one in await self.rows.all_schedules() if one.tenant_id == scope.tenant_id]

    async def create(self, scope: Scope, schedule: Schedule) -> Schedule:
        await self.rows.save_schedule(scope, schedule)
        return schedule

    async def update(self, scope: Scope, schedule: Schedule) -> Schedule:
        await self.rows.save_schedule(scope, schedule)
        return schedule

    async def delete(self, scope: Scope, schedule_id: str) -> None:
        await self.rows.delete_schedule(scope, schedule_id)


class FakeListeners:
    """One listener."""

    def listeners(self) -> list[ListenerStatus]:
        return [ListenerStatus(name="jt808", type="tcp", state="running", host="127.0.0.1", port=8808, connections=2)]


class FakeHealth:
    """Health that the test sets."""

    def __init__(self) -> None:
        self.status = "ok"

    async def report(self) -> HealthReport:
        return HealthReport(
            status=self.status,  # type: ignore[arg-type]
            version="0.1.0",
            uptime_s=1.0,
            parts={"rules": PartReport(state="running", detail="secret detail")},
            database="ok",
            disk_free_bytes=1,
            cpu_percent=0.0,
            memory_rss_bytes=1,
            loop_lag_ms=0.0,
            processes=[ProcessReport(name="gateway", pid=1, rss_bytes=1, cpu_percent=0.0)],
            wasm={"path": "fast"},
        )


class ApiBench:
    """A gateway's API on a port, with a client that holds tokens. `database` takes the place of the memory.

    plugins: makes what stands behind the plugins' routes, of the catalog; a fake where not given.
    """

    def __init__(
        self,
        config: HttpConfig,
        database: Database | None = None,
        plugins: Callable[[Catalog], Plugins] | None = None,
    ) -> None:
        self.config = config
        if database is None:
            self.identity = IdentityRoom()
        else:
            repositories = SqlUserRepository(database), SqlTokenRepository(database), SqlAuditRepository(database)
            self.identity = IdentityRoom(CHEAP, *repositories)
        self.store = self.identity.store
        self.bus = Bus()
        self.history: Any = FakeHistory(self.store) if database is None else SqlHistoryRepository(database)
        self.commands = FakeCommands()
        self.rules = FakeRules()
        self.scene_rows: Any = MemoryScenes(self.store) if database is None else SqlSceneRepository(database)
        self.health = FakeHealth()
        self.catalog = Catalog(
            MemoryProducts(self.store) if database is None else SqlProductRepository(database),
            MemoryDevices(self.store) if database is None else SqlDeviceRepository(database),
            self.identity.clock,
            Credentials(b"c" * 32),
        )
        alarm_rows = MemoryAlarms(self.store) if database is None else SqlAlarmRepository(database)
        self.alarms = AlarmService(alarm_rows, self.bus)
        self.plugins: Any = FakePlugins() if plugins is None else plugins(self.catalog)
        note_rows = (
            MemoryNotifications(self.identity.audit) if database is None else SqlNotificationRepository(database)
        )
        self.notify = NotifyRoom(note_rows, self.identity.clock)
        self.reports = ReportRoom(self.identity.clock, self.catalog)
        self.sample_list: list[Sample] = []
        self.parts = Parts(
            clock=self.identity.clock,
            version="0.1.0",
            access=self.identity.access,
            logins=self.identity.logins,
            users=self.identity.users,
            audit=self.identity.audit,
            catalog=self.catalog,
            commands=self.commands,
            history=self.history,
            alarms=self.alarms,
            rules=self.rules,
            scenes=FakeScenes(self.scene_rows),
            scene_runs=self.scene_rows,
            schedules=FakeSchedules(self.scene_rows),
            notifications=self.notify.service,
            reports=self.reports.service,
            plugins=self.plugins,
            listeners=FakeListeners(),
            health=self.health,
            bus=self.bus,
            extensions=Extensions(("example",), {"gone": "ModuleNotFoundError: gone"}, {"example": EXAMPLE_ROUTES}),
            samples=self.samples,
        )
        self.app = create_app(self.parts, config)
        self.server = HttpServer(config, self.app)
        self.url = ""
        self.http: aiohttp.ClientSession

    def samples(self) -> Iterable[Sample]:
        return self.sample_list

    async def start(self) -> None:
        host, port = await self.server.start("127.0.0.1")
        self.port = port
        self.url = f"http://{host}:{port}"
        self.http = aiohttp.ClientSession()
        await self.identity.tokens.load()
        if await self.identity.rows.find_user("root") is None:
            await self.identity.add_user("root", "*")
        self.token = await self.identity.token_of("root")

    async def stop(self) -> None:
        await self.http.close()
        await self.server.stop()

    async def call(
        self, method: str, path: str, *, token: str | None = "", expect: int | None = None, **options: Any
    ) -> Any:
        """Call `/api/v1` + path as root (or with another token; None is without) and return the JSON answer."""
        status, _, answer = await self.call_raw(method, "/api/v1" + path, token=token, **options)
        if expect is not None:
            assert status == expect, answer
        return answer

    async def call_raw(
        self, method: str, path: str, *, token: str | None = "", headers: dict[str, str] | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """Status, headers and the JSON (or text) of an answer."""
        headers = dict(headers or {})
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {token or self.token}")
        async with self.http.request(method, self.url + path, headers=headers, **options) as response:
            json = response.content_type == "application/json" and method != "HEAD"
            return response.status, response.headers, await (response.json() if json else response.text())

    async def with_device(self, device_id: str = "d1", tenant_id: str = "default") -> None:
        """A product `meter` with a property in Celsius, and one device of it."""
        scope = system_scope(tenant_id=tenant_id)
        if not self.catalog.products(scope):
            model = ThingModel(properties={"temperature": Property(type="float", unit="Cel")})
            await self.catalog.create_product(scope, Product(tenant_id=tenant_id, id="meter", model=model))
        await self.catalog.create_device(scope, device_id, "meter")

    async def with_alarm(self, tenant_id: str = "default") -> str:
        """An active alarm; returns its id."""
        await self.alarms.apply([AlarmChange("raise", tenant_id, "d1", "speeding", 1)], [])
        return next(alarm.id for alarm in self.store.alarms.values() if alarm.tenant_id == tenant_id)

    def event(self, kind: str = "device.online", device_id: str | None = "d1", tenant_id: str = "default") -> Event:
        """Store an event as the journal does, without publishing it."""
        (event,) = self.store.publish(
            [Event(tenant_id, kind, 1_790_000_000_000, device_id, {"n": len(self.store.events)})]
        )
        return event

    def message(self, value: float = 1.0, device_id: str = "d1", tenant_id: str = "default") -> Message:
        """A stored message."""
        quality = {"temperature": Quality.OUT_OF_RANGE}
        return Message(
            tenant_id, "meter", device_id, 1, 1_790_000_000_000, 1_790_000_000_001, {"temperature": value}, quality
        )


@asynccontextmanager
async def api_bench(
    database: Database | None = None, plugins: Callable[[Catalog], Plugins] | None = None, **config: Any
) -> AsyncIterator[ApiBench]:
    """Run the API for one test."""
    bench = ApiBench(HttpConfig(port=0, **config), database, plugins)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.stop()
