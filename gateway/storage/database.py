"""The database file: opens it, hands out read and write transactions, and writes their audit entries.

Owns the connections of the repositories (the journal's thread has its own) and the turn by which both write. Knows
SQLite's settings and errors; knows no row but `tenant` and `audit`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.core.clock import Clock
from gateway.core.errors import NotReady
from gateway.core.flow import Event
from gateway.core.scope import Scope
from gateway.storage import tables
from gateway.storage.chain import LAST_ENTRY, next_entry
from gateway.storage.config import DatabaseConfig
from gateway.storage.faults import translated
from gateway.storage.schema import migrate
from gateway.storage.turn import WriteTurn
from gateway.storage.unbroken import unbroken


def settings(config: DatabaseConfig) -> tuple[str, ...]:
    """The pragmas of every connection. FULL: a commit that was reported survives a power cut."""
    return (
        f"PRAGMA busy_timeout={round(config.busy_timeout_s * 1000)}",
        "PRAGMA synchronous=FULL",
        "PRAGMA foreign_keys=ON",
        f"PRAGMA cache_size=-{config.cache_bytes // 1024}",
        f"PRAGMA wal_autocheckpoint={config.checkpoint_pages}",
        f"PRAGMA journal_size_limit={config.log_bytes}",
    )


class Transaction:
    """A write in progress: all of it is kept when its block ends, nothing when the block raises."""

    def __init__(self, scope: Scope, now_ms: int) -> None:
        """Made by `Database.write`."""
        self.scope = scope
        self.now_ms = now_ms
        self._connection: AsyncConnection | None = None

    async def begin(self, engine: AsyncEngine) -> None:
        """Connect and take the write lock."""
        self._connection = await engine.connect()
        _ = await self._connection.begin()

    async def end(self, *, keep: bool) -> None:
        """Commit or roll back, and disconnect."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await (connection.commit() if keep else connection.rollback())
        finally:
            await connection.close()

    async def execute(self, statement: sa.Executable, rows: list[dict[str, Any]] | None = None) -> sa.CursorResult[Any]:
        """Run one statement."""
        if self._connection is None:
            raise NotReady("the transaction has ended")
        return await unbroken(self._connection.execute(statement, rows))

    async def row(self, statement: sa.Executable) -> dict[str, Any] | None:
        """First row of a query, by column name."""
        found = (await self.execute(statement)).mappings().first()
        return None if found is None else dict(found)

    async def audit(
        self,
        action: str,
        entity: str,
        entity_id: str,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        """Append to the audit log; the caller leaves secrets and their hashes out of `before` and `after`."""
        last = await self.row(LAST_ENTRY)
        what = (action, entity, entity_id, before, after)
        await self.execute(sa.insert(tables.audit).values(next_entry(last, self.scope, self.now_ms, *what)))

    async def publish(self, events: list[Event]) -> list[Event]:
        """Store events in the outbox and set their `seq`."""
        if events:
            # The write lock is held, so nobody else takes these numbers.
            last = (await self.execute(_LAST_EVENT)).scalar_one()
            for seq, event in enumerate(events, last + 1):
                event.seq = seq
            await self.execute(sa.insert(tables.event), [msgspec.structs.asdict(event) for event in events])
        return events


_LAST_EVENT = sa.text("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'")


class Database:
    """One SQLite file. `open` before use, `close` after."""

    def __init__(self, path: Path, clock: Clock, config: DatabaseConfig | None = None) -> None:
        """Touch nothing yet."""
        self.path = path
        self.clock = clock
        self.config = config or DatabaseConfig()
        self.turn = WriteTurn()
        self._engine: AsyncEngine | None = None
        self._reading = asyncio.Semaphore(self.config.readers)

    async def open(self) -> None:
        """Bring the schema up to date and connect. Raises ConfigError, NotReady."""
        await asyncio.to_thread(migrate, self.path, self.config.busy_timeout_s)
        engine = create_async_engine(
            sa.URL.create("sqlite+aiosqlite", database=str(self.path)),
            # One more than the readers, so that a write never waits for slow queries.
            pool_size=self.config.readers + 1,
            max_overflow=0,
            pool_timeout=self.config.busy_timeout_s,
            connect_args={"isolation_level": None},
            hide_parameters=True,  # an error's text goes to the log, and parameters may be hashes of secrets
        )
        sa.event.listen(engine.sync_engine, "connect", self._configure)
        sa.event.listen(engine.sync_engine, "begin", _begin)
        self._engine = engine

    async def close(self) -> None:
        """Disconnect; twice is the same as once."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot: what the block reads fits together. Raises NotReady, StorageFailed."""
        engine = self._connected()
        async with self._reading:
            with translated():
                async with engine.begin() as connection:
                    yield connection

    @asynccontextmanager
    async def write(self, scope: Scope) -> AsyncIterator[Transaction]:
        """A transaction that has the write lock from its beginning. Raises NotReady, StorageFailed."""
        engine = self._connected()
        async with self.turn.on_loop():
            with translated():
                transaction = Transaction(scope, self.clock.now_ms())
                try:
                    await unbroken(transaction.begin(engine.execution_options(immediate=True)))
                    yield transaction
                except BaseException:
                    await unbroken(transaction.end(keep=False))
                    raise
                await unbroken(transaction.end(keep=True))

    async def add_tenant(self, tenant_id: str, name: str = "") -> None:
        """Make a tenant unless it exists."""
        async with self.write(Scope(tenant_id, "system")) as transaction:
            await transaction.execute(
                sqlite.insert(tables.tenant)
                .values(id=tenant_id, name=name, created_at_ms=transaction.now_ms)
                .on_conflict_do_nothing()
            )

    def _connected(self) -> AsyncEngine:
        if self._engine is None:
            raise NotReady("the database is closed")
        return self._engine

    def _configure(self, connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in settings(self.config):
            cursor.execute(pragma)
        cursor.close()


def _begin(connection: sa.Connection) -> None:
    # A transaction that reads and then writes would fail at once when the journal wrote in between, so a write takes
    # the lock first; reads stay deferred and never block.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def is_unique_violation(failure: sa.exc.IntegrityError) -> bool:
    """Whether a row of that key exists already (rather than a missing parent)."""
    code = getattr(failure.orig, "sqlite_errorcode", 0)
    return code in {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}
