"""Transactions of the repositories: whole or nothing, a snapshot for readers, errors that say what to do."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from fakes.rooms import SCOPE, over_database
from fakes.traffic import FakeClock

from gateway.core.errors import NotReady, Rejected, StorageFailed
from gateway.core.flow import Event
from gateway.storage import tables
from gateway.storage.database import Database
from gateway.things.model import Product
from gateway.things.ports import DeviceFilter, PageRequest

COUNT = sa.select(sa.func.count()).select_from(tables.event)


async def count(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(COUNT)).scalar_one()


def an_event(number: int = 0) -> Event:
    return Event("default", "t", number)


async def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.write(SCOPE) as transaction:
            await transaction.publish([an_event()])
            await transaction.audit("a", "b", "c")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await fail()
    assert await count(database) == 0
    assert (await over_database(database, FakeClock()).audit.list_audit(SCOPE, PageRequest())).total == 0


async def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    async with database.read() as connection:
        assert (await connection.execute(COUNT)).scalar_one() == 0
        async with database.write(SCOPE) as transaction:
            await transaction.publish([an_event()])
        assert (await connection.execute(COUNT)).scalar_one() == 0
    assert await count(database) == 1


async def test_a_write_that_reads_first_never_meets_a_busy_file(database: Database) -> None:
    async def read_then_write(number: int) -> None:
        async with database.write(SCOPE) as transaction:
            await transaction.execute(COUNT)
            await asyncio.sleep(0)
            await transaction.publish([an_event(number)])

    await asyncio.gather(*(read_then_write(number) for number in range(20)))
    assert await count(database) == 20


async def test_slow_readers_do_not_keep_writers_out(database: Database) -> None:
    async with database.read(), database.read():
        third = asyncio.get_running_loop().create_task(count(database))
        async with asyncio.timeout(5), database.write(SCOPE) as transaction:
            await transaction.publish([an_event()])
        assert not third.done()
    assert await third == 1


@pytest.mark.parametrize("steps", range(12))
async def test_a_cancelled_write_leaves_nothing_and_bars_nobody(database: Database, steps: int) -> None:
    async def write() -> None:
        async with database.write(SCOPE) as transaction:
            await transaction.publish([an_event()])
            await asyncio.sleep(10)

    task = asyncio.get_running_loop().create_task(write())
    for _ in range(steps):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    async with asyncio.timeout(5), database.write(SCOPE) as transaction:
        await transaction.publish([an_event()])
    assert await count(database) == 1


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancelled_read_gives_its_place_to_the_next(database: Database, steps: int) -> None:
    slow = sa.text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT max(i) FROM n"
    )

    async def read() -> None:
        async with database.read() as connection:
            await connection.execute(slow)

    tasks = [asyncio.get_running_loop().create_task(read()) for _ in range(5)]
    await asyncio.sleep(0.001 * steps)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*(count(database) for _ in range(5))) == [0] * 5
        async with database.write(SCOPE) as transaction:
            await transaction.publish([an_event()])


async def test_a_file_that_another_process_holds_is_not_ready_until_it_is_free(database: Database, path: Path) -> None:
    products = over_database(database, FakeClock()).products
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotReady, match="locked by another process"):
            await products.save_product(SCOPE, Product(tenant_id="default", id="p"))
        assert await products.all_products() == []
        holder.execute("ROLLBACK")
    await products.save_product(SCOPE, Product(tenant_id="default", id="p"))


async def test_a_full_file_fails_the_change_and_keeps_what_was(database: Database) -> None:
    async def fill() -> None:
        async with database.write(SCOPE) as transaction:
            await transaction.execute(sa.text("PRAGMA max_page_count = 1"))
            await transaction.publish([Event("default", "t", number, data={"x": "y" * 1000}) for number in range(900)])

    async with database.write(SCOPE) as transaction:
        await transaction.publish([an_event()])
    with pytest.raises(StorageFailed, match="full"):
        await fill()
    assert await count(database) == 1


async def test_texts_and_numbers_that_sql_cannot_hold_are_rejected(database: Database) -> None:
    rooms = over_database(database, FakeClock())
    with pytest.raises(Rejected, match="half of a character"):
        await rooms.devices.list_devices(SCOPE, DeviceFilter(product_id="\ud800"), PageRequest())
    with pytest.raises(Rejected, match="64 bits"):
        await rooms.tokens.revoke("t", 2**63)
    await rooms.tokens.revoke("t", 2**63 - 1)


async def test_a_closed_database_is_not_ready(path: Path) -> None:
    database = Database(path, FakeClock())
    with pytest.raises(NotReady):
        await count(database)
    await database.open()
    await database.close()
    await database.close()
    with pytest.raises(NotReady):
        async with database.write(SCOPE):
            pass


async def test_the_settings_that_durability_rests_on_are_in_force(database: Database) -> None:
    async with database.read() as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 200)):
            assert (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one() == value
