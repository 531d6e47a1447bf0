"""The HTTP port: TLS, connection limits, and the contract's envelope for what never becomes a request."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import structlog
from aiohttp import web
from typing_extensions import override

from gateway.api.config import HttpConfig
from gateway.api.errors import HTTP_CODES, INTERNAL, envelope
from gateway.api.operations import REGISTRY, RoomSamples
from gateway.api.views import PARTS
from gateway.core.errors import ConfigError
from gateway.core.ids import new_id
from gateway.core.metrics import Sample

log = structlog.get_logger(__name__)


class HttpServer:
    """Serves an application on one port."""

    def __init__(self, config: HttpConfig, app: web.Application) -> None:
        self._config = config
        self._app = app
        self._runner = web.AppRunner(app, shutdown_timeout=config.shutdown_s)
        self._server: asyncio.Server | None = None
        self.refused_connections = 0
        app[REGISTRY].register(RoomSamples([self.samples]))

    def samples(self) -> list[Sample]:
        """Open connections, and those refused over the limit."""
        server = self._runner.server
        count = len(server.connections) if server is not None else 0
        refused = self.refused_connections
        return [
            Sample("gateway_http_connections", "HTTP connections open.", "gauge", {}, count),
            Sample("gateway_http_refused_connections_total", "Connections over the limit.", "counter", {}, refused),
        ]

    async def start(self, host: str) -> tuple[str, int]:
        """Listen; returns the bound address and port. Raises ConfigError."""
        tls = tls_context(self._config)
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connection, host, self._config.port, ssl=tls, backlog=512
            )
        except OSError as busy:
            await self._runner.cleanup()
            raise ConfigError(
                f"[http] cannot listen on {host} port {self._config.port}: {busy.strerror}; "
                "set another [http] port, or stop whoever uses this one"
            ) from busy
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Stop accepting, end streams, let requests under way finish for a moment."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._config.max_connections:
            self.refused_connections += 1
            return _Refusal()
        return _Connection(
            server,
            app=self._app,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._config.idle_s,
            lingering_time=self._config.linger_s,
            max_line_size=self._config.max_header_bytes,
            max_field_size=self._config.max_header_bytes,
            max_headers=self._config.max_headers,
            access_log=None,
        )


class _Refusal(asyncio.Protocol):
    """Closes a connection over the limit at once."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connection(web.RequestHandler):
    """aiohttp's connection, whose own refusals follow the contract."""

    __slots__ = ("_app",)

    def __init__(self, server: web.Server, *, app: web.Application, **limits: Any) -> None:
        super().__init__(server, **limits)
        self._app = app

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the client went away, which is no failure of the gateway's
        request_id = new_id(self._app[PARTS].clock)
        if request.writer.output_size > 0:
            raise ConnectionError("failed after the answer had begun")
        if status >= 500:
            log.error("request failed", request_id=request_id, exc_info=exc)
        else:
            log.debug("malformed request", request_id=request_id, peer=request.remote, reason=type(exc).__name__)
        code, text = HTTP_CODES.get(status, INTERNAL)
        response = envelope(status, code, text, request_id, {"X-Request-ID": request_id, "Server": "flux-gateway"})
        response.force_close()
        return response

    @override
    def log_exception(self, *args: Any, **kw: Any) -> None:
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):  # the rest of a body that was answered
            super().log_exception(*args, **kw)


def tls_context(config: HttpConfig) -> ssl.SSLContext | None:
    """The context of the configured files, None without any. Raises ConfigError."""
    if config.tls_certificate is None and config.tls_key is None:
        return None
    if config.tls_certificate is None or config.tls_key is None:
        raise ConfigError("[http] tls_certificate and tls_key go together: set both or none")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except OSError as wrong:
        raise ConfigError(f"[http] tls_certificate, tls_key: cannot load the PEM files: {wrong}") from wrong
    return context
