"""What every framer promises, whatever it cuts by."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import FramingError
from gateway.framing.framer import Framer
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

MOST = 24

SPLIT_BLIND: dict[str, FramingSpec] = {
    "fixed": FixedSpec(frame_bytes=5, max_frame_bytes=MOST),
    "newline": DelimiterSpec(max_frame_bytes=MOST),
    "two_byte_delimiter": DelimiterSpec(delimiter_hex="7e7d", max_frame_bytes=MOST),
    "self_overlapping_delimiter": DelimiterSpec(delimiter_hex="7e7e7d", max_frame_bytes=MOST),
    "length_1": LengthFieldSpec(width=1, max_frame_bytes=MOST),
    "length_2_in_header": LengthFieldSpec(offset=1, width=2, adjustment=1, strip=2, max_frame_bytes=MOST),
    "length_3_little": LengthFieldSpec(width=3, endian="little", strip=3, max_frame_bytes=MOST),
    "length_4_whole": LengthFieldSpec(width=4, adjustment=-4, max_frame_bytes=MOST),
    "length_8": LengthFieldSpec(width=8, max_frame_bytes=MOST),
    "strip_over_header": LengthFieldSpec(width=1, strip=3, max_frame_bytes=MOST),
    "marked": LengthFieldSpec(
        start="7e..7d", end="0a", preamble=0xFF, offset=3, width=1, adjustment=1, strip=1, max_frame_bytes=MOST
    ),
    "marked_noisy": LengthFieldSpec(start="7e", width=1, offset=1, max_frame_bytes=MOST, max_noise_bytes=8),
    "jt808": FlagEscapeSpec(max_frame_bytes=MOST),
    "slip": FlagEscapeSpec(flag=0x0A, escape=0x01, escapes=((0x7E, 0x01), (0x7D, 0x0A)), max_frame_bytes=MOST),
}
ALL_SPECS = {**SPLIT_BLIND, "gap": GapSpec(max_frame_bytes=MOST), "none": NoneSpec(max_frame_bytes=MOST)}

# Few byte values, so that flags, escapes, delimiters and small lengths meet often.
streams = st.lists(
    st.sampled_from([b"\x7e", b"\x7d", b"\x01", b"\x02", b"\x00", b"\x0a", b"\x05", b"abc", b"\xff"]), max_size=60
).map(b"".join)
cuts = st.lists(st.integers(min_value=0, max_value=180), max_size=12)


class Outcome(NamedTuple):
    frames: list[bytes]
    fault: str | None
    faults: int


def pieces(stream: bytes, at: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(edge for edge in at if edge <= len(stream)), len(stream)]
    return [stream[left:right] for left, right in itertools.pairwise(edges)]


def outcome(framer: Framer, chunks: Sequence[bytes]) -> Outcome:
    frames: list[bytes] = []
    try:
        for chunk in chunks:
            frames += framer.feed(chunk)
            assert framer.pending <= MOST
    except FramingError as fault:
        return Outcome(frames + list(fault.frames), fault.reason, framer.faults)
    return Outcome(frames, None, framer.faults)


@pytest.mark.parametrize("name", SPLIT_BLIND)
@given(stream=streams, at=cuts)
def test_any_split_of_the_bytes_gives_the_same_frames_and_faults(name: str, stream: bytes, at: list[int]) -> None:
    spec = SPLIT_BLIND[name]
    assert outcome(framer_for(spec), pieces(stream, at)) == outcome(framer_for(spec), [stream])


@pytest.mark.parametrize("name", SPLIT_BLIND)
@given(stream=streams)
def test_one_byte_at_a_time_gives_the_same_frames_and_faults(name: str, stream: bytes) -> None:
    spec = SPLIT_BLIND[name]
    assert outcome(framer_for(spec), [bytes((byte,)) for byte in stream]) == outcome(framer_for(spec), [stream])


@pytest.mark.parametrize("name", ALL_SPECS)
@given(chunks=st.lists(st.binary(max_size=64), max_size=20))
def test_any_bytes_give_frames_or_a_framing_error(name: str, chunks: list[bytes]) -> None:
    result = outcome(framer_for(ALL_SPECS[name]), chunks)
    assert all(len(frame) <= MOST for frame in result.frames)
    assert result.fault in {None, "frame_too_long", "bad_length", "no_flag", "no_start"}


@pytest.mark.parametrize("name", ALL_SPECS)
def test_no_bytes_are_no_frame(name: str) -> None:
    framer = framer_for(ALL_SPECS[name])
    assert framer.feed(b"") == []
    assert framer.silence() == []
    assert (framer.pending, framer.faults) == (0, 0)


def stuffed(frame: bytes) -> bytes:
    return b"\x7e" + b"".join({0x7D: b"\x7d\x01", 0x7E: b"\x7d\x02"}.get(b, bytes((b,))) for b in frame) + b"\x7e"


ENCODERS: dict[str, tuple[FramingSpec, Callable[[bytes], bytes]]] = {
    "fixed": (FixedSpec(frame_bytes=8), lambda frame: frame[:8].ljust(8, b"\x00")),
    "delimiter": (DelimiterSpec(delimiter="\r\n"), lambda frame: frame.replace(b"\n", b"_").replace(b"\r", b"_")),
    "length": (LengthFieldSpec(width=2, strip=2), lambda frame: frame),
    "length_of_all": (LengthFieldSpec(offset=1, width=4, endian="little", adjustment=-5, strip=5), lambda frame: frame),
    "dlt645": (
        LengthFieldSpec(start="68............68", end="16", preamble=0xFE, offset=9, width=1, adjustment=2),
        lambda frame: (
            b"\x68\x01\x02\x03\x04\x05\x06\x68\x91" + bytes((min(len(frame), 255),)) + frame[:255] + b"\0\x16"
        ),
    ),
    "jt808": (FlagEscapeSpec(), lambda frame: frame),
}
WIRE: dict[str, Callable[[bytes], bytes]] = {
    "fixed": lambda frame: frame,
    "delimiter": lambda frame: frame + b"\r\n",
    "length": lambda frame: len(frame).to_bytes(2, "big") + frame,
    "dlt645": lambda frame: b"\xfe\xfe" + frame,
    "length_of_all": lambda frame: b"*" + (len(frame) + 5).to_bytes(4, "little") + frame,
    "jt808": stuffed,
}


@pytest.mark.parametrize("name", ENCODERS)
@given(raw=st.lists(st.binary(min_size=1, max_size=200), max_size=20), at=cuts)
def test_encoded_frames_come_back(name: str, raw: list[bytes], at: list[int]) -> None:
    spec, fit = ENCODERS[name]
    frames = [fit(frame) for frame in raw]
    framer = framer_for(spec)
    cut = [frame for piece in pieces(b"".join(map(WIRE[name], frames)), at) for frame in framer.feed(piece)]
    assert cut == frames
    assert (framer.pending, framer.faults) == (0, 0)
