"""The read side of what the journal stored: points, aggregates, latest values, events, dead letters.

Owns the way a property is found in the JSON of a message. Knows no writer and no retention.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from gateway.core.errors import NotFound, Rejected
from gateway.core.flow import DeadLetter, Event, Quality
from gateway.core.scope import Scope
from gateway.reports.model import Series, SeriesPoint
from gateway.storage.database import Database
from gateway.storage.rows import BIGGEST, Sorts, from_row, page_of
from gateway.storage.tables import dead_letter, device, event, latest, message
from gateway.things.model import PROPERTY_ID
from gateway.things.ports import (
    Aggregate,
    Bucket,
    HistoryPoint,
    HistoryRepository,
    Page,
    PageRequest,
    PropertyValue,
    TimeRange,
)

_POINT_SORTS = Sorts("observed_at_ms", message.c.seq, message.c.observed_at_ms)
_EVENT_SORTS = Sorts("seq", event.c.seq, event.c.seq)
_LETTER_SORTS = Sorts("-seq", dead_letter.c.seq, dead_letter.c.seq)
_PROPERTY = re.compile(PROPERTY_ID)
_NUMERIC = ("integer", "real")
_TRUSTED = (Quality.GOOD.value, Quality.OUT_OF_RANGE.value)
_decode = msgspec.json.Decoder().decode
_decode_points = msgspec.json.Decoder(dict[str, tuple[Any, Quality, int, int]]).decode


class SqlHistoryRepository(HistoryRepository, Series):
    """History in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def latest(self, scope: Scope, device_id: str) -> list[PropertyValue]:
        async with self._database.read() as connection:
            key = await _key(connection, scope, device_id)
            stored = sa.select(sa.cast(latest.c.points, sa.Text)).where(latest.c.device_key == key)
            text = (await connection.execute(stored)).scalar()
        points = {} if text is None else _decode_points(text)
        return [PropertyValue(name, *points[name]) for name in sorted(points)]

    @override
    async def points(
        self, scope: Scope, device_id: str, property_id: str, span: TimeRange, page: PageRequest
    ) -> Page[HistoryPoint]:
        order = _POINT_SORTS.order(page.sort)
        async with self._database.read() as connection:
            key = await _key(connection, scope, device_id)
            path = _path(property_id)
            if path is None:
                return Page([], 0, page.page, page.limit)
            query = sa.select(
                message.c.observed_at_ms,
                message.c.received_at_ms,
                message.c.values_json.op("->")(path).label("value"),
                _quality(path).label("quality"),
            ).where(*_of_device(key, span), _kind(path).is_not(None))
            return await page_of(connection, query, order, page, _point)

    @override
    async def series(
        self,
        scope: Scope,
        device_id: str,
        property_id: str,
        span: TimeRange,
        limit: int,
        after: SeriesPoint | None = None,
        *,
        newest_first: bool = False,
    ) -> list[SeriesPoint]:
        place = (message.c.observed_at_ms, message.c.seq)
        if after is not None:  # or each page would read the span from its beginning
            span = TimeRange(after.at_ms, span.to_ms)
        async with self._database.read() as connection:
            key = await _key(connection, scope, device_id)
            path = _path(property_id)
            if path is None:
                return []
            value = message.c.values_json.op("->")(path).label("value")
            query = sa.select(*place, value).where(
                *_of_device(key, span), _kind(path) != "null", _quality(path).in_(_TRUSTED)
            )
            if after is not None:
                query = query.where(sa.tuple_(*place) > sa.tuple_(after.at_ms, after.seq))
            order = [column.desc() if newest_first else column for column in place]
            rows = await connection.execute(query.order_by(*order).limit(limit))
            return [SeriesPoint(row.observed_at_ms, row.seq, _decode(row.value)) for row in rows]

    @override
    async def aggregate(
        self,
        scope: Scope,
        device_id: str,
        property_id: str,
        span: TimeRange,
        how: Aggregate,
        interval_ms: int,
        page: PageRequest,
    ) -> Page[Bucket]:
        if not 1 <= interval_ms <= BIGGEST:
            raise Rejected("interval: at least one millisecond")
        async with self._database.read() as connection:
            key = await _key(connection, scope, device_id)
            path = _path(property_id)
            if path is None:
                return Page([], 0, page.page, page.limit)
            return await _page_of_buckets(connection, _buckets(key, path, span, how, interval_ms), page)

    @override
    async def events(
        self, scope: Scope, device_id: str | None, after_seq: int, page: PageRequest, types: Sequence[str] = ()
    ) -> Page[Event]:
        query = sa.select(event).where(event.c.tenant_id == scope.tenant_id, event.c.seq > _bounded(after_seq))
        if device_id is not None:
            query = query.where(event.c.device_id == device_id)
        if types:
            query = query.where(sa.or_(*(_of_type(kind) for kind in types)))
        order = _EVENT_SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, Event))

    @override
    async def dead_letters(self, scope: Scope, page: PageRequest) -> Page[DeadLetter]:
        query = sa.select(dead_letter).where(dead_letter.c.tenant_id == scope.tenant_id)
        order = _LETTER_SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, DeadLetter))


async def _key(connection: AsyncConnection, scope: Scope, device_id: str) -> int:
    query = sa.select(device.c.key).where(device.c.tenant_id == scope.tenant_id, device.c.id == device_id)
    key: int | None = (await connection.execute(query)).scalar()
    if key is None:
        raise NotFound(f"no device {device_id}")
    return key


def _path(property_id: str) -> str | None:
    """JSON path of a property; None for a name that no stored property can have (so it cannot break the quotes)."""
    return f'$."{property_id}"' if _PROPERTY.fullmatch(property_id) else None


def _bounded(number: int) -> int:
    return max(-BIGGEST, min(BIGGEST, number))


def _of_type(kind: str) -> sa.ColumnElement[bool]:
    """`device.online` is itself, `device.` is every type that begins so."""
    return event.c.type.startswith(kind, autoescape=True) if kind.endswith(".") else event.c.type == kind


def _quality(path: str) -> sa.ColumnElement[str]:
    return sa.func.coalesce(sa.func.json_extract(message.c.quality_json, path), Quality.GOOD.value)


def _kind(path: str) -> sa.ColumnElement[str | None]:
    """JSON type of a property in a message, NULL where it has none."""
    return sa.func.json_type(message.c.values_json, path)


def _of_device(key: int, span: TimeRange) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [message.c.device_key == key]
    if span.from_ms is not None:
        conditions.append(message.c.observed_at_ms >= _bounded(span.from_ms))
    if span.to_ms is not None:
        conditions.append(message.c.observed_at_ms < _bounded(span.to_ms))
    return conditions


def _buckets(key: int, path: str, span: TimeRange, how: Aggregate, interval_ms: int) -> sa.Select[Any]:
    at = message.c.observed_at_ms
    # SQLite's remainder takes the sign of the dividend; a device may claim a time before 1970.
    start = (at - (at % interval_ms + interval_ms) % interval_ms).label("from_ms")
    conditions = _of_device(key, span)
    if how == "count":
        return (
            sa.select(start, sa.func.count().label("value"))
            .where(*conditions, _kind(path).is_not(None))
            .group_by(start)
        )
    conditions.append(_quality(path).in_(_TRUSTED))
    if how in {"first", "last"}:
        return _edge_points(start, path, [*conditions, _kind(path) != "null"], newest=how == "last")
    number = sa.func.json_extract(message.c.values_json, path)
    value = {
        "avg": sa.func.avg(number),
        "min": sa.func.min(number),
        "max": sa.func.max(number),
        # As floats: a sum of 64-bit integers must not end in an overflow.
        "sum": sa.func.total(number),
    }[how]
    return sa.select(start, value.label("value")).where(*conditions, _kind(path).in_(_NUMERIC)).group_by(start)


def _edge_points(
    start: sa.Label[int], path: str, conditions: list[sa.ColumnElement[bool]], *, newest: bool
) -> sa.Select[Any]:
    order = (message.c.observed_at_ms, message.c.seq)
    rank = sa.func.row_number().over(partition_by=start, order_by=[c.desc() if newest else c for c in order])
    text = message.c.values_json.op("->")(path).label("value")
    ranked = sa.select(start, text, rank.label("rank")).where(*conditions).subquery()
    return sa.select(ranked.c.from_ms, ranked.c.value.label("json")).where(ranked.c.rank == 1)


async def _page_of_buckets(connection: AsyncConnection, query: sa.Select[Any], page: PageRequest) -> Page[Bucket]:
    """One page in one pass: counting apart would group all the points twice."""
    if page.page < 1 or page.limit < 1:
        raise Rejected("page and limit count from 1")
    buckets = query.subquery()
    offset = min((page.page - 1) * page.limit, BIGGEST)
    with_total = sa.select(buckets, sa.func.count().over().label("total")).order_by(buckets.c.from_ms)
    rows = (await connection.execute(with_total.limit(min(page.limit, BIGGEST)).offset(offset))).mappings().all()
    if rows or not offset:
        return Page([_bucket(row) for row in rows], rows[0]["total"] if rows else 0, page.page, page.limit)
    total = (await connection.execute(sa.select(sa.func.count()).select_from(buckets))).scalar_one()
    return Page([], total, page.page, page.limit)


def _point(row: sa.RowMapping) -> HistoryPoint:
    return HistoryPoint(row["observed_at_ms"], row["received_at_ms"], _decode(row["value"]), Quality(row["quality"]))


def _bucket(row: sa.RowMapping) -> Bucket:
    value = _decode(row["json"]) if "json" in row else row["value"]
    # Sums of huge floats leave the numbers that JSON has.
    return Bucket(row["from_ms"], None if isinstance(value, float) and not math.isfinite(value) else value)
