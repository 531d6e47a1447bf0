"""MessagePack of large plain data, step by step: one call of the C codec for 16 MiB would hold every other thread.

What is small goes through msgspec at once. Owns the bound on what an answer may unfold to: a byte of MessagePack can
become a hundred of Python. Knows no plugin.

Source: MessagePack specification, formats overview.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

MOST_VALUES: Final = 500_000
"""Values of one answer, keys and containers included: some 50 MB at worst."""
_AT_ONCE_BYTES: Final = 64 * 1024
"""An answer up to this size is decoded by msgspec in a few milliseconds, whatever is in it."""
_AT_ONCE_ITEMS: Final = 1024
_MOST_DEPTH: Final = 100

_NUMBERS: Final = {
    code: struct.Struct(layout)
    for code, layout in {
        0xCA: ">f",
        0xCB: ">d",
        0xCC: ">B",
        0xCD: ">H",
        0xCE: ">I",
        0xCF: ">Q",
        0xD0: ">b",
        0xD1: ">h",
        0xD2: ">i",
        0xD3: ">q",
    }.items()
}
_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}
_TEXTS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAYS: Final = {0xDC: 2, 0xDD: 4}
_MAPS: Final = {0xDE: 2, 0xDF: 4}
_EXTENSIONS: Final = {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17, 0xC7: 0}
"""Bytes behind the code of an extension, 0 where the next byte says it: a moment is one, all others are refused."""


class TooManyValues(ValueError):
    """The data unfolds to more than a host takes."""


def encode(value: Any) -> bytes:
    """Plain data as MessagePack; long lists of a map go in slices. Raises as msgspec does."""
    if not (isinstance(value, dict) and any(_is_long(item) for item in value.values())):
        return msgspec.msgpack.encode(value)
    parts = [_head(0x80, 0xDE, len(value))]
    for key, item in value.items():
        parts.append(msgspec.msgpack.encode(key))
        if _is_long(item):
            parts.append(_head(0x90, 0xDC, len(item)))
            for start in range(0, len(item), _AT_ONCE_ITEMS):
                piece = item[start : start + _AT_ONCE_ITEMS]
                parts.append(msgspec.msgpack.encode(piece)[len(_head(0x90, 0xDC, len(piece))) :])
        else:
            parts.append(msgspec.msgpack.encode(item))
    return b"".join(parts)


def decode(data: bytes, most_values: int = MOST_VALUES) -> Any:
    """The plain value that the bytes are, moments included; other extension types are refused.

    Raises TooManyValues, and ValueError or RecursionError for anything else that is not MessagePack.
    """
    if len(data) <= _AT_ONCE_BYTES:
        return msgspec.msgpack.decode(data, ext_hook=_refuse)
    walk = _Walk(data, most_values)
    value = walk.value(_MOST_DEPTH)
    if walk.at != len(data):
        raise ValueError("there are bytes behind the value")
    return value


def unfolds_within(data: bytes, most_values: int) -> bool:
    """Whether the value that the bytes begin with is no more than so many, keys and containers included.

    A value takes a byte at least, so that little data is not looked at. Never raises: what is no MessagePack is for
    whoever decodes it to refuse.
    """
    if len(data) <= most_values:
        return True
    at, size, left, seen = 0, len(data), 1, 0
    while left and at < size:
        code = data[at]
        width = _SIZE_WIDTHS[code]
        count = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else _SHORT_COUNTS[code]
        at += _HEADS[code]
        children = _CHILDREN[code]
        if children:
            left += children * count
        else:
            at += count
        left -= 1
        seen += 1
        if seen + left > most_values:
            return False
    return True


def _short_count(code: int) -> int:
    """Children or bytes of a value whose first byte says how many."""
    if 0x80 <= code < 0xA0:
        return code & 0x0F
    if 0xA0 <= code < 0xC0:
        return code & 0x1F
    if code in _NUMBERS:
        return _NUMBERS[code].size
    return _EXTENSIONS.get(code, 0)


_WIDTHS: Final = {**_TEXTS, **_BYTES, **_ARRAYS, **_MAPS, 0xC7: 1, 0xC8: 2, 0xC9: 4}
_SIZE_WIDTHS: Final = tuple(_WIDTHS.get(code, 0) for code in range(256))
_HEADS: Final = tuple(1 + _WIDTHS.get(code, 0) + (code in {0xC7, 0xC8, 0xC9}) for code in range(256))
"""Bytes before the content: an extension's type stands behind its size, which does not count it."""
_SHORT_COUNTS: Final = tuple(_short_count(code) for code in range(256))
_CHILDREN: Final = tuple(
    2 if 0x80 <= code < 0x90 or code in _MAPS else 1 if 0x90 <= code < 0xA0 or code in _ARRAYS else 0
    for code in range(256)
)
"""Values behind each count of a map (key and value) or an array; 0 where what follows are bytes."""


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > _AT_ONCE_ITEMS


def _head(short: int, long: int, count: int) -> bytes:
    """Start of an array or a map as msgspec writes it."""
    if count < 16:
        return bytes((short | count,))
    return struct.pack(">BH", long, count) if count < 1 << 16 else struct.pack(">BI", long + 1, count)


def _refuse(code: int, _data: memoryview) -> Any:
    raise ValueError(f"extension type {code}")


class _Walk:
    """One value on its way, with what is left of the bound."""

    def __init__(self, data: bytes, most_values: int) -> None:
        self.at = 0
        self._data = data
        self._left = most_values

    def value(self, depth: int) -> Any:
        """The value at the present place. Raises ValueError."""
        if self.at >= len(self._data):
            raise ValueError("the data is cut short")
        code = self._data[self.at]
        self.at += 1
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code < 0xC0:
            return self._short(code, depth)
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        return self._long(code, depth)

    def _short(self, code: int, depth: int) -> Any:
        if code >= 0xA0:
            return self._take(code & 0x1F).decode()
        return self._array(code & 0x0F, depth) if code >= 0x90 else self._map(code & 0x0F, depth)

    def _long(self, code: int, depth: int) -> Any:
        if code in _TEXTS:
            return self._take(self._count(_TEXTS[code])).decode()
        if code in _BYTES:
            return self._take(self._count(_BYTES[code]))
        if code in _ARRAYS:
            return self._array(self._count(_ARRAYS[code]), depth)
        if code in _MAPS:
            return self._map(self._count(_MAPS[code]), depth)
        if code in _EXTENSIONS:
            begin = self.at - 1
            self._take(_EXTENSIONS[code] or self._count(1) + 1)
            return msgspec.msgpack.decode(self._data[begin : self.at], ext_hook=_refuse)
        raise ValueError(f"type {code:#x} is not plain")

    def _array(self, count: int, depth: int) -> list[Any]:
        self._spend(count, depth)
        value = self.value
        return [value(depth - 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[Any, Any]:
        self._spend(2 * count, depth)
        found = {}
        for _ in range(count):
            key = self.value(depth - 1)
            if isinstance(key, list | dict):
                raise ValueError("a container cannot be a key")  # noqa: TRY004 - what is wrong is the data
            found[key] = self.value(depth - 1)
        return found

    def _spend(self, count: int, depth: int) -> None:
        if not depth:
            raise ValueError("the data is nested too deeply")
        if count > len(self._data) - self.at:
            raise ValueError("the data is cut short")
        self._left -= count
        if self._left < 0:
            raise TooManyValues("the data has too many values")

    def _count(self, width: int) -> int:
        return int.from_bytes(self._take(width), "big")

    def _take(self, size: int) -> bytes:
        piece = self._data[self.at : self.at + size]
        if len(piece) < size:
            raise ValueError("the data is cut short")
        self.at += size
        return piece

    def _number(self, layout: struct.Struct) -> Any:
        return layout.unpack(self._take(layout.size))[0]
