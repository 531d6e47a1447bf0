"""Finds native extensions and asks them. One that is broken is logged, counted and left out; the gateway goes on.

Knows the names of the built-in extensions, which come through the same door, but imports none of them itself.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any, Final, TypeVar

import msgspec
import pluggy
import structlog

from gateway.core.metrics import Sample
from gateway.extensions import hookspecs
from gateway.extensions.hookspecs import PROJECT, ApiRoute, Host, ListenerKind, NotifierKind, SinkKind
from gateway.extensions.wall import ExtensionFailed, wall

K = TypeVar("K", ListenerKind, SinkKind, NotifierKind)
A = TypeVar("A", bound="dict[str, Any] | list[Any]")

log = structlog.get_logger(__name__)

BUILT_IN: Final = ("gateway.listeners.extension", "gateway.sinks.extension", "gateway.notify.extension")
"""Modules that are registered first. They are part of the gateway: one that does not load is an error of ours."""


TOLD_S: Final = 10.0
"""Seconds that an extension may take over a start or a stop."""


class Extensions(msgspec.Struct, frozen=True):
    """The extensions that strangers installed: their names, why some were left out, and their routes by name."""

    names: tuple[str, ...] = ()
    failures: Mapping[str, str] = {}
    routes: Mapping[str, list[ApiRoute]] = {}


class ExtensionManager(pluggy.PluginManager):
    """Pluggy's manager that remembers what went wrong. `failures`: extension -> why it or its answer was left out."""

    def __init__(self) -> None:
        """Know the hooks and no extension."""
        super().__init__(PROJECT)
        self.add_hookspecs(hookspecs)
        self.failures: dict[str, str] = {}

    def leave_out(self, name: str, reason: str) -> None:
        """Note a failure and go on."""
        self.failures[name] = reason
        log.error("extension left out", extension=name, reason=reason)

    def samples(self) -> Iterator[Sample]:
        """Figures for `/metrics`."""
        text = "Extensions of which something was left out."
        yield Sample("gateway_extensions_left_out", text, "gauge", {}, len(self.failures))


def extension_manager(
    installed: Iterable[metadata.EntryPoint] | None = None, built_in: Iterable[str] = BUILT_IN
) -> ExtensionManager:
    """Register the built-in extensions, then those installed under the entry point group `flux_gateway`."""
    manager = ExtensionManager()
    for name in built_in:
        manager.register(importlib.import_module(name), name)
    for entry in metadata.entry_points(group=PROJECT) if installed is None else installed:
        _register(manager, entry)
    return manager


def listener_kinds(manager: ExtensionManager) -> dict[str, ListenerKind]:
    """All kinds of listeners by name; the first extension that offers a name keeps it."""
    return offered(manager, "gateway_listener_kinds", ListenerKind, "listener kind")


def sink_kinds(manager: ExtensionManager) -> dict[str, SinkKind]:
    """All kinds of sinks by name; the first extension that offers a name keeps it."""
    return offered(manager, "gateway_sink_kinds", SinkKind, "sink kind")


def notifier_kinds(manager: ExtensionManager) -> dict[str, NotifierKind]:
    """All kinds of notification channels by name; the first extension that offers a name keeps it."""
    return offered(manager, "gateway_notifier_kinds", NotifierKind, "notifier kind")


def offered(manager: ExtensionManager, hook: str, kind: type[K], what: str) -> dict[str, K]:
    """Everything that a hook's implementations offer by name; `what` names it in the reason of one left out."""
    found: dict[str, K] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        extension = implementation.plugin_name
        for name, one in _answer(manager, implementation, hook, dict, {}).items():
            if not isinstance(one, kind):
                manager.leave_out(extension, f"{what} {name!r} is no {kind.__name__}")
            elif not (isinstance(one.config, type) and issubclass(one.config, msgspec.Struct)):
                manager.leave_out(extension, f"{what} {name!r}: its `config` is no msgspec struct")
            elif name in found:
                manager.leave_out(extension, f"{what} {name!r} exists already")
            else:
                found[name] = one
    return found


def api_routes(manager: ExtensionManager) -> dict[str, list[ApiRoute]]:
    """The routes of each extension, by the extension's name."""
    routes: dict[str, list[ApiRoute]] = {}
    for implementation in manager.hook.gateway_api_routes.get_hookimpls():
        extension = implementation.plugin_name
        answer: list[Any] = _answer(manager, implementation, "gateway_api_routes", list, [])
        if all(isinstance(route, ApiRoute) for route in answer):
            routes[extension] = answer
        else:
            manager.leave_out(extension, "an API route is no ApiRoute")
    return routes


def installed(manager: ExtensionManager) -> Extensions:
    """What the API shows and serves of the extensions."""
    routes = api_routes(manager)  # asked first: a bad answer is a failure, too
    names = tuple(name for name, _ in manager.list_name_plugin() if name not in BUILT_IN)
    return Extensions(names, manager.failures, routes)


async def started(manager: ExtensionManager, host: Host) -> None:
    """Tell every extension that the gateway is up; one that fails or takes too long is left alone."""
    for implementation in manager.hook.gateway_started.get_hookimpls():
        arguments = [host] if implementation.argnames else []  # pluggy lets an implementation take fewer
        await _told(manager, implementation, "gateway_started", arguments)


async def stopping(manager: ExtensionManager) -> None:
    """Tell every extension, the last one first, that the gateway is about to stop."""
    for implementation in reversed(manager.hook.gateway_stopping.get_hookimpls()):
        await _told(manager, implementation, "gateway_stopping", [])


async def _told(manager: ExtensionManager, implementation: pluggy.HookImpl, hook: str, arguments: list[Any]) -> None:
    try:
        with wall(implementation.plugin_name, hook):
            answer = implementation.function(*arguments)
            if inspect.isawaitable(answer):
                async with asyncio.timeout(TOLD_S):
                    await answer
    except ExtensionFailed as failed:
        manager.leave_out(failed.extension, failed.reason)


def _register(manager: ExtensionManager, entry: metadata.EntryPoint) -> None:
    extension: Any = None
    try:
        with wall(entry.name, "its import"):  # which may do anything
            found = entry.load()
            if manager.is_registered(found):
                raise ValueError(f"its module is the extension {manager.get_name(found)} already")
            extension = found
            manager.register(extension, entry.name)
            manager.check_pending()  # an implementation of a hook that does not exist
    except ExtensionFailed as failed:
        if extension is not None and manager.is_registered(extension):
            manager.unregister(extension)
        manager.leave_out(entry.name, failed.reason)


def _answer(manager: ExtensionManager, implementation: pluggy.HookImpl, hook: str, kind: type[A], otherwise: A) -> A:
    extension = implementation.plugin_name
    try:
        with wall(extension, hook):
            answer = implementation.function()
    except ExtensionFailed as failed:
        manager.leave_out(extension, failed.reason)
        return otherwise
    if not isinstance(answer, kind):
        manager.leave_out(extension, f"a hook answered {type(answer).__name__} instead of a {kind.__name__}")
        return otherwise
    return answer
