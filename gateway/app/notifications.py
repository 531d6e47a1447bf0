"""Notification channels that the configuration declares, wired to plugins, the way out and the database.

A channel whose code does not even begin is there all the same: blocked, and holding what waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog
from typing_extensions import override

from gateway.config import GatewayConfig
from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, NotReady
from gateway.core.outbound import AiohttpOutbound, Outbound
from gateway.core.plain import nearest, typed
from gateway.core.tasks import Supervisor
from gateway.extensions.hookspecs import NotifierKind
from gateway.extensions.wall import ExtensionFailed, wall
from gateway.notify.channel import Channel
from gateway.notify.config import ChannelConfig
from gateway.notify.model import Notification, Notifier
from gateway.notify.pace import Pace, PacedOutbound
from gateway.notify.service import NotificationService
from gateway.storage.database import Database
from gateway.storage.notifications import SqlNotificationRepository
from gateway.wasm.plugins import PluginHost

log = structlog.get_logger(__name__)

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
        """Build; nothing is sent yet. Raises ConfigError naming the entry: what an operator wrote wrongly."""
        self._outbound = AiohttpOutbound(config.outbound)
        rows = SqlNotificationRepository(database)
        channels = []
        for name, plain in config.notify.items():
            kind, settings = read_channel(name, plain, kinds)
            pace = Pace(settings.rate_per_min)
            outbound = PacedOutbound(self._outbound, pace, clock)
            notifier = made(name, kind, settings, outbound, plugins, clock)
            channels.append(Channel(name, plain["type"], settings, notifier, rows, clock, pace))
        self.service = NotificationService(channels, rows, supervisor, clock)

    async def start(self, stack: AsyncExitStack) -> None:
        """Take up what the last run left, and deliver; `stack` lets attempts under way end."""
        stack.push_async_callback(self._outbound.close)
        stack.push_async_callback(self.service.stop)
        await self.service.start()


class LeftOut(Notifier):
    """In the place of a notifier that could not be made: what waits in its channel waits on."""

    def __init__(self, why: str) -> None:
        """Say why, to whoever looks at the channel."""
        self._why = why

    @override
    async def send(self, notification: Notification) -> None:
        raise NotReady(self._why)

    @override
    def problem(self) -> str:
        return self._why


def made(
    name: str, kind: NotifierKind, settings: ChannelConfig, outbound: Outbound, plugins: PluginHost, clock: Clock
) -> Notifier:
    """The notifier of an entry, or what stands in for one where an extension's fails. Raises ConfigError."""
    ports = {"outbound": outbound, "plugins": plugins, "grants": plugins, "clock": clock}
    try:
        with wall(f"the notifier of channel {name}", "make", ConfigError):
            notifier: Notifier = kind.make(name, settings, **ports)
    except ExtensionFailed as failed:
        log.error("a channel is blocked: its notifier cannot be made", channel=name, exc_info=failed.cause)
        return LeftOut(f"the channel's notifier cannot be made: {type(failed.cause).__name__}; see its extension")
    return notifier


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
