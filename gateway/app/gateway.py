"""One gateway process: builds the rooms, starts them from the bottom up, stops them from the top down."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from gateway import __version__
from gateway.api.health import HealthSampler
from gateway.app.automation import Automation
from gateway.app.desk import PluginDesk, configured_users
from gateway.app.edges import Edges
from gateway.app.listeners import ListenerFleet
from gateway.app.notifications import Notifications
from gateway.app.products import declared_products
from gateway.app.samples import Figures
from gateway.app.traffic import Traffic
from gateway.app.web import Identity, web_server
from gateway.config import LATER, Loaded
from gateway.core.bus import Bus
from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import ConfigError, GatewayError
from gateway.core.heap import give_back
from gateway.core.log import set_up
from gateway.core.tasks import Supervisor
from gateway.storage.database import Database
from gateway.storage.retention import Retention
from gateway.storage.writer import JournalWriter

log = structlog.get_logger(__name__)

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
Bound = dict[str, tuple[str, int]]
"""Address of everything that accepts, by its name in the ready file."""


class Gateway:
    """A gateway that can be run once."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        reload: Callable[[], Loaded] | None = None,
        announce: Callable[[str], None] = print,
        clock: Clock | None = None,
    ) -> None:
        """`reload` reads the configuration again (SIGHUP); `announce` shows a person what no log may keep."""
        self._loaded = loaded
        self._reload = reload
        self._announce = announce
        self._clock = clock or SystemClock()
        self._stopping = asyncio.Event()
        self._starting: asyncio.Task[Any] | None = None

    async def run(self, ready_file: Path | None = None) -> None:
        """Start, write the ready file, serve until SIGTERM or SIGINT, stop.

        Raises ConfigError where it cannot start.
        """
        server = self._loaded.config.server
        human = server.log_style == "human" or (server.log_style == "auto" and sys.stderr.isatty())
        set_up("human" if human else "json", server.log_level)
        faulthandler.enable()  # before the Wasm engine, which must have the last word on SIGSEGV
        _lift_file_limit()
        self._starting = asyncio.current_task()
        for sign in _STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(sign, self._told_to_stop)
        try:
            async with self._started() as bound:
                self._starting = None
                _settle_memory()
                if ready_file is not None:
                    _write_ready(ready_file, bound)
                for name, (host, port) in bound.items():
                    log.info("accepting", listener=name, host=host, port=port)
                await self._stopping.wait()
                log.info("stopping")
        except asyncio.CancelledError:
            if self._starting is None or not self._stopping.is_set():
                raise
            log.info("stopped before it was up")

    def _told_to_stop(self) -> None:
        """End a start where it stands, as nothing is accepted yet; a second signal ends one that clings to life."""
        self._stopping.set()
        if self._starting is not None:
            for sign in _STOP_SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(sign)
            self._starting.cancel()

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[Bound]:
        """Every room, up; leaving the block stops them in the opposite order."""
        loaded, config, clock = self._loaded, self._loaded.config, self._clock
        _mention_later(loaded)
        data_dir = private(loaded.path(config.server.data_dir))
        async with AsyncExitStack() as stack:
            supervisor, bus = Supervisor(clock), Bus()
            database = Database(data_dir / "gateway.db", clock, config.database)
            await database.open()
            stack.push_async_callback(database.close)
            journal = JournalWriter(database, config.journal)
            await journal.start()
            stack.push_async_callback(journal.close)
            stack.push_async_callback(supervisor.stop)

            traffic = Traffic(loaded, data_dir, database, journal, bus, supervisor, clock)
            stack.callback(traffic.close)
            await traffic.load(declared_products(loaded))
            edges = Edges(loaded, traffic, bus, supervisor, clock)
            notifications = Notifications(config, database, traffic.plugins, edges.notifier_kinds, supervisor, clock)
            await notifications.start(stack)
            automation = Automation(loaded, database, bus, traffic, notifications.service, supervisor, clock)
            await automation.start(stack)
            supervisor.start("retention", Retention(database, config.retention).run)

            await edges.open_sinks(stack)
            stack.push_async_callback(traffic.drain, config.server.shutdown_s)
            stack.push_async_callback(edges.listeners.stop)

            health = HealthSampler(
                clock=clock,
                version=__version__,
                data_dir=data_dir,
                parts=lambda: supervisor.parts,
                database=lambda: _database_state(database, journal),
                processes=automation.processes,
                wasm_path=traffic.plugins.path,
            )
            supervisor.start("health", health.probe)
            desk = PluginDesk(traffic.plugins, traffic.area, traffic.catalog, configured_users(config))
            rooms = (traffic, journal, edges, desk, automation, health)
            identity = Identity(config, data_dir, database, clock)
            await identity.tokens.load()
            await self._first_start(identity)
            bound: Bound = {}
            if config.http.enabled:
                server = web_server(
                    config,
                    identity,
                    traffic,
                    automation,
                    database=database,
                    plugins=desk,
                    listeners=edges.listeners,
                    health=health,
                    bus=bus,
                    samples=Figures([room.samples for room in rooms], bus).samples,
                    clock=clock,
                    extensions=edges.extensions,
                )
                stack.push_async_callback(server.stop)
                bound["http"] = await server.start(config.server.bind)
            await edges.listen(stack)
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGHUP, lambda: supervisor.spawn("reload", self._reconcile(traffic, edges.listeners))
            )
            yield bound | edges.listeners.bound

    async def _first_start(self, identity: Identity) -> None:
        password = await identity.users.first_start(os.environ.get("GATEWAY_ADMIN_PASSWORD"))
        if password is not None:
            self._announce(
                f"\nFirst start: the user `admin` has the password  {password}\n"
                "It is shown this once; change it with: gateway user passwd admin\n"
            )

    async def _reconcile(self, traffic: Traffic, fleet: ListenerFleet) -> None:
        """Read the configuration again; products and listeners follow by difference. A bad file changes nothing."""
        if self._reload is None:
            return
        try:
            loaded = self._reload()
            await traffic.catalog.reconcile(declared_products(loaded))
            await fleet.reconcile(loaded.config.listeners, loaded.config.server.bind)
        except GatewayError as failure:
            log.error("configuration not taken over", why=str(failure))
        else:
            log.info("configuration read again: products and listeners follow it, other sections need a restart")


def private(path: Path) -> Path:
    """Make the data directory, for this user alone. Raises ConfigError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / "keys").mkdir(mode=0o700, exist_ok=True)
    except OSError as failure:
        raise ConfigError(f"[server] data_dir: cannot make {path}: {failure.strerror}; name another") from failure
    return path


def _lift_file_limit() -> None:
    """Take as many descriptors as the system grants: each connection costs one, and shells grant few by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle_memory() -> None:
    """Take what a start made out of the collector's sight: it stays, and each look at it holds the loop for 100 ms."""
    gc.collect()
    gc.freeze()
    give_back()


def _mention_later(loaded: Loaded) -> None:
    for section in LATER:
        if section in loaded.named:
            log.info("section ignored: this version has no such part yet", section=section)


async def _database_state(database: Database, journal: JournalWriter) -> str:
    """`ok`, or what is wrong with it."""
    try:
        async with database.read():
            pass
    except GatewayError as failure:
        return str(failure)
    health = journal.health()
    return "ok" if health.state == "running" else f"journal {health.state}: {health.detail}".rstrip(": ")


def _write_ready(path: Path, bound: Bound) -> None:
    """Write the file in one step, so that who waits for it never reads half of it."""
    text = msgspec.json.encode({name: {"host": host, "port": port} for name, (host, port) in bound.items()})
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(msgspec.json.format(text) + b"\n")
    draft.replace(path)
