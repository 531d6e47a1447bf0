"""The rows of one journal transaction and the SQL that inserts them.

Owns the raw SQL of the hot path. Rows go in by statements of many rows each: the driver hands the interpreter's lock
over at every step of a statement, and beside a busy loop every hand-over may cost a switch interval (5 ms), so a
statement per row would starve the writer. Knows no thread and no queue.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import chain
from typing import Any

import msgspec

from gateway.core.flow import Commit, DeadLetter, Event, Message, Seen
from gateway.storage.newest import Newest, Points

MESSAGES = "messages"
"""Ledger name under which the journal counts the messages it ever kept; the other names are the pipeline's."""

_SIZES = (256, 64, 16, 4, 1)
_encoder = msgspec.json.Encoder()

_MESSAGES = (
    "INSERT INTO message (seq, device_key, observed_at_ms, received_at_ms, values_json, quality_json) VALUES {rows}",
    6,
)
_LATEST = (
    (
        "INSERT INTO latest (device_key, points) VALUES {rows} "
        "ON CONFLICT (device_key) DO UPDATE SET points = excluded.points"
    ),
    2,
)
_DEVICES = ("INSERT INTO device (key, tenant_id, product_id, id, created_at_ms, updated_at_ms) VALUES {rows}", 6)
_CREDENTIALS = (
    (
        "UPDATE device SET credential_digest = v.column2, credential_source = v.column3 "
        # A person's word outlasts what the device was told or said before it heard of that.
        "FROM (VALUES {rows}) AS v WHERE device.key = v.column1 AND device.credential_source IS NOT 'operator'"
    ),
    3,
)
_SEEN = (
    (
        "UPDATE device SET online = v.column2, last_seen_ms = v.column3 "
        "FROM (VALUES {rows}) AS v WHERE device.key = v.column1"
    ),
    3,
)
_EVENTS = ("INSERT INTO event (seq, tenant_id, type, device_id, at_ms, data) VALUES {rows}", 6)
_DEAD_LETTERS = (
    "INSERT INTO dead_letter (tenant_id, product_id, plugin_id, device_id, reason, frame, at_ms) VALUES {rows}",
    7,
)
_LEDGER = (
    "INSERT INTO ledger (name, count) VALUES {rows} ON CONFLICT (name) DO UPDATE SET count = count + excluded.count",
    2,
)


def rows_of(commit: Commit) -> int:
    """Weight of a commit in the queue's bound: what it adds to the file, at least 1. States only replace others."""
    return len(commit.messages) + len(commit.events) + len(commit.dead_letters) + len(commit.devices) or 1


def insert(
    connection: sqlite3.Connection, commits: list[Commit], next_seq: int, newest: Newest, dead_letter_bytes: int
) -> Counter[str]:
    """Write the rows of commits within the open transaction; returns what the ledger gained.

    Sets `seq` of their messages, from `next_seq` on, and of their events. Of the states of one device the last
    wins, and of its credentials.
    """
    _put(connection, _DEVICES, _devices(commits))
    credentials = {k.device_key: k for c in commits for k in c.credentials}
    _put(
        connection,
        _CREDENTIALS,
        (v for k in credentials.values() for v in (k.device_key, k.digest, k.source)),
    )
    messages = commits[0].messages if len(commits) == 1 else [message for c in commits for message in c.messages]
    _put_messages(connection, messages, next_seq)
    seen: dict[int, Seen] = {}
    ledger: Counter[str] = Counter()
    for commit in commits:
        seen.update(commit.seen)
        ledger.update(commit.ledger)
    _put_latest(connection, newest.merge(connection, messages))
    _put(connection, _SEEN, (v for key, state in seen.items() for v in (key, state.online, state.at_ms)))
    _put_events(connection, [event for commit in commits for event in commit.events])
    _put(
        connection,
        _DEAD_LETTERS,
        _dead_letters(chain.from_iterable(c.dead_letters for c in commits), dead_letter_bytes),
    )
    ledger[MESSAGES] = len(messages)
    _put(connection, _LEDGER, (v for name, count in ledger.items() if count for v in (name, count)))
    return ledger


def _put_messages(connection: sqlite3.Connection, messages: list[Message], next_seq: int) -> None:
    if not messages:
        return
    texts = _texts([message.values for message in messages])
    flat: list[Any] = []
    extend = flat.extend
    for seq, message in enumerate(messages, next_seq):
        message.seq = seq
        extend(
            (
                seq,
                message.device_key,
                message.observed_at_ms,
                message.received_at_ms,
                texts[seq - next_seq],
                _quality(message),
            )
        )
    _put(connection, _MESSAGES, flat)


def _quality(message: Message) -> str | None:
    return _encoder.encode(message.quality).decode() if message.quality else None


def _put_latest(connection: sqlite3.Connection, latest: dict[int, Points]) -> None:
    if latest:
        texts = _texts(list(latest.values()))
        _put(connection, _LATEST, chain.from_iterable(zip(latest, texts, strict=True)))


def _put_events(connection: sqlite3.Connection, events: list[Event]) -> None:
    if not events:
        return
    # The transaction holds the write lock, so nobody else takes these numbers.
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
    for seq, event in enumerate(events, 1 if last is None else last[0] + 1):
        event.seq = seq
    texts = _texts([event.data for event in events])
    _put(
        connection,
        _EVENTS,
        (
            v
            for e, text in zip(events, texts, strict=True)
            for v in (e.seq, e.tenant_id, e.type, e.device_id, e.at_ms, text)
        ),
    )


def _devices(commits: list[Commit]) -> Iterable[Any]:
    return (
        v
        for commit in commits
        for d in commit.devices
        for v in (d.key, d.tenant_id, d.product_id, d.device_id, d.at_ms, d.at_ms)
    )


def _dead_letters(letters: Iterable[DeadLetter], most_bytes: int) -> Iterable[Any]:
    return (
        v
        for d in letters
        for v in (d.tenant_id, d.product_id, d.plugin_id, d.device_id, d.reason, d.frame[:most_bytes], d.at_ms)
    )


def _texts(documents: list[Any]) -> list[str]:
    """Each document as JSON text; one call for all is several times cheaper than one each."""
    texts = _encoder.encode_lines(documents).decode().split("\n")
    texts.pop()
    if len(texts) != len(documents):
        raise ValueError("a value holds ready-made JSON with line breaks")
    return texts


@cache
def _statement(template: str, width: int, rows: int) -> str:
    row = f"({', '.join('?' * width)})"
    return template.format(rows=", ".join([row] * rows))


def _put(connection: sqlite3.Connection, what: tuple[str, int], flat: Iterable[Any]) -> None:
    """Run a statement over rows given as one flat sequence of parameters, in the largest chunks that fit."""
    template, width = what
    parameters = flat if isinstance(flat, list) else list(flat)
    at, rows = 0, len(parameters) // width
    for size in _SIZES:
        statement = _statement(template, width, size)
        while rows >= size:
            connection.execute(statement, parameters[at : at + size * width])
            at += size * width
            rows -= size
