"""Logging in and out, throttled and audited. An attempt that cannot be audited does not succeed."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from gateway.core.errors import AuthFailed
from gateway.core.log import safe_text
from gateway.core.scope import DEFAULT_TENANT, Scope
from gateway.identity.access import Session
from gateway.identity.model import AuditRepository, User, UserRepository
from gateway.identity.passwords import Passwords
from gateway.identity.throttle import LoginThrottle
from gateway.identity.tokens import Claims, Tokens

log = structlog.get_logger(__name__)

_WRONG: Final = "user name or password is wrong"


class Logins:
    """Issues a token for a user name and a password, and takes it back."""

    def __init__(
        self,
        users: UserRepository,
        passwords: Passwords,
        tokens: Tokens,
        throttle: LoginThrottle,
        audit: AuditRepository,
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._tokens = tokens
        self._throttle = throttle
        self._audit = audit

    async def login(self, username: str, password: str, address: str) -> tuple[str, Claims]:
        """Raises AuthFailed (the same for every cause), Throttled, or NotReady when too many try at once."""
        self._throttle.attempt(username, address)
        user = await self._users.find_user(username)
        known = user is not None and user.enabled
        right = await self._passwords.matches(user.password_hash if user is not None else None, password)
        if user is None or not known or not right:
            await self._failed(user, username, address)
            raise AuthFailed(_WRONG)
        user = await self._rehash(user, password)
        token, claims = self._tokens.issue(user)
        await self._audit.record(_scope(user), "auth.login", "user", user.id, {"address": address})
        self._throttle.succeeded(username, address)
        return token, claims

    async def prove(self, session: Session, password: str, address: str) -> None:
        """Check the password of somebody who is logged in, as before a change of it. Throttled as a login is."""
        self._throttle.attempt(session.user.username, address)
        if not await self._passwords.matches(session.user.password_hash, password):
            await self._failed(session.user, session.user.username, address)
            raise AuthFailed("the present password is wrong")
        self._throttle.succeeded(session.user.username, address)

    async def logout(self, session: Session) -> None:
        """Revoke the session's token."""
        await self._tokens.revoke(session.claims)
        await self._audit.record(session.scope, "auth.logout", "user", session.user.id)

    async def _failed(self, user: User | None, username: str, address: str) -> None:
        shown = safe_text(username)
        log.warning("login failed", username=shown, address=address)
        scope = _scope(user) if user is not None else Scope(DEFAULT_TENANT, shown)
        await self._audit.record(
            scope, "auth.login_failed", "user", user.id if user is not None else "", {"address": address}
        )

    async def _rehash(self, user: User, password: str) -> User:
        """Follow raised hash costs. The version stays: the password is the same, and so are the user's tokens."""
        if not self._passwords.outdated(user.password_hash):
            return user
        renewed = msgspec.structs.replace(user, password_hash=await self._passwords.digest(password))
        await self._users.save_user(_scope(user), renewed)
        return renewed


def _scope(user: User) -> Scope:
    return Scope(user.tenant_id, user.username)
