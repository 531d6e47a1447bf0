"""Rows of devices, and what hangs on them when one is deleted. Knows no session."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from gateway.core.errors import Conflict, NotFound, Rejected
from gateway.core.scope import Scope
from gateway.storage import tables
from gateway.storage.database import Database, Transaction, is_unique_violation
from gateway.storage.rows import Sorts, from_row, owned_row, page_of, without
from gateway.storage.tables import device as _table
from gateway.things.model import Device
from gateway.things.ports import DeviceFilter, DeviceRepository, Page, PageRequest

_SORTS = Sorts(
    "id", _table.c.key, _table.c.id, _table.c.name, _table.c.product_id, _table.c.last_seen_ms, _table.c.created_at_ms
)
_SECRET = ("key", "credential_digest", "online", "last_seen_ms")
_JOURNALS = ("key", "online", "last_seen_ms")
"""Columns that an update leaves alone: the surrogate never changes, and sessions are the journal's."""
_MOST_SEARCH = 256
"""Characters of a search text; SQLite refuses patterns beyond 50,000 bytes, and none that a person types is as long."""
_SLICE = 5_000
"""History rows deleted in one transaction: some 50 ms, so that the journal gets its turn in between."""


class SqlDeviceRepository(DeviceRepository):
    """Devices in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def all_devices(self) -> list[Device]:
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(_table).order_by(_table.c.key))
            return [from_row(row, Device) for row in rows.mappings()]

    @override
    async def next_key(self) -> int:
        # The table's own counter, which a deletion does not take back.
        last = sa.text("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'device'")
        async with self._database.read() as connection:
            return int((await connection.execute(last)).scalar_one()) + 1

    @override
    async def add_device(self, scope: Scope, device: Device) -> None:
        row = owned_row(scope, device)
        async with self._database.write(scope) as transaction:
            await _execute(transaction, sa.insert(_table).values(row), row)
            await transaction.audit("create", "device", device.id, None, without(row, *_SECRET))

    @override
    async def save_device(self, scope: Scope, device: Device) -> None:
        row = owned_row(scope, device)
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one(scope, device.id))
            if before is None or before["key"] != device.key:
                raise NotFound(f"no device {device.id}")
            change = sa.update(_table).where(_table.c.key == device.key).values(without(row, *_JOURNALS) or {})
            await _execute(transaction, change, row)
            after = without(row, *_SECRET) or {}
            if before["credential_digest"] != device.credential_digest:
                after["credential_changed"] = True
            await transaction.audit("update", "device", device.id, without(before, *_SECRET), after)

    @override
    async def delete_device(self, scope: Scope, device_id: str) -> None:
        async with self._database.read() as connection:
            key = (await connection.execute(_one(scope, device_id))).scalar()
        if key is None:
            raise NotFound(f"no device {device_id}")
        while await self._delete_some_history(scope, key):
            pass
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one(scope, device_id))
            if before is None:
                raise NotFound(f"no device {device_id}")
            await transaction.execute(sa.delete(tables.message).where(tables.message.c.device_key == key))
            await transaction.execute(sa.delete(tables.latest).where(tables.latest.c.device_key == key))
            for table in (tables.command, tables.alarm, tables.rule_state):
                await transaction.execute(
                    sa.delete(table).where(table.c.tenant_id == scope.tenant_id, table.c.device_id == device_id)
                )
            await transaction.execute(sa.delete(_table).where(_table.c.key == key))
            await transaction.audit("delete", "device", device_id, without(before, *_SECRET), None)

    @override
    async def list_devices(self, scope: Scope, which: DeviceFilter, page: PageRequest) -> Page[Device]:
        query = sa.select(_table).where(_table.c.tenant_id == scope.tenant_id, *_conditions(which))
        order = _SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, Device))

    async def _delete_some_history(self, scope: Scope, key: int) -> bool:
        some = sa.select(tables.message.c.seq).where(tables.message.c.device_key == key).limit(_SLICE)
        async with self._database.write(scope) as transaction:
            deleted = await transaction.execute(sa.delete(tables.message).where(tables.message.c.seq.in_(some)))
            return deleted.rowcount == _SLICE


async def _execute(transaction: Transaction, change: sa.Insert | sa.Update, row: dict[str, Any]) -> None:
    try:
        await transaction.execute(change)
    except sa.exc.IntegrityError as failure:
        if is_unique_violation(failure):
            raise Conflict(f"device {row['id']} exists already") from failure
        raise Rejected(f"product_id: no product {row['product_id']}") from failure


def _conditions(which: DeviceFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if which.product_id is not None:
        conditions.append(_table.c.product_id == which.product_id)
    if which.online is not None:
        conditions.append(_table.c.online == which.online)
    if which.tag is not None:
        conditions.append(_tagged(which.tag))
    if which.search is not None:
        if len(which.search) > _MOST_SEARCH:
            raise Rejected(f"search: at most {_MOST_SEARCH} characters")
        found_in_id = _table.c.id.icontains(which.search, autoescape=True)
        conditions.append(found_in_id | _table.c.name.icontains(which.search, autoescape=True))
    return conditions


def _tagged(tag: str) -> sa.ColumnElement[bool]:
    key, equals, value = tag.partition("=")
    pair = sa.func.json_each(_table.c.tags).table_valued("key", "value")
    query = sa.select(sa.literal(1)).select_from(pair).where(pair.c.key == key)
    return (query.where(pair.c.value == value) if equals else query).exists()


def _one(scope: Scope, device_id: str) -> sa.Select[Any]:
    return sa.select(_table).where(_table.c.tenant_id == scope.tenant_id, _table.c.id == device_id)
