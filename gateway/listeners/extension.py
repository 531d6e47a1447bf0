"""The shipped listeners as an extension: they come in by the same door as a stranger's."""

from __future__ import annotations

from gateway.extensions.hookspecs import ListenerKind, hookimpl
from gateway.listeners.tcp import TcpListener, TcpListenerConfig


@hookimpl
def gateway_listener_kinds() -> dict[str, ListenerKind]:
    """Offer `type = "tcp"`."""
    return {"tcp": ListenerKind(TcpListenerConfig, TcpListener)}
