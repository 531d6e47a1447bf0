"""Rows of users, roles and revoked tokens. Password hashes go in and out, never into the audit log."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from typing_extensions import override

from gateway.core.errors import Conflict, NotFound
from gateway.core.scope import Scope, system_scope
from gateway.identity.model import Role, TokenRepository, User, UserRepository, name_key
from gateway.storage.database import Database, is_unique_violation
from gateway.storage.rows import Sorts, from_row, owned_row, page_of, upsert, without
from gateway.storage.tables import revoked_token, role, user_account
from gateway.things.ports import Page, PageRequest

_SORTS = Sorts("username", user_account.c.id, user_account.c.username, user_account.c.created_at_ms)


class SqlUserRepository(UserRepository):
    """Users and roles in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def find_user(self, username: str) -> User | None:
        # Of two names from before they counted as one, the exact one.
        query = _named(username).order_by((user_account.c.username == username).desc())
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return None if row is None else from_row(row, User)

    @override
    async def get_user(self, scope: Scope, user_id: str) -> User:
        async with self._database.read() as connection:
            row = (await connection.execute(_one(user_account, scope, user_id))).mappings().first()
        if row is None:
            raise NotFound(f"no user {user_id}")
        return from_row(row, User)

    @override
    async def list_users(self, scope: Scope, page: PageRequest) -> Page[User]:
        query = sa.select(user_account).where(user_account.c.tenant_id == scope.tenant_id)
        order = _SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, User))

    @override
    async def save_user(self, scope: Scope, user: User) -> None:
        row = owned_row(scope, user)
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one(user_account, scope, user.id))
            renamed = before is None or before["username"] != user.username
            if renamed and await transaction.row(_named(user.username).where(_other_than(user))) is not None:
                raise Conflict(f"the user name {user.username} is taken")
            try:
                await transaction.execute(upsert(user_account, row))
            except sa.exc.IntegrityError as failure:
                if is_unique_violation(failure):
                    raise Conflict(f"the user name {user.username} is taken") from failure
                raise
            after = without(row, "password_hash") or {}
            if before is not None and before["password_hash"] != user.password_hash:
                after["password_changed"] = True
            verb = "create" if before is None else "update"
            await transaction.audit(verb, "user", user.id, without(before, "password_hash"), after)

    @override
    async def delete_user(self, scope: Scope, user_id: str) -> None:
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one(user_account, scope, user_id))
            if before is None:
                raise NotFound(f"no user {user_id}")
            await transaction.execute(_without(user_account, scope, user_id))
            await transaction.audit("delete", "user", user_id, without(before, "password_hash"), None)

    @override
    async def list_roles(self, scope: Scope) -> list[Role]:
        query = sa.select(role).where(role.c.tenant_id == scope.tenant_id).order_by(role.c.id)
        async with self._database.read() as connection:
            return [from_row(row, Role) for row in (await connection.execute(query)).mappings()]

    @override
    async def save_role(self, scope: Scope, role: Role) -> None:
        row = owned_row(scope, role)
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one(_roles, scope, role.id))
            await transaction.execute(upsert(_roles, row))
            await transaction.audit("create" if before is None else "update", "role", role.id, before, row)

    @override
    async def delete_role(self, scope: Scope, role_id: str) -> None:
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one(_roles, scope, role_id))
            if before is None:
                raise NotFound(f"no role {role_id}")
            held = sa.func.json_each(user_account.c.roles).table_valued("value")
            holder = sa.select(user_account.c.username).where(
                user_account.c.tenant_id == scope.tenant_id,
                sa.select(sa.literal(1)).select_from(held).where(held.c.value == role_id).exists(),
            )
            user = await transaction.row(holder.limit(1))
            if user is not None:
                raise Conflict(f"role {role_id} belongs to the user {user['username']}: take it away first")
            await transaction.execute(_without(_roles, scope, role_id))
            await transaction.audit("delete", "role", role_id, before, None)


class SqlTokenRepository(TokenRepository):
    """Revoked tokens in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def revoke(self, token_id: str, expires_at_ms: int) -> None:
        row = {"id": token_id, "expires_at_ms": expires_at_ms}
        async with self._database.write(system_scope()) as transaction:
            await transaction.execute(sqlite.insert(revoked_token).values(row).on_conflict_do_nothing())

    @override
    async def revoked(self, now_ms: int) -> dict[str, int]:
        async with self._database.write(system_scope()) as transaction:
            await transaction.execute(sa.delete(revoked_token).where(revoked_token.c.expires_at_ms <= now_ms))
            rows = await transaction.execute(sa.select(revoked_token))
            return {row.id: row.expires_at_ms for row in rows}


_roles = role


def _one(table: sa.Table, scope: Scope, item_id: str) -> sa.Select[Any]:
    return sa.select(table).where(table.c.tenant_id == scope.tenant_id, table.c.id == item_id)


def _named(username: str) -> sa.Select[Any]:
    """Whose name is the same whatever its capitals; names are ASCII, so SQLite's `lower` is enough."""
    return sa.select(user_account).where(sa.func.lower(user_account.c.username) == name_key(username))


def _other_than(user: User) -> sa.ColumnElement[bool]:
    return sa.or_(user_account.c.tenant_id != user.tenant_id, user_account.c.id != user.id)


def _without(table: sa.Table, scope: Scope, item_id: str) -> sa.Delete:
    return sa.delete(table).where(table.c.tenant_id == scope.tenant_id, table.c.id == item_id)
