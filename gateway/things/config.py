"""Bounds of the things room, each with its reason."""

from __future__ import annotations

import msgspec


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

    auto_devices_per_product: int = 100_000
    settle_s: float = 10.0
    values_per_message: int = 256
    text_chars: int = 16_384
    value_items: int = 1_024
    value_depth: int = 8

    def __post_init__(self) -> None:
        """Refuse bounds with which nothing could be stored."""
        for name in self.__struct_fields__:
            if name != "settle_s" and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not 0 <= self.settle_s <= 60:
            raise ValueError("settle_s must be between 0 and 60 s")
        if self.value_depth > 64:
            raise ValueError("value_depth must be at most 64: databases and Lua refuse deeper values")
