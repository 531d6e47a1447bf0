"""Notifications without the rest of a gateway: rows in memory, a notifier and a plugin that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Self

from fakes.memory import copied, page_of
from typing_extensions import override

from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import Conflict, Forbidden, GatewayError, NotFound
from gateway.core.outbound import Method, Outbound, Reply
from gateway.core.plugin_calls import PluginCaller, PluginGrants
from gateway.core.scope import Scope
from gateway.core.tasks import Backoff, Supervisor
from gateway.identity.model import AuditRepository
from gateway.notify.channel import Channel
from gateway.notify.config import ChannelConfig
from gateway.notify.model import Notification, NotificationFilter, NotificationRepository, Notifier
from gateway.notify.pace import Pace
from gateway.notify.service import NotificationService
from gateway.things.ports import Page, PageRequest

SORTABLE = ("created_at_ms", "channel", "status")
QUICK = {"first_retry_s": 0.001, "most_retry_s": 0.004, "rate_per_min": 60_000}


class MemoryNotifications(NotificationRepository):
    """Rows in memory. `failures` are raised by the next writes, one each."""

    def __init__(self, audit: AuditRepository | None = None) -> None:
        self.audit = audit
        self.rows: dict[tuple[str, str], Notification] = {}
        self.failures: list[GatewayError] = []

    def _write(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    @override
    async def add_notifications(
        self, scope: Scope, notifications: list[Notification], *, audited: bool = False
    ) -> None:
        self._write()
        for notification in notifications:
            if notification.tenant_id != scope.tenant_id:
                raise Forbidden("the object belongs to another tenant")
            if (notification.tenant_id, notification.id) in self.rows:
                raise Conflict("a notification of that id exists already")
        for notification in notifications:
            self.rows[notification.tenant_id, notification.id] = copied(notification)
            if audited and self.audit is not None:
                what = {"channel": notification.channel, "title": notification.title}
                await self.audit.record(scope, "notification.send", "notification", notification.id, what)

    @override
    async def save_notification(self, notification: Notification) -> None:
        self._write()
        row = self.rows[notification.tenant_id, notification.id]
        for name in ("status", "attempts", "last_error", "ended_at_ms"):
            setattr(row, name, getattr(notification, name))

    def _queued(self) -> list[Notification]:
        queued = [row for row in self.rows.values() if row.status == "queued"]
        return sorted(queued, key=lambda row: row.id)

    @override
    async def next_queued(self, channel: str) -> Notification | None:
        return next((copied(row) for row in self._queued() if row.channel == channel), None)

    @override
    async def waiting(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self._queued():
            counts[row.channel] = counts.get(row.channel, 0) + 1
        return counts

    @override
    async def fail_queued(self, channel: str, error: str, at_ms: int) -> int:
        failed = [row for row in self._queued() if row.channel == channel]
        for row in failed:
            row.status, row.last_error, row.ended_at_ms = "failed", error, at_ms
        return len(failed)

    @override
    async def get_notification(self, scope: Scope, notification_id: str) -> Notification:
        row = self.rows.get((scope.tenant_id, notification_id))
        if row is None:
            raise NotFound(f"no notification {notification_id}")
        return copied(row)

    @override
    async def list_notifications(
        self, scope: Scope, which: NotificationFilter, page: PageRequest
    ) -> Page[Notification]:
        found = [
            row
            for row in self.rows.values()
            if row.tenant_id == scope.tenant_id
            and which.status in {None, row.status}
            and which.channel in {None, row.channel}
        ]
        return page_of(found, page, "-created_at_ms", SORTABLE)


class FakeNotifier(Notifier):
    """Remembers what it delivered. `outcomes` of the next attempts, one each: an error is raised, a text a remark."""

    def __init__(self) -> None:
        self.sent: list[Notification] = []
        self.attempts = 0
        self.outcomes: list[BaseException | str | None] = []
        self.blocked = ""
        self.hold = asyncio.Event()
        self.hold.set()

    @override
    async def send(self, notification: Notification) -> str | None:
        self.attempts += 1
        await self.hold.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        self.sent.append(copied(notification))
        return outcome

    @override
    def problem(self) -> str:
        return self.blocked

    @property
    def titles(self) -> list[str]:
        return [notification.title for notification in self.sent]


class NotifyRoom:
    """A service with one channel, `ops`; `async with` starts and stops it."""

    def __init__(self, rows: NotificationRepository | None = None, clock: Clock | None = None, **config: Any) -> None:
        self.clock = clock or SystemClock()
        self.rows: Any = rows or MemoryNotifications()
        self.supervisor = Supervisor(self.clock, Backoff(0.001, 0.01))
        self.notifier = FakeNotifier()
        settings = ChannelConfig(**(QUICK | config))
        self.pace = Pace(settings.rate_per_min)
        self.channel = Channel("ops", "fake", settings, self.notifier, self.rows, self.clock, self.pace, lambda: 1.0)
        self.service = NotificationService([self.channel], self.rows, self.supervisor, self.clock)

    async def __aenter__(self) -> Self:
        await self.service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.service.stop()
        await self.supervisor.stop()

    def figure(self, name: str, **labels: str) -> float:
        return next(
            sample.value
            for sample in self.service.samples()
            if sample.name == name and labels.items() <= sample.labels.items()
        )


class ScriptedPlugins(PluginCaller, PluginGrants):
    """Plugins as functions of their arguments. `asked` is every call; `grants` what each may do."""

    def __init__(self, **plugins: Callable[[dict[str, Any]], Any]) -> None:
        self.plugins = plugins
        self.grants = dict.fromkeys(plugins, frozenset({"emit"}))
        self.asked: list[dict[str, Any]] = []
        self.most_bytes: list[int | None] = []

    @override
    async def call(
        self, plugin_id: str, args: dict[str, Any], *, timeout_s: float, most_bytes: int | None = None
    ) -> Any:
        if plugin_id not in self.plugins:
            raise NotFound(f"no plugin {plugin_id!r}")
        self.asked.append(args)
        self.most_bytes.append(most_bytes)
        return self.plugins[plugin_id](args)

    @override
    def granted(self, plugin_id: str) -> frozenset[str]:
        if plugin_id not in self.grants:
            raise NotFound(f"no plugin {plugin_id!r}")
        return self.grants[plugin_id]


class RecordingOutbound(Outbound):
    """Answers requests from a list and remembers them. `refusals`: URL -> what `check` raises."""

    def __init__(self, *replies: Reply | GatewayError) -> None:
        self.replies = list(replies)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.refusals: dict[str, GatewayError] = {}

    @override
    def check(self, url: str) -> None:
        for start, refusal in self.refusals.items():
            if url.startswith(start):
                raise refusal

    @override
    async def request(
        self,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Reply:
        self.check(url)
        self.requests.append((method, url, dict(headers or {}), body))
        reply = self.replies.pop(0) if self.replies else Reply(200, {}, b"{}")
        if isinstance(reply, GatewayError):
            raise reply
        return reply
