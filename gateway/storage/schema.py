"""The schema's version: brings a database file to the revision that this code knows, or says why it cannot.

Owns the way Alembic is run (in code, without an ini file, and only when there is something to do: it costs 10 MB).
Knows no table.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from gateway.core.errors import ConfigError, NotReady, StorageFailed
from gateway.storage.faults import raised_as

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def alembic_config() -> Config:
    """Alembic's settings for this package."""
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    # ConfigParser would take a percent sign of the install path for an interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """The newest revision that this code knows, by the names of the revisions' files (`r0001_...py`)."""
    names = sorted(path.stem for path in (_MIGRATIONS / "versions").glob("r[0-9]*_*.py"))
    if not names:
        raise ConfigError("the installation is incomplete: gateway/storage/migrations holds no revision")
    return names[-1].partition("_")[0].removeprefix("r")


def migrate(path: Path, busy_timeout_s: float) -> None:
    """Make the database file if need be (mode 0600) and upgrade its schema in one transaction.

    Raises ConfigError where a person must act (newer, damaged, or unwritable file), NotReady while another process
    holds the file.
    """
    try:
        _make_private(path)
        _upgrade(path, busy_timeout_s)
    except OSError as failure:
        raise ConfigError(f"cannot write the database {path}: {failure.strerror or failure}") from failure
    except (sqlite3.Error, sa.exc.DBAPIError) as failure:
        error = raised_as(failure)
        if isinstance(error, StorageFailed):
            raise ConfigError(f"cannot open the database {path}: {error}") from failure
        if isinstance(error, NotReady):
            raise NotReady(f"the database {path}: {error}") from failure
        raise


def _make_private(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        # By path only: closing a descriptor of an open database would drop SQLite's locks on it.
        path.touch(mode=0o600, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _upgrade(path: Path, busy_timeout_s: float) -> None:
    with closing(sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)) as plain:
        plain.execute("PRAGMA journal_mode=WAL")
        if _revision(plain) == head():
            return
    engine = sa.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None),
        poolclass=sa.pool.NullPool,
    )
    try:
        with engine.connect() as connection:
            # Taking the write lock before looking keeps two starting processes from migrating at once.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            _upgrade_connection(path, connection)
            connection.exec_driver_sql("COMMIT")
    finally:
        engine.dispose()


def _revision(connection: sqlite3.Connection) -> str | None:
    """The file's revision; None where it has no schema yet."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _upgrade_connection(path: Path, connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - see above
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see above

    newest = head()
    current = MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return
    known = {revision.revision for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if current is not None and current not in known:
        raise ConfigError(
            f"the database {path} has schema revision {current}, made by a newer Flux Gateway; this one knows "
            f"revisions up to {newest}: install the newer version again, or restore a backup made by this one"
        )
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
