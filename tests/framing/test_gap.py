import pytest

from gateway.core.errors import FramingError
from gateway.framing.gap import GapFramer


def test_a_frame_ends_at_silence_only() -> None:
    framer = GapFramer(256)
    assert framer.feed(b"\x01\x03") == []
    assert framer.feed(b"\x02\x00\x2a") == []
    assert framer.pending == 5
    assert framer.silence() == [b"\x01\x03\x02\x00\x2a"]
    assert framer.silence() == []


def test_a_line_that_is_never_silent_is_given_up_at_the_maximum() -> None:
    framer = GapFramer(4)
    assert framer.feed(b"1234") == []
    with pytest.raises(FramingError) as fault:
        framer.feed(b"5")
    assert (fault.value.reason, framer.pending) == ("frame_too_long", 4)
