"""`auth`: login, logout, and who am I."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.api.bodies import Body
from gateway.api.shapes import MeShape, TokenShape, user_shape
from gateway.api.views import Door, Resource, requires
from gateway.core.clock import rfc3339


class LoginBody(Body):
    """User name and password."""

    username: Annotated[str, Field(min_length=1, max_length=64)]
    password: Annotated[str, Field(min_length=1, max_length=1024)]


class OwnPasswordBody(Body):
    """The present password and the one to come."""

    password: Annotated[str, Field(min_length=1, max_length=1024)]
    new_password: Annotated[str, Field(min_length=1, max_length=1024)]


class LoginView(Resource):
    """`/auth/login`."""

    @requires(Door.OPEN)
    async def post(self, body: LoginBody) -> TokenShape:
        """Log in; the token goes into `Authorization: Bearer` of further requests."""
        token, claims = await self.parts.logins.login(body.username, body.password, self.request.remote or "")
        return TokenShape(token, rfc3339(claims.exp * 1000))


class LogoutView(Resource):
    """`/auth/logout`."""

    @requires(Door.SIGNED_IN)
    async def post(self) -> None:
        """End the token of this request, for good."""
        await self.parts.logins.logout(self.session)


class MeView(Resource):
    """`/auth/me`."""

    @requires(Door.SIGNED_IN)
    async def get(self) -> MeShape:
        """Show the caller and his permissions."""
        session = self.session
        return MeShape(
            user_shape(session.user),
            session.scope.tenant_id,
            sorted(session.scope.permissions),
            rfc3339(session.claims.exp * 1000),
        )

    @requires(Door.SIGNED_IN)
    async def patch(self, body: OwnPasswordBody) -> None:
        """Change the own password; every token of the user ends, this one included."""
        await self.parts.logins.prove(self.session, body.password, self.request.remote or "")
        await self.parts.users.change_own_password(self.scope, self.session.user, body.new_password)
