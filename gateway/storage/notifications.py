"""Rows of notifications, which are the channels' queues, too. Knows no channel and no service."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from typing_extensions import override

from gateway.core.errors import Conflict, NotFound
from gateway.core.scope import Scope, system_scope
from gateway.notify.model import Notification, NotificationFilter, NotificationRepository
from gateway.storage.database import Database, is_unique_violation
from gateway.storage.rows import Sorts, from_row, owned_row, page_of
from gateway.storage.tables import notification as _table
from gateway.things.ports import Page, PageRequest

_SORTS = Sorts("-created_at_ms", _table.c.id, _table.c.created_at_ms, _table.c.channel, _table.c.status)
_QUEUED = _table.c.status == "queued"


class SqlNotificationRepository(NotificationRepository):
    """Notifications in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def add_notifications(
        self, scope: Scope, notifications: list[Notification], *, audited: bool = False
    ) -> None:
        rows = [owned_row(scope, notification) for notification in notifications]
        async with self._database.write(scope) as transaction:
            try:
                await transaction.execute(sa.insert(_table), rows)
            except sa.exc.IntegrityError as failure:
                if is_unique_violation(failure):
                    raise Conflict("a notification of that id exists already") from failure
                raise
            for sent in notifications if audited else ():
                what = {"channel": sent.channel, "title": sent.title}
                await transaction.audit("notification.send", "notification", sent.id, None, what)

    @override
    async def save_notification(self, notification: Notification) -> None:
        progress = {
            "status": notification.status,
            "attempts": notification.attempts,
            "last_error": notification.last_error,
            "ended_at_ms": notification.ended_at_ms,
        }
        one = (_table.c.tenant_id == notification.tenant_id, _table.c.id == notification.id)
        async with self._database.write(system_scope("notify", notification.tenant_id)) as transaction:
            await transaction.execute(sa.update(_table).where(*one).values(progress))

    @override
    async def next_queued(self, channel: str) -> Notification | None:
        query = sa.select(_table).where(_QUEUED, _table.c.channel == channel).order_by(_table.c.id).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return None if row is None else from_row(row, Notification)

    @override
    async def waiting(self) -> dict[str, int]:
        query = sa.select(_table.c.channel, sa.func.count()).where(_QUEUED).group_by(_table.c.channel)
        async with self._database.read() as connection:
            return {str(channel): int(count) for channel, count in await connection.execute(query)}

    @override
    async def fail_queued(self, channel: str, error: str, at_ms: int) -> int:
        ended = {"status": "failed", "last_error": error, "ended_at_ms": at_ms}
        async with self._database.write(system_scope("notify")) as transaction:
            failed = await transaction.execute(
                sa.update(_table).where(_QUEUED, _table.c.channel == channel).values(ended)
            )
            return failed.rowcount

    @override
    async def get_notification(self, scope: Scope, notification_id: str) -> Notification:
        query = sa.select(_table).where(_table.c.tenant_id == scope.tenant_id, _table.c.id == notification_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        if row is None:
            raise NotFound(f"no notification {notification_id}")
        return from_row(row, Notification)

    @override
    async def list_notifications(
        self, scope: Scope, which: NotificationFilter, page: PageRequest
    ) -> Page[Notification]:
        query = sa.select(_table).where(_table.c.tenant_id == scope.tenant_id)
        for name, wanted in msgspec.structs.asdict(which).items():
            if wanted is not None:
                query = query.where(_table.c[name] == wanted)
        order = _SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, Notification))
