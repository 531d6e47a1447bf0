"""Users and roles: who exists, what they may do, and the first administrator.

Nobody hands out more than he has, nor takes over somebody who has more; nobody locks himself out.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.errors import Conflict, Forbidden, NotFound, Rejected
from gateway.core.ids import new_id
from gateway.core.scope import DEFAULT_TENANT, Scope, system_scope
from gateway.identity.access import Access
from gateway.identity.model import Role, User, UserRepository
from gateway.identity.passwords import MAX_PASSWORD_BYTES, Passwords
from gateway.identity.permissions import EVERYTHING, check_codes, covers
from gateway.things.ports import Page, PageRequest

log = structlog.get_logger(__name__)

ADMIN: Final = "admin"
ADMINISTRATOR: Final = "administrator"
_USERNAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ROLE_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Users:
    """Creates and changes users and roles within the caller's tenant and rights."""

    def __init__(self, repository: UserRepository, passwords: Passwords, access: Access, clock: Clock) -> None:
        self._repository = repository
        self._passwords = passwords
        self._access = access
        self._clock = clock

    async def first_start(self, password: str | None) -> str | None:
        """Make the role `administrator` and the user `admin` where there is none.

        Takes the operator's password (GATEWAY_ADMIN_PASSWORD) as it is; without one, makes a random one and returns
        it, to be printed once and never logged.
        """
        scope = system_scope()
        if not any(role.id == ADMINISTRATOR for role in await self._repository.list_roles(scope)):
            await self._repository.save_role(
                scope, Role(tenant_id=DEFAULT_TENANT, id=ADMINISTRATOR, permissions=("*",))
            )
        if await self._repository.find_user(ADMIN) is not None:
            return None
        chosen = password or secrets.token_urlsafe(15)
        if len(chosen.encode()) > MAX_PASSWORD_BYTES:
            raise Rejected(f"GATEWAY_ADMIN_PASSWORD: choose at most {MAX_PASSWORD_BYTES} bytes")
        await self._insert(scope, ADMIN, chosen, (ADMINISTRATOR,))
        return None if password else chosen

    async def list_users(self, scope: Scope, page: PageRequest) -> Page[User]:
        """Users of the tenant."""
        return await self._repository.list_users(scope, page)

    async def get(self, scope: Scope, user_id: str) -> User:
        """Raises NotFound."""
        return await self._repository.get_user(scope, user_id)

    async def create(self, scope: Scope, username: str, password: str, roles: tuple[str, ...]) -> User:
        """Raises Rejected, Conflict when the name is taken, Forbidden for roles beyond the caller's rights."""
        if _USERNAME.fullmatch(username) is None:
            raise Rejected("username: 1 to 64 of letters, digits and . _ @ -, beginning with a letter or digit")
        self._passwords.check_choice(password)
        await self._check_grant(scope, roles)
        if await self._repository.find_user(username) is not None:
            raise Conflict(f"the user name {username} is taken")
        return await self._insert(scope, username, password, roles)

    async def update(
        self,
        scope: Scope,
        user_id: str,
        *,
        password: str | None = None,
        roles: tuple[str, ...] | None = None,
        enabled: bool | None = None,
    ) -> User:
        """Change what is given; the user's tokens end. Raises as `create`, and Conflict for oneself."""
        user = await self._repository.get_user(scope, user_id)
        await self._check_superior(scope, user)
        if user.username == scope.actor and (enabled is False or (roles is not None and roles != user.roles)):
            raise Conflict("you cannot disable yourself or change your own roles; ask another administrator")
        if password is not None:
            self._passwords.check_choice(password)
        if roles is not None:
            await self._check_grant(scope, roles)
        return await self._replace(scope, user, password=password, roles=roles, enabled=enabled)

    async def change_own_password(self, scope: Scope, user: User, password: str) -> None:
        """Set the caller's own password, which he proved before; his tokens end."""
        self._passwords.check_choice(password)
        await self._replace(scope, user, password=password)

    async def set_password(self, username: str, password: str) -> None:
        """Set a password from the command line, where the operator stands above all users. Raises NotFound."""
        user = await self._repository.find_user(username)
        if user is None:
            raise NotFound(f"there is no user {username}")
        self._passwords.check_choice(password)
        await self._replace(system_scope(tenant_id=user.tenant_id), user, password=password)

    async def delete(self, scope: Scope, user_id: str) -> None:
        """Raises NotFound, Conflict for oneself."""
        user = await self._repository.get_user(scope, user_id)
        if user.username == scope.actor:
            raise Conflict("you cannot delete yourself; ask another administrator")
        await self._check_superior(scope, user)
        await self._repository.delete_user(scope, user_id)
        self._access.forget()

    async def roles(self, scope: Scope) -> list[Role]:
        """Roles of the tenant."""
        return await self._repository.list_roles(scope)

    async def role(self, scope: Scope, role_id: str) -> Role:
        """Raises NotFound."""
        for role in await self._repository.list_roles(scope):
            if role.id == role_id:
                return role
        raise NotFound(f"there is no role {role_id}")

    async def create_role(self, scope: Scope, role_id: str, permissions: tuple[str, ...]) -> Role:
        """Raises Rejected, Conflict when it exists, Forbidden for permissions beyond the caller's."""
        if _ROLE_ID.fullmatch(role_id) is None:
            raise Rejected("id: 1 to 64 of a-z, 0-9, _ and -, beginning with a letter or digit")
        if any(role.id == role_id for role in await self._repository.list_roles(scope)):
            raise Conflict(f"the role {role_id} exists")
        return await self._save_role(scope, role_id, permissions)

    async def replace_role(self, scope: Scope, role_id: str, permissions: tuple[str, ...]) -> Role:
        """Raises as `create_role`, and NotFound."""
        await self._check_role_change(scope, await self.role(scope, role_id))
        return await self._save_role(scope, role_id, permissions)

    async def delete_role(self, scope: Scope, role_id: str) -> None:
        """Raises NotFound, or Conflict while a user has it."""
        await self._check_role_change(scope, await self.role(scope, role_id))
        await self._repository.delete_role(scope, role_id)
        self._access.forget()

    async def _insert(self, scope: Scope, username: str, password: str, roles: tuple[str, ...]) -> User:
        now_ms = self._clock.now_ms()
        user = User(
            id=new_id(self._clock),
            tenant_id=scope.tenant_id,
            username=username,
            password_hash=await self._passwords.digest(password),
            roles=roles,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        await self._repository.save_user(scope, user)
        self._access.forget()
        return user

    async def _replace(
        self,
        scope: Scope,
        user: User,
        *,
        password: str | None = None,
        roles: tuple[str, ...] | None = None,
        enabled: bool | None = None,
    ) -> User:
        changed = msgspec.structs.replace(
            user,
            password_hash=user.password_hash if password is None else await self._passwords.digest(password),
            roles=user.roles if roles is None else roles,
            enabled=user.enabled if enabled is None else enabled,
            # Tokens name this version: it never repeats, even when the clock was set back.
            updated_at_ms=max(self._clock.now_ms(), user.updated_at_ms + 1),
        )
        await self._repository.save_user(scope, changed)
        self._access.forget()
        return changed

    async def _save_role(self, scope: Scope, role_id: str, permissions: tuple[str, ...]) -> Role:
        check_codes(permissions)
        self._check_covered(scope, frozenset(permissions))
        role = Role(tenant_id=scope.tenant_id, id=role_id, permissions=permissions)
        await self._repository.save_role(scope, role)
        self._access.forget()
        return role

    async def _check_role_change(self, scope: Scope, role: Role) -> None:
        if role.id == ADMINISTRATOR:
            raise Conflict("the role administrator cannot be changed: somebody must be able to do everything")
        self._check_covered(scope, frozenset(role.permissions))

    async def _check_grant(self, scope: Scope, roles: tuple[str, ...]) -> None:
        known = {role.id: role for role in await self._repository.list_roles(scope)}
        for role_id in roles:
            if role_id not in known:
                raise Rejected(f"roles: there is no role {role_id!r}")
            self._check_covered(scope, frozenset(known[role_id].permissions))

    async def _check_superior(self, scope: Scope, user: User) -> None:
        self._check_covered(scope, await self._access.permissions(user))

    def _check_covered(self, scope: Scope, permissions: frozenset[str]) -> None:
        if not covers(scope.permissions, permissions):
            beyond = EVERYTHING if EVERYTHING in permissions else ", ".join(sorted(permissions - scope.permissions))
            raise Forbidden(f"this takes permissions that you do not have: {beyond}")
