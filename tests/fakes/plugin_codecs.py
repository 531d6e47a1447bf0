"""A shipped plugin, built from source and run alone by the real host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import CodecError, PluginTrapped
from gateway.core.flow import Decoded
from gateway.things.model import ThingModel
from gateway.wasm.codec import DecodeResult
from gateway.wasm.config import WasmConfig
from gateway.wasm.host import WasmCodec
from gateway.wasm.manifest import Capability
from gateway.wasm.plugins import PluginHost
from gateway.workbench.build import build_plugin

PLUGINS = Path(__file__).parents[2] / "plugins"


@contextmanager
def plugin_alone(
    plugin_id: str,
    settings: dict[str, Any] | None = None,
    clock: Clock | None = None,
    granted: tuple[Capability, ...] = WasmConfig().default_grants,
) -> Iterator[PluginHost]:
    """A host that found nothing but this plugin, with the operator's settings and grants."""
    build_plugin(PLUGINS / plugin_id)
    with TemporaryDirectory() as root:
        (Path(root) / plugin_id).symlink_to(PLUGINS / plugin_id)
        config = WasmConfig(cache=False, settings={plugin_id: settings} if settings else {}, default_grants=granted)
        host = PluginHost(config, [Path(root)], None, clock)
        host.load_all()
        try:
            yield host
        finally:
            host.close()


def running(host: PluginHost, plugin_id: str) -> WasmCodec:
    """The codec, which must run."""
    codec = host.codec(plugin_id)
    assert isinstance(codec, WasmCodec)
    return codec


def thing_model(plugin_id: str) -> ThingModel:
    """The thing model that is shipped with a plugin."""
    return msgspec.json.decode((PLUGINS / plugin_id / "thing-model.json").read_bytes(), type=ThingModel)


def decode_safely(codec: WasmCodec, content: bytes, aux: int = 0) -> DecodeResult:
    """Decode one frame and check what must hold of every outcome: no trap, and JSON all the way down."""
    [outcome] = codec.decode_batch([content], [aux])
    assert codec.stats.traps == codec.stats.kills == 0
    if isinstance(outcome, Decoded):
        value = msgspec.msgpack.decode(outcome.value) if bytes(outcome.value) else None
        msgspec.json.encode([value, [point.values for point in outcome.points], outcome.event])
    else:
        assert outcome is None or outcome > 0
    return outcome


def decode_all(codec: WasmCodec, frames: list[bytes], aux: list[int] | None = None) -> list[DecodeResult]:
    """Decode a batch as the pipeline does: what the codec left of it is given again, until nothing is left."""
    results: list[DecodeResult] = []
    while len(results) < len(frames):
        results += codec.decode_batch(frames[len(results) :], None if aux is None else aux[len(results) :])
    return results


def decoded(codec: WasmCodec, content: bytes, aux: int = 0) -> Decoded:
    """Decode one frame, which must give an item."""
    outcome = decode_safely(codec, content, aux)
    assert isinstance(outcome, Decoded), outcome
    return outcome


def values_of(item: Decoded) -> dict[str, Any]:
    """The values of an item's only point."""
    [point] = item.points
    return point.values


def shown(item: Decoded) -> Any:
    """What trying the plugin shows of an item."""
    return msgspec.msgpack.decode(item.value)


def encode_safely(codec: WasmCodec, request: Any) -> bytes | None:
    """Encode a request (msgpack where it is bytes), None where it is refused with a code; nothing may trap."""
    try:
        return codec.encode(request if isinstance(request, bytes) else msgspec.msgpack.encode(request))
    except CodecError as failure:
        refused = failure
    assert not isinstance(refused, PluginTrapped)
    assert refused.number in {4, 5, 7}
    return None
