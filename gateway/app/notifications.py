"""Notification channels that the configuration declares, wired to plugins, the way out and the database."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from gateway.config import GatewayConfig
from gateway.core.clock import Clock
from gateway.core.errors import ConfigError
from gateway.core.outbound import AiohttpOutbound
from gateway.core.plain import nearest, typed
from gateway.core.tasks import Supervisor
from gateway.extensions.hookspecs import NotifierKind
from gateway.notify.channel import Channel
from gateway.notify.config import ChannelConfig
from gateway.notify.service import NotificationService
from gateway.storage.database import Database
from gateway.storage.notifications import SqlNotificationRepository
from gateway.wasm.plugins import PluginHost

_NAME_CHARS: Final = 64
"""Longest name of a channel: it is a label of metrics and the name of a supervised part."""


class Notifications:
    """Every `[notify.NAME]`, delivering."""

    def __init__(
        self,
        config: GatewayConfig,
        database: Database,
        plugins: PluginHost,
        kinds: Mapping[str, NotifierKind],
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        """Build; nothing is sent yet. Raises ConfigError naming the entry."""
        self._outbound = AiohttpOutbound(config.outbound)
        rows = SqlNotificationRepository(database)
        channels = []
        for name, plain in config.notify.items():
            kind, settings = read_channel(name, plain, kinds)
            notifier = kind.make(name, settings, outbound=self._outbound, plugins=plugins, grants=plugins, clock=clock)
            channels.append(Channel(name, plain["type"], settings, notifier, rows, clock))
        self.service = NotificationService(channels, rows, supervisor, clock)

    async def start(self, stack: AsyncExitStack) -> None:
        """Take up what the last run left, and deliver; `stack` lets attempts under way end."""
        stack.push_async_callback(self._outbound.close)
        stack.push_async_callback(self.service.stop)
        await self.service.start()


def read_channel(
    name: str, plain: dict[str, Any], kinds: Mapping[str, NotifierKind]
) -> tuple[NotifierKind, ChannelConfig]:
    """Read an entry without sending anything. Raises ConfigError naming it, and no value of a secret."""
    where = f"notify.{name}"
    if not 0 < len(name) <= _NAME_CHARS or not name.isprintable():
        raise ConfigError(f"{where[:80]}: a channel's name has 1 to {_NAME_CHARS} printable characters")
    kind = kinds.get(str(plain.get("type")))
    if kind is None:
        given = f"unknown type `{plain['type']}`" if "type" in plain else "has no `type`"
        raise ConfigError(f"{where}: {given}; {nearest(str(plain.get('type')), kinds)}")
    settings: Any = typed(plain, kind.config, where)
    if not isinstance(settings, ChannelConfig):
        raise ConfigError(f"{where}: the extension's kind `{plain['type']}` has no configuration of a channel")
    return kind, settings
