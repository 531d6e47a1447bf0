"""Wrapping is the opposite of cutting: what is wrapped is cut to the same frame, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import FramingError
from gateway.framing.spec import framer_for, framing_spec
from gateway.framing.wrap import unwrapped, wrapped

TABLES: list[dict[str, Any]] = [
    {"type": "flag_escape"},
    {"type": "flag_escape", "flag": 0xC0, "escape": 0xDB, "escapes": [[0xDC, 0xC0], [0xDD, 0xDB]]},
    {"type": "delimiter", "delimiter": "\r\n"},
    {"type": "delimiter", "delimiter": "a"},
    {"type": "length_field", "strip": 2},
    {"type": "length_field", "width": 1, "strip": 1, "adjustment": -1},
    {"type": "length_field", "width": 4, "strip": 4, "endian": "little", "adjustment": 4},
    {"type": "length_field", "offset": 1, "strip": 3},
    {"type": "length_field", "start": "68", "end": "16", "strip": 2},
    {"type": "fixed", "frame_bytes": 16},
    {"type": "gap"},
    {"type": "none"},
]


@pytest.mark.parametrize("table", TABLES, ids=str)
@given(frame=st.binary(min_size=1, max_size=300))
def test_what_is_wrapped_is_cut_to_the_same_frame_or_refused(table: dict[str, Any], frame: bytes) -> None:
    spec = framing_spec(table, "test")
    data, reason = b"", ""
    try:
        data = wrapped(spec, frame)
    except FramingError as refusal:
        reason = refusal.reason
    if reason:
        assert reason in {"cannot_wrap", "not_whole", "bad_length"}
        return
    framer = framer_for(spec)
    assert [*framer.feed(data), *framer.silence()] == [frame]
    assert (framer.pending, framer.faults) == (0, 0)
    assert unwrapped(spec, data * 3 if table["type"] not in {"gap", "none"} else data)[:1] == [frame]


@pytest.mark.parametrize("place", range(3))
def test_flags_escapes_and_lengths_carry_any_frame(place: int) -> None:
    spec = framing_spec([TABLES[0], TABLES[1], TABLES[4]][place], "test")
    every = bytes(range(256))
    assert unwrapped(spec, wrapped(spec, every)) == [every]
    assert wrapped(framing_spec(TABLES[0], "test"), b"\x7d\x7e") == b"\x7e\x7d\x01\x7d\x02\x7e"


@pytest.mark.parametrize(
    ("table", "frame"),
    [
        (TABLES[2], b"one\r\ntwo"),
        (TABLES[9], b"short"),
        (TABLES[7], b"x"),
        (TABLES[8], b"x"),
        (TABLES[5], b"x" * 300),
        ({"type": "flag_escape", "escapes": []}, b"\x7e"),
    ],
)
def test_a_frame_that_cannot_travel_so_is_refused(table: dict[str, Any], frame: bytes) -> None:
    with pytest.raises(FramingError) as caught:
        wrapped(framing_spec(table, "test"), frame)
    assert caught.value.reason in {"cannot_wrap", "not_whole", "bad_length"}


@pytest.mark.parametrize("data", [b"\x7ehalf", b"noise\x7ea\x7e", b"\x7ea\x7d\x09\x7e"])
def test_bytes_that_are_no_whole_frames_are_refused(data: bytes) -> None:
    with pytest.raises(FramingError, match="no whole frames of the framing flag_escape"):
        unwrapped(framing_spec({"type": "flag_escape"}, "test"), data)
