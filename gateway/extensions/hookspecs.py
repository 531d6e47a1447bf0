"""The hooks: all that a native extension can do, few and with a user each.

Each is marked *notify* (many answers, all used) or *decide* (one answer, the first). Knows no room that calls it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

import msgspec
import pluggy

from gateway.core.bus import Bus
from gateway.core.clock import Clock
from gateway.core.scope import Scope
from gateway.core.tasks import Supervisor

PROJECT: Final = "flux_gateway"
"""Name of the hooks' project and of the entry point group that extensions install themselves under."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ListenerKind(msgspec.Struct, frozen=True):
    """A kind of listener: what `type = "..."` in `[listeners.NAME]` asks for.

    config: a msgspec struct with at least `port`, `product`, `framing` and `bind`; its docstring documents the keys.
    make: called as make(name, config, *, tenant_id, framing, sink, supervisor, clock); gives an object with
        `async start(host) -> (host, port)`, `async stop()`, `connections` and `samples()`.
    """

    config: type[msgspec.Struct]
    make: Callable[..., Any]


@hookspec
def gateway_listener_kinds() -> dict[str, ListenerKind]:  # type: ignore[empty-body]  # implementations answer
    """*Notify.* Offer kinds of listeners by the name that `type` uses; a name that is taken already stays as it was."""


class SinkKind(msgspec.Struct, frozen=True):
    """A kind of northbound sink: what `type = "..."` in `[sinks.NAME]` asks for.

    config: a msgspec struct of the section's keys; its docstring documents them.
    make: called as make(name, config, *, home, clock); gives an object with `async open()`, `async write(messages,
        events)` and `async close()`. `write` returns once what it was given is safe on the other side, or raises: then
        it is called again with the same.
    """

    config: type[msgspec.Struct]
    make: Callable[..., Any]


class ApiCall(msgspec.Struct, frozen=True):
    """A request to an extension's route. `body` is the JSON object that was sent, None without one."""

    scope: Scope
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: dict[str, Any] | None


class ApiRoute(msgspec.Struct, frozen=True):
    """A route below `/api/v1/extensions/<extension>/`.

    path: as `things/{id}`, relative. handler: gives JSON data for the envelope, or raises an error of
        `gateway.core.errors`. A GET needs the permission `extensions.route.list`, any other `extensions.route.manage`.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Callable[[ApiCall], Awaitable[Any]]


class Host(msgspec.Struct, frozen=True):
    """What a running gateway lends its extensions: the bus to listen on, tasks under supervision, the clock."""

    version: str
    bus: Bus
    supervisor: Supervisor
    clock: Clock


@hookspec
def gateway_sink_kinds() -> dict[str, SinkKind]:  # type: ignore[empty-body]  # implementations answer
    """*Notify.* Offer kinds of northbound sinks by the name that `type` uses; a name that is taken stays as it was."""


@hookspec
def gateway_api_routes() -> list[ApiRoute]:  # type: ignore[empty-body]  # implementations answer
    """*Notify.* Offer routes of the HTTP API; they lie below `/api/v1/extensions/` and the extension's own name."""


@hookspec
def gateway_started(host: Host) -> Awaitable[None] | None:
    """*Notify.* Every part runs and every listener accepts; may be a coroutine function."""


@hookspec
def gateway_stopping() -> Awaitable[None] | None:
    """*Notify.* The gateway is about to stop and everything still runs; may be a coroutine function, of seconds."""


class NotifierKind(msgspec.Struct, frozen=True):
    """A kind of notification channel: what `type = "..."` in `[notify.NAME]` asks for.

    config: a msgspec struct that extends `gateway.notify.config.ChannelConfig`; its docstring documents its own keys.
    make: called as make(name, config, *, outbound, plugins, grants, clock); gives an object with
        `async send(notification)`, which returns once the service took it or raises, and `problem()`, what an operator
        must change before anything can be sent, or "": while there is something, what waits is held. See
        `gateway.notify.model.Notifier`.
    """

    config: type[msgspec.Struct]
    make: Callable[..., Any]


@hookspec
def gateway_notifier_kinds() -> dict[str, NotifierKind]:  # type: ignore[empty-body]  # implementations answer
    """*Notify.* Offer kinds of notification channels by the name that `type` uses; a name that is taken stays."""
