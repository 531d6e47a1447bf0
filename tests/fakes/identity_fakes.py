"""Identity's storage in memory, and a clock that tests own."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import Conflict, NotFound
from gateway.core.scope import Scope
from gateway.identity.access import Access
from gateway.identity.config import IdentityConfig
from gateway.identity.logins import Logins
from gateway.identity.model import AuditEntry, AuditRepository, Role, TokenRepository, User, UserRepository
from gateway.identity.passwords import Passwords
from gateway.identity.throttle import LoginThrottle
from gateway.identity.tokens import Tokens
from gateway.identity.users import Users
from gateway.things.ports import Page, PageRequest

KEY = b"k" * 32
PASSWORD = "right horse"
CHEAP = IdentityConfig(argon2_memory_kib=64, argon2_passes=1)
"""Hashes that cost nothing: what they cost is not what these tests are about."""


class ManualClock:
    """Time moves when the test says so."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000
        self.s = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.s

    def advance(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self.s += seconds


class MemoryUserRows(UserRepository):
    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.role_rows: dict[tuple[str, str], Role] = {}
        self.reads = 0

    async def find_user(self, username: str) -> User | None:
        return next((user for user in self.users.values() if user.username == username), None)

    async def get_user(self, scope: Scope, user_id: str) -> User:
        self.reads += 1
        user = self.users.get(user_id)
        if user is None or user.tenant_id != scope.tenant_id:
            raise NotFound(f"no user {user_id}")
        return user

    async def list_users(self, scope: Scope, page: PageRequest) -> Page[User]:
        found = [user for user in self.users.values() if user.tenant_id == scope.tenant_id]
        start = (page.page - 1) * page.limit
        return Page(found[start : start + page.limit], len(found), page.page, page.limit)

    async def save_user(self, scope: Scope, user: User) -> None:
        if any(other.username == user.username and other.id != user.id for other in self.users.values()):
            raise Conflict("taken")
        self.users[user.id] = msgspec.structs.replace(user)

    async def delete_user(self, scope: Scope, user_id: str) -> None:
        await self.get_user(scope, user_id)
        del self.users[user_id]

    async def list_roles(self, scope: Scope) -> list[Role]:
        return [role for role in self.role_rows.values() if role.tenant_id == scope.tenant_id]

    async def save_role(self, scope: Scope, role: Role) -> None:
        self.role_rows[role.tenant_id, role.id] = role

    async def delete_role(self, scope: Scope, role_id: str) -> None:
        if any(role_id in user.roles for user in self.users.values() if user.tenant_id == scope.tenant_id):
            raise Conflict("held")
        del self.role_rows[scope.tenant_id, role_id]


class MemoryTokenRows(TokenRepository):
    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    async def revoke(self, token_id: str, expires_at_ms: int) -> None:
        self.rows[token_id] = expires_at_ms

    async def revoked(self, now_ms: int) -> dict[str, int]:
        self.rows = {jti: end for jti, end in self.rows.items() if end > now_ms}
        return dict(self.rows)


class MemoryAuditRows(AuditRepository):
    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.broken_at: int | None = None

    async def list_audit(
        self, scope: Scope, page: PageRequest, actor: str | None = None, entity: str | None = None
    ) -> Page[AuditEntry]:
        found = [
            entry
            for entry in reversed(self.entries)
            if entry.tenant_id == scope.tenant_id and actor in (None, entry.actor) and entity in (None, entry.entity)
        ]
        start = (page.page - 1) * page.limit
        return Page(found[start : start + page.limit], len(found), page.page, page.limit)

    async def record(
        self, scope: Scope, action: str, entity: str, entity_id: str, detail: dict[str, Any] | None = None
    ) -> None:
        self.entries.append(
            AuditEntry(
                seq=len(self.entries) + 1,
                tenant_id=scope.tenant_id,
                at_ms=0,
                actor=scope.actor,
                action=action,
                entity=entity,
                entity_id=entity_id,
                after=detail,
            )
        )

    async def verify(self) -> int | None:
        return self.broken_at

    def actions(self) -> list[str]:
        return [entry.action for entry in self.entries]


class IdentityRoom:
    """The identity room wired to memory, as the composition root wires it to the database."""

    def __init__(self, config: IdentityConfig = CHEAP) -> None:
        self.clock = ManualClock()
        self.rows = MemoryUserRows()
        self.token_rows = MemoryTokenRows()
        self.audit = MemoryAuditRows()
        self.passwords = Passwords(config)
        self.throttle = LoginThrottle(config, self.clock)
        self.config = config
        self.restart()

    def restart(self) -> None:
        """Forget what is only in memory."""
        self.tokens = Tokens(KEY, self.config, self.clock, self.token_rows)
        self.access = Access(self.config, self.clock, self.rows, self.tokens)
        self.users = Users(self.rows, self.passwords, self.access, self.clock)
        self.logins = Logins(self.rows, self.passwords, self.tokens, self.throttle, self.audit)

    async def add_user(
        self, username: str, *permissions: str, tenant_id: str = "default", password: str = PASSWORD
    ) -> User:
        """A user whose one role holds the permissions."""
        role = Role(tenant_id=tenant_id, id=f"role-{username}", permissions=permissions)
        self.rows.role_rows[tenant_id, role.id] = role
        user = User(
            id=f"id-{username}",
            tenant_id=tenant_id,
            username=username,
            password_hash=await self.passwords.digest(password),
            roles=(role.id,),
            created_at_ms=self.clock.ms,
            updated_at_ms=self.clock.ms,
        )
        self.rows.users[user.id] = user
        self.access.forget()
        return user

    async def token_of(self, username: str) -> str:
        user = await self.rows.find_user(username)
        assert user is not None
        return self.tokens.issue(user)[0]
