"""Device traffic wired: catalog, plugins, sessions, commands and the pipeline between sockets and journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgpack
import structlog

from gateway.app.plugin_news import PluginNews
from gateway.config import Loaded
from gateway.core.bus import Bus
from gateway.core.clock import Clock
from gateway.core.errors import CodecError, ConfigError, NotFound, NotReady, StorageFailed
from gateway.core.metrics import Sample
from gateway.core.scope import DEFAULT_TENANT
from gateway.core.tasks import Supervisor
from gateway.framing.spec import FramingSpec
from gateway.listeners.backlog import Backlog
from gateway.pipeline import Pipeline
from gateway.storage.commands import SqlCommandRepository
from gateway.storage.database import Database
from gateway.storage.devices import SqlDeviceRepository
from gateway.storage.products import SqlProductRepository
from gateway.storage.writer import JournalWriter
from gateway.things.admission import Admission
from gateway.things.catalog import Catalog, DeviceChange
from gateway.things.commands import CommandService
from gateway.things.credentials import Credentials
from gateway.things.model import Device, Product
from gateway.things.sessions import SessionRegistry, left_online
from gateway.wasm.area import PluginArea
from gateway.wasm.codec import Codec
from gateway.wasm.plugins import PluginHost
from gateway.wasm.stages import Stages

_USUAL: Final = (
    "checksum",
    "device_disabled",
    "malformed_result",
    "plugin_unavailable",
    "product_disabled",
    "storage_failed",
    "trapped",
    "truncated",
    "unauthenticated",
    "unregistered",
)
"""Reasons shown before anything was shed for them, so that an alert on their growth has a first value."""


log = structlog.get_logger(__name__)


def _report_offline(failure: StorageFailed | None) -> None:
    if failure is not None:
        log.error("devices that the last run left online still show so in lists", why=str(failure))


class Traffic:
    """Everything between a listener's frames and the journal."""

    def __init__(
        self,
        loaded: Loaded,
        data_dir: Path,
        database: Database,
        journal: JournalWriter,
        bus: Bus,
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        """Build; nothing is loaded yet."""
        self._journal = journal
        self._clock = clock
        self._supervisor = supervisor
        config = loaded.config
        credentials = Credentials.open(data_dir)
        plugin_dirs = [loaded.path(path) for path in config.plugins.dirs]
        self.area = PluginArea.open(config.plugins, data_dir)
        self.plugins = PluginHost(config.wasm, plugin_dirs, data_dir / "cache" / "wasm", clock, area=self.area)
        self._poll_s = config.plugins.poll_s
        self._news = PluginNews(journal, bus, clock)
        self.stages = Stages(config.stages, self.plugins)
        self.catalog = Catalog(
            SqlProductRepository(database),
            SqlDeviceRepository(database),
            clock,
            credentials,
            config.things,
            stages=self.stages.names,
        )
        self.sessions = SessionRegistry(clock)
        self.admission = Admission(self.catalog, self.sessions, credentials, clock)
        self.pipeline = Pipeline(
            config.pipeline,
            Backlog(config.backlog),
            self.catalog,
            self.sessions,
            self.admission,
            self._codec,
            journal,
            bus,
            clock,
        )
        self.commands = CommandService(
            config.commands,
            SqlCommandRepository(database),
            self.catalog,
            self.sessions,
            self._encode,
            clock,
            supervisor,
        )
        self.pipeline.answers = self.commands
        self.catalog.on_device_changed(self._device_changed)

    async def load(self, declared: list[Product]) -> None:
        """Load plugins, products, devices and open commands; go on where the last run stopped."""
        self.area.clear_leftovers()
        self.plugins.load_all()
        self.plugins.on_notice(self._news.tell)
        self._supervisor.start("plugins", self._follow_plugins)
        await self.catalog.load()
        await self.catalog.reconcile(declared)
        self.pipeline.resume_ledger(self._journal.totals())
        offline = left_online(self.catalog.all_devices(), self._clock)
        if offline.events:
            self._journal.submit(offline, _report_offline)
        await self.commands.load()

    async def _follow_plugins(self) -> None:
        await self.plugins.watch(self._poll_s)

    async def drain(self, timeout_s: float) -> None:
        """Let what was accepted become durable, as far as the time allows."""
        if not await self.pipeline.drain(timeout_s):
            log.error("stopped before everything was durable", frames=self.pipeline.in_flight, waited_s=timeout_s)

    def close(self) -> None:
        """Free plugins and timers."""
        self.commands.close()
        self.stages.close()
        self.plugins.close()

    def framing_of(self, product_id: str) -> FramingSpec | None:
        """The framing that the product's plugin names. Raises ConfigError for a product that nobody declared."""
        product = self.catalog.product_by_id(DEFAULT_TENANT, product_id)
        if product is None:
            raise ConfigError(f"no product {product_id!r}; declare it as [products.{product_id}] or through the API")
        if product.plugin_id is None:
            return None
        try:
            return self.plugins.framing(product.plugin_id)
        except NotFound as failure:
            raise ConfigError(f"product {product_id}: {failure}; see [plugins] dirs") from failure

    def samples(self) -> Iterator[Sample]:
        """The ledger, admission, commands and sessions for `/metrics`."""
        pipeline = self.pipeline
        yield Sample("gateway_messages_accepted_total", "Frames accepted.", "counter", {}, pipeline.accepted)
        yield Sample("gateway_messages_stored_total", "Frames whose effect is durable.", "counter", {}, pipeline.stored)
        for reason, count in {**dict.fromkeys(_USUAL, 0), **pipeline.shed}.items():
            yield Sample("gateway_messages_shed_total", "Frames shed.", "counter", {"reason": reason}, count)
        text = "Frames accepted and neither stored nor shed yet."
        yield Sample("gateway_messages_in_flight", text, "gauge", {}, pipeline.in_flight)
        text = "What else the pipeline counted."
        for what, count in (pipeline.counts + self.admission.counts).items():
            yield Sample("gateway_pipeline_counts_total", text, "counter", {"what": what}, count)
        yield Sample("gateway_devices_online", "Devices with a session.", "gauge", {}, len(self.sessions))
        for status, count in self.commands.ended.items():
            yield Sample("gateway_commands_ended_total", "Commands ended.", "counter", {"status": status}, count)
        yield from self.catalog.samples()
        yield from self.stages.samples()

    def _codec(self, product: Product) -> Codec:
        try:
            codec = self.plugins.codec(product.plugin_id or "")
            if not product.stages:
                return codec
            return self.stages.around(codec, product.stages, self.plugins.framing(codec.plugin_id))
        except (NotFound, ConfigError) as failure:
            raise NotReady(str(failure)) from failure

    def _encode(self, product: Product, request: dict[str, Any]) -> bytes:
        try:
            return self._codec(product).encode(msgpack.packb(request))
        except NotReady as failure:
            raise CodecError(0, str(failure)) from failure
        except (ValueError, OverflowError, TypeError) as failure:
            raise CodecError(0, f"the arguments cannot be encoded: {failure}") from failure

    def _device_changed(self, device: Device, change: DeviceChange) -> None:
        if change in {"disabled", "deleted", "credential_changed"}:
            self.pipeline.drop_device(device, f"device_{change}" if change != "credential_changed" else change)
