"""`extensions`: what is installed, and the routes that extensions offer, for the users of the first tenant."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from aiohttp import web
from aiohttp_pydantic.injectors import AbstractInjector
from typing_extensions import override

from gateway.api.views import Listing, Paging, Resource, StrictQuery, cut, json_body, listed, requires, sorted_by
from gateway.core.errors import NotFound
from gateway.extensions.hookspecs import ApiCall, ApiRoute
from gateway.identity.permissions import Permission


class ExtensionShape(msgspec.Struct, frozen=True):
    """An installed extension. `failure` says why it, or an answer of it, was left out; `routes` are those it serves."""

    name: str
    failure: str
    routes: list[str]


class ExtensionsView(Resource):
    """`/extensions`."""

    @requires(Permission.EXTENSION_LIST)
    async def get(self, paging: Paging) -> Listing[ExtensionShape]:
        """List the installed extensions."""
        _ = self.operator_scope
        known = self.parts.extensions
        shapes = [
            ExtensionShape(
                name,
                known.failures.get(name, ""),
                [f"{route.method} {route.path}" for route in known.routes.get(name, ())],
            )
            for name in {*known.names, *known.failures}
        ]
        return listed(cut(sorted_by(shapes, paging, {"name": "name"}), paging), lambda shape: shape)


class ExtensionView(Resource):
    """`/extensions/{extension}/{path}`: an extension's own route."""

    @requires(Permission.EXTENSION_LIST)
    async def get(self, extension: str, path: str, /) -> Any:
        """Ask an extension."""
        return await self._passed_on("GET", extension, path)

    @requires(Permission.EXTENSION_MANAGE)
    async def post(self, extension: str, path: str, /) -> Any:
        """Have an extension do or make something."""
        return await self._passed_on("POST", extension, path)

    @requires(Permission.EXTENSION_MANAGE)
    async def put(self, extension: str, path: str, /) -> Any:
        """Have an extension replace something."""
        return await self._passed_on("PUT", extension, path)

    @requires(Permission.EXTENSION_MANAGE)
    async def patch(self, extension: str, path: str, /) -> Any:
        """Have an extension change something."""
        return await self._passed_on("PATCH", extension, path)

    @requires(Permission.EXTENSION_MANAGE)
    async def delete(self, extension: str, path: str, /) -> Any:
        """Have an extension delete something."""
        return await self._passed_on("DELETE", extension, path)

    @override
    @staticmethod
    def _parse_func_signature(func: Callable[..., Any]) -> list[AbstractInjector]:
        """Take whatever query there is: the extension knows its parameters."""
        return [one for one in Resource._parse_func_signature(func) if not isinstance(one, StrictQuery)]  # noqa: SLF001 - its own class's

    async def _passed_on(self, method: str, extension: str, path: str) -> Any:
        scope = self.operator_scope
        route, values = _matching(self.parts.extensions.routes.get(extension, ()), method, path)
        body = await json_body(self.request) if self.request.can_read_body else None
        return await route.handler(ApiCall(scope, values, dict(self.request.query), body))


def _matching(routes: Sequence[ApiRoute], method: str, path: str) -> tuple[ApiRoute, dict[str, str]]:
    """The route of a path. Raises NotFound, and HTTPMethodNotAllowed where only the method differs."""
    others = []
    for route in routes:
        found = _pattern(route.path).fullmatch(path)
        if found is not None and route.method == method:
            return route, found.groupdict()
        if found is not None:
            others.append(route.method)
    if others:
        raise web.HTTPMethodNotAllowed(method, others)
    raise NotFound("no extension serves this path")


@lru_cache(maxsize=1024)
def _pattern(path: str) -> re.Pattern[str]:
    """A route's path as a pattern: `{name}` is one segment."""
    parts = re.split(r"\{([A-Za-z_]\w*)\}", path.strip("/"))
    return re.compile(
        "".join(f"(?P<{part}>[^/]+)" if place % 2 else re.escape(part) for place, part in enumerate(parts))
    )
