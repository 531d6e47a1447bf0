"""What every route shares: its permission, its typed input, its JSON answer. Knows no resource.

Routes are aiohttp-pydantic views, so that the OpenAPI document comes from the same types; this subclass answers a
body that is not UTF-8 JSON, a wrong content type and invalid input as the contract says.
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp_pydantic import PydanticView
from aiohttp_pydantic.injectors import (
    AbstractInjector,
    BodyGetter,
    Group,
    MatchInfoGetter,
    QueryGetter,
    _parse_func_signature,
)
from pydantic import Field, ValidationError
from typing_extensions import override

from gateway.api.config import HttpConfig
from gateway.api.errors import MalformedBody, SlowBody, UnsupportedType
from gateway.api.parts import Parts
from gateway.core.errors import AuthFailed, NotFound, Rejected
from gateway.core.scope import DEFAULT_TENANT, Scope
from gateway.identity.access import Session
from gateway.identity.permissions import Permission
from gateway.things.ports import Page, PageRequest

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
Shape = TypeVar("Shape")

PARTS: Final = web.AppKey("parts", Parts)
CONFIG: Final = web.AppKey("config", HttpConfig)
SESSION: Final = web.RequestKey("session", Session)

_SHOWN_FAULTS: Final = 5
"""Faults of an input that the error names; a client fixes them one by one anyway."""


class Door(enum.StrEnum):
    """Routes that take no permission code."""

    OPEN = "open"
    SIGNED_IN = "signed in"


def requires(permission: Permission | Door, status: int = 200, *also: int) -> Callable[[F], F]:
    """Declare the permission a handler needs and the status of its success; `also` are those it gives by itself."""

    def mark(handler: F) -> F:
        handler.permission = permission  # type: ignore[attr-defined]  # read back by Resource and by the route test
        handler.status = status  # type: ignore[attr-defined]  # as above
        handler.also = also  # type: ignore[attr-defined]  # for the document
        return handler

    return mark


def takes(*content_types: str) -> Callable[[F], F]:
    """Declare that a handler reads the body itself, as bytes of one of these types."""

    def mark(handler: F) -> F:
        handler.content_types = content_types  # type: ignore[attr-defined]  # for the document
        return handler

    return mark


class Paging(Group):  # type: ignore[misc]  # aiohttp-pydantic publishes no types
    """Which page of a list."""

    page: Annotated[int, Field(ge=1, le=2**31, description="Page, counted from 1.")] = 1
    limit: Annotated[int, Field(ge=1, le=1000, description="Items on a page.")] = 50
    sort: Annotated[str, Field(description="Field to sort by, with - before it for descending.")] = ""


class JsonBody(BodyGetter):  # type: ignore[misc]  # aiohttp-pydantic publishes no types
    """Takes a UTF-8 JSON object as the body, whole and in time."""

    @override
    async def inject(self, request: web.Request, args_view: list[Any], kwargs_view: dict[str, Any]) -> None:
        kwargs_view[self.arg_name] = self.model.model_validate(await json_body(request))


class StrictQuery(QueryGetter):  # type: ignore[misc]  # aiohttp-pydantic publishes no types
    """Takes the query string: a name nobody declared is refused, an empty value counts as absent.

    A parameter whose name Python keeps for itself carries a trailing underscore in the code only (`from_`).
    """

    @override
    def inject(self, request: web.Request, args_view: list[Any], kwargs_view: dict[str, Any]) -> None:
        check_query(request, self.args_spec)
        super().inject(request, args_view, kwargs_view)

    @override
    def _query_to_dict(self, query: Any) -> dict[str, Any]:
        given: dict[str, Any] = super()._query_to_dict(query)
        return {python_name(name, self.args_spec): value for name, value in given.items() if value != ""}


class Resource(PydanticView):  # type: ignore[misc]  # aiohttp-pydantic publishes no types
    """One path of the API."""

    @property
    def parts(self) -> Parts:
        """The gateway's services."""
        parts: Parts = self.request.app[PARTS]
        return parts

    @property
    def scope(self) -> Scope:
        """Who asks, for the repositories."""
        return self.session.scope

    @property
    def session(self) -> Session:
        """The caller. Raises AuthFailed when there is none."""
        session: Session | None = self.request.get(SESSION)
        if session is None:
            raise AuthFailed("send a token: Authorization: Bearer ...; POST /api/v1/auth/login gives one")
        return session

    @property
    def operator_scope(self) -> Scope:
        """The scope of who may see the machine itself (listeners, plugins, rule files): the first tenant's users."""
        if self.scope.tenant_id != DEFAULT_TENANT:
            raise NotFound("there is no such resource")
        return self.scope

    @override
    async def _iter(self) -> web.StreamResponse:
        method = self.request.method
        if method == hdrs.METH_OPTIONS:
            return web.Response(status=HTTPStatus.NO_CONTENT, headers={hdrs.ALLOW: ", ".join(self._methods())})
        if method not in self._methods():
            raise web.HTTPMethodNotAllowed(method, self._methods())
        handler = getattr(self, "get" if method == hdrs.METH_HEAD else method.lower())
        if isinstance(handler.permission, Permission):
            self.scope.require(handler.permission)
        elif handler.permission is Door.SIGNED_IN:
            self.session  # noqa: B018  # raises when nobody is signed in
        answer = await handler()
        return answer if isinstance(answer, web.StreamResponse) else success(answer, handler.status)

    @override
    async def on_validation_error(self, exception: ValidationError, context: Any) -> web.StreamResponse:
        raise Rejected(_faults(exception)) from exception

    @staticmethod
    def _parse_func_signature(func: Callable[..., Any]) -> list[AbstractInjector]:
        path, body, query, _, defaults = _parse_func_signature(func)
        of_path = {name: defaults[name] for name in path if name in defaults}
        of_query = {name: defaults[name] for name in query if name in defaults}
        injectors: list[AbstractInjector] = [MatchInfoGetter(path, of_path)] if path else []
        # The query is checked before the body is read, also where a route takes none.
        injectors.append(StrictQuery(query, of_query))
        return [*injectors, JsonBody(body, {})] if body else injectors

    @classmethod
    def _methods(cls) -> list[str]:
        head = {hdrs.METH_HEAD} if hdrs.METH_GET in cls.allowed_methods else set()
        return sorted(set(cls.allowed_methods) | head)


def success(data: object, status: int = 200) -> web.Response:
    """Build a success as the contract has it. NaN leaves as null: JSON has no other word for it."""
    body = msgspec.json.encode({"success": True, "data": data})
    return web.Response(status=status, body=body, content_type="application/json")


class Listing(msgspec.Struct, Generic[Shape], frozen=True):
    """One page of a list, as the contract has it."""

    items: list[Shape]
    total: int
    page: int
    limit: int


def listed(page: Page[T], shape: Callable[[T], Shape]) -> Listing[Shape]:
    """Show a page that a repository gave."""
    return Listing([shape(item) for item in page.items], page.total, page.page, page.limit)


def cut(items: Sequence[T], paging: Paging) -> Page[T]:
    """Cut a page out of a list that is whole in memory."""
    start = (paging.page - 1) * paging.limit
    return Page(list(items[start : start + paging.limit]), len(items), paging.page, paging.limit)


def request_of(paging: Paging, sortable: dict[str, str]) -> PageRequest:
    """Translate a page request; `sortable` maps the API's field names to the repository's. Raises Rejected."""
    return PageRequest(page=paging.page, limit=paging.limit, sort=sort_key(paging.sort, sortable))


def sort_key(sort: str, sortable: dict[str, str]) -> str:
    """Translate `sort` by a white-list. Raises Rejected."""
    if not sort:
        return ""
    sign, name = ("-", sort[1:]) if sort.startswith("-") else ("", sort)
    if name not in sortable:
        raise Rejected(f"sort: this list sorts by {', '.join(sorted(sortable)) or 'nothing else than its own order'}")
    return sign + sortable[name]


def sorted_by(items: Iterable[T], paging: Paging, sortable: dict[str, str]) -> list[T]:
    """Sort a list that is whole in memory; without `sort`, by the first sortable field."""
    key = sort_key(paging.sort, sortable) or next(iter(sortable.values()))
    name = key.removeprefix("-")
    return sorted(items, key=lambda item: getattr(item, name), reverse=key.startswith("-"))


def python_name(name: str, declared: Iterable[str]) -> str:
    """Name of a parameter in the code."""
    return f"{name}_" if f"{name}_" in declared else name


def check_query(request: web.Request, declared: Iterable[str]) -> None:
    """Raise Rejected for a query that would not filter as meant: a mistyped name must not show everything."""
    known = {name.removesuffix("_") for name in declared}
    for name, value in request.query.items():
        if name not in known:
            raise Rejected(f"{name[:80]}: unknown query parameter; known are {', '.join(sorted(known)) or 'none'}")
        if "\x00" in value:
            # SQL's LIKE ends a pattern there: the rest of the filter would not count.
            raise Rejected(f"{name}: a NUL character cannot be part of it")


async def json_body(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object. Raises UnsupportedType, SlowBody, MalformedBody, Rejected."""
    if request.content_type != "application/json":
        raise UnsupportedType("the body must be application/json")
    try:
        async with asyncio.timeout(request.app[CONFIG].body_s):
            raw = await request.read()
    except TimeoutError as late:
        raise SlowBody("the request body did not arrive in time") from late
    return _json_object(raw)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(raw)
    except RecursionError as deep:
        raise MalformedBody("the JSON is nested too deeply") from deep
    except (msgspec.DecodeError, UnicodeDecodeError) as malformed:
        raise MalformedBody(f"the body is not JSON in UTF-8: {malformed}") from malformed
    if not isinstance(data, dict):
        raise Rejected("the body must be a JSON object")
    return data


def _faults(invalid: ValidationError) -> str:
    faults = invalid.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{_where(fault['loc'])}: {_text(fault['msg'])}" for fault in faults[:_SHOWN_FAULTS]]
    more = len(faults) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _where(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(step)[:80].removesuffix("_") for step in loc) or "body"


def _text(message: str) -> str:
    return re.sub(r"^Value error, ", "", message)
