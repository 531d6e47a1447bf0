"""What a notification is, and what is asked of those who keep and deliver it. Knows neither plugins nor a database."""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from gateway.core.errors import ConfigError, GatewayError, NotFound, NotReady, PluginTrapped, Rejected
from gateway.core.flow import Severity
from gateway.core.scope import Scope
from gateway.things.ports import Page, PageRequest

TITLE_CHARS: Final = 200
"""Longest title; the services cut or refuse longer ones."""
TEXT_CHARS: Final = 4_000
"""Longest text; in Chinese it takes 12 kB, and most services take 20 kB a message."""
LINK_CHARS: Final = 2_000
"""Longest link; what browsers and services take."""

Status: TypeAlias = Literal["queued", "sent", "failed", "expired"]


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to be told, and by which channel.

    link: an address to open for more. requested_by: who asks, where it is not the scope's actor.
    """

    channel: str
    title: str
    text: str = ""
    severity: Severity = "info"
    device_id: str | None = None
    link: str = ""
    requested_by: str = ""


class Notification(msgspec.Struct, kw_only=True):
    """One notification. Ids grow in the order of asking.

    attempts: those that ended. last_error: why the last one failed, for people; of one that was sent, what is not
        known about it.
    """

    id: str
    tenant_id: str
    channel: str
    title: str
    text: str
    severity: Severity = "info"
    device_id: str | None = None
    link: str = ""
    requested_by: str = ""
    status: Status = "queued"
    attempts: int = 0
    last_error: str = ""
    created_at_ms: int = 0
    ended_at_ms: int | None = None


class NotificationFilter(msgspec.Struct, frozen=True):
    """Which notifications of a list; None does not filter."""

    status: Status | None = None
    channel: str | None = None


class ChannelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One channel.

    state: `ready`; `retrying` while the last attempt failed; `blocked` while an operator must change something first.
    detail: why. waiting: notifications that are queued. refused: those that found the queue full.
    """

    name: str
    type: str
    state: Literal["ready", "retrying", "blocked"]
    detail: str = ""
    waiting: int = 0
    sent: int = 0
    failed: int = 0
    expired: int = 0
    retries: int = 0
    refused: int = 0


class Undelivered(Exception):
    """An attempt failed; it ends with the notification, and reaches no caller.

    again: whether another may succeed. retry_after_s: not before, as the service asked.
    """

    def __init__(self, text: str, *, again: bool, retry_after_s: float | None = None) -> None:
        """Keep what the channel goes by."""
        super().__init__(text)
        self.again = again
        self.retry_after_s = retry_after_s


def may_pass(failure: GatewayError) -> bool:
    """Whether another attempt may succeed: later, or once an operator changed what the failure names."""
    return isinstance(failure, NotReady | ConfigError | NotFound | PluginTrapped)


class Notifier(Protocol):
    """Delivers over one channel; what `make` of a `NotifierKind` gives."""

    async def send(self, notification: Notification) -> str | None:
        """Deliver; returning means that the service took it. A text is a remark on that, and kept as the last error.

        Raises Undelivered; for any other error `may_pass` says whether it is tried again. Cancelled after `timeout_s`.
        """
        ...

    def problem(self) -> str:
        """What an operator must change before anything can be delivered; empty where nothing is known to be wrong."""
        ...


class NotificationRepository(Protocol):
    """Rows of notifications."""

    async def add_notifications(
        self, scope: Scope, notifications: list[Notification], *, audited: bool = False
    ) -> None:
        """Insert all or none, `audited` with an entry for each in the audit log; durable when it returns."""
        ...

    async def save_notification(self, notification: Notification) -> None:
        """Keep how far it came: status, attempts, last error, end."""
        ...

    async def next_queued(self, channel: str) -> Notification | None:
        """The queued one of a channel with the lowest id, over all tenants; ids grow."""
        ...

    async def waiting(self) -> dict[str, int]:
        """Queued ones by channel, for the start."""
        ...

    async def fail_queued(self, channel: str, error: str, at_ms: int) -> int:
        """End every queued one of a channel as failed; returns how many."""
        ...

    async def get_notification(self, scope: Scope, notification_id: str) -> Notification:
        """Raises NotFound."""
        ...

    async def list_notifications(
        self, scope: Scope, which: NotificationFilter, page: PageRequest
    ) -> Page[Notification]:
        """Notifications of the tenant, newest first."""
        ...


def check_draft(draft: Draft) -> None:
    """Raise Rejected naming the field that is wrong."""
    if not draft.title.strip() or len(draft.title) > TITLE_CHARS:
        raise Rejected(f"title: write 1 to {TITLE_CHARS} characters")
    if len(draft.text) > TEXT_CHARS:
        raise Rejected(f"text: write at most {TEXT_CHARS} characters")
    if draft.link and (len(draft.link) > LINK_CHARS or not draft.link.startswith(("https://", "http://"))):
        raise Rejected(
            f"link: write an address of at most {LINK_CHARS} characters that begins with https:// or http://"
        )
