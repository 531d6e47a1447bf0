"""`devices`, their credentials and commands."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.api.bodies import Arguments, Body
from gateway.api.shapes import CommandShape, DeviceShape, command_shape, device_shape
from gateway.api.views import Listing, Paging, Resource, listed, request_of, requires
from gateway.core.errors import NotFound, Rejected
from gateway.identity.permissions import Permission
from gateway.things.ports import DeviceFilter

_SORT = {
    "id": "id",
    "name": "name",
    "product_id": "product_id",
    "last_seen_at": "last_seen_ms",
    "created_at": "created_at_ms",
}
_SORT_COMMANDS = {"created_at": "created_at_ms", "name": "name", "status": "status"}
_Id = Annotated[str, Field(min_length=1, max_length=64)]
_Name = Annotated[str, Field(max_length=200)]
_Tags = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=200)]],
    Field(max_length=64),
]


class NewDeviceBody(Body):
    """A device to register."""

    id: _Id
    product_id: _Id
    name: _Name = ""
    tags: _Tags = Field(default_factory=dict)
    enabled: bool = True


class DeviceBody(Body):
    """What to change of a device; what is absent stays."""

    name: _Name | None = None
    tags: _Tags | None = None
    enabled: bool | None = None


class CredentialBody(Body):
    """The credential the device will present."""

    credential: Annotated[str, Field(min_length=1, max_length=256)]


class CommandBody(Body):
    """A function to invoke. `timeout_s` counts from now and covers the wait for a device that is offline."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    args: Arguments = Field(default_factory=dict)
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 10.0


class DevicesView(Resource):
    """`/devices`."""

    @requires(Permission.DEVICE_LIST)
    async def get(
        self,
        paging: Paging,
        product_id: str | None = None,
        online: bool | None = None,  # noqa: FBT001  # aiohttp-pydantic takes query parameters by position
        tag: str | None = None,
        search: str | None = None,
    ) -> Listing[DeviceShape]:
        """List devices; `tag` is `key` or `key=value`, `search` matches id and name."""
        which = DeviceFilter(product_id=product_id, online=online, tag=tag, search=search)
        page = await self.parts.catalog.list_devices(self.scope, which, request_of(paging, _SORT))
        return listed(page, device_shape)

    @requires(Permission.DEVICE_MANAGE, status=201)
    async def post(self, body: NewDeviceBody) -> DeviceShape:
        """Register a device."""
        if all(product.id != body.product_id for product in self.parts.catalog.products(self.scope)):
            raise Rejected(f"product_id: there is no product {body.product_id!r}; GET /products lists them")
        return device_shape(
            await self.parts.catalog.create_device(
                self.scope, body.id, body.product_id, name=body.name, tags=body.tags, enabled=body.enabled
            )
        )


class DeviceView(Resource):
    """`/devices/{device_id}`."""

    @requires(Permission.DEVICE_LIST)
    async def get(self, device_id: str, /) -> DeviceShape:
        """Show a device."""
        return device_shape(self.parts.catalog.device(self.scope, device_id))

    @requires(Permission.DEVICE_MANAGE)
    async def patch(self, device_id: str, /, body: DeviceBody) -> DeviceShape:
        """Change name, tags, or whether it may report; disabling closes its session."""
        return device_shape(
            await self.parts.catalog.update_device(
                self.scope, device_id, name=body.name, tags=body.tags, enabled=body.enabled
            )
        )

    @requires(Permission.DEVICE_MANAGE)
    async def delete(self, device_id: str, /) -> None:
        """Delete a device with its history, commands and alarms."""
        await self.parts.catalog.delete_device(self.scope, device_id)


class CredentialsView(Resource):
    """`/devices/{device_id}/credentials`."""

    @requires(Permission.CREDENTIAL_MANAGE)
    async def put(self, device_id: str, /, body: CredentialBody) -> None:
        """Set the credential that the device must present; it is kept as a keyed hash and shown nowhere."""
        await self.parts.catalog.set_credential(self.scope, device_id, body.credential)

    @requires(Permission.CREDENTIAL_MANAGE)
    async def delete(self, device_id: str, /) -> None:
        """Forget the device's credential, so that it can register anew."""
        await self.parts.catalog.set_credential(self.scope, device_id, None)


class CommandsView(Resource):
    """`/devices/{device_id}/commands`."""

    @requires(Permission.COMMAND_LIST)
    async def get(self, device_id: str, /, paging: Paging) -> Listing[CommandShape]:
        """List a device's commands, newest first."""
        self.parts.catalog.device(self.scope, device_id)
        page = await self.parts.commands.list(self.scope, device_id, request_of(paging, _SORT_COMMANDS))
        return listed(page, command_shape)

    @requires(Permission.COMMAND_MANAGE, status=201)
    async def post(self, device_id: str, /, body: CommandBody) -> CommandShape:
        """Invoke a function; answers at once with status `queued` or `sent`, the end shows in GET and in the stream."""
        self.parts.catalog.device(self.scope, device_id)
        command = await self.parts.commands.send(self.scope, device_id, body.name, body.args, body.timeout_s)
        return command_shape(command)


class CommandView(Resource):
    """`/devices/{device_id}/commands/{command_id}`."""

    @requires(Permission.COMMAND_LIST)
    async def get(self, device_id: str, command_id: str, /) -> CommandShape:
        """Show a command."""
        command = await self.parts.commands.get(self.scope, command_id)
        if command.device_id != device_id:
            raise NotFound(f"the device has no command {command_id}")
        return command_shape(command)
