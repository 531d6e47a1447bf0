"""The audit log: its contract on the database and in memory, and the database's hash chain."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from fakes.rooms import OTHER, SCOPE, Rooms, over_database
from fakes.traffic import FakeClock

from gateway.core.errors import Rejected
from gateway.storage.database import Database
from gateway.things.ports import PageRequest

ALL = PageRequest(limit=1000, sort="seq")


async def test_entries_are_listed_newest_first_by_tenant_actor_and_entity(rooms: Rooms) -> None:
    await rooms.audit.record(SCOPE, "login", "user", "u1", {"from": "127.0.0.1"})
    await rooms.audit.record(OTHER, "login", "user", "u2")
    await rooms.audit.record(SCOPE, "run", "scene", "s")
    page = await rooms.audit.list_audit(SCOPE, PageRequest())
    assert ([entry.action for entry in page.items], page.total) == (["run", "login"], 2)
    assert page.items[1].after == {"from": "127.0.0.1"}
    assert page.items[0].at_ms == rooms.clock.ms
    assert [e.action for e in (await rooms.audit.list_audit(SCOPE, ALL, entity="scene")).items] == ["run"]
    assert (await rooms.audit.list_audit(SCOPE, ALL, actor="oscar")).total == 0
    assert (await rooms.audit.list_audit(OTHER, ALL, actor="oscar")).total == 1
    assert (await rooms.audit.list_audit(SCOPE, ALL, actor="' OR 1=1 --")).total == 0
    with pytest.raises(Rejected):
        await rooms.audit.list_audit(SCOPE, PageRequest(sort="digest"))


async def chain_of(database: Database, clock: FakeClock, entries: int) -> Rooms:
    rooms = over_database(database, clock)
    detail = {"float": 1e22, "small": 1e-7, "whole": 3.0, "text": "終", "null": None, "deep": {"b": 1, "a": [True]}}
    for number in range(entries):
        await rooms.audit.record(SCOPE if number % 2 else OTHER, "a", "b", str(number), detail)
    return rooms


async def test_an_untouched_chain_is_whole_over_several_reads(database: Database, clock: FakeClock) -> None:
    rooms = await chain_of(database, clock, 5)
    assert await rooms.audit.verify() is None
    empty_twice = await rooms.audit.verify()
    assert empty_twice is None


async def test_writers_at_the_same_time_make_one_chain(database: Database, clock: FakeClock) -> None:
    rooms = over_database(database, clock)
    await asyncio.gather(*(rooms.audit.record(SCOPE, "a", "b", str(number)) for number in range(20)))
    entries = (await rooms.audit.list_audit(SCOPE, ALL)).items
    assert [entry.seq for entry in entries] == list(range(1, 21))
    assert len({entry.digest for entry in entries}) == 20
    assert await rooms.audit.verify() is None


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE audit SET actor = 'mallory' WHERE seq = 3", 3),
        ("UPDATE audit SET after = json_set(after, '$.whole', 4) WHERE seq = 2", 2),
        ("UPDATE audit SET tenant_id = 'default' WHERE seq = 1", 1),
        ("UPDATE audit SET digest = (SELECT digest FROM audit WHERE seq = 1) WHERE seq = 4", 4),
        ("DELETE FROM audit WHERE seq = 3", 4),
        ("DELETE FROM audit WHERE seq = 1", 2),
        ("DELETE FROM audit WHERE seq = 5", 5),
    ],
)
async def test_tampering_is_found_where_it_happened(
    database: Database, clock: FakeClock, path: Path, tampering: str, found: int
) -> None:
    rooms = await chain_of(database, clock, 5)
    intruder = sqlite3.connect(path)
    for trigger in ("audit_refuses_UPDATE", "audit_refuses_DELETE"):
        intruder.execute(f"DROP TRIGGER {trigger}")
    intruder.execute(tampering)
    intruder.commit()
    intruder.close()
    assert await rooms.audit.verify() == found


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
async def test_the_database_itself_refuses_to_change_the_log(
    database: Database, clock: FakeClock, statement: str
) -> None:
    rooms = await chain_of(database, clock, 1)
    with pytest.raises(sa.exc.IntegrityError, match="append-only"):
        async with database.write(SCOPE) as transaction:
            await transaction.execute(sa.text(statement))
    assert await rooms.audit.verify() is None
