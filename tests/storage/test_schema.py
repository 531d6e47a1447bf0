"""Migrations: they make what tables.py says, old databases open, newer ones are refused."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from fakes.rooms import SCOPE, over_database
from fakes.traffic import FakeClock

from gateway.core.errors import ConfigError, NotReady
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.schema import alembic_config, head, migrate
from gateway.storage.tables import metadata
from gateway.things.ports import PageRequest, TimeRange

SAVED = sorted((Path(__file__).parents[1] / "data").glob("schema_*.sql"))


def test_the_migrations_make_exactly_the_tables_that_the_code_describes(path: Path) -> None:
    migrate(path, 1)
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        # What the comparison does not look at.
        for name, table in metadata.tables.items():
            made = connection.execute(sa.text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": name})
            wants_counter = bool(table.dialect_options["sqlite"]["autoincrement"])
            assert ("AUTOINCREMENT" in made.scalar_one()) == wants_counter, name
        partial = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'one_active_alarm'")
        assert "WHERE state = 'active'" in partial.scalar_one()
        partial = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'queued_notification'")
        assert "WHERE status = 'queued'" in partial.scalar_one()
    engine.dispose()


def test_every_revision_has_a_saved_database() -> None:
    revisions = {revision.revision for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    assert {path.stem.removeprefix("schema_") for path in SAVED} == revisions


def restore(saved: Path, path: Path) -> None:
    with closing(sqlite3.connect(path)) as old:
        old.executescript(saved.read_text(encoding="utf-8"))


@pytest.mark.parametrize("saved", SAVED, ids=lambda saved: saved.stem)
async def test_a_saved_database_opens_twice_with_its_rows(saved: Path, path: Path, clock: FakeClock) -> None:
    restore(saved, path)
    for _ in range(2):
        database = Database(path, clock)
        await database.open()
        rooms = over_database(database, clock)
        history = SqlHistoryRepository(database)
        (product,) = await rooms.products.all_products()
        (device,) = await rooms.devices.all_devices()
        points = await history.points(SCOPE, device.id, "speed", TimeRange(), PageRequest())
        assert (product.id, device.id, device.tags) == ("pump", "p-1", {"site": "north"})
        assert [(point.observed_at_ms, point.value, point.quality) for point in points.items] == [
            (1000, 1.5, "good"),
            (2000, 250, "out_of_range"),
        ]
        assert [value.property for value in await history.latest(SCOPE, device.id)] == ["speed"]
        assert [alarm.rule for alarm in await rooms.alarms.active_alarms()] == ["overspeed"]
        assert [user.username for user in (await rooms.users.list_users(SCOPE, PageRequest())).items] == ["admin"]
        assert [state.data for state in await rooms.alarms.load_state()] == [{"n": 1}]
        assert await rooms.audit.verify() is None
        queued = {} if saved.stem == "schema_0001" else {"ops": 1}
        assert await rooms.notifications.waiting() == queued
        await database.close()


def test_migrating_twice_changes_nothing_the_second_time(path: Path) -> None:
    migrate(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("PRAGMA schema_version").fetchone()
    migrate(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA schema_version").fetchone() == before


def test_a_database_of_a_newer_gateway_is_refused_with_what_to_do(path: Path) -> None:
    migrate(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(ConfigError, match=rf"9999.*newer Flux Gateway.*{head()}.*install.*restore") as failure:
        migrate(path, 1)
    assert str(path) in str(failure.value)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    migrate(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    migrate(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_directory_that_is_missing_is_made(tmp_path: Path) -> None:
    migrate(tmp_path / "a" / "b%20c" / "gateway.db", 1)
    assert (tmp_path / "a" / "b%20c" / "gateway.db").is_file()


def test_a_path_that_cannot_be_a_file_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the database"):
        migrate(tmp_path / "file" / "gateway.db", 1)
    with pytest.raises(ConfigError):
        migrate(tmp_path, 1)


@pytest.mark.parametrize("content", [b"this is a text, not a database" * 200, b"SQLite format 3\x00" + b"\xff" * 8176])
def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot open the database.*(not a database|damaged)"):
        migrate(path, 1)
    assert path.read_bytes() == content


def test_a_file_that_another_process_holds_is_not_ready(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(NotReady, match="locked by another process"):
            migrate(path, 0.05)
        holder.execute("ROLLBACK")
    migrate(path, 0.05)


def test_a_file_of_this_version_opens_although_another_process_writes_to_it(path: Path) -> None:
    migrate(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        migrate(path, 0.05)
        holder.execute("ROLLBACK")


def test_the_newest_revision_is_known_without_alembic_and_is_alembics() -> None:
    assert head() == ScriptDirectory.from_config(alembic_config()).get_current_head() == "0003"
