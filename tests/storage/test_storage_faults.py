"""Disks that fill up, fail or turn read-only; clocks that jump; power cuts."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import structlog
from fakes.commits import a_commit, a_message, outcome, outcomes
from fakes.rooms import SCOPE
from fakes.traffic import FakeClock

from gateway.core.errors import ConfigError, StorageFailed
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.newest import Newest
from gateway.storage.schema import migrate
from gateway.storage.writer import JournalWriter
from gateway.things.ports import PageRequest, TimeRange

pytestmark = pytest.mark.usefixtures("stored_device")

BULK = [a_message(at, v="x" * 1000) for at in range(2000)]


@contextmanager
def files_limited_to(most_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond the limit, as on a file system without space."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


async def stored(database: Database) -> int:
    page = await SqlHistoryRepository(database).points(SCOPE, "d1", "v", TimeRange(), PageRequest(1, 1))
    return page.total


async def test_a_full_disk_fails_the_whole_group_and_the_journal_recovers(
    database: Database, journal: JournalWriter
) -> None:
    assert await outcome(journal, a_commit(a_message(v=1))) is None
    assert journal._connection is not None
    journal._connection.execute("PRAGMA max_page_count = 1")
    told = await outcomes(journal, [a_commit(*BULK), a_commit(a_message(v=2))])
    assert [isinstance(failure, StorageFailed) for failure in told] == [True, True]
    assert "disk is full" in str(told[0])
    assert journal.health().state == "failing"
    assert "disk is full" in journal.health().detail
    assert (await stored(database), journal.totals(), journal.waiting) == (1, {"stored": 1}, 0)
    # Space returned.
    later = a_commit(a_message(v=3))
    assert await outcome(journal, later) is None
    assert later.messages[0].seq == 2
    assert journal.health().state == "running"
    assert await stored(database) == 2


async def test_a_disk_that_stops_writing_fails_the_commit_and_the_journal_recovers(
    database: Database, journal: JournalWriter
) -> None:
    assert await outcome(journal, a_commit(a_message(v=1))) is None
    bulk = a_commit(*BULK)
    with files_limited_to(1024 * 1024):
        failure = await outcome(journal, bulk)
    assert isinstance(failure, StorageFailed)
    assert journal.health().state == "failing"
    assert {message.seq for message in bulk.messages} == {0}
    assert await outcome(journal, bulk) is None
    assert (await stored(database), journal.health().state) == (2001, "running")


async def test_a_file_that_another_process_holds_fails_the_commit_and_the_journal_recovers(
    journal: JournalWriter, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        failure = await outcome(journal, a_commit(a_message(v=1)))
        holder.execute("ROLLBACK")
    assert "locked by another process" in str(failure)
    assert await outcome(journal, a_commit(a_message(v=1))) is None


class Stumbling(FakeClock):
    """A clock that fails as nothing foresees, as often as it is told."""

    falls = 0

    def monotonic_s(self) -> float:
        if self.falls:
            self.falls -= 1
            raise LookupError("no time")
        return super().monotonic_s()


async def test_a_fault_that_no_one_foresaw_fails_its_group_and_the_journal_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.clock = clock = Stumbling()
    journal = JournalWriter(database)
    await journal.start()
    assert await outcome(journal, a_commit(a_message(v=1))) is None
    commits = [a_commit(a_message(v=2)), a_commit(a_message(v=3), a_message(v=4))]
    with structlog.testing.capture_logs() as lines:
        # In the middle of taking a group from the queue ...
        clock.falls = 1
        assert "LookupError: no time" in str(await outcome(journal, commits[0]))
        assert (journal.health().state, journal.waiting) == ("failing", 0)
        assert "LookupError: no time" in journal.health().detail
        # ... and after its rows are written, before they are durable.
        with monkeypatch.context() as patch:
            patch.setattr(Newest, "merge", lambda *_: {}["nothing"])
            told = await outcomes(journal, commits)
    assert [isinstance(failure, StorageFailed) for failure in told] == [True, True]
    faults = [line for line in lines if line["event"] == "the journal met a fault of its own"]
    assert {type(line["exc_info"]) for line in faults} == {LookupError, KeyError}
    assert journal.health().state == "failing"
    assert await stored(database) == 1
    assert await outcomes(journal, commits) == [None, None]
    assert [message.seq for commit in commits for message in commit.messages] == [2, 3, 4]
    assert (journal.health().state, journal.totals(), journal.waiting) == ("running", {"stored": 4}, 0)
    await journal.close()


async def test_a_journal_that_turns_read_only_says_so(journal: JournalWriter) -> None:
    assert await outcome(journal, a_commit(a_message(v=1))) is None
    assert journal._connection is not None
    journal._connection.execute("PRAGMA query_only = 1")
    assert "read-only" in str(await outcome(journal, a_commit(a_message(v=2))))


def let_everybody_read(path: Path) -> None:
    path.chmod(0o644)
    for folder in path.parents[:4]:
        folder.chmod(folder.stat().st_mode | 0o055)


def damage(path: Path) -> None:
    """Overwrite the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xa5" * 100_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else and back")
async def test_a_file_of_another_owner_is_a_configuration_error(database: Database, path: Path) -> None:
    await database.close()
    let_everybody_read(path)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match=r"cannot (write|open) the database"):
            migrate(path, 1)
    finally:
        os.seteuid(0)


async def test_a_page_damaged_later_fails_the_reading_clearly(database: Database, path: Path, clock: FakeClock) -> None:
    journal = JournalWriter(database)
    await journal.start()
    assert await outcome(journal, a_commit(*BULK)) is None
    await journal.close()
    await database.close()
    damage(path)
    await database.open()
    with pytest.raises(StorageFailed, match="damaged"):
        await stored(database)


async def test_a_clock_that_jumps_back_costs_no_message_and_no_order(
    database: Database, journal: JournalWriter, clock: FakeClock
) -> None:
    for jump in (0, -86_400_000, 86_400_000 * 365):
        clock.ms += jump
        clock.s += jump / 1000  # even a monotonic clock that is not
        assert await outcome(journal, a_commit(*(a_message(clock.ms, v=n) for n in range(40)))) is None
    assert await stored(database) == 120


WRITER = """
import asyncio, sys
from pathlib import Path
from fakes.commits import a_commit, a_message
from gateway.core.clock import SystemClock
from gateway.storage.database import Database
from gateway.storage.writer import JournalWriter

async def main():
    database = Database(Path(sys.argv[1]), SystemClock())
    await database.open()
    journal = JournalWriter(database)
    await journal.start()
    number = 0
    def told(last):
        def done(failure):
            assert failure is None, failure
            print(last, flush=True)
        return done
    while True:
        for _ in range(3):
            messages = [a_message(number + i, v=number + i) for i in range(7)]
            number += 7
            journal.submit(a_commit(*messages), told(number))
        await asyncio.sleep(0.0005)

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(4))
def test_what_was_reported_durable_survives_kill_9(path: Path, seed: int) -> None:
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert writer.stdout is not None
    reported = [int(writer.stdout.readline())]
    more = random.Random(seed).randrange(5, 150)  # a moment, not a secret
    reported += [int(writer.stdout.readline()) for _ in range(more)]
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read()
    reported += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    writer.wait()
    writer.stdout.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        values = [value for (value,) in connection.execute("SELECT values_json ->> '$.v' FROM message ORDER BY seq")]
        ledger = dict(connection.execute("SELECT name, count FROM ledger"))
        (latest,) = connection.execute("SELECT points ->> '$.v[0]' FROM latest").fetchone()
    assert values == list(range(len(values)))
    assert len(values) >= reported[-1]
    assert len(values) % 7 == 0
    assert ledger == {"stored": len(values), "messages": len(values)}
    assert latest == len(values) - 1
    assert asyncio.run(after_restart(path)) == len(values) + 1


async def after_restart(path: Path) -> int:
    """The number of the first message that the next run stores."""
    database = Database(path, FakeClock())
    await database.open()
    journal = JournalWriter(database)
    await journal.start()
    commit = a_commit(a_message(v=-1))
    assert await outcome(journal, commit) is None
    await journal.close()
    await database.close()
    return commit.messages[0].seq
