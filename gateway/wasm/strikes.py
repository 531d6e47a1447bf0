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
"""Strikes remembered, of the plugin's own and of connections each: more than any limit that can be configured."""
LONGEST_QUARANTINE_S: Final = 3600.0
FORGIVEN_AFTER_S: Final = 3600.0
"""Quiet time after which the next quarantine is as short as the first."""


class Strikes:
    """Faults of one version of a plugin. May be noted from any thread, by all instances of the version."""

    def __init__(self, clock: Clock) -> None:
        """Start without any."""
        self._clock = clock
        self._own: deque[float] = deque(maxlen=_MOST_KEPT)
        self._parties: dict[int, float] = {}
        self.total = 0
        self.failed_starts = 0
        """Times in a row that it did not start again, however far apart they were."""
        self.last = ""
        """What the last one was, for people."""
        self.fresh = False
        """Whether one was noted since somebody looked; who looks sets it back."""

    @property
    def own(self) -> int:
        """Strikes kept that no single connection brought about."""
        return len(self._own)

    def note(self, what: str, party: int | None = None) -> int:
        """Count a fault; returns those of the last minute.

        party: the connection whose frame brought it about. Its strikes count once within a window, so that no one
        connection takes a plugin from all others.
        """
        now_s = self._clock.monotonic_s()
        if party is None:
            self._own.append(now_s)
        else:
            self._parties.pop(party, None)  # the order is that of the last strikes
            self._parties[party] = now_s
            if len(self._parties) > _MOST_KEPT:
                del self._parties[next(iter(self._parties))]
        self.total += 1
        self.last = what
        self.fresh = True
        return self.within()

    def within(self, window_s: float = STRIKE_WINDOW_S) -> int:
        """Strikes within the last seconds: all of the plugin's own, and one for each connection that brought some."""
        since = self._clock.monotonic_s() - window_s
        return sum(at >= since for at in (*self._own, *self._parties.values()))


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
