"""The newest values of a device: what is later wins, whatever order it arrives in, and only if it was kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec
import pytest
from fakes.commits import a_commit, a_message, outcome
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.flow import Message, Quality
from gateway.core.scope import system_scope
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.newest import Newest
from gateway.storage.writer import JournalWriter
from gateway.things.model import Device


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:")
    opened.execute("CREATE TABLE latest (device_key PRIMARY KEY, points)")
    yield opened
    opened.close()


def merged(newest: Newest, connection: sqlite3.Connection, *messages: Message) -> dict[str, object]:
    """Values after merging and storing, by property."""
    values: dict[str, object] = {}
    for key, points in newest.merge(connection, messages).items():
        text = msgspec.json.encode(points).decode()
        connection.execute("INSERT OR REPLACE INTO latest VALUES (?, ?)", (key, text))
        values = {name: point[0] for name, point in points.items()}
    return values


def test_a_late_reading_does_not_replace_a_newer_one(connection: sqlite3.Connection) -> None:
    newest = Newest(10, 10)
    merged(newest, connection, a_message(2000, v=2))
    assert merged(newest, connection, a_message(1000, v=1, w=7)) == {"v": 2, "w": 7}


def test_of_two_readings_at_one_instant_the_later_arrival_counts(connection: sqlite3.Connection) -> None:
    assert merged(Newest(10, 10), connection, a_message(1000, v=1), a_message(1000, v=2)) == {"v": 2}


def test_a_device_that_left_the_memory_is_read_again_from_the_database(connection: sqlite3.Connection) -> None:
    newest = Newest(1, 10)
    merged(newest, connection, a_message(1000, 1, a=1))
    merged(newest, connection, a_message(1000, 2, b=2))
    assert merged(newest, connection, a_message(2000, 1, c=3)) == {"a": 1, "c": 3}


def test_a_device_that_invents_names_for_ever_has_a_bounded_number_of_newest_values(
    connection: sqlite3.Connection,
) -> None:
    newest = Newest(10, 3)
    for number in range(10):
        values = merged(newest, connection, a_message(number, **{f"p{number}": number, "p0": number}))
    assert values == {"p0": 9, "p1": 1, "p2": 2}


def test_a_device_whose_clock_runs_ahead_does_not_pin_its_values(connection: sqlite3.Connection) -> None:
    newest = Newest(10, 10)
    ahead = Message("default", "p", "d1", 1, 9_999_999, 1000, {"v": 1})
    merged(newest, connection, ahead)
    assert merged(newest, connection, Message("default", "p", "d1", 1, 2000, 2005, {"v": 2})) == {"v": 2}


def test_quality_travels_with_the_value(connection: sqlite3.Connection) -> None:
    message = a_message(1000, 1, {"v": Quality.OUT_OF_RANGE}, v=99, w=1)
    points = Newest(10, 10).merge(connection, [message])[1]
    assert (points["v"][1], points["w"][1]) == (Quality.OUT_OF_RANGE, Quality.GOOD)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.integers(1, 3)), max_size=30), st.integers(1, 9))
def test_whatever_the_order_and_the_batches_the_latest_observation_is_kept(
    readings: list[tuple[int, str, int]], batch: int
) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE latest (device_key PRIMARY KEY, points)")
    newest = Newest(2, 10)
    wanted: dict[tuple[int, str], tuple[int, int]] = {}
    messages = []
    for number, (at_ms, name, key) in enumerate(readings):
        messages.append(a_message(at_ms, key, **{name: number}))
        wanted[key, name] = max(wanted.get((key, name), (-1, -1)), (at_ms, number))
    for start in range(0, len(messages), batch):
        for key, points in newest.merge(connection, messages[start : start + batch]).items():
            connection.execute(
                "INSERT OR REPLACE INTO latest VALUES (?, ?)", (key, msgspec.json.encode(points).decode())
            )
    stored = {
        (key, name): (point[2], point[0])
        for key, text in connection.execute("SELECT device_key, points FROM latest")
        for name, point in msgspec.json.decode(text).items()
    }
    connection.close()
    assert stored == wanted


async def test_what_a_refused_commit_would_have_changed_is_not_shown_by_the_next_one(
    database: Database, journal: JournalWriter, stored_device: Device
) -> None:
    """A commit for a device that does not exist fails; its values must not linger in memory."""
    assert await outcome(journal, a_commit(a_message(1000, v=1))) is None
    bad = a_commit(a_message(5000, v=666), a_message(5000, 99, v=1))
    assert await outcome(journal, bad) is not None
    assert await outcome(journal, a_commit(a_message(2000, v=2))) is None
    (value,) = await SqlHistoryRepository(database).latest(system_scope(), stored_device.id)
    assert (value.value, value.observed_at_ms) == (2, 2000)
