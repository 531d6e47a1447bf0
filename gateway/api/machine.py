"""`listeners` and `plugins`: what the machine runs, for the users of its first tenant."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from pydantic import Field

from gateway.api.bodies import Arguments, Body
from gateway.api.parts import FrameOutcome, ListenerStatus, PluginStatus
from gateway.api.shapes import DecodedShape, EncodedShape, FramesShape
from gateway.api.views import Listing, Paging, Resource, cut, listed, requires, sorted_by
from gateway.core.errors import NotFound, Rejected
from gateway.identity.permissions import Permission
from gateway.wasm.codec import code_text

_SHOWN_AT_ONCE: Final = 1000
"""Frames turned into JSON values before the loop serves others."""


class DecodeBody(Body):
    """Inputs to decode, each by itself, as on the wire."""

    hex: Annotated[list[str], Field(min_length=1, max_length=1000)]


class EncodeBody(Body):
    """A command to encode for a device."""

    command: Annotated[str, Field(min_length=1, max_length=64)]
    args: Arguments = Field(default_factory=dict)
    device: Annotated[str, Field(max_length=64)] | None = None
    serial: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


class ListenersView(Resource):
    """`/listeners`."""

    @requires(Permission.LISTENER_LIST)
    async def get(self, paging: Paging) -> Listing[ListenerStatus]:
        """List listeners with their counters."""
        _ = self.operator_scope
        found = sorted_by(self.parts.listeners.listeners(), paging, {"name": "name", "type": "type"})
        return listed(cut(found, paging), lambda status: status)


class PluginsView(Resource):
    """`/plugins`."""

    @requires(Permission.PLUGIN_LIST)
    async def get(self, paging: Paging) -> Listing[PluginStatus]:
        """List plugins with their counters."""
        _ = self.operator_scope
        found = sorted_by(self.parts.plugins.plugins(), paging, {"id": "id", "state": "state"})
        return listed(cut(found, paging), lambda status: status)


class PluginView(Resource):
    """`/plugins/{plugin_id}`."""

    @requires(Permission.PLUGIN_LIST)
    async def get(self, plugin_id: str, /) -> PluginStatus:
        """Show a plugin."""
        _ = self.operator_scope
        for status in self.parts.plugins.plugins():
            if status.id == plugin_id:
                return status
        raise NotFound(f"there is no plugin {plugin_id}")


class DecodeView(Resource):
    """`/plugins/{plugin_id}/decode`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: DecodeBody) -> DecodedShape:
        """Try a payload: framing and codec, one item per input; nothing is stored."""
        _ = self.operator_scope
        inputs = [_bytes(position, text) for position, text in enumerate(body.hex)]
        tried = await self.parts.plugins.try_decode(plugin_id, inputs)
        items: list[FramesShape] = []
        for one in tried:
            shown: list[dict[str, Any]] = []
            for at in range(0, len(one.frames), _SHOWN_AT_ONCE):
                shown += map(_outcome, one.frames[at : at + _SHOWN_AT_ONCE])
                await asyncio.sleep(0)
            items.append(FramesShape(shown, one.skipped or msgspec.UNSET))
        return DecodedShape(items)


class EncodeView(Resource):
    """`/plugins/{plugin_id}/encode`."""

    @requires(Permission.PLUGIN_MANAGE)
    async def post(self, plugin_id: str, /, body: EncodeBody) -> EncodedShape:
        """Try a command: the bytes that a device would get; nothing is sent."""
        _ = self.operator_scope
        return EncodedShape(self.parts.plugins.try_encode(plugin_id, body.model_dump()).hex())


def _bytes(position: int, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as wrong:
        raise Rejected(f"hex.{position}: write bytes as pairs of hexadecimal digits") from wrong


def _outcome(frame: FrameOutcome) -> dict[str, Any]:
    if frame.code is None:
        return {"ok": True, "value": _json(frame.value)}
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
