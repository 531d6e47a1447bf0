"""The live connections of one listener: who is admitted, and who has been silent or unfinished for too long.

Knows limits and time, no sockets. Nothing here runs per connection while it is idle.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from gateway.core.clock import Clock
from gateway.listeners.limits import TcpLimits

_IDLE_SCANS: Final = 16
"""Idle connections are looked for this often per idle timeout: a pass over all of them is not free."""


class Peer(Protocol):
    """What the table must know of a connection."""

    host: str
    """Address without port."""
    heard_at: float
    """`ConnectionTable.now` when bytes last arrived."""
    has_spoken: bool
    """Whether a whole frame ever arrived."""

    @property
    def held(self) -> bool:
        """Whether we ourselves do not read from it now; its deadlines stand still meanwhile."""
        ...

    def expire(self, reason: str) -> None:
        """Close for a missed deadline."""
        ...

    def close(self, reason: str) -> None:
        """Close for any other reason."""
        ...


class ConnectionTable:
    """Counts connections against the limits and closes late ones once per sweep.

    now: monotonic seconds of the last sweep or admission; exact enough for deadlines, and free to read.
    """

    def __init__(self, limits: TcpLimits, clock: Clock) -> None:
        self.now = clock.monotonic_s()
        self.live: set[Peer] = set()
        self.used = asyncio.Event()
        self.empty = asyncio.Event()
        self.empty.set()
        self._limits = limits
        self._clock = clock
        self._per_host: dict[str, int] = {}
        self._deadlines: dict[Peer, float] = {}
        self._idle_scan_at = 0.0

    def admit(self, peer: Peer) -> str | None:
        """Take a connection in; or say for which reason not."""
        if len(self.live) >= self._limits.max_connections:
            return "max_connections"
        from_host = self._per_host.get(peer.host, 0)
        if from_host >= self._limits.max_connections_per_peer:
            return "max_connections_per_peer"
        if not self.live:
            self.now = self._clock.monotonic_s()
        self._per_host[peer.host] = from_host + 1
        self.live.add(peer)
        self.used.set()
        self.empty.clear()
        return None

    def forget(self, peer: Peer) -> None:
        """Drop a connection that is gone; one never admitted or forgotten before does nothing."""
        if peer not in self.live:
            return
        self.live.discard(peer)
        self._deadlines.pop(peer, None)
        left = self._per_host[peer.host] - 1
        if left:
            self._per_host[peer.host] = left
        else:
            del self._per_host[peer.host]
        if not self.live:
            self.used.clear()
            self.empty.set()

    def await_first_frame(self, peer: Peer) -> None:
        """Start the deadline of the first whole frame."""
        self._deadlines[peer] = self.now + self._limits.first_frame_timeout_s

    def heard(self, peer: Peer, *, whole: bool, pending: bool) -> None:
        """Note that bytes arrived: whether they ended a frame, and whether part of a frame is waiting now.

        Further bytes of an unfinished frame do not move its deadline.
        """
        peer.heard_at = self.now
        if pending:
            if whole or peer not in self._deadlines:
                self._deadlines[peer] = self.now + self._limits.frame_timeout_s
        elif whole:
            self._deadlines.pop(peer, None)

    def settle(self, peer: Peer) -> None:
        """Withdraw the deadline of a connection that is closing."""
        self._deadlines.pop(peer, None)

    def sweep(self) -> None:
        """Expire what is late."""
        elapsed = self._clock.monotonic_s() - self.now
        self.now += elapsed
        for peer, deadline in list(self._deadlines.items()):
            if peer.held:
                self._deadlines[peer] = deadline + elapsed
            elif deadline <= self.now:
                peer.expire("unfinished_frame" if peer.has_spoken else "no_first_frame")
        if self._idle_scan_at <= self.now:
            self._idle_scan_at = self.now + self._limits.idle_timeout_s / _IDLE_SCANS
            silent_since = self.now - self._limits.idle_timeout_s
            for peer in [peer for peer in self.live if peer.heard_at <= silent_since]:
                if not peer.held:
                    peer.expire("idle")
