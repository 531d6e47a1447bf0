"""Values that a plugin may name and never sees: secrets, and signatures made with them.

Owns the expressions `{"$secret": "name"}` and `{"$hmac_sha256": {...}}` and what keeps secrets out of texts. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import msgspec
from typing_extensions import override

from gateway.core.errors import Rejected

DEPTH: Final = 16
"""Nesting of a value with expressions; a message needs five."""
PARTS: Final = 16
"""Parts of a key or of signed data."""
EXPRESSIONS: Final = 64
"""Expressions of one answer, parts that name a secret included; the shipped plugins need three."""
VALUES: Final = 4_000
"""Values of one answer, containers included; a card with buttons has some fifty."""
FILLED_BYTES: Final = 1024 * 1024
"""What the expressions of one answer take in and give together: four signed bodies of the largest size."""
_TELLING_CHARS: Final = 12
"""Pieces of a secret URL's path of this length or more are secret: tokens are, words such as `robot` are not."""
_TELLING_NUMBER_CHARS: Final = 6
"""The same for pieces with a digit: words have none."""
_SHORTEST_TOKEN_CHARS: Final = 4
"""The same where tokens mostly stand: in a parameter's value, and, without parameters, at the end of the path."""
_HIDDEN: Final = "[redacted]"
_KEPT_IN_A_PATH: Final = "/!$&'()*+,;=:@"
"""What a client need not quote there. Source: RFC 3986, 3.3."""


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
        self._words: Final = _telling(self._values.values())
        self._told: Final = re.compile("|".join(map(re.escape, self._words))) if self._words else None
        self._longest_bytes = max((len(word.encode(errors="replace")) for word in self._words), default=0)

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

    def excerpt(self, body: bytes, most_bytes: int, *, cut: bool = False) -> str:
        """The beginning of a body as text, without any secret and without a part of one at its end.

        cut: whether the body is the beginning of a longer one already.
        """
        window = most_bytes + self._longest_bytes
        text = self.redact(body[:window].decode(errors="replace"))
        if cut or len(body) > window:
            text = text.rstrip("\ufffd")  # what a cut leaves of a character
            text = text[: self._whole_until(text)]
        return text[:most_bytes]

    def _whole_until(self, text: str) -> int:
        """Where the last word begins that may be the cut beginning of a secret."""
        ends = [len(text)]
        for word in self._words:
            at = text.find(word[0], max(0, len(text) - len(word)))
            while at >= 0 and not word.startswith(text[at:]):
                at = text.find(word[0], at + 1)
            if at >= 0:
                ends.append(at)
        return min(ends)


class Filling:
    """Fills in the expressions of one answer, within bounds that hold for all of it."""

    def __init__(self, secrets: Secrets) -> None:
        """Have filled in nothing yet."""
        self.secrets = secrets
        self._expressions = 0
        self._values = 0
        self._bytes = 0

    def resolve(self, value: Any, depth: int = 0) -> Any:
        """A value with every expression replaced by its text. Raises Rejected for a malformed one, or over a bound."""
        if depth > DEPTH:
            raise Rejected(f"values are nested more than {DEPTH} deep")
        self._values += 1
        if self._values > VALUES:
            raise Rejected(f"the plugin's answer has more than {VALUES} values")
        if isinstance(value, list):
            return [self.resolve(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        operator = next((key for key in value if isinstance(key, str) and key.startswith("$")), None)
        if operator is None:
            return {key: self.resolve(item, depth + 1) for key, item in value.items()}
        if operator == "$secret":
            return self._secret(_typed(value, SecretRef))
        if operator == "$hmac_sha256" and len(value) == 1:
            return self._signature(_typed(value[operator], Hmac))
        raise Rejected(f"there is no expression {operator[:40]!r}; write $secret or $hmac_sha256, alone in its map")

    def _secret(self, asked: SecretRef) -> str:
        self._count()
        text = self.secrets.value(asked.name)
        self._take(len(_utf8(text)))
        return text

    def _signature(self, asked: Hmac) -> str:
        self._count()
        digest = hmac.new(self._joined(asked.key), self._joined(asked.data), hashlib.sha256).digest()
        return digest.hex() if asked.encoding == "hex" else base64.b64encode(digest).decode()

    def _joined(self, parts: list[Part]) -> bytes:
        if len(parts) > PARTS:
            raise Rejected(f"$hmac_sha256: a key or data of more than {PARTS} parts")
        joined = b"".join(_utf8(part if isinstance(part, str) else self._secret(part)) for part in parts)
        self._take(len(joined))
        return joined

    def _count(self) -> None:
        self._expressions += 1
        if self._expressions > EXPRESSIONS:
            raise Rejected(f"the plugin's answer has more than {EXPRESSIONS} expressions")

    def _take(self, size: int) -> None:
        self._bytes += size
        if self._bytes > FILLED_BYTES:
            raise Rejected(f"the expressions of the plugin's answer fill in more than {FILLED_BYTES} bytes")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Rejected("a secret or a part of an expression is no UTF-8; see the environment it comes from") from None


def _typed(value: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as failure:
        raise Rejected(f"expression: {failure}") from failure


def _telling(values: Iterable[str]) -> list[str]:
    """What must not stand in a text, longest first: each secret, and the telling pieces of URLs, in every spelling."""
    words = {word for value in values for piece in (value, *_pieces(value)) for word in _spellings(piece)}
    return sorted(words - {""}, key=len, reverse=True)


def _pieces(value: str) -> Iterator[str]:
    """The pieces of a URL that are secret by themselves; none of a secret that is no URL.

    The host is not among them: errors name it, and say what to do about it.
    """
    _, mark, behind = value.partition("://")
    if not mark:
        return
    behind, _, fragment = behind.partition("#")
    place, _, query = behind.partition("?")
    segments = [segment for segment in place.split("/")[1:] if segment]
    for segment in (*segments, fragment):
        digits = any(char.isdigit() for char in segment)
        if len(segment) >= (_TELLING_NUMBER_CHARS if digits else _TELLING_CHARS):
            yield segment
    likely = [parameter.rpartition("=")[2] for parameter in query.split("&")]
    if not query:
        likely += segments[-1:]
    yield from (piece for piece in likely if len(piece) >= _SHORTEST_TOKEN_CHARS)


def _spellings(piece: str) -> set[str]:
    """A text as it is, quoted and unquoted as in URLs, and each as JSON and HTML write it."""
    plain = {piece, unquote(piece), unquote_plus(piece)}
    for text in tuple(plain):
        quoted = {quote(text, safe=safe, errors="replace") for safe in ("", "/", _KEPT_IN_A_PATH)}
        quoted.add(quote_plus(text, errors="replace"))
        plain |= quoted | {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), each) for each in quoted}
    escaped = set(plain)
    for text in plain:
        for ascii_only in (True, False):
            escaped.add(json.dumps(text, ensure_ascii=ascii_only)[1:-1])
    return escaped | {
        text.replace(char, written)
        for text in escaped
        for char, written in (("/", r"\/"), ("&", r"\u0026"), ("&", "&amp;"))
        if char in text
    }
