from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import FramingError
from gateway.framing.framer import Framer
from gateway.framing.spec import LengthFieldSpec, framer_for

# DL/T 645: 68, six bytes of address, 68, control, length, data, checksum, 16.
METER = LengthFieldSpec(
    start="68............68", end="16", preamble=0xFE, offset=9, width=1, adjustment=2, max_frame_bytes=300
)


def framer(**changes: int) -> Framer:
    settings = {"offset": 9, "width": 1, "adjustment": 2, "max_frame_bytes": 300, "preamble": 0xFE} | changes
    return framer_for(LengthFieldSpec(start="68............68", end="16", **settings))  # type: ignore[arg-type]


def meter_frame(data: bytes = b"\x33\x34\x34\x35", last: int = 0x16) -> bytes:
    return b"\x68\x12\x90\x78\x56\x34\x12\x68\x91" + bytes((len(data),)) + data + b"\x55" + bytes((last,))


def test_the_preamble_is_skipped_and_no_fault() -> None:
    cut = framer()

    assert cut.feed(b"\xfe\xfe\xfe\xfe" + meter_frame() + b"\xfe" + meter_frame(b"")) == [
        meter_frame(),
        meter_frame(b""),
    ]
    assert (cut.faults, cut.pending) == (0, 0)


def test_a_modems_chatter_between_frames_is_counted_and_costs_no_frame() -> None:
    cut = framer()

    assert cut.feed(b"hello" + meter_frame() + b"\x68\x68" + meter_frame() + b"bye") == [meter_frame()] * 2
    assert cut.faults == len(b"hello") + 2 + len(b"bye")


def test_a_frame_without_its_end_is_none_and_the_one_inside_it_is_found() -> None:
    cut = framer()
    # A start whose length field swallows the next, sound frame.
    broken = meter_frame(bytes(20))[:12]

    assert cut.feed(broken + meter_frame()) == []
    assert cut.feed(bytes(16)) == [meter_frame()]
    assert cut.faults == len(broken) + 16


def test_a_length_that_cannot_be_is_noise_not_an_end_of_the_connection() -> None:
    cut = framer(max_frame_bytes=40)

    assert cut.feed(meter_frame(bytes(200)) + meter_frame()) == [meter_frame()]
    assert cut.faults == len(meter_frame(bytes(200)))


def test_half_a_start_is_held_and_half_a_frame_too() -> None:
    cut = framer()
    wire = meter_frame()

    assert [cut.feed(wire[at : at + 1]) for at in range(len(wire))] == [[]] * (len(wire) - 1) + [[wire]]
    assert (cut.faults, cut.pending) == (0, 0)


def test_a_peer_that_never_sends_a_frame_is_given_up() -> None:
    cut = framer(max_noise_bytes=100)
    assert cut.feed(b"x" * 100 + meter_frame() + b"x" * 60) == [meter_frame()]

    with pytest.raises(FramingError) as fault:
        cut.feed(b"x" * 40 + meter_frame() + b"x" * 101)

    assert (fault.value.reason, fault.value.frames) == ("no_start", (meter_frame(),))
    assert cut.faults == 100 + 60 + 40 + 101


def test_endless_preamble_is_borne_and_not_held() -> None:
    cut = framer(max_noise_bytes=10)

    for _ in range(100):
        assert cut.feed(b"\xfe" * 1000) == []
    assert (cut.faults, cut.pending) == (0, 0)
    assert cut.feed(meter_frame()) == [meter_frame()]


def test_strip_cuts_off_the_front_and_a_mark_may_be_longer_than_the_header() -> None:
    spec = LengthFieldSpec(start="aa..bb", offset=1, width=1, adjustment=1, strip=3, max_frame_bytes=40)

    assert framer_for(spec).feed(b"\xaa\x02\xbbxy\xaa\x00\xbbz") == [b"xy", b""]


@given(noise=st.binary(max_size=400), data=st.binary(max_size=200))
def test_after_any_noise_the_frame_behind_enough_silence_is_found(noise: bytes, data: bytes) -> None:
    """The longest lie a start can tell is one frame long: what comes behind it is cut again."""
    cut = framer_for(METER)

    frames = cut.feed(noise) + cut.feed(b"\xfe" * 300) + cut.feed(meter_frame(data))

    assert frames[-1] == meter_frame(data)
