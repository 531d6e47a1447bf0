"""The aiohttp application: middleware, routes, documents, security headers."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.config import HttpConfig
from gateway.api.errors import REQUEST_ID, Wall
from gateway.api.openapi import add_pages
from gateway.api.operations import REGISTRY, registry_of
from gateway.api.parts import Parts
from gateway.api.plugins import UPLOADS, uploads
from gateway.api.routes import LOGIN, PREFIX, ROUTES
from gateway.api.stream import STREAMS, Streams
from gateway.api.views import CONFIG, PARTS, SESSION
from gateway.core.errors import AuthFailed

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer that does not say otherwise. There is no CORS: another site's pages have no business here."""


def create_app(parts: Parts, config: HttpConfig) -> web.Application:
    """Build the application; `HttpServer` puts it on a port."""
    wall = Wall(parts.clock)
    streams = Streams(config)
    app = web.Application(
        middlewares=[wall.middleware(), _authentication(parts)], client_max_size=config.max_body_bytes
    )
    app[PARTS] = parts
    app[CONFIG] = config
    app[STREAMS] = streams
    app[UPLOADS] = uploads()
    app[REGISTRY] = registry_of(parts.samples, wall.samples, streams.samples)
    for path, view in ROUTES.items():
        app.router.add_view(path.replace("{path}", "{path:.+}"), view)  # an extension's own path has slashes
    add_pages(app, parts.version)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_close_streams)
    return app


def _authentication(parts: Parts) -> Middleware:
    """Everything under the prefix needs a token, unknown paths included; only the login does not."""

    @web.middleware
    async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != LOGIN and (request.path + "/").startswith(PREFIX + "/"):
            request[SESSION] = await parts.access.authenticate(_bearer(request))
        return await handler(request)

    return authentication


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthFailed(f"send a token: Authorization: Bearer ...; POST {LOGIN} gives one")
    return token.strip()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    # aiohttp has put its versions there already.
    response.headers["Server"] = "flux-gateway"
    request_id = request.get(REQUEST_ID)
    if request_id is not None:
        response.headers["X-Request-ID"] = request_id


async def _close_streams(app: web.Application) -> None:
    app[STREAMS].close()
