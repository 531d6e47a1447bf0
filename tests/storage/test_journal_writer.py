"""The journal: the contract on the database and in memory, and what the database's writer promises beyond it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.commits import a_commit, a_message, outcome, outcomes
from fakes.memory import MemoryJournal
from fakes.rooms import SCOPE
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import ConfigError, NotReady, StorageFailed
from gateway.core.flow import Commit, CredentialHash, DeadLetter, Event, NewDevice, Quality, Seen
from gateway.core.journal import Journal
from gateway.storage.batch import insert
from gateway.storage.config import JournalConfig
from gateway.storage.database import Database
from gateway.storage.devices import SqlDeviceRepository
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.newest import Newest
from gateway.storage.writer import JournalWriter
from gateway.things.model import Device
from gateway.things.ports import PageRequest, TimeRange

BAD = object()
"""A value that no JSON can hold."""


@pytest.fixture(params=["memory", "sqlite"])
def any_journal(request: pytest.FixtureRequest) -> Journal:
    if request.param == "memory":
        return MemoryJournal(refuses=lambda commit: any(BAD in m.values.values() for m in commit.messages))
    request.getfixturevalue("stored_device")
    journal: Journal = request.getfixturevalue("journal")
    return journal


def rows(path: Path, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, parameters).fetchall()


async def test_a_commit_is_numbered_before_its_sender_is_told(any_journal: Journal) -> None:
    commit = a_commit(a_message(v=1), a_message(v=2), events=[Event("default", "device.online", 1, "d1")])
    assert await outcome(any_journal, commit) is None
    assert [message.seq for message in commit.messages] == [1, 2]
    assert commit.events[0].seq == 1
    assert any_journal.waiting == 0


async def test_a_start_that_is_cancelled_waits_for_its_thread_and_frees_the_file(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = JournalWriter(database, JournalConfig())
    reached, go_on = threading.Event(), threading.Event()
    answers: list[tuple[int]] = []

    def resume_slowly() -> None:
        connection = journal._connected()
        reached.set()
        go_on.wait(10)
        answers.append(connection.execute("SELECT 1").fetchone())

    monkeypatch.setattr(journal, "_resume", resume_slowly)
    starting = asyncio.get_running_loop().create_task(journal.start())
    await asyncio.to_thread(reached.wait, 10)
    starting.cancel()
    done, _ = await asyncio.wait((starting,), timeout=0.05)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not done
    assert answers == [(1,)], "nobody closed the connection under the thread"
    after = JournalWriter(database, JournalConfig())
    await after.start()
    await after.close()


async def test_what_waits_is_counted_in_messages(any_journal: Journal) -> None:
    told = asyncio.get_running_loop().create_future()
    any_journal.submit(a_commit(a_message(v=1), a_message(v=2)), told.set_result)
    assert any_journal.waiting == 2
    await told
    assert any_journal.waiting == 0


async def test_commits_are_durable_in_the_order_they_came(any_journal: Journal) -> None:
    commits = [a_commit(a_message(v=number), a_message(v=-number)) for number in range(50)]
    assert await outcomes(any_journal, commits) == [None] * 50
    assert [m.seq for commit in commits for m in commit.messages] == list(range(1, 101))


async def test_only_the_guilty_commit_of_a_group_fails(any_journal: Journal) -> None:
    commits = [a_commit(a_message(v=number)) for number in range(9)]
    commits[4].messages.append(a_message(v=BAD))
    told = await outcomes(any_journal, commits)
    assert [failure is None for failure in told] == [number != 4 for number in range(9)]
    assert isinstance(told[4], StorageFailed)
    kept = [m.seq for number, commit in enumerate(commits) for m in commit.messages if number != 4]
    assert kept == list(range(1, 9))
    assert any_journal.waiting == 0


# From here on the database's writer.


async def test_everything_of_a_commit_is_in_the_file(
    database: Database, journal: JournalWriter, stored_device: Device, path: Path
) -> None:
    commit = Commit(
        devices=[NewDevice(2, "default", "p", "new", 77)],
        credentials=[CredentialHash(2, "digest", "issued")],
        messages=[a_message(3, 2, {"b": Quality.BAD_TYPE}, a=1.5, b="x"), a_message(4, 1, a=[1, {"k": None}])],
        seen={2: Seen(2, online=True, at_ms=99)},
        events=[Event("default", "device.event", 5, "new", {"name": "n"})],
        dead_letters=[DeadLetter("default", "p", "plug", "checksum", b"\x00\xff", 6, None)],
        ledger={"stored": 3, "shed:checksum": 1},
    )
    assert await outcome(journal, commit) is None
    device = next(d for d in await SqlDeviceRepository(database).all_devices() if d.id == "new")
    assert (device.key, device.credential_digest, device.credential_source) == (2, "digest", "issued")
    assert (device.online, device.last_seen_ms, device.created_at_ms, device.enabled) == (True, 99, 77, True)
    history = SqlHistoryRepository(database)
    (bad,) = (await history.points(SCOPE, "new", "b", TimeRange(), PageRequest())).items
    assert (bad.value, bad.quality, bad.observed_at_ms, bad.received_at_ms) == ("x", "bad_type", 3, 8)
    (nested,) = (await history.points(SCOPE, "d1", "a", TimeRange(), PageRequest())).items
    assert (nested.value, nested.quality) == ([1, {"k": None}], "good")
    newest = {value.property: (value.value, value.quality) for value in await history.latest(SCOPE, "new")}
    assert newest == {"a": (1.5, "good"), "b": ("x", "bad_type")}
    (event,) = (await history.events(SCOPE, None, 0, PageRequest())).items
    assert event == commit.events[0]
    (letter,) = (await history.dead_letters(SCOPE, PageRequest())).items
    assert letter == commit.dead_letters[0]
    assert journal.totals() == {"stored": 3, "shed:checksum": 1}


async def test_of_the_newest_values_and_sessions_of_one_group_the_last_wins(
    database: Database, journal: JournalWriter, stored_device: Device
) -> None:
    commits = [
        a_commit(a_message(v=number), seen={1: Seen(1, online=number % 2 == 0, at_ms=number)}) for number in range(4)
    ]
    assert await outcomes(journal, commits) == [None] * 4
    assert [value.value for value in await SqlHistoryRepository(database).latest(SCOPE, "d1")] == [3]
    (device,) = await SqlDeviceRepository(database).all_devices()
    assert (device.online, device.last_seen_ms) == (False, 3)


@pytest.mark.parametrize(
    "guilty",
    [
        pytest.param(a_commit(a_message(v=BAD)), id="a value without JSON"),
        pytest.param(a_commit(a_message(v="\ud800")), id="half a character"),
        pytest.param(a_commit(a_message(2**63, v=1)), id="a time beyond 64 bits"),
        pytest.param(a_commit(a_message(device_key=99, v=1)), id="a device that does not exist"),
        pytest.param(a_commit(devices=[NewDevice(1, "default", "p", "x", 1)]), id="a key that is taken"),
        pytest.param(a_commit(devices=[NewDevice(9, "default", "p", "d1", 1)]), id="an id that is taken"),
        pytest.param(a_commit(devices=[NewDevice(9, "default", "nothing", "x", 1)]), id="an unknown product"),
        pytest.param(a_commit(events=[Event("nobody", "t", 1)]), id="an unknown tenant"),
        pytest.param(a_commit(events=[Event("default", "t", 1, data={"v": BAD})]), id="an event without JSON"),
        pytest.param(a_commit(a_message(**{"\ud800": 1})), id="half a character in a name"),
    ],
)
async def test_no_commit_kills_the_writer_or_its_neighbours(
    journal: JournalWriter, stored_device: Device, guilty: Commit, path: Path
) -> None:
    group = [a_commit(a_message(v=1)), guilty, a_commit(a_message(v=2), ledger={"stored": 1})]
    told = await outcomes(journal, group)
    assert [failure is None for failure in told] == [True, False, True]
    assert "cannot be stored" in str(told[1])
    alone = await outcome(journal, guilty)
    assert isinstance(alone, StorageFailed)
    assert all(item.seq == 0 for item in (*guilty.messages, *guilty.events))
    assert await outcome(journal, a_commit(a_message(v=3))) is None
    assert journal.totals() == {"stored": 3}
    assert rows(path, "SELECT seq FROM message") == [(1,), (2,), (3,)]
    assert journal.health().state == "running"


async def test_floats_that_json_lacks_are_stored_as_null(
    database: Database, journal: JournalWriter, stored_device: Device
) -> None:
    commit = a_commit(a_message(a=float("nan"), b=float("inf"), c=1.5))
    assert await outcome(journal, commit) is None
    history = SqlHistoryRepository(database)
    assert {v.property: v.value for v in await history.latest(SCOPE, "d1")} == {"a": None, "b": None, "c": 1.5}


async def test_a_device_that_came_through_the_api_meanwhile_fails_its_double_alone(
    database: Database, journal: JournalWriter, stored_device: Device
) -> None:
    await SqlDeviceRepository(database).add_device(SCOPE, Device(key=2, tenant_id="default", id="same", product_id="p"))
    double = a_commit(a_message(device_key=3, v=1), devices=[NewDevice(3, "default", "p", "same", 1)])
    told = await outcomes(journal, [double, a_commit(a_message(v=1))])
    assert [failure is None for failure in told] == [False, True]


async def test_a_key_that_the_journal_gave_is_not_given_again_after_a_deletion(
    database: Database, journal: JournalWriter, stored_device: Device
) -> None:
    devices = SqlDeviceRepository(database)
    commit = a_commit(devices=[NewDevice(8, "default", "p", "x", 1), NewDevice(5, "default", "p", "y", 1)])
    assert await outcome(journal, commit) is None
    for device_id in ("x", "y"):
        await devices.delete_device(SCOPE, device_id)
    assert await devices.next_key() == 9


async def test_a_credential_that_a_person_set_outlasts_one_that_was_on_its_way(
    database: Database, journal: JournalWriter, stored_device: Device
) -> None:
    devices = SqlDeviceRepository(database)
    adopted = [a_commit(credentials=[CredentialHash(1, digest, "adopted")]) for digest in ("first", "second")]
    assert await outcomes(journal, adopted) == [None, None]
    (device,) = await devices.all_devices()
    assert (device.credential_digest, device.credential_source) == ("second", "adopted")
    by_hand = msgspec.structs.replace(device, credential_digest="set", credential_source="operator")
    await devices.save_device(SCOPE, by_hand)
    assert await outcome(journal, a_commit(credentials=[CredentialHash(1, "late", "issued")])) is None
    assert await devices.all_devices() == [by_hand]
    # Reset by a person, the device may choose again.
    await devices.save_device(SCOPE, msgspec.structs.replace(by_hand, credential_digest=None, credential_source=None))
    assert await outcome(journal, a_commit(credentials=[CredentialHash(1, "new", "issued")])) is None
    (device,) = await devices.all_devices()
    assert (device.credential_digest, device.credential_source) == ("new", "issued")


async def test_a_message_of_a_deleted_device_is_refused_rather_than_kept_for_nobody(
    database: Database, journal: JournalWriter, stored_device: Device, path: Path
) -> None:
    await SqlDeviceRepository(database).delete_device(SCOPE, "d1")
    assert await outcome(journal, a_commit(a_message(v=1))) is not None
    assert rows(path, "SELECT count(*) FROM message") == [(0,)]


@pytest.fixture
async def small(database: Database, stored_device: Device) -> AsyncIterator[JournalWriter]:
    journal = JournalWriter(database, JournalConfig(max_waiting_rows=4, dead_letters=3, dead_letter_bytes=2))
    await journal.start()
    yield journal
    await journal.close()


async def test_a_full_queue_refuses_and_takes_again_when_the_disk_caught_up(
    database: Database, small: JournalWriter
) -> None:
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    async with database.turn.on_loop():  # the disk takes its time
        small.submit(a_commit(a_message(v=1), a_message(v=2)), first.set_result)
        small.submit(a_commit(a_message(v=3), a_message(v=4)), second.set_result)
        with pytest.raises(NotReady, match="full"):
            small.submit(a_commit(a_message(v=5)), lambda _: None)
        assert small.waiting == 4
    assert await asyncio.gather(first, second) == [None, None]
    assert await outcome(small, a_commit(a_message(v=6))) is None
    refused = {sample.name: sample.value for sample in small.samples()}
    assert refused["gateway_journal_refused_commits_total"] == 1


async def test_a_commit_larger_than_the_bound_is_taken_when_nothing_waits(small: JournalWriter) -> None:
    assert await outcome(small, a_commit(*(a_message(v=number) for number in range(9)))) is None


async def test_dead_letters_are_bounded_in_number_and_size(database: Database, small: JournalWriter) -> None:
    for number in range(7):
        letter = DeadLetter("default", "p", "plug", "checksum", bytes([number]) * 5, number)
        assert await outcome(small, Commit(dead_letters=[letter])) is None
    page = await SqlHistoryRepository(database).dead_letters(SCOPE, PageRequest())
    assert [(letter.at_ms, letter.frame) for letter in page.items] == [(6, b"\6\6"), (5, b"\5\5"), (4, b"\4\4")]
    assert page.total == 3


async def test_numbers_and_the_ledger_go_on_after_a_restart_even_when_history_is_gone(
    database: Database, stored_device: Device, path: Path
) -> None:
    first = JournalWriter(database)
    await first.start()
    commit = a_commit(a_message(v=1), a_message(v=2), ledger={"stored": 2, "shed:x": 5})
    assert await outcome(first, commit) is None
    assert await outcome(first, Commit(events=[Event("default", "t", 1)])) is None
    await first.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM message")
        connection.execute("DELETE FROM event")
        connection.commit()
    second = JournalWriter(database)
    await second.start()
    assert second.totals() == {"stored": 2, "shed:x": 5}
    later = a_commit(a_message(v=3), events=[Event("default", "t", 2)])
    assert await outcome(second, later) is None
    assert (later.messages[0].seq, later.events[0].seq) == (3, 2)
    assert second.totals() == {"stored": 3, "shed:x": 5}
    await second.close()


async def test_closing_stores_what_waits_and_then_refuses(
    database: Database, stored_device: Device, path: Path
) -> None:
    journal = JournalWriter(database)
    with pytest.raises(NotReady, match="closed"):
        journal.submit(a_commit(), lambda _: None)
    await journal.start()
    told: list[StorageFailed | None] = []
    for number in range(20):
        journal.submit(a_commit(a_message(v=number)), told.append)
    await journal.close()
    await journal.close()
    assert told == [None] * 20
    assert rows(path, "SELECT count(*) FROM message") == [(20,)]
    assert journal.health().state == "stopped"
    with pytest.raises(NotReady, match="closed"):
        journal.submit(a_commit(), told.append)


async def test_a_second_gateway_on_the_same_file_is_refused(
    database: Database, journal: JournalWriter, path: Path
) -> None:
    second = JournalWriter(database)
    with pytest.raises(ConfigError, match="another gateway"):
        await second.start()
    await journal.close()
    await second.start()
    await second.close()


async def test_a_sender_that_raises_does_not_keep_the_news_from_the_others(
    journal: JournalWriter, stored_device: Device
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

    def broken(_failure: StorageFailed | None) -> None:
        raise RuntimeError("a bug of the sender")

    journal.submit(a_commit(a_message(v=1)), broken)
    assert await outcome(journal, a_commit(a_message(v=2))) is None
    assert len(complaints) == 1


async def test_repositories_and_the_journal_write_in_turns_without_starving(
    database: Database, journal: JournalWriter, stored_device: Device
) -> None:
    running = True

    async def traffic() -> int:
        commits = 0
        while running:
            assert (
                await outcomes(journal, [a_commit(*(a_message(v=n) for n in range(40))) for _ in range(4)])
                == [None] * 4
            )
            commits += 4
        return commits

    flood = asyncio.gather(traffic(), traffic())
    devices = SqlDeviceRepository(database)
    for key in range(2, 12):
        device = Device(key=key, tenant_id="default", id=f"api{key}", product_id="p")
        await asyncio.wait_for(devices.add_device(SCOPE, device), 5)
    running = False
    assert min(await flood) > 0
    assert len(await devices.all_devices()) == 11


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(value=JSON)
def test_every_json_value_comes_back_as_it_was_stored(value: Any) -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE message (seq, device_key, observed_at_ms, received_at_ms, values_json, quality_json);"
        "CREATE TABLE ledger (name PRIMARY KEY, count);"
        "CREATE TABLE latest (device_key PRIMARY KEY, points)"
    )
    message = a_message(v=value)
    try:
        insert(connection, [a_commit(message)], 1, Newest(1, 1), 10)
    except UnicodeEncodeError:
        connection.close()
        return
    (text,) = connection.execute("SELECT values_json -> '$.v' FROM message").fetchone()
    connection.close()
    assert msgspec.json.decode(text) == value
