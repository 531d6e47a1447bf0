import structlog
from fakes.traffic import FakeClock

from gateway.listeners.quiet_log import QuietLog


def test_one_line_per_reason_and_interval_says_how_many_were_left_out() -> None:
    clock = FakeClock()
    quiet = QuietLog("jt808", clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            quiet.warn("peer closed", "frame_too_long", "10.0.0.1:9")
        quiet.warn("peer closed", "bad_length", "10.0.0.2:9")
        clock.advance(10)
        quiet.warn("peer closed", "frame_too_long", "10.0.0.3:9")
    assert [(line["reason"], line["peer"], line["left_out"]) for line in lines] == [
        ("frame_too_long", "10.0.0.1:9", 0),
        ("bad_length", "10.0.0.2:9", 0),
        ("frame_too_long", "10.0.0.3:9", 2),
    ]


def test_text_that_others_chose_is_made_safe() -> None:
    with structlog.testing.capture_logs() as lines:
        QuietLog("jt808", FakeClock()).warn("peer refused", "tls_handshake", "10.0.0.1:9", "\x1b[31m\nadmin logged in")
    assert lines[0]["detail"] == "?[31m?admin logged in"
