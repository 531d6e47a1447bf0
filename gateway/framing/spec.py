"""What a framing is called in a manifest or a listener's configuration, and the framer that it asks for.

Owns the names, defaults and limits of framings. Does not know where the table came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, assert_never

import msgspec

from gateway.core.errors import ConfigError
from gateway.core.plain import nearest, typed
from gateway.framing.delimiter import DelimiterFramer
from gateway.framing.fixed import FixedFramer
from gateway.framing.flag_escape import FlagEscapeFramer
from gateway.framing.framer import Framer
from gateway.framing.gap import GapFramer
from gateway.framing.length_field import LengthFieldFramer
from gateway.framing.marked_length import MarkedLengthFramer, MarkPattern
from gateway.framing.passthrough import PassthroughFramer

Byte: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
FrameBytes: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=16 * 1024 * 1024)]
"""Every connection may hold this much: 16 MiB is more than any device frame and still no way to fill the memory."""

DEFAULT_MAX_FRAME_BYTES: Final = 65536
"""Holds every frame whose length is a 16-bit number, which is nearly every device protocol."""

DEFAULT_MAX_ESCAPED_BYTES: Final = 4096
"""A JT/T 808 frame has at most 1,023 bytes of body, 21 of header and a checksum: 2,090 if each byte is escaped.
Twice that leaves room for terminals that exceed the standard, and keeps 20,000 half frames under 80 MB."""


class FixedSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="fixed"):
    """`fixed`: every `frame_bytes` bytes are a frame."""

    frame_bytes: FrameBytes
    max_frame_bytes: FrameBytes = DEFAULT_MAX_FRAME_BYTES

    def __post_init__(self) -> None:
        """Refuse a frame over its own maximum."""
        if self.frame_bytes > self.max_frame_bytes:
            raise ValueError(f"frame_bytes {self.frame_bytes} is over max_frame_bytes {self.max_frame_bytes}")


class DelimiterSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="delimiter"):
    r"""`delimiter`: frames end at a delimiter, which is cut off; empty frames are skipped.

    delimiter: as text, such as `"\r\n"`. delimiter_hex: as bytes, such as `"0d0a"`; used instead when given.
    max_frame_bytes: counts the delimiter too.
    """

    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=16)] = "\n"
    delimiter_hex: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F]{2}){0,16}(?!\n)$")] = ""
    max_frame_bytes: FrameBytes = DEFAULT_MAX_FRAME_BYTES

    def __post_init__(self) -> None:
        """Refuse a maximum that leaves no room for a frame."""
        if self.max_frame_bytes <= len(self.octets):
            raise ValueError(f"max_frame_bytes must be over the delimiter's {len(self.octets)} bytes")

    @property
    def octets(self) -> bytes:
        """The delimiter as bytes."""
        return bytes.fromhex(self.delimiter_hex) if self.delimiter_hex else self.delimiter.encode()


class LengthFieldSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="length_field"):
    """`length_field`: a frame is (value of the field) + adjustment + (bytes up to the field's end) long.

    offset: bytes before the field. width: bytes of the field. strip: bytes cut off each frame's front.
    start: hex of what every frame starts with, `..` for any byte, such as `"68............68"`; with it, what stands
        between frames is skipped and counted, and a frame that cannot be one is looked for anew. Without it, the first
        wrong byte ends the connection.
    end: hex of what every frame ends with. preamble: the byte that may stand before a start, which is no fault.
    max_noise_bytes: skipped in a row without a frame, after which the connection ends.
    """

    offset: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 0
    width: Literal[1, 2, 3, 4, 8] = 2
    endian: Literal["big", "little"] = "big"
    adjustment: Annotated[int, msgspec.Meta(ge=-16 * 1024 * 1024, le=16 * 1024 * 1024)] = 0
    strip: Annotated[int, msgspec.Meta(ge=0, le=65536)] = 0
    start: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F]{2}([0-9a-fA-F]{2}|\.\.){0,31})?(?!\n)$")] = ""
    end: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F]{2}){0,4}(?!\n)$")] = ""
    preamble: Byte | None = None
    max_frame_bytes: FrameBytes = DEFAULT_MAX_FRAME_BYTES
    max_noise_bytes: FrameBytes = DEFAULT_MAX_FRAME_BYTES

    def __post_init__(self) -> None:
        """Refuse a header or a strip that no frame can hold, and marks that nothing would look for."""
        header = self.offset + self.width
        marked = max(header, len(self.start) // 2) + len(self.end) // 2
        for name, need in (("offset + width", header), ("header and end", marked), ("strip", self.strip)):
            if need > self.max_frame_bytes:
                raise ValueError(f"{name} ({need} bytes) is over max_frame_bytes {self.max_frame_bytes}")
        if not self.start and (self.end or self.preamble is not None):
            raise ValueError("end and preamble need a start")

    @property
    def start_bytes(self) -> MarkPattern:
        """The start mark byte by byte, None for any."""
        pairs = (self.start[at : at + 2] for at in range(0, len(self.start), 2))
        return tuple(None if pair == ".." else int(pair, 16) for pair in pairs)


class FlagEscapeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="flag_escape"):
    """`flag_escape`: frames stand between flag bytes and are unescaped; the defaults are JT/T 808's.

    escapes: pairs of [what follows the escape byte, what both stand for].
    max_frame_bytes: counts the frame before unescaping, without flags.
    """

    flag: Byte = 0x7E
    escape: Byte = 0x7D
    escapes: Annotated[tuple[tuple[Byte, Byte], ...], msgspec.Meta(max_length=256)] = ((0x01, 0x7D), (0x02, 0x7E))
    max_frame_bytes: FrameBytes = DEFAULT_MAX_ESCAPED_BYTES

    def __post_init__(self) -> None:
        """Refuse a table whose order of reading would matter."""
        keys = [key for key, _ in self.escapes]
        values = {value for _, value in self.escapes}
        if self.flag == self.escape:
            raise ValueError("flag and escape must be different bytes")
        if len(set(keys)) < len(keys) or len(values) < len(keys):
            raise ValueError("escapes names a byte twice")
        if {self.flag, self.escape} & set(keys):
            raise ValueError("escapes may not be followed by the flag or the escape byte")
        if values & set(keys):
            raise ValueError("escapes may not stand for a byte that itself follows an escape byte")


class GapSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="gap"):
    """`gap`: a frame ends when the line is silent for `gap_ms` milliseconds.

    gap_ms: Modbus RTU asks for 3.5 characters (4 ms at 9,600 baud); a serial server adds its own jitter, hence 20.
    """

    gap_ms: Annotated[float, msgspec.Meta(ge=1, le=60_000)] = 20.0
    max_frame_bytes: FrameBytes = DEFAULT_MAX_FRAME_BYTES


class NoneSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="none"):
    """`none`: what one read brought is a frame, in pieces of at most `max_frame_bytes`."""

    max_frame_bytes: FrameBytes = DEFAULT_MAX_FRAME_BYTES


FramingSpec: TypeAlias = FixedSpec | DelimiterSpec | LengthFieldSpec | FlagEscapeSpec | GapSpec | NoneSpec

_KINDS: Final[Mapping[str, type[FramingSpec]]] = {
    "fixed": FixedSpec,
    "delimiter": DelimiterSpec,
    "length_field": LengthFieldSpec,
    "flag_escape": FlagEscapeSpec,
    "gap": GapSpec,
    "none": NoneSpec,
}


def framing_spec(table: Mapping[str, Any], where: str) -> FramingSpec:
    """Read a `[framing]` table as it stands in TOML.

    where: what the table is, for the message. Raises ConfigError naming the key and the nearest known one.
    """
    kind = table.get("type")
    if kind is None:
        raise ConfigError(f"{where}: `type` is missing; known are: {', '.join(_KINDS)}")
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise ConfigError(f"{where}: `type` {kind!r} is no framing; {nearest(str(kind), _KINDS)}")
    return typed(dict(table), known, where)


def framer_for(spec: FramingSpec) -> Framer:
    """Make a new framer for one connection."""
    match spec:
        case FixedSpec():
            return FixedFramer(spec.frame_bytes)
        case DelimiterSpec():
            return DelimiterFramer(spec.octets, spec.max_frame_bytes)
        case LengthFieldSpec():
            return _length_framer(spec)
        case FlagEscapeSpec():
            return FlagEscapeFramer(spec.flag, spec.escape, dict(spec.escapes), spec.max_frame_bytes)
        case GapSpec():
            return GapFramer(spec.max_frame_bytes)
        case NoneSpec():
            return PassthroughFramer(spec.max_frame_bytes)
        case _:
            assert_never(spec)


def _length_framer(spec: LengthFieldSpec) -> Framer:
    field = (spec.offset, spec.width, spec.endian, spec.adjustment, spec.strip, spec.max_frame_bytes)
    if not spec.start:
        return LengthFieldFramer(*field)
    end = bytes.fromhex(spec.end)
    return MarkedLengthFramer(spec.start_bytes, end, spec.preamble, *field, spec.max_noise_bytes)
