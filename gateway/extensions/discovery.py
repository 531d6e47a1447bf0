"""Finds native extensions and asks them. One that is broken is logged, counted and left out; the gateway goes on.

Knows the names of the built-in extensions, which come through the same door, but imports none of them itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, Final

import pluggy
import structlog

from gateway.extensions import hookspecs
from gateway.extensions.hookspecs import PROJECT, ListenerKind

log = structlog.get_logger(__name__)

BUILT_IN: Final = ("gateway.listeners.extension",)
"""Modules that are registered first. They are part of the gateway: one that does not load is an error of ours."""


class ExtensionManager(pluggy.PluginManager):
    """Pluggy's manager that remembers what went wrong. `failures`: extension -> why it or its answer was left out."""

    def __init__(self) -> None:
        """Know the hooks and no extension."""
        super().__init__(PROJECT)
        self.add_hookspecs(hookspecs)
        self.failures: dict[str, str] = {}

    def leave_out(self, name: str, error: Exception | str) -> None:
        """Note a failure and go on."""
        self.failures[name] = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        log.error("extension left out", extension=name, reason=self.failures[name])


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
    kinds: dict[str, ListenerKind] = {}
    for implementation in manager.hook.gateway_listener_kinds.get_hookimpls():
        extension = implementation.plugin_name
        for name, kind in _answer(manager, extension, implementation.function).items():
            if not isinstance(kind, ListenerKind):
                manager.leave_out(extension, f"listener kind {name!r} is no ListenerKind")
            elif name in kinds:
                manager.leave_out(extension, f"listener kind {name!r} exists already")
            else:
                kinds[name] = kind
    return kinds


def _register(manager: ExtensionManager, entry: metadata.EntryPoint) -> None:
    extension: Any = None
    try:
        extension = entry.load()
        manager.register(extension, entry.name)
        manager.check_pending()  # an implementation of a hook that does not exist
    except Exception as error:  # noqa: BLE001 - wall: an extension is foreign code, and its import may do anything
        if extension is not None and manager.is_registered(extension):
            manager.unregister(extension)
        manager.leave_out(entry.name, error)


def _answer(manager: ExtensionManager, extension: str, function: Callable[[], Any]) -> dict[str, Any]:
    try:
        answer = function()
    except Exception as error:  # noqa: BLE001 - wall: around a call of foreign code
        manager.leave_out(extension, error)
        return {}
    if not isinstance(answer, dict):
        manager.leave_out(extension, f"a hook answered {type(answer).__name__} instead of a dict")
        return {}
    return answer
