"""One TCP peer: bytes in through its framer to the sink, bytes out, and every way in which it can end.

Knows nothing of what frames mean. A connection has a timer of its own only while it is in trouble (paused for its
rate, or closing) or where a gap framer needs one; all other deadlines are the table's sweep.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final, cast

from typing_extensions import override

from gateway.core.clock import Clock
from gateway.core.errors import FramingError
from gateway.core.tasks import Supervisor
from gateway.framing.spec import FramingSpec, framer_for
from gateway.listeners.connection import FrameSink
from gateway.listeners.limits import TcpLimits
from gateway.listeners.quiet_log import QuietLog
from gateway.listeners.stats import ListenerStats
from gateway.listeners.table import ConnectionTable

_RATE: Final = "frame_rate"
"""Our own holder's name beside those of the pipeline."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What all connections of one listener share. `gap_s` is set where silence ends a frame."""

    listener: str
    product_id: str
    tenant_id: str
    framing: FramingSpec
    gap_s: float | None
    limits: TcpLimits
    tls: ssl.SSLContext | None
    sink: FrameSink
    table: ConnectionTable
    stats: ListenerStats
    quiet: QuietLog
    supervisor: Supervisor
    clock: Clock


class TcpConnection(asyncio.Protocol):
    """Implements `Connection`. The first reason to close wins; `sink.closed` follows when nothing more arrives."""

    __slots__ = (
        "_admitted",
        "_eof",
        "_faults",
        "_filled_at",
        "_framer",
        "_gap_timer",
        "_holds",
        "_left",
        "_opened",
        "_reason",
        "_timer",
        "_tokens",
        "_transport",
        "_wiring",
        "handshake",
        "has_spoken",
        "heard_at",
        "host",
        "listener",
        "peer",
        "product_id",
        "tenant_id",
    )

    _transport: asyncio.Transport

    def __init__(self, wiring: Wiring) -> None:
        self.listener = wiring.listener
        self.product_id = wiring.product_id
        self.tenant_id = wiring.tenant_id
        self.host = self.peer = "unknown"
        self.heard_at = self._filled_at = wiring.table.now
        self.has_spoken = False
        self._wiring = wiring
        self._framer = framer_for(wiring.framing)
        self._faults = 0
        self._tokens = float(wiring.limits.burst_frames)
        self._holds: set[str] | None = None
        self._reason: str | None = None
        self._opened = False
        self._eof = False
        self._left = False
        self._admitted = False
        self.handshake: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._gap_timer: asyncio.TimerHandle | None = None

    # What the sink may do.

    def send(self, data: bytes) -> None:
        """Queue bytes for the peer; nothing happens once closed."""
        if self._reason is None and self._opened and not self._transport.is_closing():
            self._wiring.stats.bytes_out += len(data)
            self._transport.write(data)

    def close(self, reason: str) -> None:
        """Close after what was queued is sent, at the latest after `linger_s`."""
        if self._reason is not None:
            return
        self._reason = reason
        if not self._opened:
            if self.handshake is not None:
                self.handshake.cancel()
            return
        self._wiring.table.settle(self)
        self._cancel_timers()
        transport = self._transport
        if transport.is_closing():
            return
        if self._eof or not transport.can_write_eof():
            transport.close()
        else:
            # Reading on until the peer closes too: closing with unread bytes would reset the connection, and a reset
            # destroys the last reply on its way.
            if self.held:
                transport.resume_reading()
            transport.write_eof()
        self._timer = self._loop.call_later(self._wiring.limits.linger_s, transport.abort)

    def hold(self, why: str) -> None:
        """Stop reading until every holder released."""
        if self._holds is None:
            self._holds = set()
        if not self._holds and self._reads:
            self._transport.pause_reading()
        self._holds.add(why)

    def release(self, why: str) -> None:
        """Withdraw a hold; reading goes on when no other is left."""
        if self._holds is None or why not in self._holds:
            return
        self._holds.remove(why)
        if not self._holds:
            self._holds = None
            self.heard_at = self._wiring.table.now
            if self._reads:
                self._transport.resume_reading()

    # What the table asks.

    @property
    def held(self) -> bool:
        """Whether reading is stopped by us."""
        return self._holds is not None

    def expire(self, reason: str) -> None:
        """Close for a missed deadline."""
        if reason != "idle":
            self._wiring.quiet.warn("peer closed", reason, self.peer, f"{self._framer.pending} bytes of a frame came")
        self.close(reason)

    # What the door asks before there is a connection.

    def admit(self, transport: asyncio.BaseTransport) -> bool:
        """Learn who it is and ask for a place; a refusal is counted and logged."""
        address = transport.get_extra_info("peername")
        if address is not None:
            self.host = str(address[0])
            self.peer = f"[{self.host}]:{address[1]}" if ":" in self.host else f"{self.host}:{address[1]}"
        refusal = self._wiring.table.admit(self)
        self._admitted = refusal is None
        if refusal is not None:
            self.refuse(refusal)
        return self._admitted

    def refuse(self, reason: str, detail: str = "") -> None:
        """Give the place back of a peer that never became a connection; whoever has its socket closes it."""
        self._reason = self._reason or reason
        self._wiring.table.forget(self)
        self._wiring.stats.refused[self._reason] += 1
        self._wiring.quiet.warn("peer refused", self._reason, self.peer, detail)

    @property
    def opened(self) -> bool:
        """Whether the sink knows of it."""
        return self._opened

    @property
    def is_closing(self) -> bool:
        """Whether somebody closed it, which may be before it opened."""
        return self._reason is not None

    # What the loop calls.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are Transports in all but their base class.
        self._transport = cast("asyncio.Transport", transport)
        if self._reason is not None or not (self._admitted or self.admit(transport)):
            self._transport.abort()
            return
        wiring = self._wiring
        self._opened = True
        self.heard_at = self._filled_at = wiring.table.now
        wiring.stats.opened += 1
        self._transport.set_write_buffer_limits(high=wiring.limits.write_buffer_bytes)
        wiring.table.await_first_frame(self)
        wiring.sink.opened(self)
        if self._holds:
            # The loop starts reading only after this call, whatever was asked for in it.
            self._loop.call_soon(self._pause_if_held)

    @override
    def data_received(self, data: bytes) -> None:
        if self._reason is not None:
            return
        wiring, framer = self._wiring, self._framer
        wiring.stats.bytes_in += len(data)
        try:
            frames = framer.feed(data)
        except FramingError as fault:
            self._count_faults()
            if fault.frames:
                self._deliver(list(fault.frames))
            wiring.quiet.warn("peer closed", fault.reason, self.peer, str(fault))
            self.close(fault.reason)
            return
        if framer.faults != self._faults:
            self._count_faults()
        wiring.table.heard(self, whole=bool(frames), pending=framer.pending > 0)
        if frames:
            self._deliver(frames)
        if wiring.gap_s is not None:
            self._await_silence(wiring.gap_s)

    @override
    def eof_received(self) -> bool:
        """Tell the sink, and keep a half-closed plain connection open a little for its last acknowledgements."""
        self._eof = True
        if self._reason is not None or self._wiring.tls is not None:
            return False
        self._end_of_stream()
        if self._reason is None:
            self._leave(_end(None, eof=True))
            self._cancel_timers()
            self._timer = self._loop.call_later(self._wiring.limits.linger_s, self._transport.close)
        return True

    @override
    def pause_writing(self) -> None:
        """The peer left more unread than the write buffer may hold."""
        if self._reason is None:
            self._reason = "slow_reader"
            self._wiring.quiet.warn("peer closed", self._reason, self.peer, "it does not read what is sent to it")
            self._transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        self._wiring.table.forget(self)
        if not self._opened:
            return
        if self._reason is None and (not self._eof or self._wiring.tls is not None):
            self._end_of_stream()
        reason = self._reason or _end(exc, eof=self._eof)
        self._reason = reason
        self._wiring.stats.closed[reason] += 1
        self._leave(reason)

    # How it goes on from there.

    def _leave(self, reason: str) -> None:
        if not self._left:
            self._left = True
            self._wiring.sink.closed(self, reason)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    @property
    def _reads(self) -> bool:
        """Whether reading can be paused and resumed."""
        return self._reason is None and self._opened and not self._eof and not self._transport.is_closing()

    def _pause_if_held(self) -> None:
        if self._holds and self._reads:
            self._transport.pause_reading()

    def _deliver(self, frames: list[bytes]) -> None:
        wiring = self._wiring
        self.has_spoken = True
        wiring.stats.frames += len(frames)
        wiring.sink.received(self, frames)
        if wiring.table.now > self._filled_at:
            self._refill(wiring.table.now)
        self._tokens -= len(frames)
        if self._tokens < 0:
            self._refill(wiring.clock.monotonic_s())
            if self._tokens < 0 and self._reads:
                wiring.stats.rate_pauses += 1
                self.hold(_RATE)
                self._await_tokens()

    def _refill(self, now: float) -> None:
        limits = self._wiring.limits
        self._tokens = min(limits.burst_frames, self._tokens + (now - self._filled_at) * limits.max_frames_per_s)
        self._filled_at = now

    def _await_tokens(self) -> None:
        short_s = -self._tokens / self._wiring.limits.max_frames_per_s
        self._timer = self._loop.call_later(short_s, self._tokens_came)

    def _tokens_came(self) -> None:
        self._refill(self._wiring.clock.monotonic_s())
        if self._tokens < 0:
            self._await_tokens()
        else:
            self.release(_RATE)

    def _await_silence(self, gap_s: float) -> None:
        if self._gap_timer is not None:
            self._gap_timer.cancel()
        self._gap_timer = self._loop.call_later(gap_s, self._silent)

    def _silent(self) -> None:
        self._gap_timer = None
        frames = self._framer.silence()
        if frames:
            self._wiring.table.heard(self, whole=True, pending=False)
            self._deliver(frames)

    def _end_of_stream(self) -> None:
        """The end is silence too; what is left after it is half a frame."""
        frames = self._framer.silence()
        if frames:
            self._deliver(frames)
        if self._framer.pending:
            self._wiring.stats.half_frames += 1

    def _count_faults(self) -> None:
        self._wiring.stats.framing_faults += self._framer.faults - self._faults
        self._faults = self._framer.faults

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._gap_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._gap_timer = None


def _end(exc: Exception | None, *, eof: bool) -> str:
    """Why a connection ended that nobody here closed."""
    if eof or exc is None:
        return "peer_closed"
    return "connection_lost" if isinstance(exc, OSError) else "failed"
