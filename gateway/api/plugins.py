"""`plugins`: packages come and go, versions change, payloads are tried; for the users of the machine's first tenant."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from pydantic import Field

from gateway.api.bodies import Arguments, Body
from gateway.api.errors import SlowBody, UnsupportedType
from gateway.api.plugin_port import FrameOutcome, PluginDetail, Plugins, PluginStatus, ShadowStatus, TriedInput
from gateway.api.shapes import CalledShape, DecodedShape, EncodedShape, FramesShape, TriedShape
from gateway.api.views import (
    CONFIG,
    Listing,
    Paging,
    Resource,
    cut,
    listed,
    requires,
    sorted_by,
    success,
    takes,
)
from gateway.core.errors import CodecError, ConfigError, NotFound, Rejected
from gateway.identity.permissions import Permission
from gateway.wasm.codec import MALFORMED, code_text
from gateway.wasm.manifest import Capability
from gateway.wasm.shown import from_shown, to_shown

PACKAGE_TYPES: Final = ("application/octet-stream", "application/zip")
_UPLOADS_AT_ONCE: Final = 2
"""Packages held in memory at the same time; a further client waits before its body is read."""
UPLOADS: Final = web.AppKey("uploads", asyncio.Semaphore)

_Hex = Annotated[list[str], Field(min_length=1, max_length=1000)]
_Version = Annotated[str, Field(min_length=1, max_length=64)]


class DecodeBody(Body):
    """Inputs to decode, each by itself, as on the wire."""

    hex: _Hex


class EncodeBody(Body):
    """A command to encode for a device."""

    command: Annotated[str, Field(min_length=1, max_length=64)]
    args: Arguments = Field(default_factory=dict)
    device: Annotated[str, Field(max_length=64)] | None = None
    serial: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


class TryBody(Body):
    """Inputs to take the whole way. `product` names the thing model; without one, nothing is normalised."""

    hex: _Hex
    aux: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    product: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class CallBody(Body):
    """Arguments of a call; bytes are written `{"$hex": "00ff"}`."""

    args: Arguments = Field(default_factory=dict)
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0


class GrantBody(Body):
    """Capabilities to allow, beside those that are allowed already."""

    caps: Annotated[list[Capability], Field(min_length=1, max_length=16)]


class VersionBody(Body):
    """A version that lies ready."""

    version: _Version


class ShadowBody(VersionBody):
    """A version to run beside the active one, and for how long."""

    minutes: Annotated[float, Field(gt=0, le=10_080)] = 10.0


class PluginResource(Resource):
    """What every path below shares."""

    @property
    def plugins(self) -> Plugins:
        """The plugins. Raises NotFound for another tenant's users, who own none."""
        _ = self.operator_scope
        return self.parts.plugins

    async def noted(self, action: str, plugin_id: str, what: dict[str, Any] | None = None) -> None:
        """Write into the audit log what was done."""
        await self.parts.audit.record(self.scope, f"plugin.{action}", "plugin", plugin_id, what or {})


class PluginsView(PluginResource):
    """`/plugins`."""

    @requires(Permission.PLUGIN_LIST)
    async def get(self, paging: Paging) -> Listing[PluginStatus]:
        """List plugins with their counters."""
        found = sorted_by(self.plugins.plugins(), paging, {"id": "id", "state": "state"})
        return listed(cut(found, paging), lambda status: status)

    @takes(*PACKAGE_TYPES)
    @requires(Permission.PLUGIN_MANAGE, 201, 202)
    async def post(self, activate: bool = True) -> PluginDetail | web.Response:  # noqa: FBT001, FBT002 - of the query
        """Install a package and run it: 201; 202 where it waits for a grant. One that fails changes nothing."""
        plugins = self.plugins
        async with self.request.app[UPLOADS]:
            installed = await plugins.install(await _package(self), activate=activate)
        detail = plugins.plugin(installed.id)
        await self.noted("install", installed.id, {**msgspec.to_builtins(installed), "activate": activate})
        return success(detail, 202) if installed.waiting else detail


class PluginView(PluginResource):
    """`/plugins/{plugin_id}`."""

    @requires(Permission.PLUGIN_LIST)
    async def get(self, plugin_id: str, /) -> PluginDetail:
        """Show a plugin: its versions, capabilities, limits, quarantine and shadow."""
        return self.plugins.plugin(plugin_id)

    @requires(Permission.PLUGIN_MANAGE)
    async def delete(self, plugin_id: str, /) -> None:
        """Remove every installed version and grant of a plugin that no product uses."""
        await self.plugins.remove(plugin_id)
        await self.noted("remove", plugin_id)


class PluginVersionView(PluginResource):
    """`/plugins/{plugin_id}/versions/{version}`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def delete(self, plugin_id: str, version: str, /) -> None:
        """Remove an installed version that is not in use."""
        await self.plugins.remove_version(plugin_id, version)
        await self.noted("remove_version", plugin_id, {"version": version})


class GrantsView(PluginResource):
    """`/plugins/{plugin_id}/grants`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: GrantBody) -> PluginDetail:
        """Allow capabilities; a version that waited for them runs."""
        detail = await self.plugins.grant(plugin_id, body.caps)
        await self.noted("grant", plugin_id, body.model_dump())
        return detail

    @requires(Permission.PLUGIN_MANAGE)
    async def delete(self, plugin_id: str, /) -> PluginDetail:
        """Take back whatever was allowed beyond `[wasm] default_grants`."""
        detail = await self.plugins.revoke(plugin_id)
        await self.noted("revoke", plugin_id)
        return detail


class ActivateView(PluginResource):
    """`/plugins/{plugin_id}/activate`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: VersionBody) -> PluginDetail:
        """Run another version that lies ready, between two frames."""
        detail = await self.plugins.activate(plugin_id, body.version)
        await self.noted("activate", plugin_id, body.model_dump())
        return detail


class RollbackView(PluginResource):
    """`/plugins/{plugin_id}/rollback`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /) -> PluginDetail:
        """Go back to the version before."""
        detail = await self.plugins.roll_back(plugin_id)
        await self.noted("rollback", plugin_id)
        return detail


class DisableView(PluginResource):
    """`/plugins/{plugin_id}/disable`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /) -> PluginDetail:
        """Stop a plugin until it is enabled, over restarts too; its products' frames are shed meanwhile."""
        detail = await self.plugins.disable(plugin_id)
        await self.noted("disable", plugin_id)
        return detail


class EnableView(PluginResource):
    """`/plugins/{plugin_id}/enable`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /) -> PluginDetail:
        """Let a disabled plugin run again."""
        detail = await self.plugins.enable(plugin_id)
        await self.noted("enable", plugin_id)
        return detail


class ShadowView(PluginResource):
    """`/plugins/{plugin_id}/shadow`."""

    @requires(Permission.DEAD_LETTER_LIST)
    async def get(self, plugin_id: str, /) -> ShadowStatus:
        """Show what a version decodes otherwise than the active one; the frames are shown, as dead letters are."""
        return self.plugins.shadow_report(plugin_id)

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: ShadowBody) -> PluginDetail:
        """Let a version decode copies of live frames beside the active one; its results go nowhere."""
        detail = await self.plugins.shadow(plugin_id, body.version, body.minutes)
        await self.noted("shadow", plugin_id, body.model_dump())
        return detail

    @requires(Permission.PLUGIN_MANAGE)
    async def delete(self, plugin_id: str, /) -> PluginDetail:
        """End it before its time; the report stays."""
        detail = await self.plugins.stop_shadow(plugin_id)
        await self.noted("stop_shadow", plugin_id)
        return detail


class PromoteView(PluginResource):
    """`/plugins/{plugin_id}/promote`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /) -> PluginDetail:
        """Activate the version of the shadow."""
        detail = await self.plugins.promote(plugin_id)
        await self.noted("promote", plugin_id)
        return detail


class DecodeView(PluginResource):
    """`/plugins/{plugin_id}/decode`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: DecodeBody) -> DecodedShape:
        """Try a payload: framing and codec, one item per input; nothing is stored."""
        tried = await self.plugins.try_decode(plugin_id, _inputs(body.hex))
        return await asyncio.to_thread(_decoded_shape, tried)


class EncodeView(PluginResource):
    """`/plugins/{plugin_id}/encode`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: EncodeBody) -> EncodedShape:
        """Try a command: the bytes that a device would get; nothing is sent."""
        return EncodedShape((await self.plugins.try_encode(plugin_id, body.model_dump())).hex())


class TryView(PluginResource):
    """`/plugins/{plugin_id}/try`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: TryBody) -> TriedShape:
        """Take payloads the whole way: frames, decoded items, values as a product would store them, and the times."""
        plugins, normaliser = self.plugins, None
        if body.product is not None:
            try:
                normaliser = self.parts.catalog.normaliser(self.scope.tenant_id, body.product)
            except NotFound as unknown:
                raise Rejected(f"product: {unknown}") from unknown
        return TriedShape(await plugins.try_whole(plugin_id, _inputs(body.hex), body.aux, normaliser))


class CallView(PluginResource):
    """`/plugins/{plugin_id}/call`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: CallBody) -> CalledShape:
        """Call a plugin that answers requests (crypto, notify, parser, algo, report), as rules do."""
        plugins = self.plugins
        try:
            args = from_shown(body.args)
        except (ConfigError, RecursionError) as wrong:
            raise Rejected(f"args: {wrong}") from wrong
        answer = await plugins.call(plugin_id, args, body.timeout_s)
        try:
            return CalledShape(await asyncio.to_thread(_shown, answer))
        except RecursionError as deep:
            raise CodecError(MALFORMED, f"plugin {plugin_id}: its answer is nested too deeply") from deep


async def _package(view: PluginResource) -> bytes:
    """The body, whole, in time and within the bound of packages, which is not that of other bodies."""
    request, most = view.request, view.plugins.max_package_bytes
    if request.content_type not in PACKAGE_TYPES:
        raise UnsupportedType(f"send the package itself, as {' or '.join(PACKAGE_TYPES)}")
    if (request.content_length or 0) > most:
        raise web.HTTPRequestEntityTooLarge(most, request.content_length or 0)
    package = bytearray()
    try:
        async with asyncio.timeout(request.app[CONFIG].body_s):
            async for piece in request.content.iter_any():
                package += piece
                if len(package) > most:
                    raise web.HTTPRequestEntityTooLarge(most, len(package))
    except TimeoutError as late:
        raise SlowBody("the package did not arrive in time") from late
    return bytes(package)


def _inputs(texts: list[str]) -> list[bytes]:
    return [_bytes(position, text) for position, text in enumerate(texts)]


def _bytes(position: int, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as wrong:
        raise Rejected(f"hex.{position}: write bytes as pairs of hexadecimal digits") from wrong


def _shown(answer: Any) -> msgspec.Raw:
    """A call's answer as JSON, off the loop: there may be hundreds of thousands of values in it."""
    return msgspec.Raw(msgspec.json.encode(to_shown(answer)))


def _decoded_shape(tried: list[TriedInput]) -> DecodedShape:
    """What was decoded, as JSON has it."""
    return DecodedShape(
        [FramesShape([_outcome(frame) for frame in one.frames], one.skipped or msgspec.UNSET) for one in tried]
    )


def _outcome(frame: FrameOutcome) -> dict[str, Any]:
    if frame.code is None:
        try:
            return {"ok": True, "value": _json(frame.value)}
        except RecursionError:
            return {"ok": False, "code": MALFORMED, "error": "the plugin's value is nested too deeply to be shown"}
    return {"ok": False, "code": frame.code, "error": frame.error or code_text(frame.code)}


def _json(value: Any) -> Any:
    """What msgpack holds and JSON does not: bytes become hex, keys become text."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(_json(key)): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value


def uploads() -> asyncio.Semaphore:
    """The bound of packages that are received at the same time."""
    return asyncio.Semaphore(_UPLOADS_AT_ONCE)
