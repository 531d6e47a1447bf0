"""Log lines about peers, few enough that a peer which reconnects for ever cannot flood the log."""

from __future__ import annotations

from typing import Final

import structlog

from gateway.core.clock import Clock
from gateway.core.log import safe_text

log = structlog.get_logger(__name__)

EVERY_S: Final = 10.0
"""One line per reason in this time: enough to see that it goes on, and 8,640 lines a day at worst."""


class QuietLog:
    """Writes one line per reason and interval, with the number of those that it left out."""

    def __init__(self, listener: str, clock: Clock) -> None:
        self._listener = listener
        self._clock = clock
        self._next_at: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, event: str, reason: str, peer: str, detail: str = "") -> None:
        """Say that a peer was refused or closed. `reason` is one of our own stable words: there are few of them."""
        now = self._clock.monotonic_s()
        if now < self._next_at.get(reason, now):
            self._left_out[reason] = self._left_out.get(reason, 0) + 1
            return
        self._next_at[reason] = now + EVERY_S
        log.warning(
            event,
            listener=self._listener,
            reason=reason,
            peer=peer,
            detail=safe_text(detail, 200),
            left_out=self._left_out.pop(reason, 0),
        )
