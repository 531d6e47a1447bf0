import pytest

from gateway.core.errors import FramingError
from gateway.framing.delimiter import DelimiterFramer


def test_a_delimiter_split_over_two_segments_still_cuts() -> None:
    framer = DelimiterFramer(b"\r\n", 100)
    assert framer.feed(b"one\r") == []
    assert framer.feed(b"\ntwo\r\n") == [b"one", b"two"]
    assert framer.pending == 0


def test_a_half_delimiter_is_part_of_the_frame() -> None:
    assert DelimiterFramer(b"\r\n", 100).feed(b"a\rb\nc\r\n") == [b"a\rb\nc"]


def test_empty_frames_are_skipped() -> None:
    assert DelimiterFramer(b"\n", 100).feed(b"\n\na\n\nb\n") == [b"a", b"b"]


def test_the_longest_frame_passes_and_one_byte_more_does_not() -> None:
    assert DelimiterFramer(b"\r\n", 8).feed(b"123456\r\n") == [b"123456"]
    with pytest.raises(FramingError) as fault:
        DelimiterFramer(b"\r\n", 8).feed(b"ok\r\n\r\n1234567\r\nlater\r\n")
    assert (fault.value.reason, fault.value.frames) == ("frame_too_long", (b"ok",))


def test_a_stream_without_delimiter_is_given_up_at_the_maximum() -> None:
    framer = DelimiterFramer(b"\n", 8)
    assert framer.feed(b"1234567") == []
    with pytest.raises(FramingError):
        framer.feed(b"8")
    assert framer.pending < 8
