"""The notification service: takes what rules, scenes and people want to be told, durably, and lets channels deliver it.

Knows channels by name, and no way of delivering.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import structlog

from gateway.core.clock import Clock
from gateway.core.errors import Conflict, GatewayError, NotFound
from gateway.core.ids import new_id
from gateway.core.log import safe_text
from gateway.core.metrics import Sample
from gateway.core.scope import DEFAULT_TENANT, Scope
from gateway.core.tasks import Supervisor
from gateway.notify.channel import Channel
from gateway.notify.model import (
    ChannelStatus,
    Draft,
    Notification,
    NotificationFilter,
    NotificationRepository,
    check_draft,
)
from gateway.things.ports import Page, PageRequest

log = structlog.get_logger(__name__)

_STOP_S: Final = 5.0
"""Time at a stop for attempts under way."""


class NotificationService:
    """Notifications of all channels. Channels are the operator's, so they serve the first tenant."""

    def __init__(
        self, channels: Iterable[Channel], repository: NotificationRepository, supervisor: Supervisor, clock: Clock
    ) -> None:
        """Deliver nothing yet."""
        self._channels = {channel.name: channel for channel in channels}
        self._repository = repository
        self._supervisor = supervisor
        self._clock = clock
        self._last_id = ""

    async def start(self) -> None:
        """Take up what the last run left, and deliver."""
        waiting = await self._repository.waiting()
        for name in waiting.keys() - self._channels.keys():
            text = f"there is no channel {safe_text(name)} any more; see [notify]"
            gone = await self._repository.fail_queued(name, text, self._clock.now_ms())
            log.error("notifications of a channel that is gone", channel=safe_text(name), failed=gone)
        for name, channel in self._channels.items():
            channel.waiting = waiting.get(name, 0)
            self._supervisor.start(f"notify-{name}", channel.run)

    async def stop(self) -> None:
        """Let attempts under way end, all within the same bounds; what waits stays for the next start."""
        for channel in self._channels.values():
            channel.halt()
        await asyncio.gather(*(self._stop(channel) for channel in self._channels.values()))

    def channels(self) -> list[ChannelStatus]:
        """Every channel and how it fares, by name."""
        return [self._channels[name].status() for name in sorted(self._channels)]

    def samples(self) -> Iterator[Sample]:
        """Figures for `/metrics`."""
        for channel in self._channels.values():
            yield from channel.samples()

    async def send(self, scope: Scope, draft: Draft) -> Notification:
        """Queue a notification of a person, who stands in the audit log with it; durable when it returns.

        Raises NotFound for the channel, Rejected naming a field, Conflict while the channel's queue is full.
        """
        (outcome,) = await self.send_all(scope, [draft], audited=True)
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    async def send_all(
        self, scope: Scope, drafts: Sequence[Draft], *, audited: bool = False
    ) -> list[Notification | GatewayError]:
        """Queue what can be queued in one transaction, and say of each what became of it, in order.

        Raises StorageFailed or NotReady with nothing queued.
        """
        outcomes = [self._taken(scope, draft) for draft in drafts]
        taken = [outcome for outcome in outcomes if isinstance(outcome, Notification)]
        if not taken:
            return outcomes
        try:
            await self._repository.add_notifications(scope, taken, audited=audited)
        except BaseException:
            for notification in taken:
                self._channels[notification.channel].waiting -= 1
            raise
        for name in {notification.channel for notification in taken}:
            self._channels[name].wake()
        return outcomes

    async def get(self, scope: Scope, notification_id: str) -> Notification:
        """Raises NotFound."""
        return await self._repository.get_notification(scope, notification_id)

    async def list(self, scope: Scope, which: NotificationFilter, page: PageRequest) -> Page[Notification]:
        """Notifications of the tenant, newest first."""
        return await self._repository.list_notifications(scope, which, page)

    async def _stop(self, channel: Channel) -> None:
        await channel.stop(_STOP_S)
        await self._supervisor.stop_part(f"notify-{channel.name}")

    def _taken(self, scope: Scope, draft: Draft) -> Notification | GatewayError:
        """A notification that has a place in its channel's queue from now on, or why it has none."""
        try:
            check_draft(draft)
            channel = self._channel(scope, draft.channel)
        except GatewayError as refusal:
            return refusal
        if not channel.room:
            channel.refused += 1
            return Conflict(f"{channel.waiting} notifications wait in channel {channel.name}; see its `queue`")
        channel.waiting += 1
        return Notification(
            id=self._next_id(),
            tenant_id=scope.tenant_id,
            channel=draft.channel,
            title=draft.title,
            text=draft.text,
            severity=draft.severity,
            device_id=draft.device_id,
            link=draft.link,
            requested_by=draft.requested_by or scope.actor,
            created_at_ms=self._clock.now_ms(),
        )

    def _next_id(self) -> str:
        """An id above all before: a queue goes by it, and many are asked for in one millisecond.

        Source: RFC 9562, 6.2 (monotonicity).
        """
        fresh = new_id(self._clock)
        if fresh <= self._last_id:
            fresh = str(uuid.UUID(int=uuid.UUID(self._last_id).int + 1))
        self._last_id = fresh
        return fresh

    def _channel(self, scope: Scope, name: str) -> Channel:
        channel = self._channels.get(name)
        if channel is None or scope.tenant_id != DEFAULT_TENANT:
            raise NotFound(f"no channel {safe_text(name)}; the configuration declares channels as [notify.NAME]")
        return channel
