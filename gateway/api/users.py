"""`users` and `roles`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.api.bodies import Body
from gateway.api.shapes import RoleShape, UserShape, role_shape, user_shape
from gateway.api.views import Listing, Paging, Resource, cut, listed, request_of, requires, sorted_by
from gateway.identity.permissions import Permission

_SORT_USERS = {"username": "username", "created_at": "created_at_ms"}
_Roles = Annotated[list[str], Field(max_length=100)]
_Password = Annotated[str, Field(min_length=1, max_length=1024)]


class NewUserBody(Body):
    """A user to make."""

    username: Annotated[str, Field(min_length=1, max_length=64)]
    password: _Password
    roles: _Roles = Field(default_factory=list)


class UserBody(Body):
    """What to change of a user; what is absent stays."""

    password: _Password | None = None
    roles: _Roles | None = None
    enabled: bool | None = None


class NewRoleBody(Body):
    """A role to make."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    permissions: Annotated[list[str], Field(max_length=200)]


class RoleBody(Body):
    """The permissions a role shall have."""

    permissions: Annotated[list[str], Field(max_length=200)]


class UsersView(Resource):
    """`/users`."""

    @requires(Permission.USER_LIST)
    async def get(self, paging: Paging) -> Listing[UserShape]:
        """List users."""
        return listed(await self.parts.users.list_users(self.scope, request_of(paging, _SORT_USERS)), user_shape)

    @requires(Permission.USER_MANAGE, status=201)
    async def post(self, body: NewUserBody) -> UserShape:
        """Make a user; his roles may not exceed the caller's rights."""
        return user_shape(await self.parts.users.create(self.scope, body.username, body.password, tuple(body.roles)))


class UserView(Resource):
    """`/users/{user_id}`."""

    @requires(Permission.USER_LIST)
    async def get(self, user_id: str, /) -> UserShape:
        """Show a user."""
        return user_shape(await self.parts.users.get(self.scope, user_id))

    @requires(Permission.USER_MANAGE)
    async def patch(self, user_id: str, /, body: UserBody) -> UserShape:
        """Change password, roles or whether he may log in; the user's tokens end."""
        roles = None if body.roles is None else tuple(body.roles)
        return user_shape(
            await self.parts.users.update(
                self.scope, user_id, password=body.password, roles=roles, enabled=body.enabled
            )
        )

    @requires(Permission.USER_MANAGE)
    async def delete(self, user_id: str, /) -> None:
        """Delete a user."""
        await self.parts.users.delete(self.scope, user_id)


class RolesView(Resource):
    """`/roles`."""

    @requires(Permission.ROLE_LIST)
    async def get(self, paging: Paging) -> Listing[RoleShape]:
        """List roles."""
        roles = sorted_by(await self.parts.users.roles(self.scope), paging, {"id": "id"})
        return listed(cut(roles, paging), role_shape)

    @requires(Permission.ROLE_MANAGE, status=201)
    async def post(self, body: NewRoleBody) -> RoleShape:
        """Make a role of permissions that the caller has."""
        return role_shape(await self.parts.users.create_role(self.scope, body.id, tuple(body.permissions)))


class RoleView(Resource):
    """`/roles/{role_id}`."""

    @requires(Permission.ROLE_LIST)
    async def get(self, role_id: str, /) -> RoleShape:
        """Show a role."""
        return role_shape(await self.parts.users.role(self.scope, role_id))

    @requires(Permission.ROLE_MANAGE)
    async def put(self, role_id: str, /, body: RoleBody) -> RoleShape:
        """Replace a role's permissions; they hold at once for whoever has the role."""
        return role_shape(await self.parts.users.replace_role(self.scope, role_id, tuple(body.permissions)))

    @requires(Permission.ROLE_MANAGE)
    async def delete(self, role_id: str, /) -> None:
        """Delete a role that nobody has."""
        await self.parts.users.delete_role(self.scope, role_id)
