"""The opposite of a framer: a frame as it travels, for bytes that did not come from a codec in their framing.

Knows no stream: each frame stands alone.
"""

from __future__ import annotations

from typing import assert_never

from gateway.core.errors import FramingError
from gateway.framing.spec import (
    DelimiterSpec,
    FixedSpec,
    FlagEscapeSpec,
    FramingSpec,
    GapSpec,
    LengthFieldSpec,
    NoneSpec,
    framer_for,
)


def wrapped(spec: FramingSpec, frame: bytes) -> bytes:
    """The bytes that the framer of `spec` cuts this frame, and nothing else, out of.

    Raises FramingError(`cannot_wrap`) where there are none: a frame of the wrong size or with its delimiter inside, or
    a header that holds more than the length.
    """
    match spec:
        case FlagEscapeSpec():
            return _between_flags(spec, frame)
        case DelimiterSpec():
            data = frame + spec.octets
        case LengthFieldSpec():
            data = _behind_length(spec, frame)
        case FixedSpec() | GapSpec() | NoneSpec():
            data = frame
        case _:
            assert_never(spec)
    if unwrapped(spec, data) != [frame]:
        raise FramingError("cannot_wrap", f"a frame of {len(frame)} bytes that {_name(spec)} cannot carry")
    return data


def unwrapped(spec: FramingSpec, data: bytes) -> list[bytes]:
    """The frames that these bytes are, one by one.

    Raises FramingError(`not_whole`) where they are more or less than whole frames.
    """
    framer = framer_for(spec)
    frames = [*framer.feed(data), *framer.silence()]
    if framer.pending or framer.faults:
        raise FramingError("not_whole", f"{len(data)} bytes that are no whole frames of {_name(spec)}", frames)
    return frames


def _between_flags(spec: FlagEscapeSpec, frame: bytes) -> bytes:
    flag, escape = bytes((spec.flag,)), bytes((spec.escape,))
    # The escape byte first: it stands in what replaces the others.
    for key, value in sorted(spec.escapes, key=lambda pair: pair[1] != spec.escape):
        frame = frame.replace(bytes((value,)), escape + bytes((key,)))
    if flag in frame:
        raise FramingError("cannot_wrap", "the table of escapes does not stand for the flag")
    return flag + frame + flag


def _behind_length(spec: LengthFieldSpec, frame: bytes) -> bytes:
    header = spec.offset + spec.width
    if spec.start or spec.offset or spec.strip != header:
        raise FramingError("cannot_wrap", "frames whose header holds more than a length that is cut off")
    try:
        return (len(frame) - spec.adjustment).to_bytes(spec.width, spec.endian) + frame
    except OverflowError:
        raise FramingError("cannot_wrap", f"a length of {len(frame)} bytes has no room in its field") from None


def _name(spec: FramingSpec) -> str:
    return f"the framing {spec.__struct_config__.tag}"
