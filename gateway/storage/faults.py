"""What SQLite's errors mean to a caller. Owns that table and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from gateway.core.errors import GatewayError, NotReady, Rejected, StorageFailed

_DISK = {
    sqlite3.SQLITE_FULL: "the disk is full, or the database reached its maximum size: free some space",
    sqlite3.SQLITE_IOERR: "the disk reports an input/output error: check it and its file system",
    sqlite3.SQLITE_READONLY: "the database is read-only: check the owner and mode of its file and directory",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened: check the owner and mode of its file and directory",
    sqlite3.SQLITE_CORRUPT: "the database is damaged: stop the gateway and restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is not a database: move it away, or restore a backup",
    sqlite3.SQLITE_PERM: "access to the database is refused: check the owner and mode of its file",
    sqlite3.SQLITE_NOMEM: "out of memory",
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def primary_code(failure: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 where the driver itself complained."""
    return getattr(failure, "sqlite_errorcode", 0) & 0xFF


def restated(failure: sqlite3.Error) -> GatewayError | None:
    """A file's or disk's failure as the gateway's error; None for anything else."""
    code = primary_code(failure)
    if code in _BUSY:
        return NotReady("locked by another process for too long; try again")
    text = _DISK.get(code)
    return None if text is None else StorageFailed(f"{text} ({failure})")


def raised_as(failure: BaseException) -> BaseException:
    """What a caller should see instead of a driver's exception; the exception itself where it is a fault of ours."""
    cause = failure.orig if isinstance(failure, sa.exc.DBAPIError) else failure
    if isinstance(cause, sqlite3.Error):
        return restated(cause) or failure
    if isinstance(cause, UnicodeEncodeError):
        return Rejected("the text holds half of a character (an unpaired surrogate)")
    if isinstance(cause, OverflowError):
        return Rejected("the number does not fit in 64 bits")
    return failure


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's exceptions of the block into the gateway's."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error, UnicodeEncodeError, OverflowError) as failure:
        error = raised_as(failure)
        if error is failure:
            raise
        raise error from failure
