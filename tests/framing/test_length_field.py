import pytest

from gateway.core.errors import FramingError
from gateway.framing.length_field import LengthFieldFramer


def framer(width: int = 2, **changes: int) -> LengthFieldFramer:
    settings = {"offset": 0, "adjustment": 0, "strip": 0, "max_frame_bytes": 100} | changes
    return LengthFieldFramer(width=width, endian="big", **settings)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8])
def test_every_width_is_read(width: int) -> None:
    wire = (3).to_bytes(width, "big") + b"abc"
    assert framer(width, strip=width).feed(wire * 2) == [b"abc", b"abc"]


def test_the_field_may_stand_inside_the_header_and_count_all_of_the_frame() -> None:
    wire = b"\xaa\x00\x07\x01abc"
    assert framer(offset=1, adjustment=-3).feed(wire + wire) == [wire, wire]


def test_a_gigabyte_in_the_length_field_is_refused_before_any_of_it_is_held() -> None:
    cut = framer(4)
    with pytest.raises(FramingError) as fault:
        cut.feed(b"\x00\x00\x00\x01a" + (1 << 30).to_bytes(4, "big"))
    assert (fault.value.reason, fault.value.frames) == ("frame_too_long", (b"\x00\x00\x00\x01a",))
    assert cut.pending == 0


def test_the_largest_64_bit_length_is_refused() -> None:
    with pytest.raises(FramingError, match="18446744073709551623 bytes"):
        framer(8).feed(b"\xff" * 8)


def test_a_length_that_adjustment_makes_negative_is_refused() -> None:
    with pytest.raises(FramingError) as fault:
        framer(2, adjustment=-10).feed(b"\x00\x03abc")
    assert fault.value.reason == "bad_length"


def test_a_frame_shorter_than_what_is_stripped_is_refused() -> None:
    with pytest.raises(FramingError) as fault:
        framer(1, strip=4).feed(b"\x02ab")
    assert fault.value.reason == "bad_length"


def test_a_frame_of_nothing_but_its_header_is_a_frame() -> None:
    assert framer(2).feed(b"\x00\x00\x00\x01a") == [b"\x00\x00", b"\x00\x01a"]


def test_a_long_frame_in_small_segments_is_cut_once_it_is_whole() -> None:
    cut = framer(2, strip=2)
    wire = (98).to_bytes(2, "big") + bytes(98)
    assert [cut.feed(wire[at : at + 10]) for at in range(0, 100, 10)] == [[]] * 9 + [[bytes(98)]]
