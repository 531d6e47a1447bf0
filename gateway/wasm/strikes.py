"""Strikes and the quarantine that follows them: how often a plugin may fail, and how long it then has to wait.

Owns the counting and the back-off, both by the clock it is given. Does not know what a strike was, nor what is stopped.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from gateway.core.clock import Clock
from gateway.wasm.config import WasmConfig

STRIKE_WINDOW_S: Final = 60.0
_MOST_KEPT: Final = 1000
"""Strikes remembered: more than any limit that can be configured."""
LONGEST_QUARANTINE_S: Final = 3600.0
FORGIVEN_AFTER_S: Final = 3600.0
"""Quiet time after which the next quarantine is as short as the first."""


class Strikes:
    """Faults of one version of a plugin. May be noted from any thread, by all instances of the version."""

    def __init__(self, clock: Clock) -> None:
        """Start without any."""
        self._clock = clock
        self._at: deque[float] = deque(maxlen=_MOST_KEPT)
        self.total = 0
        self.last = ""
        """What the last one was, for people."""
        self.fresh = False
        """Whether one was noted since somebody looked; who looks sets it back."""

    def note(self, what: str) -> int:
        """Count a fault; returns those of the last minute."""
        self._at.append(self._clock.monotonic_s())
        self.total += 1
        self.last = what
        self.fresh = True
        return self.within()

    def within(self, window_s: float = STRIKE_WINDOW_S) -> int:
        """Strikes within the last seconds."""
        since = self._clock.monotonic_s() - window_s
        return sum(at >= since for at in tuple(self._at))


class QuarantineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that struck out. times: quarantines in a row. reason: the strikes that led to it."""

    until_ms: int
    times: int
    reason: str


class Quarantine:
    """Exponential back-off of one plugin: `quarantine_s`, doubled each time up to an hour, forgiven after a quiet hour.

    When the time is over, one probe decides: the first call of the plugin. A strike in it starts the next quarantine.
    """

    def __init__(self, config: WasmConfig, clock: Clock) -> None:
        """Hold nothing."""
        self._first_s = config.quarantine_s
        self._clock = clock
        self._times = 0
        self._ended_at = 0.0
        self._until_s = 0.0
        self.status: QuarantineStatus | None = None

    @property
    def over(self) -> bool:
        """Whether the plugin is held no longer, or never was."""
        return self.status is None or self._clock.monotonic_s() >= self._until_s

    def enter(self, reason: str) -> float:
        """Hold the plugin; returns for how many seconds."""
        now_s = self._clock.monotonic_s()
        if self._times and now_s - self._until_s > FORGIVEN_AFTER_S:
            self._times = 0
        wait_s = float(min(LONGEST_QUARANTINE_S, self._first_s * 2 ** min(self._times, 32)))
        self._times += 1
        self._until_s = now_s + wait_s
        until_ms = self._clock.now_ms() + round(wait_s * 1000)
        self.status = QuarantineStatus(until_ms=until_ms, times=self._times, reason=reason)
        return wait_s

    def leave(self) -> None:
        """Let the plugin be tried; how often it was held is remembered for a quiet hour."""
        self.status = None

    def forget(self) -> None:
        """Begin anew, as with another version."""
        self.status = None
        self._times = 0
