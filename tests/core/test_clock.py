from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import SystemClock, parse_rfc3339, rfc3339


def test_times_are_shown_in_utc_with_milliseconds() -> None:
    assert rfc3339(1_795_248_000_007) == "2026-11-21T08:00:00.007Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(-62_135_596_800_000) == "0001-01-01T00:00:00.000Z"


@given(st.integers(-(2**63), 2**63))
def test_any_time_that_a_device_claims_can_be_shown(ms: int) -> None:
    shown = rfc3339(ms)
    assert len(shown) == 24
    assert shown.endswith("Z")


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - zone set below
def test_what_is_shown_reads_back_as_the_same_time(moment: datetime) -> None:
    ms = int(moment.replace(tzinfo=UTC, microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
    assert parse_rfc3339(rfc3339(ms)) == ms


@pytest.mark.parametrize(
    "text", ["2026-11-21T08:00:00Z", "2026-11-21T16:00:00+08:00", "2026-11-21T08:00:00", "2026-11-21 08:00:00.000"]
)
def test_zones_are_understood_and_a_missing_one_is_utc(text: str) -> None:
    assert parse_rfc3339(text) == 1_795_248_000_000


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "1795248000"])
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the standard library's own text
        parse_rfc3339(text)


def test_the_machines_clock_goes_forward() -> None:
    clock = SystemClock()
    first, then = clock.monotonic_s(), clock.monotonic_s()
    assert then >= first
    assert clock.now_ms() > 1_700_000_000_000
