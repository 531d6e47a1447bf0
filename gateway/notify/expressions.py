"""Values that a plugin may name and never sees: secrets, and signatures made with them.

Owns the expressions `{"$secret": "name"}` and `{"$hmac_sha256": {...}}` and what keeps secrets out of texts. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, quote_plus

import msgspec
from typing_extensions import override

from gateway.core.errors import Rejected

DEPTH: Final = 16
"""Nesting of a value with expressions; a message needs five."""
PARTS: Final = 16
"""Parts of a key or of signed data."""
_TELLING_CHARS: Final = 12
"""Pieces of a secret URL of this length or more are secret by themselves: tokens are, words such as `robot` are not."""
_HIDDEN: Final = "[redacted]"


class SecretRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"name": "$secret"}):
    """The value of a secret of the channel."""

    name: str


Part: TypeAlias = str | SecretRef


class Hmac(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HMAC-SHA256 over joined parts, UTF-8. Source: RFC 2104, FIPS 180-4."""

    key: list[Part]
    data: list[Part] = []
    encoding: Literal["base64", "hex"] = "base64"


class Secrets:
    """The secrets of one channel, by name. Prints as their names."""

    def __init__(self, values: Mapping[str, str]) -> None:
        """Hold them."""
        self._values = dict(values)
        self._told: Final = _telling(self._values.values())

    @override
    def __repr__(self) -> str:
        return f"Secrets({self.names})"

    @property
    def names(self) -> list[str]:
        """What there is."""
        return sorted(self._values)

    def value(self, name: str) -> str:
        """The secret itself. Raises Rejected naming what is missing."""
        if name not in self._values:
            raise Rejected(f"the channel has no secret {name!r}; it has: {', '.join(self.names) or 'none'}")
        return self._values[name]

    def redact(self, text: str) -> str:
        """A text without any secret, as a server might echo one, whole or piece of a URL."""
        return text if self._told is None else self._told.sub(_HIDDEN, text)


def resolve(value: Any, secrets: Secrets, depth: int = 0) -> Any:
    """A value with every expression replaced by its text. Raises Rejected for one that is malformed or too deep."""
    if depth > DEPTH:
        raise Rejected(f"values are nested more than {DEPTH} deep")
    if isinstance(value, list):
        return [resolve(item, secrets, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    operator = next((key for key in value if isinstance(key, str) and key.startswith("$")), None)
    if operator is None:
        return {key: resolve(item, secrets, depth + 1) for key, item in value.items()}
    if operator == "$secret":
        return secrets.value(_typed(value, SecretRef).name)
    if operator == "$hmac_sha256" and len(value) == 1:
        return _signature(_typed(value[operator], Hmac), secrets)
    raise Rejected(f"there is no expression {operator[:40]!r}; write $secret or $hmac_sha256, alone in its map")


def _signature(asked: Hmac, secrets: Secrets) -> str:
    digest = hmac.new(_joined(asked.key, secrets), _joined(asked.data, secrets), hashlib.sha256).digest()
    return digest.hex() if asked.encoding == "hex" else base64.b64encode(digest).decode()


def _joined(parts: list[Part], secrets: Secrets) -> bytes:
    if len(parts) > PARTS:
        raise Rejected(f"$hmac_sha256: a key or data of more than {PARTS} parts")
    texts = [part if isinstance(part, str) else secrets.value(part.name) for part in parts]
    return "".join(texts).encode()


def _typed(value: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as failure:
        raise Rejected(f"expression: {failure}") from failure


def _telling(values: Any) -> re.Pattern[str] | None:
    """What must not stand in a text: each secret, and the long pieces of those that are URLs, in every spelling."""
    words: set[str] = set()
    for value in values:
        # The host is no secret: errors name it, and say what to do about it.
        _, mark, behind = value.partition("://")
        pieces = re.split(r"[/?&=#]", behind)[1:] if mark else []
        for piece in [value, *(piece for piece in pieces if len(piece) >= _TELLING_CHARS)]:
            words |= {piece, quote(piece), quote(piece, safe=""), quote_plus(piece)}
    words.discard("")
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True)))) if words else None
