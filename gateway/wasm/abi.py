"""ABI gw1 as the host sees it: names and signatures, how a batch is packed, how a result is unpacked and checked.

Owns the wire between host and guest. Knows no store, no deadline and no file.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import wasmtime

from gateway.core.errors import ConfigError
from gateway.core.flow import Decoded
from gateway.core.log import safe_text
from gateway.wasm.bulk import unfolds_within
from gateway.wasm.codec import MALFORMED, DecodeResult
from gateway.wasm.manifest import PluginKind

ABI_MAJOR: Final = 1
ABI_MINOR: Final = 0
HOST_MODULE: Final = "gw1"
WASI_MODULE: Final = "wasi_snapshot_preview1"
HEADER_BYTES: Final = 8
"""Bytes that a batch spends on each frame beside its payload: its length and its aux."""

TOO_LARGE: Final = 4
UNSUPPORTED: Final = 5

_CALL: Final = (("i32", "i32", "i32"), ("i64",))
SIGNATURES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "gw_abi": ((), ("i32",)),
    "gw_buf": (("i32",), ("i32",)),
    "_initialize": ((), ()),
    "gw_init": (("i32", "i32"), ("i32",)),
    "gw_decode": _CALL,
    "gw_decode_batch": _CALL,
    "gw_decode_rows": _CALL,
    "gw_encode": _CALL,
    "gw_call": _CALL,
    "gw_state_save": ((), ("i64",)),
    "gw_state_load": (("i32", "i32"), ("i32",)),
    "gw_last_error": ((), ("i64",)),
}
REQUIRED: Final = ("gw_abi", "gw_buf")
"""What every plugin must export beside its memory."""
_DOES_ITS_WORK: Final = {"codec": "gw_decode_batch"}
"""The export that a plugin's kind cannot do without; gw_call where not said."""

IMPORTS: Final[Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "log": ("log", ("i32", "i32", "i32"), ()),
    "now_ms": ("clock", (), ("i64",)),
    "config": ("config", ("i32", "i32", "i32", "i32"), ("i32",)),
    "kv_get": ("kv", ("i32", "i32", "i32", "i32"), ("i32",)),
    "kv_set": ("kv", ("i32", "i32", "i32", "i32"), ("i32",)),
    "random": ("random", ("i32", "i32"), ()),
}
"""Host functions: the capability each belongs to, and its signature."""


def check_exports(module: wasmtime.Module, kind: PluginKind) -> None:
    """Raise ConfigError unless what the kind needs is there and every export has its signature.

    The fast call path does not check signatures again.
    """
    exports = {export.name: export.type for export in module.exports}
    memory = exports.get("memory")
    if not isinstance(memory, wasmtime.MemoryType):
        raise ConfigError("the module does not export its memory")
    for name in (*REQUIRED, _DOES_ITS_WORK.get(kind, "gw_call")):
        if name not in exports:
            raise ConfigError(f"the module does not export {name}, which a plugin of kind {kind} needs")
    for name, wanted in SIGNATURES.items():
        if name in exports and _signature(exports[name]) != wanted:
            raise ConfigError(f"the export {name} must be {_shown(wanted)}")


def check_imports(module: wasmtime.Module, asked: frozenset[str], granted: frozenset[str]) -> None:
    """Raise ConfigError for any import that is unknown, not asked for in the manifest, or not granted."""
    for item in module.imports:
        name = safe_text(f"{item.module}.{item.name}")
        if item.module == WASI_MODULE:
            capability = "wasi"
        elif item.module == HOST_MODULE and item.name is not None and item.name in IMPORTS:
            capability, *wanted = IMPORTS[item.name]
            if _signature(item.type) != tuple(wanted):
                raise ConfigError(f"the import {name} must be {_shown((wanted[0], wanted[1]))}")
        else:
            raise ConfigError(f"the module imports {name}, which no host offers")
        if capability not in asked:
            raise ConfigError(f"the module imports {name}, but its manifest does not say `caps.{capability} = true`")
        if capability not in granted:
            raise ConfigError(f"the module imports {name}, but `{capability}` is not granted to it ([wasm.grants])")


def _signature(kind: Any) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    if not isinstance(kind, wasmtime.FuncType):
        return None
    return tuple(str(one) for one in kind.params), tuple(str(one) for one in kind.results)


def _shown(wanted: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
    return f"({', '.join(wanted[0])}) -> ({', '.join(wanted[1])})"


def pack_batch(frames: Sequence[bytes], aux: Sequence[int] | None) -> bytes:
    """Lay a batch out as the guest reads it: n lengths, n aux (u32 little endian), the payloads joined."""
    count = len(frames)
    if count == 1:
        return struct.pack("<2I", len(frames[0]), aux[0] if aux else 0) + frames[0]
    return b"".join((_words(list(map(len, frames))), _words(aux) if aux else bytes(4 * count), *frames))


def _words(values: Sequence[int]) -> bytes:
    words = array("I", values)
    if sys.byteorder == "big" or words.itemsize != 4:
        return struct.pack(f"<{len(values)}I", *values)
    return words.tobytes()


class BadBatch(Exception):
    """A batch's result is not an array of one item per frame, so it says nothing about any single frame."""


class UnfoldsTooFar(BadBatch):
    """A batch's result is small as bytes and would be a burden as values."""


MOST_VALUES: Final = 1_048_576
VALUES_PER_FRAME: Final = 512
"""Values (containers, keys and scalars) of one result, beside those that each of its frames adds: some times what the
longest message of a vehicle terminal takes; a second at worst. Fewer bytes cannot be more values."""
_MOST_UNCOUNTED_BYTES: Final = 4 << 20
_MOST_HEADS: Final = 524_288
_NO_HEADS: Final = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))
"""Counting is as dear as decoding: a result of so few bytes that could begin a list or map needs none."""


def _refuse_extension(code: int, _data: memoryview) -> Any:
    raise ValueError(f"extension type {code}")


_items: Final = msgspec.msgpack.Decoder(list[Decoded | int | None], ext_hook=_refuse_extension)
_raw_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_any: Final = msgspec.msgpack.Decoder(ext_hook=_refuse_extension)
_NOTHING: Final = msgspec.Raw()
_item: Final = msgspec.msgpack.Decoder(Decoded | int | None, ext_hook=_refuse_extension)
# What msgspec answers to bytes that somebody chose: malformed, of another type, not UTF-8, nested without end.
_BAD_DATA: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def _is_suspect(packed: bytes) -> bool:
    return len(packed) > _MOST_UNCOUNTED_BYTES or len(packed.translate(None, _NO_HEADS)) > _MOST_HEADS


def unpack_batch(packed: bytes, count: int) -> list[DecodeResult]:
    """One outcome per frame; an item that is not what the ABI asks for is MALFORMED, its neighbours live.

    Raises BadBatch when the whole is broken, or has another number of items than frames; UnfoldsTooFar where it would
    become more than MOST_VALUES and VALUES_PER_FRAME of each frame.
    """
    most = MOST_VALUES + VALUES_PER_FRAME * count
    if len(packed) > most and _is_suspect(packed) and not unfolds_within(packed, most):
        raise UnfoldsTooFar(f"more than {most} values for {count} frames")
    items: list[DecodeResult]
    try:
        items = list(_items.decode(packed))
    except _BAD_DATA:
        items = _one_by_one(packed)
    if len(items) != count:
        raise BadBatch(f"{len(items)} items for {count} frames")
    for place, item in enumerate(items):
        if isinstance(item, Decoded):
            if not _is_sound(item):
                items[place] = MALFORMED
        elif item is not None:
            items[place] = _checked_code(item)
    return items


def pack_results(results: Sequence[DecodeResult]) -> bytes:
    """Outcomes as a guest would give them, the host's own codes included; `unpack_results` is the opposite."""
    return msgspec.msgpack.encode([_without_gaps(result) for result in results])


def unpack_results(packed: bytes) -> list[DecodeResult]:
    """Outcomes that were checked before; raises ValueError where the bytes are none."""
    return list(_items.decode(packed))


def _without_gaps(result: DecodeResult) -> Any:
    """An item as a map of what it has: an empty Raw is no msgpack."""
    if not isinstance(result, Decoded):
        return result
    fields = {name: getattr(result, name) for name in Decoded.__struct_fields__}
    return {name: value for name, value in fields.items() if value != _NOTHING}


def _one_by_one(packed: bytes) -> list[DecodeResult]:
    try:
        raws = _raw_items.decode(packed)
    except _BAD_DATA as error:
        raise BadBatch(type(error).__name__) from None
    items: list[DecodeResult] = []
    for raw in raws:
        try:
            items.append(_item.decode(raw))
        except _BAD_DATA:
            items.append(MALFORMED)
    return items


def _checked_code(item: DecodeResult) -> DecodeResult:
    """A guest's error code: never one of the host's own negative ones; 0 says the same as nil."""
    if isinstance(item, int) and not 0 <= item <= 0xFFFF_FFFF:
        return MALFORMED
    return item or None


_FIRST_MS: Final = -62_135_596_800_000
_LAST_MS: Final = 253_402_300_799_999
"""Years 1 to 9999: what RFC 3339 can write and every database can hold."""
_MOST_SERIAL: Final = 0xFFFF_FFFF
_PLAIN: Final = frozenset((str, int, float, bool, type(None)))
_MOST_NESTING: Final = 16
"""Levels of lists and maps in a value or in an event's data: more than people write, few enough for every encoder
downstream."""


def _is_sound(item: Decoded) -> bool:
    """Whether nothing in an item of the right shape is more than the rest of the gateway can keep."""
    for point in item.points:
        if point.at is not None and not _FIRST_MS <= point.at <= _LAST_MS:
            return False
        if not _PLAIN.issuperset(map(type, point.values.values())) and not _is_plain(point.values):
            return False
    if item.reply_to is not None and not 0 <= item.reply_to <= _MOST_SERIAL:
        return False
    if item.kind == "reply" and not _is_shown(item.value):
        return False
    return item.event is None or _is_plain(item.event.data)


def _is_shown(value: msgspec.Raw) -> bool:
    """Whether the `value` of an answer, which becomes the command's result, is missing or JSON."""
    if value == _NOTHING:
        return True
    try:
        return _is_plain(_any.decode(value))
    except _BAD_DATA:
        return False


def _is_plain(data: Any, depth: int = 0) -> bool:
    """Whether a value is JSON all the way down and not nested deeper than any consumer bears."""
    if type(data) in _PLAIN:
        return True
    if depth >= _MOST_NESTING:
        return False
    if isinstance(data, dict):
        return all(isinstance(key, str) and _is_plain(value, depth + 1) for key, value in data.items())
    return isinstance(data, list) and all(_is_plain(value, depth + 1) for value in data)
