"""Bounds of the things room, each with its reason."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ThingsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what devices may make the gateway remember.

    auto_devices_per_product: devices of a product, above which none may register itself any more. Each costs about
        1 KB of memory and a row, and anyone who reaches the port of an `auto` product can invent ids.
    settle_s: how long a change of a device that has just registered waits for its row, before it is refused as not
        ready. A commit takes some 10 ms; the rest is for a disk that stalls.
    values_per_message: properties of one message; the rest is shed and counted. Twice the largest profile we know.
    text_chars: characters of one text value, hex of binary values included. Longer ones are files, not readings.
    value_items: members of one object or array value, all levels together.
    value_depth: levels of one object or array value, well below the 100 that Lua and SQLite read.
    """

    auto_devices_per_product: _Count = 100_000
    settle_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 10.0
    values_per_message: _Count = 256
    text_chars: _Count = 16_384
    value_items: _Count = 1_024
    value_depth: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
