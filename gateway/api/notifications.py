"""`notifications`: what people are told, and the channels that tell them. Channels belong to the first tenant."""

from __future__ import annotations

from typing import Annotated

import msgspec
from pydantic import Field

from gateway.api.bodies import Body
from gateway.api.shapes import when
from gateway.api.views import Listing, Paging, Resource, cut, listed, request_of, requires, sorted_by
from gateway.core.clock import rfc3339
from gateway.core.flow import Severity
from gateway.identity.permissions import Permission
from gateway.notify.model import (
    LINK_CHARS,
    TEXT_CHARS,
    TITLE_CHARS,
    ChannelStatus,
    Draft,
    Notification,
    NotificationFilter,
    Status,
)

_SORT = {"created_at": "created_at_ms", "channel": "channel", "status": "status"}


class NotificationBody(Body):
    """Something to tell; `link` begins with https:// or http://."""

    channel: Annotated[str, Field(min_length=1, max_length=64)]
    title: Annotated[str, Field(min_length=1, max_length=TITLE_CHARS)]
    text: Annotated[str, Field(max_length=TEXT_CHARS)] = ""
    severity: Severity = "info"
    device: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    link: Annotated[str, Field(max_length=LINK_CHARS)] = ""


class NotificationShape(msgspec.Struct, frozen=True):
    """One notification."""

    id: str
    channel: str
    title: str
    text: str
    severity: str
    device_id: str | None
    link: str
    requested_by: str
    status: str
    attempts: int
    last_error: str
    created_at: str
    sent_at: str | None
    ended_at: str | None


class NotificationsView(Resource):
    """`/notifications`."""

    @requires(Permission.NOTIFICATION_LIST)
    async def get(
        self, paging: Paging, status: Status | None = None, channel: str | None = None
    ) -> Listing[NotificationShape]:
        """List notifications, newest first."""
        which = NotificationFilter(status=status, channel=channel)
        page = await self.parts.notifications.list(self.scope, which, request_of(paging, _SORT))
        return listed(page, _shape)

    @requires(Permission.NOTIFICATION_MANAGE, status=201)
    async def post(self, body: NotificationBody) -> NotificationShape:
        """Tell somebody; answers once it is queued durably, how it ends shows in GET."""
        if body.device is not None:
            self.parts.catalog.device(self.scope, body.device)
        draft = Draft(
            channel=body.channel,
            title=body.title,
            text=body.text,
            severity=body.severity,
            device_id=body.device,
            link=body.link,
        )
        queued = await self.parts.notifications.send(self.scope, draft)
        return _shape(queued)


class ChannelsView(Resource):
    """`/notifications/channels`."""

    @requires(Permission.NOTIFICATION_LIST)
    async def get(self, paging: Paging) -> Listing[ChannelStatus]:
        """List channels with their state and counters."""
        _ = self.operator_scope
        found = sorted_by(self.parts.notifications.channels(), paging, {"name": "name", "state": "state"})
        return listed(cut(found, paging), lambda status: status)


class NotificationView(Resource):
    """`/notifications/{notification_id}`."""

    @requires(Permission.NOTIFICATION_LIST)
    async def get(self, notification_id: str, /) -> NotificationShape:
        """Show a notification."""
        return _shape(await self.parts.notifications.get(self.scope, notification_id))


def _shape(notification: Notification) -> NotificationShape:
    ended_at = when(notification.ended_at_ms)
    return NotificationShape(
        id=notification.id,
        channel=notification.channel,
        title=notification.title,
        text=notification.text,
        severity=notification.severity,
        device_id=notification.device_id,
        link=notification.link,
        requested_by=notification.requested_by,
        status=notification.status,
        attempts=notification.attempts,
        last_error=notification.last_error,
        created_at=rfc3339(notification.created_at_ms),
        sent_at=ended_at if notification.status == "sent" else None,
        ended_at=ended_at,
    )
