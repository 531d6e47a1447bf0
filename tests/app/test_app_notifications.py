"""A channel whose code does not begin costs the gateway nothing, and the channel no notification."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from fakes.rules_fakes import until

from gateway.app.notifications import Notifications
from gateway.config import GatewayConfig
from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError
from gateway.core.scope import system_scope
from gateway.core.tasks import Supervisor
from gateway.extensions.hookspecs import NotifierKind
from gateway.notify.config import ChannelConfig
from gateway.notify.model import Draft, Notification
from gateway.storage.config import DatabaseConfig
from gateway.storage.database import Database
from gateway.wasm.config import WasmConfig
from gateway.wasm.plugins import PluginHost

SCOPE = system_scope("ann")


class PostConfig(ChannelConfig, frozen=True, kw_only=True, tag_field="type", tag="post"):
    """A channel of an extension."""


class Post:
    """Delivers at once."""

    def __init__(self, name: str, config: PostConfig, **ports: Any) -> None:
        self.titles: list[str] = []

    async def send(self, notification: Notification) -> None:
        self.titles.append(notification.title)

    def problem(self) -> str:
        return ""


def broken(name: str, config: PostConfig, **ports: Any) -> Post:
    raise ZeroDivisionError("a canary of the extension")


def wrong(name: str, config: PostConfig, **ports: Any) -> Post:
    raise ConfigError("notify.post: name a street")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "gateway.db", SystemClock(), DatabaseConfig())
    await opened.open()
    yield opened
    await opened.close()


def notifications(database: Database, supervisor: Supervisor, make: Any) -> Notifications:
    plugins = PluginHost(WasmConfig(), [], None)
    kinds = {"post": NotifierKind(PostConfig, make)}
    config = GatewayConfig(notify={"post": {"type": "post"}})
    return Notifications(config, database, plugins, kinds, supervisor, SystemClock())


async def test_a_notifier_that_cannot_be_made_blocks_its_channel_and_holds_its_queue(database: Database) -> None:
    supervisor = Supervisor(SystemClock())
    async with AsyncExitStack() as stack:
        parts = notifications(database, supervisor, broken)
        await parts.start(stack)
        (status,) = parts.service.channels()
        assert (status.state, status.detail) == (
            "blocked",
            "the channel's notifier cannot be made: ZeroDivisionError; see its extension",
        )
        figures = {sample.name: sample.value for sample in parts.service.samples()}
        assert figures["gateway_notifications_blocked"] == 1
        queued = await parts.service.send(SCOPE, Draft(channel="post", title="later"))
    async with AsyncExitStack() as stack:
        parts = notifications(database, supervisor, Post)
        await parts.start(stack)
        await until(lambda: parts.service.channels()[0].sent == 1)
        assert (await parts.service.get(SCOPE, queued.id)).status == "sent"
    await supervisor.stop()


async def test_what_an_operator_wrote_wrongly_is_still_an_error_of_the_start(database: Database) -> None:
    with pytest.raises(ConfigError, match="name a street"):
        notifications(database, Supervisor(SystemClock()), wrong)
