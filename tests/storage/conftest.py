"""Databases on a temporary directory, and the two implementations of every port side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.rooms import SCOPE, Rooms, in_memory, over_database
from fakes.traffic import FakeClock

from gateway.storage.config import DatabaseConfig
from gateway.storage.database import Database
from gateway.storage.devices import SqlDeviceRepository
from gateway.storage.products import SqlProductRepository
from gateway.storage.writer import JournalWriter
from gateway.things.model import Device, Product


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
async def database(path: Path, clock: FakeClock) -> AsyncIterator[Database]:
    database = Database(path, clock, DatabaseConfig(busy_timeout_s=0.2, readers=2))
    await database.open()
    await database.add_tenant("other")
    yield database
    await database.close()


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[JournalWriter]:
    journal = JournalWriter(database)
    await journal.start()
    yield journal
    await journal.close()


@pytest.fixture(params=["memory", "sqlite"])
def rooms(request: pytest.FixtureRequest, clock: FakeClock) -> Rooms:
    if request.param == "sqlite":
        return over_database(request.getfixturevalue("database"), clock)
    return in_memory(clock)


@pytest.fixture
async def product(rooms: Rooms) -> Product:
    product = Product(tenant_id="default", id="p", name="Pump")
    await rooms.products.save_product(SCOPE, product)
    return product


@pytest.fixture
async def stored_device(database: Database) -> Device:
    """A device in the database, with its product."""
    await SqlProductRepository(database).save_product(SCOPE, Product(tenant_id="default", id="p"))
    device = Device(key=1, tenant_id="default", id="d1", product_id="p")
    await SqlDeviceRepository(database).add_device(SCOPE, device)
    return device
