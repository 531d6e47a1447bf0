"""The audit log's read side, entries that belong to no row change, and the check of its chain."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from gateway.core.scope import Scope
from gateway.identity.model import AuditEntry, AuditRepository
from gateway.storage.chain import digest
from gateway.storage.database import Database
from gateway.storage.rows import Sorts, from_row, page_of
from gateway.storage.tables import audit
from gateway.things.ports import Page, PageRequest

_SORTS = Sorts("-seq", audit.c.seq, audit.c.seq, audit.c.at_ms)
_CHUNK = 1_000
"""Entries checked in one read, so that a long log needs little memory and no long snapshot."""


class SqlAuditRepository(AuditRepository):
    """The audit log in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def list_audit(
        self, scope: Scope, page: PageRequest, actor: str | None = None, entity: str | None = None
    ) -> Page[AuditEntry]:
        query = sa.select(audit).where(audit.c.tenant_id == scope.tenant_id)
        if actor is not None:
            query = query.where(audit.c.actor == actor)
        if entity is not None:
            query = query.where(audit.c.entity == entity)
        order = _SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, AuditEntry))

    @override
    async def record(
        self, scope: Scope, action: str, entity: str, entity_id: str, detail: dict[str, Any] | None = None
    ) -> None:
        async with self._database.write(scope) as transaction:
            await transaction.audit(action, entity, entity_id, None, detail)

    @override
    async def verify(self) -> int | None:
        last, before = 0, ""
        while True:
            entries, newest = await self._after(last)
            for entry in entries:
                if entry["seq"] != last + 1 or entry["digest"] != digest(before, entry):
                    return int(entry["seq"])
                last, before = entry["seq"], entry["digest"]
            if not entries:
                # The table's own counter knows of entries that were cut off the end.
                return last + 1 if newest > last else None

    async def _after(self, seq: int) -> tuple[list[dict[str, Any]], int]:
        query = sa.select(audit).where(audit.c.seq > seq).order_by(audit.c.seq).limit(_CHUNK)
        counter = sa.text("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'audit'")
        async with self._database.read() as connection:
            rows = [dict(row) for row in (await connection.execute(query)).mappings()]
            return rows, (await connection.execute(counter)).scalar_one()
