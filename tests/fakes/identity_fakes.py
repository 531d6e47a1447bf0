"""The identity room wired to memory, and a clock that tests own."""

from __future__ import annotations

from typing import Any

from fakes.memory import MemoryAudit, MemoryStore, MemoryTokens, MemoryUsers

from gateway.core.scope import Scope, system_scope
from gateway.identity.access import Access
from gateway.identity.config import IdentityConfig
from gateway.identity.logins import Logins
from gateway.identity.model import AuditRepository, Role, TokenRepository, User, UserRepository
from gateway.identity.passwords import Passwords
from gateway.identity.throttle import LoginThrottle
from gateway.identity.tokens import Tokens
from gateway.identity.users import Users

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


class CountedUsers(MemoryUsers):
    """Users in memory that count how often one is read."""

    reads = 0

    async def get_user(self, scope: Scope, user_id: str) -> User:
        self.reads += 1
        return await super().get_user(scope, user_id)


class IdentityRoom:
    """The identity room wired to memory, as the composition root wires it to the database."""

    def __init__(
        self,
        config: IdentityConfig = CHEAP,
        users: UserRepository | None = None,
        tokens: TokenRepository | None = None,
        audit: AuditRepository | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.rows: Any = users or CountedUsers(self.store)
        self.token_rows = tokens or MemoryTokens()
        self.audit = audit or MemoryAudit(self.store)
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
        scope = system_scope(tenant_id=tenant_id)
        await self.rows.save_role(scope, role)
        user = User(
            id=f"id-{username}",
            tenant_id=tenant_id,
            username=username,
            password_hash=await self.passwords.digest(password),
            roles=(role.id,),
            created_at_ms=self.clock.ms,
            updated_at_ms=self.clock.ms,
        )
        await self.rows.save_user(scope, user)
        self.access.forget()
        return user

    def actions(self) -> list[str]:
        """What the audit log says happened."""
        return [entry.action for entry in self.store.audit]

    async def token_of(self, username: str) -> str:
        user = await self.rows.find_user(username)
        assert user is not None
        return self.tokens.issue(user)[0]
