"""The journal's writer: one thread that makes commits durable, as many in one transaction as are waiting.

Owns the queue, the thread, its connection and the numbers of messages. At idle a commit waits for nothing; under load
transactions keep a small distance, because each costs a sync and a rewrite of every index page it touches. Knows
nothing of what a message means.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec
import structlog
from typing_extensions import override

from gateway.core.clock import rfc3339
from gateway.core.errors import ConfigError, NotReady, StorageFailed
from gateway.core.flow import Commit
from gateway.core.journal import Done, Journal
from gateway.core.metrics import Sample
from gateway.storage.batch import MESSAGES, insert, rows_of
from gateway.storage.config import JournalConfig
from gateway.storage.database import Database, settings
from gateway.storage.faults import restated, translated
from gateway.storage.newest import Newest

log = structlog.get_logger(__name__)

_UNSTORABLE = (
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
    msgspec.MsgspecError,
    sqlite3.Error,
)
"""What a single bad commit can raise: values that have no JSON or no 64-bit number, keys that clash or do not exist."""
_BACK_OFF_S = 0.2
"""Pause after a failure that no one foresaw, so that one that stays does not take a whole processor."""


class JournalHealth(msgspec.Struct, frozen=True):
    """What `/health` says of the journal. `failing`: the last transaction failed; `detail` says why and since when."""

    state: Literal["running", "failing", "stopped"]
    detail: str = ""


class Outcome(NamedTuple):
    """How a group of commits went, one by one; `broken` says what ails the disk, the file or, by `fault`, us."""

    failures: list[StorageFailed | None]
    gained: Counter[str]
    broken: str = ""
    fault: Exception | None = None


class JournalWriter(Journal):
    """`start` before use; `close` stores what waits and stops."""

    def __init__(self, database: Database, config: JournalConfig | None = None) -> None:
        """Own no thread yet; `database` is open before `start` and closed after `close`."""
        self._database = database
        self._clock = database.clock
        self._config = config or JournalConfig()
        self._queue: queue.SimpleQueue[tuple[Commit, Done] | None] = queue.SimpleQueue()
        self._open = False
        self._waiting_messages = 0
        self._waiting_rows = 0
        self._next_seq = 1
        self._newest = Newest(self._config.newest_devices, self._config.newest_properties)
        self._totals: Counter[str] = Counter()
        self._health = JournalHealth("stopped")
        self._last_rows = 0
        self._last_began_s = 0.0
        self._transactions = 0
        self._failed_commits = 0
        self._refused = 0
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._lock_file: int | None = None

    async def start(self) -> None:
        """Read where the last run ended and begin. Raises ConfigError when another gateway writes to this file."""
        self._loop = asyncio.get_running_loop()
        self._take_lock()
        resuming = self._loop.run_in_executor(None, self._resume)
        try:
            await asyncio.shield(resuming)
        except BaseException:
            # Whoever cancels the start does not stop the thread: closing its connection under it would crash.
            await asyncio.wait((resuming,))
            resuming.exception()
            self._disconnect()
            self._drop_lock()
            raise
        self._open = True
        self._health = JournalHealth("running")
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Refuse what comes, store what waits, stop. Twice is the same as once."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._open = False
        self._queue.put(None)
        await asyncio.to_thread(thread.join)
        self._health = JournalHealth("stopped")
        self._drop_lock()

    @override
    def submit(self, commit: Commit, done: Done) -> None:
        if not self._open:
            raise NotReady("the journal is closed")
        rows = rows_of(commit)
        # An empty queue takes a commit of any size, else one over the bound could never be stored.
        if self._waiting_rows and self._waiting_rows + rows > self._config.max_waiting_rows:
            self._refused += 1
            raise NotReady("the journal is full: the disk does not keep up")
        self._waiting_rows += rows
        self._waiting_messages += len(commit.messages)
        self._queue.put((commit, done))

    @property
    @override
    def waiting(self) -> int:
        return self._waiting_messages

    def totals(self) -> dict[str, int]:
        """The ledger over all runs: `stored`, and `shed:<reason>` for each reason."""
        return {name: count for name, count in self._totals.items() if name != MESSAGES}

    def health(self) -> JournalHealth:
        """State for `/health`."""
        return self._health

    def samples(self) -> Iterable[Sample]:
        """Figures for `/metrics`; the ledger's own are `totals`."""
        yield Sample("gateway_journal_waiting_messages", "Messages queued for the disk", "gauge", {}, self.waiting)
        yield Sample("gateway_journal_transactions_total", "Durable transactions", "counter", {}, self._transactions)
        yield Sample("gateway_journal_failed_commits_total", "Commits not kept", "counter", {}, self._failed_commits)
        yield Sample(
            "gateway_journal_refused_commits_total", "Commits refused, queue full", "counter", {}, self._refused
        )

    # On the thread from here on, but for `_report`.

    def _run(self) -> None:
        while self._turn():
            pass
        self._disconnect()

    def _turn(self) -> bool:
        """Take a group, store it and tell its senders; False at the end."""
        group: list[tuple[Commit, Done]] = []
        try:
            if not self._take(group):
                return False
            outcome = self._store([commit for commit, _ in group])
        except Exception as failure:  # noqa: BLE001 - a wall: without this thread nothing would be stored until a restart
            self._tell(group, self._fault([commit for commit, _ in group], failure))
            time.sleep(_BACK_OFF_S)
        else:
            self._tell(group, outcome)
        return True

    def _take(self, group: list[tuple[Commit, Done]]) -> bool:
        """Wait for a commit, then take all that wait into the group; False at the end."""
        first = self._queue.get()
        if first is None:
            return False
        group.append(first)
        self._keep_distance()
        rows = rows_of(first[0])
        while rows < self._config.max_transaction_rows and not self._queue.empty():
            following = self._queue.get_nowait()
            if following is None:
                self._queue.put(None)  # the last entry: `submit` refuses since before it was queued
                break
            group.append(following)
            rows += rows_of(following[0])
        self._last_rows, self._last_began_s = rows, self._clock.monotonic_s()
        return True

    def _keep_distance(self) -> None:
        if self._last_rows >= self._config.window_from_rows:
            window_s = self._config.window_ms / 1000
            left_s = self._last_began_s + window_s - self._clock.monotonic_s()
            if left_s > 0:
                time.sleep(min(left_s, window_s))

    def _store(self, commits: list[Commit]) -> Outcome:
        with self._database.turn.in_thread():
            try:
                gained = self._transaction(commits)
            except _UNSTORABLE as failure:
                disk = restated(failure) if isinstance(failure, sqlite3.Error) else None
                if disk is not None:
                    return self._disk_failed(commits, disk)
                if len(commits) == 1:
                    return Outcome([_unstorable(commits[0], failure)], Counter())
            else:
                return Outcome([None] * len(commits), gained)
            try:
                return self._one_by_one(commits)
            except sqlite3.Error as failure:
                return self._disk_failed(commits, restated(failure) or failure)

    def _transaction(self, commits: list[Commit]) -> Counter[str]:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            gained = self._insert(connection, commits, self._next_seq)
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise
        self._next_seq += gained[MESSAGES]
        return gained

    def _one_by_one(self, commits: list[Commit]) -> Outcome:
        """Store the good commits of a group that holds a bad one: a savepoint each, one sync for all."""
        connection = self._connected()
        failures: list[StorageFailed | None] = []
        gained: Counter[str] = Counter()
        connection.execute("BEGIN IMMEDIATE")
        try:
            for commit in commits:
                connection.execute("SAVEPOINT one")
                try:
                    gained += self._insert(connection, [commit], self._next_seq + gained[MESSAGES])
                    failures.append(None)
                except _UNSTORABLE as failure:
                    if isinstance(failure, sqlite3.Error) and restated(failure):
                        raise
                    connection.execute("ROLLBACK TO one")
                    self._newest.forget()
                    failures.append(_unstorable(commit, failure))
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise
        self._next_seq += gained[MESSAGES]
        return Outcome(failures, gained)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        self._newest.forget()
        # SQLite itself rolls back on some disk errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _insert(self, connection: sqlite3.Connection, commits: list[Commit], next_seq: int) -> Counter[str]:
        gained = insert(connection, commits, next_seq, self._newest, self._config.dead_letter_bytes)
        if any(commit.dead_letters for commit in commits):
            connection.execute(
                "DELETE FROM dead_letter WHERE seq <= (SELECT max(seq) FROM dead_letter) - ?",
                (self._config.dead_letters,),
            )
        return gained

    def _disk_failed(self, commits: list[Commit], failure: Exception) -> Outcome:
        # A handle that saw an I/O error may stay broken after the disk recovers.
        self._disconnect()
        for commit in commits:
            _forget_numbers(commit)
        return Outcome([StorageFailed(str(failure))] * len(commits), Counter(), str(failure))

    def _fault(self, commits: list[Commit], failure: Exception) -> Outcome:
        """What no one foresaw: as if the disk had failed, and nothing is believed that memory says of the file."""
        self._newest.forget()
        outcome = self._disk_failed(
            commits, RuntimeError(f"a fault in the journal: {type(failure).__name__}: {failure}")
        )
        return outcome._replace(fault=failure)

    def _tell(self, group: list[tuple[Commit, Done]], outcome: Outcome) -> None:
        try:
            self._loop.call_soon_threadsafe(self._report, group, outcome)
        except RuntimeError:
            log.warning("the loop closed before the journal; its last commits are on disk, unreported")

    def _report(self, group: list[tuple[Commit, Done]], outcome: Outcome) -> None:
        self._totals += outcome.gained
        for (commit, done), failure in zip(group, outcome.failures, strict=True):
            self._waiting_rows -= rows_of(commit)
            self._waiting_messages -= len(commit.messages)
            self._failed_commits += failure is not None
            # A callback of its own, so that one that raises does not keep the news from the others.
            self._loop.call_soon(done, failure)
        if not outcome.broken:
            self._transactions += 1
        self._note(outcome.broken)
        if outcome.fault is not None:
            log.error("the journal met a fault of its own", exc_info=outcome.fault)

    def _note(self, broken: str) -> None:
        failing = self._health.state == "failing"
        if broken and not failing:
            self._health = JournalHealth("failing", f"{broken} (since {rfc3339(self._clock.now_ms())})")
            log.error("the journal fails", detail=self._health.detail)
        elif failing and not broken:
            self._health = JournalHealth("running")
            log.warning("the journal recovered")

    # The connection.

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._database.path,
                timeout=self._database.config.busy_timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
            # Kept before it is set up, so that a failure on the way still closes it.
            self._connection = connection
            for pragma in settings(self._database.config):
                connection.execute(pragma)
            # Every kept message took one number, so their count remembers those that retention deleted.
            (newest,) = connection.execute("SELECT coalesce(max(seq), 0) FROM message").fetchone()
            kept = connection.execute("SELECT count FROM ledger WHERE name = ?", (MESSAGES,)).fetchone()
            self._next_seq = max(newest, kept[0] if kept else 0) + 1
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _resume(self) -> None:
        with translated():
            self._totals = Counter(dict(self._connected().execute("SELECT name, count FROM ledger")))

    def _take_lock(self) -> None:
        path = self._database.path.with_name(self._database.path.name + ".writer")
        self._lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._drop_lock()
            raise ConfigError(
                f"another gateway already runs on {self._database.path}: stop it, or set another [server] data_dir"
            ) from None

    def _drop_lock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def _unstorable(commit: Commit, failure: BaseException) -> StorageFailed:
    _forget_numbers(commit)
    return StorageFailed(f"the commit cannot be stored: {failure}")


def _forget_numbers(commit: Commit) -> None:
    for message in commit.messages:
        message.seq = 0
    for event in commit.events:
        event.seq = 0
