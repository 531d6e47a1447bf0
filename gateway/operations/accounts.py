"""Users and the database's schema from the command line, whether the gateway runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.app.gateway import private
from gateway.app.web import Identity
from gateway.config import Loaded
from gateway.core.clock import SystemClock
from gateway.core.scope import system_scope
from gateway.storage.database import Database
from gateway.things.ports import PageRequest

_SCOPE = system_scope("command line")


@asynccontextmanager
async def _identity(loaded: Loaded) -> AsyncIterator[Identity]:
    clock = SystemClock()
    data_dir = private(loaded.path(loaded.config.server.data_dir))
    database = Database(data_dir / "gateway.db", clock, loaded.config.database)
    await database.open()
    try:
        yield Identity(loaded.config, data_dir, database, clock)
    finally:
        await database.close()


async def add_user(loaded: Loaded, username: str, password: str, roles: tuple[str, ...]) -> None:
    """Raises Rejected, Conflict when the name is taken."""
    async with _identity(loaded) as identity:
        await identity.users.create(_SCOPE, username, password, roles)


async def set_password(loaded: Loaded, username: str, password: str) -> None:
    """Raises NotFound, Rejected. The user's tokens end."""
    async with _identity(loaded) as identity:
        await identity.users.set_password(username, password)


async def list_users(loaded: Loaded) -> list[str]:
    """One line a user: name, roles, whether enabled."""
    lines: list[str] = []
    async with _identity(loaded) as identity:
        page = 1
        while True:
            found = await identity.users.list_users(_SCOPE, PageRequest(page, 1000, "username"))
            lines += [
                f"{user.username}  {', '.join(user.roles) or '-'}{'' if user.enabled else '  (disabled)'}"
                for user in found.items
            ]
            if len(lines) >= found.total or not found.items:
                return lines
            page += 1


async def upgrade(loaded: Loaded) -> str:
    """Open the database, which brings its schema to this version; says where it is."""
    async with _identity(loaded):
        return f"{loaded.path(loaded.config.server.data_dir) / 'gateway.db'} has this version's schema"
