import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import FramingError
from gateway.framing.flag_escape import FlagEscapeFramer
from gateway.framing.spec import FlagEscapeSpec, framer_for

JT808 = {0x01: 0x7D, 0x02: 0x7E}


def framer(most: int = 4096) -> FlagEscapeFramer:
    return FlagEscapeFramer(0x7E, 0x7D, JT808, most)


def read_left_to_right(part: bytes, table: dict[int, int], escape: int) -> tuple[bytes, int]:
    """The meaning of byte stuffing, one byte after the other; and how many escape bytes explain nothing."""
    plain, faults, at = bytearray(), 0, 0
    while at < len(part):
        following = part[at + 1] if at + 1 < len(part) else None
        if part[at] == escape and following in table:
            plain.append(table[following])
            at += 2
        else:
            faults += part[at] == escape
            plain.append(part[at])
            at += 1
    return bytes(plain), faults


@given(part=st.lists(st.sampled_from(list(b"\x7d\x01\x02\x00\x7c")), min_size=1, max_size=60).map(bytes))
@example(part=b"\x7d\x01\x02")
@example(part=b"\x7d\x7d\x01\x01")
@example(part=b"\x7d")
def test_unescaping_means_the_same_as_reading_from_left_to_right(part: bytes) -> None:
    cut = framer()
    plain, faults = read_left_to_right(part, JT808, 0x7D)
    assert cut.feed(b"\x7e" + part + b"\x7e") == [plain]
    assert cut.faults == faults


@given(data=st.data(), escape=st.integers(0, 255), flag=st.integers(0, 255))
def test_any_table_that_the_spec_admits_is_read_from_left_to_right(data: st.DataObject, escape: int, flag: int) -> None:
    if escape == flag:
        return
    octets = st.integers(0, 255)
    keys = data.draw(st.lists(octets.filter(lambda key: key not in {escape, flag}), max_size=6, unique=True))
    values = data.draw(
        st.lists(octets.filter(lambda value: value not in keys), min_size=len(keys), max_size=len(keys), unique=True)
    )
    table = dict(zip(keys, values, strict=True))
    alphabet = [byte for byte in {escape, *keys, *values, 0x55} if byte != flag]
    part = bytes(data.draw(st.lists(st.sampled_from(alphabet), min_size=1, max_size=40)))
    cut = framer_for(FlagEscapeSpec(flag=flag, escape=escape, escapes=tuple(table.items())))
    plain, faults = read_left_to_right(part, table, escape)
    edge = bytes((flag,))
    assert cut.feed(edge + part + edge) == [plain]
    assert cut.faults == faults


def test_adjacent_frames_may_have_two_flags_between_them_or_share_one() -> None:
    assert framer().feed(b"\x7ea\x7e\x7eb\x7ec\x7e\x7e\x7e\x7ed\x7e") == [b"a", b"b", b"c", b"d"]


def test_noise_before_the_first_flag_is_skipped_and_counted() -> None:
    cut = framer()
    assert cut.feed(b"GET / HT") == []
    assert cut.feed(b"TP\x7ea\x7e") == [b"a"]
    assert cut.faults == 10


def test_endless_noise_without_a_flag_is_given_up() -> None:
    cut = framer(most=16)
    cut.feed(bytes(16))
    with pytest.raises(FramingError) as fault:
        cut.feed(b"\x00\x7ea\x7e")
    assert (fault.value.reason, cut.faults) == ("no_flag", 17)


def test_an_escape_split_over_two_segments_is_undone() -> None:
    cut = framer()
    assert cut.feed(b"\x7ea\x7d") == []
    assert cut.feed(b"\x02b\x7e") == [b"a\x7eb"]
    assert cut.faults == 0


def test_an_escape_byte_before_the_flag_is_kept_and_counted() -> None:
    cut = framer()
    assert cut.feed(b"\x7ea\x7d\x7e") == [b"a\x7d"]
    assert cut.faults == 1


def test_the_longest_frame_passes_and_one_byte_more_does_not() -> None:
    assert framer(most=8).feed(b"\x7e12345678\x7e") == [b"12345678"]
    with pytest.raises(FramingError) as fault:
        framer(most=8).feed(b"\x7e\x7d\x02\x7e\x7e\x7e123456789\x7elater\x7e")
    assert (fault.value.reason, fault.value.frames) == ("frame_too_long", (b"\x7e",))


def test_a_frame_that_never_ends_is_given_up_at_the_maximum() -> None:
    cut = framer(most=8)
    assert cut.feed(b"\x7e12345678") == []
    with pytest.raises(FramingError):
        cut.feed(b"9")
    assert cut.pending == 8


def test_sixteen_glued_frames_come_apart_and_a_frame_in_pieces_comes_together() -> None:
    """JetLinks #462, #97: TCP glues and splits; frames must not."""
    frames = [bytes((0x02, 0x00, at, 0x7D, 0x7E, at)) for at in range(16)]
    wire = b"".join(
        b"\x7e" + frame.replace(b"\x7d", b"\x7d\x01").replace(b"\x7e", b"\x7d\x02") + b"\x7e" for frame in frames
    )
    assert framer().feed(wire) == frames
    cut = framer()
    assert [frame for byte in wire for frame in cut.feed(bytes((byte,)))] == frames
