import json
from typing import Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.log import redact, safe_text, set_up


@pytest.mark.parametrize(
    "key", ["password", "new_password", "Authorization", "api_token", "device_credential", "secret"]
)
def test_a_field_that_speaks_of_a_secret_is_blanked(key: str) -> None:
    assert redact(None, "info", {"event": "login", key: "hunter2"}) == {"event": "login", key: "[redacted]"}


def test_json_lines_carry_level_time_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("json", "info")
    log = structlog.get_logger("test")
    log.debug("too fine")
    log.warning("login", user="ada", password="hunter2")
    (line,) = capsys.readouterr().err.splitlines()
    shown = json.loads(line)
    assert (shown["event"], shown["level"], shown["user"], shown["password"]) == (
        "login",
        "warning",
        "ada",
        "[redacted]",
    )
    assert shown["timestamp"].endswith("Z")


def test_a_failure_is_one_json_line_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("json", "info")
    structlog.get_logger("test").error("part failed", exc_info=ValueError("why it failed"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "why it failed" in json.loads(line)["exception"]


def test_lines_for_people_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("human", "debug")
    structlog.get_logger("test").debug("listening", port=8808)
    line = capsys.readouterr().err
    assert "listening" in line
    assert "port=8808" in line
    assert "\x1b" not in line


@given(st.text())
def test_text_of_others_becomes_one_printable_line_of_bounded_length(text: str) -> None:
    safe = safe_text(text, 20)
    assert safe.isprintable()
    assert len(safe) <= 23


def test_short_plain_text_is_left_as_it_is_and_long_text_shows_its_cut() -> None:
    assert safe_text("粤B12345") == "粤B12345"
    assert safe_text("x" * 81) == "x" * 80 + "..."
    assert safe_text("a\r\nb\x1b[31m\u202e") == "a??b?[31m?"


@pytest.mark.parametrize("style", ["human", "json"])
def test_a_traceback_shows_no_local_variable(
    capsys: pytest.CaptureFixture[str], style: Literal["human", "json"]
) -> None:
    def fails() -> None:
        url = "https://hooks.example/canary-" + "key"  # in two, so that the line of code does not show it either
        raise ValueError(f"of {len(url)} characters")

    set_up(style, "info")
    try:
        fails()
    except ValueError as failure:
        structlog.get_logger("test").error("a channel failed", exc_info=failure)
    shown = capsys.readouterr().err
    assert "of 32 characters" in shown
    assert "canary-key" not in shown
