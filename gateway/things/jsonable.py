"""Any value a plugin may return, as a value that JSON, SQLite and Lua can hold.

Owns bounds and conversions of free-form values. Does not know thing models: what is faithful here may still be wrong
for its property.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any, Final

from gateway.things.config import ThingsConfig

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
"""Integers that SQLite and Lua hold."""


class _Unfit(ValueError):
    """No JSON value stands for this one within the bounds."""


class JsonForm:
    """Turns values into JSON values within the bounds of a ThingsConfig."""

    __slots__ = ("_depth", "_items", "_text")

    def __init__(self, config: ThingsConfig) -> None:
        """Take over the bounds."""
        self._text = config.text_chars
        self._items = config.value_items
        self._depth = config.value_depth

    def of(self, value: Any) -> tuple[Any, bool]:
        """The JSON form, and whether nothing was lost by it; `(None, False)` where there is none. Never raises.

        Bytes become hex, a moment RFC 3339 text. An integer of more than 64 bits becomes decimal text and a NaN or
        an infinity null, both with loss, at any depth.
        """
        kind = type(value)
        if (kind is float and math.isfinite(value)) or (kind is int and INT_MIN <= value <= INT_MAX) or kind is bool:
            return value, True
        walk = _Walk(self._text, self._items, self._depth)
        try:
            return walk.of(value, 0), walk.faithful
        except _Unfit:
            return None, False


class _Walk:
    """One value on its way, with what is left of its bounds."""

    __slots__ = ("chars", "depth", "faithful", "items")

    def __init__(self, chars: int, items: int, depth: int) -> None:
        self.chars = chars
        self.items = items
        self.depth = depth
        self.faithful = True

    def of(self, value: Any, level: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._spend(value)
        if value is None or kind is bool:
            return value
        if kind is float:
            return value if math.isfinite(value) else self._lost(None)
        if kind is int:
            return value if INT_MIN <= value <= INT_MAX else self._lost(_decimal(value))
        if kind is dict or kind is list or kind is tuple:
            return self._container(value, level)
        return self._rare(value)

    def _container(self, value: Any, level: int) -> Any:
        self.items -= len(value)
        if level == self.depth or self.items < 0:
            raise _Unfit
        if type(value) is dict:
            return {self._key(key): self.of(item, level + 1) for key, item in value.items()}
        return [self.of(item, level + 1) for item in value]

    def _key(self, key: Any) -> str:
        kind = type(key)
        if kind is not str:
            if kind is not int and kind is not bytes:
                raise _Unfit
            self.faithful = False
            key = key.hex() if kind is bytes else _decimal(key)
        return self._spend(key)

    def _rare(self, value: Any) -> Any:
        if isinstance(value, bytes | bytearray):
            return self._spend(value.hex())
        if isinstance(value, datetime):
            moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            return moment.isoformat().replace("+00:00", "Z")
        if isinstance(value, date):
            return self._lost(value.isoformat())
        raise _Unfit

    def _spend(self, text: str) -> str:
        self.chars -= len(text)
        if self.chars < 0:
            raise _Unfit
        return text

    def _lost(self, instead: Any) -> Any:
        self.faithful = False
        return instead


def _decimal(value: int) -> str | None:
    """Digits of an integer that came over a wire; None for one that no wire format carries."""
    return str(value) if value.bit_length() <= 64 else None
