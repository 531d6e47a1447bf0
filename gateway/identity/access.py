"""Who a token stands for, now: the user behind it, still enabled, with the permissions his roles give today.

Users are cached for a moment, so that a request costs no query; a change made in this process is seen at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from gateway.core.clock import Clock
from gateway.core.errors import AuthFailed, NotFound
from gateway.core.scope import Scope, system_scope
from gateway.identity.config import IdentityConfig
from gateway.identity.model import User, UserRepository
from gateway.identity.tokens import Claims, Tokens

_MOST_CACHED: Final = 1000
"""Users kept at once; who is pushed out costs one query at his next request."""


@dataclass(frozen=True, slots=True)
class Session:
    """A request's caller. `scope` goes to every repository."""

    claims: Claims
    user: User
    scope: Scope


class Access:
    """Turns tokens into sessions."""

    def __init__(self, config: IdentityConfig, clock: Clock, users: UserRepository, tokens: Tokens) -> None:
        self._cache_s = config.user_cache_s
        self._clock = clock
        self._users = users
        self._tokens = tokens
        self._cached: OrderedDict[tuple[str, str], tuple[float, User, frozenset[str]]] = OrderedDict()
        self._generation = 0

    async def authenticate(self, token: str) -> Session:
        """Check a token and its user. Raises AuthFailed."""
        return await self._session(self._tokens.verify(token))

    async def recheck(self, session: Session) -> Session:
        """Check again what was good before, for a stream that stays open. Raises AuthFailed."""
        self._tokens.check_alive(session.claims)
        return await self._session(session.claims)

    async def permissions(self, user: User) -> frozenset[str]:
        """What the user's roles grant."""
        roles = await self._users.list_roles(system_scope(tenant_id=user.tenant_id))
        return frozenset(code for role in roles if role.id in user.roles for code in role.permissions)

    def forget(self) -> None:
        """A user or role changed: ask the database again."""
        self._generation += 1
        self._cached.clear()

    async def _session(self, claims: Claims) -> Session:
        user, permissions = await self._user(claims.tenant, claims.sub)
        if not user.enabled or user.updated_at_ms != claims.ver:
            raise AuthFailed("the user was changed or disabled since; log in again")
        return Session(claims, user, Scope(user.tenant_id, user.username, permissions))

    async def _user(self, tenant_id: str, user_id: str) -> tuple[User, frozenset[str]]:
        key = (tenant_id, user_id)
        now_s = self._clock.monotonic_s()
        found = self._cached.get(key)
        if found is not None and now_s - found[0] < self._cache_s:
            return found[1], found[2]
        generation = self._generation
        try:
            user = await self._users.get_user(system_scope(tenant_id=tenant_id), user_id)
        except NotFound as gone:
            raise AuthFailed("the user does not exist any more") from gone
        permissions = await self.permissions(user)
        # An answer that a change overtook while it was read must not be kept.
        if generation == self._generation:
            self._cached[key] = (now_s, user, permissions)
            self._cached.move_to_end(key)
            if len(self._cached) > _MOST_CACHED:
                self._cached.popitem(last=False)
        return user, permissions
