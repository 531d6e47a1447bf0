"""The TCP listener: binds, admits, sweeps and stops. Frames and their meaning are for others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError
from gateway.core.metrics import Sample
from gateway.core.tasks import Supervisor
from gateway.framing.spec import FramingSpec, GapSpec
from gateway.listeners.connection import FrameSink
from gateway.listeners.limits import TcpLimits
from gateway.listeners.quiet_log import QuietLog
from gateway.listeners.stats import ListenerStats
from gateway.listeners.table import ConnectionTable
from gateway.listeners.tcp_connection import TcpConnection, Wiring
from gateway.listeners.tls import TlsConfig, server_context
from gateway.listeners.tls_door import TlsDoor


class TcpListenerConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="tcp"
):
    """`[listeners.NAME]` with `type = "tcp"`.

    port: 0 asks for a free one. bind: an address of its own instead of the server's.
    product: whose devices connect here. framing: overrides that of the product's plugin; see `gateway/framing/spec.py`.
    """

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    product: str
    bind: str | None = None
    framing: dict[str, Any] | None = None
    tls: TlsConfig | None = None
    limits: TcpLimits = TcpLimits()


class TcpListener:
    """One listening socket and its connections. Started and stopped once; a changed configuration is a new one."""

    def __init__(
        self,
        name: str,
        config: TcpListenerConfig,
        *,
        tenant_id: str,
        framing: FramingSpec,
        sink: FrameSink,
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        """Bind nothing yet. `framing` is already resolved: the configuration's own, or the plugin's."""
        self.name = name
        self.stats = ListenerStats()
        self._config = config
        self._tenant_id = tenant_id
        self._framing = framing
        self._sink = sink
        self._supervisor = supervisor
        self._clock = clock
        self._table = ConnectionTable(config.limits, clock)
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """Peers connected now, those in a TLS handshake included."""
        return len(self._table.live)

    def samples(self) -> Iterable[Sample]:
        """Counters for `/metrics`."""
        return self.stats.samples(self.name, self.connections)

    async def start(self, host: str) -> tuple[str, int]:
        """Accept connections on `host`, or on the configuration's `bind`; returns the address really bound.

        Raises ConfigError when the address is taken or not ours, or the TLS files are no good.
        """
        wiring = self._wiring()
        host = self._config.bind or host
        try:
            self._server = await asyncio.get_running_loop().create_server(
                (lambda: TcpConnection(wiring)) if wiring.tls is None else (lambda: TlsDoor(wiring)),
                host,
                self._config.port,
                backlog=self._config.limits.backlog,
            )
        except OSError as failure:
            why = os.strerror(failure.errno) if failure.errno and failure.errno > 0 else str(failure)
            raise ConfigError(
                f"listeners.{self.name}: cannot listen on {host}:{self._config.port}: {why}; "
                "stop what uses it, or set another `port` or `bind` (port 0 asks for a free one)"
            ) from failure
        self._supervisor.start(self._part, self._sweep)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Accept no more, close every peer with reason `shutdown`, and return when the last is gone."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for peer in list(self._table.live):
            peer.close("shutdown")
        await self._table.empty.wait()
        await server.wait_closed()
        await self._supervisor.stop_part(self._part)

    @property
    def _part(self) -> str:
        return f"listener {self.name}"

    def _wiring(self) -> Wiring:
        tls = self._config.tls
        return Wiring(
            listener=self.name,
            product_id=self._config.product,
            tenant_id=self._tenant_id,
            framing=self._framing,
            gap_s=self._framing.gap_ms / 1000 if isinstance(self._framing, GapSpec) else None,
            limits=self._config.limits,
            tls=None if tls is None else server_context(tls, f"listeners.{self.name}"),
            sink=self._sink,
            table=self._table,
            stats=self.stats,
            quiet=QuietLog(self.name, self._clock),
            supervisor=self._supervisor,
            clock=self._clock,
        )

    async def _sweep(self) -> None:
        """Look at deadlines while there are connections; sleep without a timer while there are none."""
        while True:
            await self._table.used.wait()
            await asyncio.sleep(self._config.limits.sweep_s)
            self._table.sweep()
