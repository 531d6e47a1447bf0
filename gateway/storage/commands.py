"""Rows of commands. Knows no session and no timeout: it keeps what it is given."""

from __future__ import annotations

import sqlalchemy as sa
from typing_extensions import override

from gateway.core.errors import NotFound
from gateway.core.scope import Scope
from gateway.storage.database import Database
from gateway.storage.rows import Sorts, from_row, owned_row, page_of, upsert
from gateway.storage.tables import command as _table
from gateway.things.model import Command
from gateway.things.ports import CommandRepository, Page, PageRequest

_SORTS = Sorts("-created_at_ms", _table.c.id, _table.c.created_at_ms, _table.c.name, _table.c.status)


class SqlCommandRepository(CommandRepository):
    """Commands in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def save_command(self, scope: Scope, command: Command) -> None:
        row = owned_row(scope, command)
        async with self._database.write(scope) as transaction:
            await transaction.execute(upsert(_table, row))

    @override
    async def get_command(self, scope: Scope, command_id: str) -> Command:
        query = sa.select(_table).where(_table.c.tenant_id == scope.tenant_id, _table.c.id == command_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        if row is None:
            raise NotFound(f"no command {command_id}")
        return from_row(row, Command)

    @override
    async def list_commands(self, scope: Scope, device_id: str, page: PageRequest) -> Page[Command]:
        query = sa.select(_table).where(_table.c.tenant_id == scope.tenant_id, _table.c.device_id == device_id)
        order = _SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, Command))

    @override
    async def open_commands(self) -> list[Command]:
        query = sa.select(_table).where(_table.c.status.in_(["queued", "sent"])).order_by(_table.c.created_at_ms)
        async with self._database.read() as connection:
            return [from_row(row, Command) for row in (await connection.execute(query)).mappings()]
