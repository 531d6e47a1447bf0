"""Between the rooms' structs and rows: fields and columns have the same names, so one rule serves all tables.

Owns paging and its white-listed sort orders. Knows no particular table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import Forbidden, Rejected
from gateway.core.scope import Scope
from gateway.things.ports import Page, PageRequest

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

BIGGEST = 2**63 - 1
"""The largest integer SQLite holds."""


def to_row(item: msgspec.Struct) -> dict[str, Any]:
    """A struct as column values; nested structs become JSON documents."""
    row: dict[str, Any] = msgspec.to_builtins(item)
    return row


def from_row(row: sa.RowMapping | dict[str, Any], kind: type[S]) -> S:
    """A row as a struct."""
    # SQLAlchemy's names are a subclass of str, which msgspec does not take for keys.
    return msgspec.convert({str(name): value for name, value in row.items()}, kind)


def owned_row(scope: Scope, item: msgspec.Struct) -> dict[str, Any]:
    """Column values of an item that must belong to the scope's tenant. Raises Forbidden."""
    row = to_row(item)
    if row["tenant_id"] != scope.tenant_id:
        raise Forbidden("the object belongs to another tenant")
    return row


def without(row: Mapping[str, Any] | None, *secret: str) -> dict[str, Any] | None:
    """A row for the audit log, without the columns named."""
    return None if row is None else {name: value for name, value in row.items() if name not in secret}


def upsert(table: sa.Table, row: dict[str, Any], keep: tuple[str, ...] = ()) -> sqlite.Insert:
    """Insert, or replace by primary key all columns but those in `keep`."""
    statement = sqlite.insert(table).values(row)
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in row if name not in keys and name not in keep}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


class Sorts:
    """The orders that a list offers: field name to column, with a tie-break that makes pages stable."""

    def __init__(self, default: str, tie_break: sa.Column[Any], *columns: sa.Column[Any]) -> None:
        """`default` is one of the columns' names, with `-` before it for descending."""
        self._columns = {column.name: column for column in columns}
        # The API shows times without their unit.
        self._columns |= {column.name.removesuffix("_ms"): column for column in columns}
        self._default = default
        self._tie_break = tie_break

    def order(self, sort: str) -> list[sa.UnaryExpression[Any]]:
        """ORDER BY for a request. Raises Rejected."""
        name = sort or self._default
        column = self._columns.get(name.removeprefix("-"))
        if column is None:
            known = sorted(name for name in self._columns if not name.endswith("_ms"))
            raise Rejected(f"sort: no such field; one of {', '.join(known)}, with - before it for descending")
        if name.startswith("-"):
            return [column.desc(), self._tie_break.desc()]
        return [column.asc(), self._tie_break.asc()]


async def page_of(
    connection: AsyncConnection,
    query: sa.Select[Any],
    order: list[Any],
    page: PageRequest,
    make: Callable[[sa.RowMapping], T],
) -> Page[T]:
    """One page of a query and the exact number of its rows. Raises Rejected for a page that cannot be."""
    if page.page < 1 or page.limit < 1:
        raise Rejected("page and limit count from 1")
    total = (
        await connection.execute(sa.select(sa.func.count()).select_from(query.order_by(None).subquery()))
    ).scalar_one()
    offset = (page.page - 1) * page.limit
    if offset >= total:
        return Page([], total, page.page, page.limit)
    rows = (await connection.execute(query.order_by(*order).limit(min(page.limit, BIGGEST)).offset(offset))).mappings()
    return Page([make(row) for row in rows], total, page.page, page.limit)
