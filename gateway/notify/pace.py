"""How often a channel may ask its service: counts requests where they leave. Knows no channel and no service."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final

from typing_extensions import override

from gateway.core.clock import Clock
from gateway.core.outbound import Method, Outbound, Reply

_PACE_S: Final = 60.0


class Pace:
    """At most so many within any minute."""

    def __init__(self, most: int) -> None:
        """Start with a free minute."""
        self._times: deque[float] = deque(maxlen=most)
        self.by_request = False
        """Whether requests are counted; a channel that makes none through the gateway counts its attempts."""
        self.limit: asyncio.Timeout | None = None
        """The attempt under way; what the pace holds back is not its time."""

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next one may go."""
        if len(self._times) < (self._times.maxlen or 0):
            return 0.0
        return max(0.0, self._times[0] + _PACE_S - now_s)

    def note(self, now_s: float) -> None:
        """One goes now."""
        self._times.append(now_s)

    async def turn(self, clock: Clock) -> None:
        """Return when a request may go, and count it."""
        self.by_request = True
        while (wait_s := self.wait_s(clock.monotonic_s())) > 0:
            ends_at = None if self.limit is None else self.limit.when()
            if self.limit is not None and ends_at is not None:
                self.limit.reschedule(ends_at + wait_s)
            await asyncio.sleep(wait_s)
        self.note(clock.monotonic_s())


class PacedOutbound(Outbound):
    """The way out of one channel: each request waits for its turn."""

    def __init__(self, outbound: Outbound, pace: Pace, clock: Clock) -> None:
        """Ask nobody yet."""
        self._outbound = outbound
        self._pace = pace
        self._clock = clock

    @override
    def check(self, url: str) -> None:
        self._outbound.check(url)

    @override
    async def request(
        self,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Reply:
        await self._pace.turn(self._clock)
        return await self._outbound.request(method, url, headers=headers, body=body, timeout_s=timeout_s)
