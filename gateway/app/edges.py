"""The gateway's edges, which extensions provide, the shipped ones by the same door: listeners, sinks, their hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

from gateway import __version__
from gateway.app.listeners import ListenerFleet
from gateway.app.sinks import SinkFleet
from gateway.app.traffic import Traffic
from gateway.config import Loaded
from gateway.core.bus import Bus
from gateway.core.clock import Clock
from gateway.core.metrics import Sample
from gateway.core.tasks import Supervisor
from gateway.extensions.discovery import (
    extension_manager,
    installed,
    listener_kinds,
    notifier_kinds,
    sink_kinds,
    started,
    stopping,
)
from gateway.extensions.hookspecs import Host
from gateway.wasm.slot import Notice


class Edges:
    """Listeners on one side, sinks on the other."""

    def __init__(self, loaded: Loaded, traffic: Traffic, bus: Bus, supervisor: Supervisor, clock: Clock) -> None:
        """Find the extensions; nothing is open yet."""
        self._loaded = loaded
        self._plugins = traffic.plugins
        self._host = Host(__version__, bus, supervisor, clock)
        self._manager = extension_manager()
        self._sinks = SinkFleet(sink_kinds(self._manager), bus, supervisor, clock)
        kinds = listener_kinds(self._manager)
        self.listeners = ListenerFleet(kinds, traffic.framing_of, traffic.pipeline, supervisor, clock)
        self.notifier_kinds = notifier_kinds(self._manager)
        self.extensions = installed(self._manager)

    async def open_sinks(self, stack: AsyncExitStack) -> None:
        """Feed the declared sinks; `stack` closes them. Raises ConfigError naming the entry."""
        stack.push_async_callback(self._sinks.stop)
        await self._sinks.start(self._loaded.config.sinks, self._loaded.home)

    async def listen(self, stack: AsyncExitStack) -> None:
        """Open the declared listeners and tell the extensions; `stack` tells them of the end."""
        config = self._loaded.config
        await self.listeners.reconcile(config.listeners, config.server.bind)
        self._plugins.on_notice(self._plugin_changed)
        stack.push_async_callback(stopping, self._manager)
        await started(self._manager, self._host)

    def _plugin_changed(self, notice: Notice) -> None:
        """Cut frames as a plugin's new version wants them."""
        if notice.data.get("framing_changed"):
            self._host.supervisor.spawn("framing", self.listeners.read_framings())

    def samples(self) -> Iterator[Sample]:
        """Figures for `/metrics`."""
        yield from self.listeners.samples()
        yield from self._sinks.samples()
        yield from self._manager.samples()
