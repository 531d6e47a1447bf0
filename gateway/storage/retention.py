"""Retention: deletes what is old enough, in slices so small that the journal hardly notices.

Owns what is deleted when. History goes by the time it was received (a device's own clock may say anything) and by its
product's `retention_days`; the newest values stay. Knows no journal.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog

from gateway.core.scope import system_scope
from gateway.storage.config import RetentionConfig
from gateway.storage.database import Database
from gateway.storage.tables import (
    alarm,
    command,
    dead_letter,
    device,
    event,
    message,
    notification,
    product,
    report,
    scene_run,
)

log = structlog.get_logger(__name__)

_DAY_MS = 86_400_000


class Policy(NamedTuple):
    """Products, by tenant and id, whose history is kept for the same number of days."""

    days: float
    products: frozenset[tuple[str, str]]


class Retention:
    """`run` sweeps for ever; `sweep` once."""

    def __init__(self, database: Database, config: RetentionConfig | None = None) -> None:
        """Use an open database."""
        self._database = database
        self._config = config or RetentionConfig()
        self._reached: dict[Policy, int] = {}
        self.deleted: dict[str, int] = {}

    async def run(self) -> None:
        """Sweep at every interval, for ever; a part for the supervisor."""
        while True:
            await asyncio.sleep(self._config.interval_s)
            gone = await self.sweep()
            if any(gone.values()):
                log.info("old rows deleted", **gone)

    async def sweep(self) -> dict[str, int]:
        """Delete everything that is too old now; returns how many rows of which table."""
        config, now_ms = self._config, self._database.clock.now_ms()
        gone = {"messages": await self._sweep_history(now_ms)}
        for name, days, table, at in (
            ("events", config.events_days, event, event.c.at_ms),
            ("dead_letters", config.dead_letters_days, dead_letter, dead_letter.c.at_ms),
            ("commands", config.commands_days, command, command.c.ended_at_ms),
            ("scene_runs", config.scene_runs_days, scene_run, scene_run.c.ended_at_ms),
            ("notifications", config.notifications_days, notification, notification.c.ended_at_ms),
            ("reports", config.reports_days, report, report.c.created_at_ms),
            ("alarms", config.cleared_alarms_days, alarm, alarm.c.cleared_at_ms),
        ):
            gone[name] = 0 if days is None else await self._sweep_table(table, at < _cutoff(now_ms, days))
        for name, rows in gone.items():
            self.deleted[name] = self.deleted.get(name, 0) + rows
        return gone

    async def _sweep_table(self, table: sa.Table, old: sa.ColumnElement[bool]) -> int:
        rowid = sa.literal_column("rowid", sa.Integer)
        some = sa.select(rowid).select_from(table).where(old).limit(self._config.slice_rows)
        total = 0
        while True:
            # Looked up on a reader's connection: a scan that finds nothing must not hold the journal up.
            async with self._database.read() as connection:
                found = list((await connection.execute(some)).scalars())
            if not found:
                return total
            async with self._database.write(system_scope("retention")) as transaction:
                deleted = await transaction.execute(sa.delete(table).where(rowid.in_(found), old))
            total += deleted.rowcount
            await asyncio.sleep(self._config.pause_s)

    async def _sweep_history(self, now_ms: int) -> int:
        policies = await self._policies()
        # A policy that gained a product starts again: it now reaches rows that it passed.
        self._reached = {policy: seq for policy, seq in self._reached.items() if policy in policies}
        total = 0
        for policy in policies:
            total += await self._sweep_policy(policy, now_ms)
        return total

    async def _policies(self) -> list[Policy]:
        query = sa.select(product.c.tenant_id, product.c.id, product.c.retention_days)
        by_days: dict[float, set[tuple[str, str]]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query.where(product.c.retention_days.is_not(None))):
                by_days.setdefault(row.retention_days, set()).add((row.tenant_id, row.id))
        return [Policy(days, frozenset(products)) for days, products in by_days.items()]

    async def _sweep_policy(self, policy: Policy, now_ms: int) -> int:
        """Walk the messages in the order they came, up to the first that is young, and remember the place."""
        cutoff = _cutoff(now_ms, policy.days)
        reached, total = self._reached.get(policy, 0), 0
        while True:
            async with self._database.read() as connection:
                slice_ = (await connection.execute(_slice(reached, self._config.slice_rows, cutoff, now_ms))).one()
            if slice_.last is None:
                break
            if slice_.old:
                async with self._database.write(system_scope("retention")) as transaction:
                    gone = await transaction.execute(_expired(reached, slice_.last, cutoff, policy.days))
                total += gone.rowcount
                await asyncio.sleep(self._config.pause_s)
            if slice_.young:
                break
            reached = slice_.last
        self._reached[policy] = reached
        return total


def _cutoff(now_ms: int, days: float) -> int:
    return round(now_ms - days * _DAY_MS)


def _slice(after_seq: int, rows: int, cutoff: int, now_ms: int) -> sa.Select[Any, int, int]:
    """The last of the next messages, how many of them are old, and how many are young.

    One that claims to come from the future is neither: the clock was wrong, and it must not bar the way.
    """
    next_ = (
        sa.select(message.c.seq, message.c.received_at_ms)
        .where(message.c.seq > after_seq)
        .order_by(message.c.seq)
        .limit(rows)
        .subquery()
    )
    received = next_.c.received_at_ms
    return sa.select(
        sa.func.max(next_.c.seq).label("last"),
        sa.func.count().filter(received < cutoff).label("old"),
        sa.func.count().filter(received.between(cutoff, now_ms)).label("young"),
    )


def _expired(after_seq: int, last_seq: int, cutoff: int, days: float) -> sa.Delete:
    held = sa.and_(product.c.tenant_id == device.c.tenant_id, product.c.id == device.c.product_id)
    # A subquery for each row: there may be many more devices than rows in a slice.
    mine = (
        sa.select(sa.literal(1))
        .select_from(device.join(product, held))
        .where(device.c.key == message.c.device_key, product.c.retention_days == days)
        .correlate(message)
        .exists()
    )
    return sa.delete(message).where(
        message.c.seq > after_seq, message.c.seq <= last_seq, message.c.received_at_ms < cutoff, mine
    )
