"""CBOR for tests: an encoder of what SenML packs are made of. Source: RFC 8949, 3; labels: RFC 8428, table 4."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

LABELS = {"bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6}
LABELS |= {"n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8}


class Raw(bytes):
    """CBOR as it is."""


def head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * width:
            return bytes((major << 5 | info,)) + argument.to_bytes(width, "big")
    raise ValueError(argument)


def cbor(item: Any) -> bytes:
    """One item: None, bool, int, float (as a double), str, bytes, list, dict, or Raw."""
    if isinstance(item, Raw):
        packed = bytes(item)
    elif item is None or isinstance(item, bool):
        packed = {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[item]
    elif isinstance(item, int):
        packed = head(0, item) if item >= 0 else head(1, -1 - item)
    elif isinstance(item, float):
        packed = b"\xfb" + struct.pack(">d", item)
    elif isinstance(item, str):
        packed = head(3, len(item.encode())) + item.encode()
    elif isinstance(item, bytes):
        packed = head(2, len(item)) + item
    elif isinstance(item, Mapping):
        packed = head(5, len(item)) + b"".join(cbor(key) + cbor(value) for key, value in item.items())
    else:
        packed = head(4, len(item)) + b"".join(map(cbor, item))
    return packed


def pack(*records: Mapping[Any, Any]) -> bytes:
    """A pack of records by their JSON labels; other keys stay as they are."""
    return cbor([{LABELS.get(key, key): value for key, value in record.items()} for record in records])
