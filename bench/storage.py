"""Storage: what a durable message costs, why it is laid out as it is, and how fast history answers.

Messages of 5 values from 100 devices, synchronous=FULL. CPU is the whole process's; its spread between runs is about
a quarter, so read the ratios.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from gateway.core.clock import SystemClock
from gateway.core.errors import StorageFailed
from gateway.core.flow import Commit, Message, NewDevice
from gateway.core.scope import system_scope
from gateway.storage import batch
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.newest import Newest
from gateway.storage.products import SqlProductRepository
from gateway.storage.writer import JournalWriter
from gateway.things.model import Product
from gateway.things.ports import PageRequest, TimeRange

Row = tuple[str, str, str]

DEVICES = 100
START_MS = 1_700_000_000_000
_encode = msgspec.json.Encoder().encode


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _layouts(Path(folder))
        yield from _beside_a_busy_loop(Path(folder))
        for size, messages in ((1, 6_000), (16, 32_000), (1600, 96_000)):
            yield uvloop.run(_journal(Path(folder) / f"journal{size}.db", size, messages))
        yield from uvloop.run(_queries(Path(folder) / "history.db", 1_000_000))


def _messages(first: int, count: int) -> list[Message]:
    rand = random.Random(first)
    return [
        Message(
            "default",
            "p",
            f"d{number % DEVICES}",
            number % DEVICES + 1,
            START_MS + number * 10,
            START_MS + number * 10 + 5,
            {
                "latitude": round(rand.uniform(-90, 90), 6),
                "longitude": round(rand.uniform(-180, 180), 6),
                "speed_km_h": round(rand.uniform(0, 120), 1),
                "altitude_m": rand.randrange(4000),
                "direction": rand.randrange(360),
            },
        )
        for number in range(first, first + count)
    ]


# Layouts: the same messages into an empty file by one thread, 1600 in a transaction.

Insert = Callable[[sqlite3.Connection, list[Message], int], None]

_LAYOUTS: dict[str, tuple[str, str, Insert]] = {}


def _layout(name: str, note: str, schema: str) -> Callable[[Insert], Insert]:
    def keep(function: Insert) -> Insert:
        _LAYOUTS[name] = (note, schema, function)
        return function

    return keep


_MESSAGE = (
    "CREATE TABLE message (seq INTEGER PRIMARY KEY, device_key INTEGER NOT NULL REFERENCES device (key),"
    " observed_at_ms INTEGER NOT NULL, received_at_ms INTEGER NOT NULL, values_json TEXT NOT NULL, quality_json TEXT);"
    "CREATE INDEX ix ON message (device_key, observed_at_ms);"
)


@_layout("row per message, many rows a statement", "as shipped", _MESSAGE)
def _shipped(connection: sqlite3.Connection, messages: list[Message], seq: int) -> None:
    batch._put_messages(connection, messages, seq)


@_layout("row per message, executemany", "", _MESSAGE)
def _executemany(connection: sqlite3.Connection, messages: list[Message], seq: int) -> None:
    connection.executemany(
        "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)",
        [
            (number, m.device_key, m.observed_at_ms, m.received_at_ms, _encode(m.values).decode(), None)
            for number, m in enumerate(messages, seq)
        ],
    )


@_layout(
    "row per message, clustered by device and time",
    "WITHOUT ROWID",
    "CREATE TABLE message (device_key INTEGER, observed_at_ms INTEGER, seq INTEGER, received_at_ms INTEGER,"
    " values_json TEXT, quality_json TEXT, PRIMARY KEY (device_key, observed_at_ms, seq)) WITHOUT ROWID;",
)
def _clustered(connection: sqlite3.Connection, messages: list[Message], seq: int) -> None:
    connection.executemany(
        "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)",
        [
            (m.device_key, m.observed_at_ms, number, m.received_at_ms, _encode(m.values).decode(), None)
            for number, m in enumerate(messages, seq)
        ],
    )


def _points(messages: list[Message], seq: int) -> Iterator[tuple[Any, ...]]:
    for number, m in enumerate(messages, seq):
        for at, value in enumerate(m.values.values()):
            yield m.device_key * 16 + at, m.observed_at_ms, number, m.received_at_ms, value, None


@_layout(
    "row per value (series, time, seq)",
    "WITHOUT ROWID",
    "CREATE TABLE point (series INTEGER, observed_at_ms INTEGER, seq INTEGER, received_at_ms INTEGER, value,"
    " quality INTEGER, PRIMARY KEY (series, observed_at_ms, seq)) WITHOUT ROWID;",
)
def _narrow(connection: sqlite3.Connection, messages: list[Message], seq: int) -> None:
    connection.executemany("INSERT INTO point VALUES (?, ?, ?, ?, ?, ?)", _points(messages, seq))


@_layout(
    "row per batch, one JSON array",
    "lower bound: no history query can use it",
    "CREATE TABLE batch (seq INTEGER PRIMARY KEY, messages TEXT NOT NULL);",
)
def _blob(connection: sqlite3.Connection, messages: list[Message], seq: int) -> None:
    connection.execute("INSERT INTO batch VALUES (?, ?)", (seq, _encode(messages).decode()))


def _fresh(path: Path, schema: str) -> sqlite3.Connection:
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-32768;"
        "PRAGMA wal_autocheckpoint=4000; CREATE TABLE device (key INTEGER PRIMARY KEY);" + schema
    )
    connection.executemany("INSERT INTO device VALUES (?)", [(key,) for key in range(1, DEVICES + 1)])
    return connection


def _fill(connection: sqlite3.Connection, into: Insert, batches: list[list[Message]]) -> tuple[float, float]:
    """CPU of this thread and elapsed seconds."""
    began, cpu = time.perf_counter(), time.thread_time()
    seq = 1
    for some in batches:
        connection.execute("BEGIN IMMEDIATE")
        into(connection, some, seq)
        connection.execute("COMMIT")
        seq += len(some)
    return time.thread_time() - cpu, time.perf_counter() - began


def _layouts(folder: Path) -> Iterator[Row]:
    batches = [_messages(number * 1600, 1600) for number in range(40)]
    count = sum(len(some) for some in batches)
    for name, (note, schema, into) in _LAYOUTS.items():
        path = folder / "layout.db"
        with closing(_fresh(path, schema)) as connection:
            cpu, _ = _fill(connection, into, batches)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = path.stat().st_size / count
        yield f"layout: {name}", f"{cpu / count * 1e6:.1f} us, {size:.0f} B a message", note


def _beside_a_busy_loop(folder: Path) -> Iterator[Row]:
    """The writer's thread beside one that never waits, as the loop under overload."""
    some = _messages(0, 1600)
    for name in ("row per message, executemany", "row per message, many rows a statement"):
        _, schema, into = _LAYOUTS[name]
        stop = threading.Event()
        busy = threading.Thread(target=_spin, args=(stop,))
        with closing(_fresh(folder / "busy.db", schema)) as connection:
            few = some[:400] if "executemany" in name else some
            busy.start()
            _, elapsed = _fill(connection, into, [few])
            stop.set()
            busy.join()
        yield f"beside a busy thread: {name}", f"{elapsed / len(few) * 1e6:.0f} us elapsed a message", ""


def _spin(stop: threading.Event) -> None:
    turns = 0
    while not stop.is_set():
        turns += sum(range(100))


# The journal, whole: queue, thread, JSON, latest values, ledger, sync, the news to the sender.


async def _journal(path: Path, size: int, count: int) -> Row:
    database, journal = await _open(path)
    commits = [_commit(_messages(first, size)) for first in range(0, count, size)]
    left, finished = len(commits), asyncio.Event()
    room = asyncio.Semaphore(max(1, 16_000 // size))

    def done(failure: StorageFailed | None) -> None:
        nonlocal left
        if failure is not None:
            raise failure
        left -= 1
        room.release()
        if not left:
            finished.set()

    began, cpu = time.perf_counter(), time.process_time()
    for commit in commits:
        await room.acquire()
        journal.submit(commit, done)
    await finished.wait()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    transactions = next(s.value for s in journal.samples() if s.name == "gateway_journal_transactions_total")
    alone = await _alone(journal, [_commit(_messages(count + n * size, size)) for n in range(40)])
    await journal.close()
    await database.close()
    return (
        f"journal, commits of {size} messages",
        f"{cpu / count * 1e6:.1f} us CPU a message",
        f"{count / elapsed:,.0f} messages/s in {transactions:.0f} transactions; one by one {1 / alone:,.0f} commits/s",
    )


async def _alone(journal: JournalWriter, commits: list[Commit]) -> float:
    """Seconds for a commit when the next one waits for it."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for commit in commits:
        told = loop.create_future()
        journal.submit(commit, told.set_result)
        await told
    return (time.perf_counter() - began) / len(commits)


def _commit(messages: list[Message]) -> Commit:
    return Commit(messages=messages, ledger={"stored": len(messages)})


async def _open(path: Path) -> tuple[Database, JournalWriter]:
    database = Database(path, SystemClock())
    await database.open()
    await SqlProductRepository(database).save_product(system_scope(), Product(tenant_id="default", id="p"))
    journal = JournalWriter(database)
    await journal.start()
    devices = [NewDevice(number + 1, "default", "p", f"d{number}", 0) for number in range(DEVICES)]
    await _alone(journal, [Commit(devices=devices)])
    return database, journal


# Queries.


async def _queries(path: Path, count: int) -> list[Row]:
    database, journal = await _open(path)
    await journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        newest = Newest(DEVICES, 100)
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        some = _messages(0, 20_000)
        for first in range(0, count, len(some)):
            for message in some:
                message.observed_at_ms += len(some) * 10
            batch.insert(connection, [Commit(messages=some)], first + 1, newest, 0)
        connection.execute("COMMIT")
    history, scope = SqlHistoryRepository(database), system_scope()
    device, span = ("d7", TimeRange())
    hour = TimeRange(START_MS + 3_600_000, START_MS + 7_200_000)
    results = [
        ("latest values", await _timed(lambda: history.latest(scope, device))),
        (
            "first 100 of 10,000 points, exact total",
            await _timed(lambda: history.points(scope, device, "speed_km_h", span, PageRequest(1, 100))),
        ),
        (
            "100 newest points of an hour",
            await _timed(
                lambda: history.points(scope, device, "speed_km_h", hour, PageRequest(1, 100, "-observed_at"))
            ),
        ),
        (
            "mean per minute of 10,000 points",
            await _timed(
                lambda: history.aggregate(scope, device, "speed_km_h", span, "avg", 60_000, PageRequest(1, 100))
            ),
        ),
    ]
    await database.close()
    return [(f"query: {name}", f"{ms:.1f} ms", f"{count:,} messages of {DEVICES} devices") for name, ms in results]


async def _timed(ask: Callable[[], Any]) -> float:
    """Milliseconds, the best of five."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        await ask()
        best = min(best, time.perf_counter() - began)
    return best * 1000
