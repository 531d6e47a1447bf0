"""Plain data as people write and see it in TOML and JSON: bytes are `{"$hex": "00ff"}`. Knows no plugin."""

from __future__ import annotations

from typing import Any, Final

from gateway.core.errors import ConfigError

_BYTES: Final = "$hex"


def from_shown(value: Any) -> Any:
    """Plain data with bytes in it; raises ConfigError for a `$hex` that is not hexadecimal."""
    if isinstance(value, dict):
        if value.keys() == {_BYTES}:
            return _unhex(value[_BYTES])
        return {key: from_shown(item) for key, item in value.items()}
    return [from_shown(item) for item in value] if isinstance(value, list | tuple) else value


def to_shown(value: Any) -> Any:
    """The opposite; keys that are no text become text, as JSON has no others."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {_BYTES: bytes(value).hex()}
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): to_shown(item) for key, item in value.items()}
    return [to_shown(item) for item in value] if isinstance(value, list | tuple) else value


def _unhex(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError) as failure:
        raise ConfigError(f"$hex: write bytes as pairs of hexadecimal digits: {failure}") from failure
