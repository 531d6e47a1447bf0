"""Users, roles, the audit log, and what is asked of their storage."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from gateway.core.scope import Scope
from gateway.things.ports import Page, PageRequest


class User(msgspec.Struct, kw_only=True):
    """A person or program that logs in. `password_hash` (argon2id) never leaves the identity room."""

    id: str
    tenant_id: str
    username: str
    password_hash: str
    roles: tuple[str, ...] = ()
    enabled: bool = True
    created_at_ms: int = 0
    updated_at_ms: int = 0


class Role(msgspec.Struct, kw_only=True):
    """A named group of permission codes; `*` grants all."""

    tenant_id: str
    id: str
    permissions: tuple[str, ...] = ()


class AuditEntry(msgspec.Struct, kw_only=True):
    """One change: who, what, before and after. `digest` chains it to the entry before (SHA-256)."""

    seq: int
    tenant_id: str
    at_ms: int
    actor: str
    action: str
    entity: str
    entity_id: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    digest: str = ""


def name_key(username: str) -> str:
    """What makes two user names the same: they differ in more than capitals, for the store and for the throttle."""
    return username.casefold()


class UserRepository(Protocol):
    """Rows of users and roles. Changes write the audit log in the same transaction, without secrets."""

    async def find_user(self, username: str) -> User | None:
        """The user of that name in any tenant, whatever its capitals, or None. Names are unique over all tenants."""
        ...

    async def get_user(self, scope: Scope, user_id: str) -> User:
        """Raises NotFound."""
        ...

    async def list_users(self, scope: Scope, page: PageRequest) -> Page[User]:
        """Users of the tenant."""
        ...

    async def save_user(self, scope: Scope, user: User) -> None:
        """Insert or replace by id; raises Conflict when the name is taken."""
        ...

    async def delete_user(self, scope: Scope, user_id: str) -> None:
        """Raises NotFound."""
        ...

    async def list_roles(self, scope: Scope) -> list[Role]:
        """Roles of the tenant."""
        ...

    async def save_role(self, scope: Scope, role: Role) -> None:
        """Insert or replace."""
        ...

    async def delete_role(self, scope: Scope, role_id: str) -> None:
        """Raises NotFound, or Conflict while a user has it."""
        ...


class TokenRepository(Protocol):
    """Tokens that were revoked before their end."""

    async def revoke(self, token_id: str, expires_at_ms: int) -> None:
        """Remember until the token would have expired anyway."""
        ...

    async def revoked(self, now_ms: int) -> dict[str, int]:
        """Revoked tokens that have not expired (id -> expiry), for the start; forgets the expired."""
        ...


class AuditRepository(Protocol):
    """The append-only, hash-chained log."""

    async def list_audit(
        self, scope: Scope, page: PageRequest, actor: str | None = None, entity: str | None = None
    ) -> Page[AuditEntry]:
        """Entries of the tenant, newest first."""
        ...

    async def record(
        self, scope: Scope, action: str, entity: str, entity_id: str, detail: dict[str, Any] | None = None
    ) -> None:
        """Append an entry for what is no row change: a login, a failed login, a command, a scene run."""
        ...

    async def verify(self) -> int | None:
        """Walk the chain; None when whole, else the seq of the first entry that does not fit."""
        ...
