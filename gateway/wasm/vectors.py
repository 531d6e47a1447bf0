"""Runs a plugin's test vectors: its promises, checked before it is used.

Knows how results are compared. Knows nothing of loading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

import msgspec

from gateway.core.errors import CodecError, ConfigError, FramingError, NotReady
from gateway.core.flow import Decoded
from gateway.framing.framer import Framer
from gateway.wasm.codec import Codec, DecodeResult, code_text
from gateway.wasm.manifest import Vector
from gateway.wasm.shown import from_shown, to_shown

VECTOR_CALL_S = 5.0
"""Wall time of a call in a vector: a promise is about what comes out, a machine may be slow."""
VECTORS_S = 60.0
"""Wall time of all vectors of a version together; more would keep other plugins from being loaded."""
_SHOWN_CHARS = 200


class Caller(Protocol):
    """A plugin that answers requests, as far as a vector needs it."""

    def call(self, args: Any, budget_s: float) -> Any:
        """Raises CodecError or NotReady."""
        ...


class VectorResult(msgspec.Struct, frozen=True):
    """Outcome of one vector; `detail` says what differs."""

    name: str
    ok: bool
    detail: str = ""


def run_vectors(
    vectors: Sequence[Vector],
    *,
    codec: Codec | None = None,
    framer: Callable[[], Framer] | None = None,
    caller: Caller | None = None,
    given_up: Callable[[], bool] = lambda: False,
) -> list[VectorResult]:
    """Run vectors in order on one plugin, a codec or a caller. `framer` makes the manifest's framing, if it has one.

    given_up: asked between vectors; once it says so, or they take too long together, the next one fails and is the
    last.
    """
    results = []
    over_at = perf_counter() + VECTORS_S
    for number, vector in enumerate(vectors, 1):
        if given_up() or perf_counter() > over_at:
            detail = "given up" if given_up() else f"the vectors take more than {VECTORS_S:g} s together"
            results.append(VectorResult(vector.name or f"test {number}", ok=False, detail=detail))
            break
        try:
            detail = _difference(vector, codec, framer, caller)
        except (ConfigError, FramingError, NotReady) as error:
            detail = str(error)
        results.append(VectorResult(vector.name or f"test {number}", not detail, detail))
    return results


def shown_item(result: Decoded) -> dict[str, Any]:
    """A decoded item as plain data, as `item` of a vector sees it; raises ConfigError where it is no plain data."""
    return {
        "kind": result.kind,
        "device": result.device,
        "points": [{"at": point.at, "values": point.values} for point in result.points],
        "event": None if result.event is None else {"name": result.event.name, "data": result.event.data},
        "reply_to": result.reply_to,
        "ok": result.ok,
        "credential": result.credential,
        "ack": plain(result.ack),
        "value": plain(result.value),
    }


def plain(raw: msgspec.Raw) -> Any:
    """A msgpack value kept raw, as plain data; None where there is none. Raises ConfigError for what JSON has not."""
    if not bytes(raw):
        return None
    try:
        value = msgspec.msgpack.decode(raw)
        msgspec.json.encode(value)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"the plugin's value cannot be shown as JSON: {type(error).__name__}") from None
    return value


def _difference(vector: Vector, codec: Codec | None, framer: Callable[[], Framer] | None, caller: Caller | None) -> str:
    """What is wrong with the plugin's answer; empty where it is right."""
    if vector.call is not None:
        return "a codec has no gw_call" if caller is None else _call_difference(caller, vector, vector.call)
    if codec is None:
        return "only a codec decodes and encodes: use `call` and `result`"
    if vector.encode is not None:
        return _encode_difference(codec, vector, vector.encode)
    frame = vector.frame_bytes or b""
    if vector.wire:
        if framer is None:
            return "the vector is as on the wire, but the manifest has no [framing]"
        frames = framer().feed(frame)
        if len(frames) != 1:
            return f"the framing cuts {len(frames)} frames, not one"
        frame = frames[0]
    results = codec.decode_batch([frame], None if vector.aux is None else [vector.aux])
    return _result_difference(results[0], vector)


def _result_difference(result: DecodeResult, vector: Vector) -> str:
    if vector.drop or vector.error is not None:
        wanted = None if vector.drop else vector.error
        return (
            "" if result == wanted and not isinstance(result, Decoded) else f"expected {wanted}, got {_brief(result)}"
        )
    if not isinstance(result, Decoded):
        return f"expected an item, got {_brief(result)}"
    if vector.expect is not msgspec.UNSET:
        detail = difference(vector.expect, plain(result.value), "value")
        if detail:
            return detail
    return "" if vector.item is None else difference(vector.item, shown_item(result), "item")


def _encode_difference(codec: Codec, vector: Vector, request: dict[str, Any]) -> str:
    try:
        data = codec.encode(msgspec.msgpack.encode(request), vector.aux or 0)
    except CodecError as error:
        return "" if error.number == vector.error else f"encode failed with code {error.number}: {error}"
    if vector.error is not None:
        return f"expected code {vector.error}, got {data.hex()}"
    return "" if data.hex() == (vector.hex or "").lower() else f"expected {vector.hex}, got {data.hex()}"


def _call_difference(caller: Caller, vector: Vector, args: dict[str, Any]) -> str:
    try:
        answer = caller.call(from_shown(args), VECTOR_CALL_S)
    except CodecError as error:
        return "" if error.number == vector.error else f"the call failed with code {error.number}: {error}"
    if vector.error is not None:
        return f"expected code {vector.error}, got {_brief(answer)}"
    return difference(vector.result, to_shown(answer), "result")


def difference(expected: Any, actual: Any, where: str) -> str:
    """Where `actual` does not contain `expected`; empty where it does. Maps match by their keys, lists as a whole."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        absent = [key for key in expected if key not in actual]
        if absent:
            return f"{where}.{absent[0]}: missing"
        pairs = [(f"{where}.{key}", value, actual[key]) for key, value in expected.items()]
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = [(f"{where}[{place}]", one, actual[place]) for place, one in enumerate(expected)]
    else:
        return "" if _same(expected, actual) else f"{where}: expected {_brief(expected)}, got {_brief(actual)}"
    return next((detail for at, one, other in pairs if (detail := difference(one, other, at))), "")


def _same(expected: Any, actual: Any) -> bool:
    numbers = (int, float)
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, numbers) and isinstance(actual, numbers):
        return expected == actual or math.isclose(expected, actual, rel_tol=1e-12)
    return bool(expected == actual)


def _brief(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value} ({code_text(value)})" if value in {-2, -1} else str(value)
    text = "an item" if isinstance(value, Decoded) else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
