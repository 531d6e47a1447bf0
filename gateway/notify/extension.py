"""The shipped kind of channel as an extension: it comes in by the same door as a stranger's."""

from __future__ import annotations

from gateway.extensions.hookspecs import NotifierKind, hookimpl
from gateway.notify.config import PluginChannelConfig
from gateway.notify.plugin import PluginNotifier


@hookimpl
def gateway_notifier_kinds() -> dict[str, NotifierKind]:
    """Offer `type = "plugin"`."""
    return {"plugin": NotifierKind(PluginChannelConfig, PluginNotifier)}
