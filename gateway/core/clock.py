"""The clock port: the only place that asks the machine for the time, so that tests can own it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from typing_extensions import override


class Clock(Protocol):
    """Wall and monotonic time."""

    def now_ms(self) -> int:
        """Epoch milliseconds UTC; may jump when the machine's clock is set."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back; for timeouts and rates."""
        ...


class SystemClock(Clock):
    """The machine's clock."""

    @override
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    @override
    def monotonic_s(self) -> float:
        return time.monotonic()


def rfc3339(ms: int) -> str:
    """Epoch milliseconds as RFC 3339 UTC with milliseconds, `2026-11-21T08:00:00.000Z`."""
    seconds, millis = divmod(ms, 1000)
    try:
        moment = datetime.fromtimestamp(seconds, tz=UTC)
    except (OverflowError, ValueError, OSError):
        # A device may claim any 64-bit time; what has no calendar date is shown at the calendar's end.
        return "9999-12-31T23:59:59.999Z" if ms > 0 else "0001-01-01T00:00:00.000Z"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{millis:03d}Z".rjust(24, "0")


def parse_rfc3339(text: str) -> int:
    """Epoch milliseconds of an RFC 3339 time; a time without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
