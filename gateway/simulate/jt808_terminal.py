"""One simulated JT/T 808 terminal: registers, authenticates, reports, answers commands and checks every reply.

Owns the conversation on one connection at a time. Does not decide when it reports: the fleet does.
"""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from typing_extensions import override

from gateway.core.clock import Clock
from gateway.core.errors import FramingError
from gateway.framing.flag_escape import FlagEscapeFramer
from gateway.simulate import jt808_wire as wire
from gateway.simulate.jt808_wire import Edition, Header, Id, Received, Spot

MOST_LATENCIES: Final = 2_000_000
"""Latencies kept for the percentiles (8 bytes each); later ones are only counted as acknowledged."""

MOST_OUTSTANDING: Final = 8_192
"""Messages of one terminal that wait for a reply: an eighth of all serials, so that none is met twice."""

MOST_FRAME_BYTES: Final = 4_096
"""Twice a fully escaped frame of the standard."""

_ALARM_OVERSPEED: Final = 1 << 1
_STATUS_DRIVING: Final = 0b11
_LIMIT_TENTHS: Final = 800
_STAGGER: Final = 16
_OK, _FAULTY, _UNSUPPORTED = 0, 2, 3


class Acknowledged(NamedTuple):
    """A location that the platform acknowledged. `mileage_km` grows by 0.1 a frame, so that it names the frame."""

    phone: str
    serial: int
    at_ms: int
    mileage_km: float


class Tally:
    """What all terminals of a run count together."""

    __slots__ = (
        "acknowledged", "commands", "errors", "first_error", "heartbeats", "heartbeats_acknowledged", "held_back",
        "journal", "latencies_s", "outstanding", "reconnects", "refused", "registered", "sent", "unacknowledged",
    )  # fmt: skip

    def __init__(self, journal: list[Acknowledged] | None) -> None:
        """Start at zero."""
        self.journal = journal
        self.latencies_s = array("d")
        self.sent = self.acknowledged = self.unacknowledged = self.refused = self.outstanding = 0
        self.heartbeats = self.heartbeats_acknowledged = 0
        self.registered = self.commands = self.reconnects = self.held_back = self.errors = 0
        self.first_error = ""

    def error(self, text: str) -> None:
        """Count what the platform must not do."""
        self.errors += 1
        self.first_error = self.first_error or text


class _Waiting(NamedTuple):
    """A message that waits for its reply."""

    message_id: int
    sent_s: float
    at_ms: int
    mileage: int


class Drive:
    """What is the same for all terminals of a run: the road, the speed over the run, the second's BCD time."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        """Compute every spot and speed beforehand."""
        self.road: list[Spot] = wire.ring_road()
        self._tenths = [round(10 * wire.speed_km_h(number / 1000)) for number in range(1001)]
        self.seconds = seconds
        self.clock = clock
        self._second = -1
        self._bcd = b""

    def tenths(self, elapsed_s: float) -> int:
        """Speed in tenths of km/h."""
        return self._tenths[min(1000, max(0, int(1000 * elapsed_s / self.seconds)))]

    def now(self) -> tuple[int, bytes]:
        """The time of a fix: epoch milliseconds of the whole second, and the same as BCD."""
        second = self.clock.now_ms() // 1000
        if second != self._second:
            self._second = second
            self._bcd = wire.bcd_time(second * 1000)
        return second * 1000, self._bcd


class Terminal(asyncio.Protocol):
    """The protocol object of every connection that this terminal makes, one after the other."""

    def __init__(self, index: int, phone: str, edition: Edition, drive: Drive, tally: Tally) -> None:
        """Start at a place on the road of its own."""
        self.phone = phone
        self.online = False
        self.was_online = False
        self.stopping = False
        self.lost: asyncio.Event = asyncio.Event()
        self.on_online: Callable[[], None] = lambda: None
        self._index = index
        self._edition = edition
        self._drive = drive
        self._tally = tally
        self._header = Header(phone, edition)
        self._location_head = self._header.before_serial(Id.LOCATION, wire.LOCATION.size)
        self._serial = 0
        self._mileage = 0
        self._metres = index * 37.0 * wire.STEP_M
        self._drive_s = 0.0
        self._code: bytes | None = None
        self._parameters = {0x0001: (60).to_bytes(4, "big"), 0x0055: (100).to_bytes(4, "big")}
        self._waiting: dict[int, _Waiting] = {}
        self._transport: asyncio.Transport | None = None
        self._framer = _framer()
        self._writable = True
        self._lag_s = drive.seconds * (index % _STAGGER) / _STAGGER / 10

    # Connection.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register, or authenticate at once when a code is known from before."""
        self._transport = cast("asyncio.Transport", transport)
        self._framer = _framer()
        self._writable = True
        if self._code is None:
            self._register()
        else:
            self._authenticate()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever waited will get no reply any more."""
        self.was_online = self.online
        self.online = False
        self._transport = None
        unanswered = sum(entry.message_id == Id.LOCATION for entry in self._waiting.values())
        self._tally.unacknowledged += unanswered
        self._tally.outstanding -= unanswered
        self._waiting.clear()
        self.lost.set()

    @override
    def pause_writing(self) -> None:
        self._writable = False

    @override
    def resume_writing(self) -> None:
        self._writable = True

    def hang_up(self) -> None:
        """Close without a word, as a terminal does that loses power."""
        if self._transport is not None:
            self._transport.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, authenticated or not."""
        return self._transport is not None

    # Sending.

    def report(self, elapsed_s: float, frames: int) -> None:
        """Send locations in one segment; while the platform does not read, they are held back instead."""
        tally = self._tally
        if self._transport is None or not self.online or not self._writable or len(self._waiting) > MOST_OUTSTANDING:
            tally.held_back += frames
            return
        now_s = self._drive.clock.monotonic_s()
        written = [self._location(elapsed_s, now_s) for _ in range(frames)]
        tally.sent += frames
        tally.outstanding += frames
        self._transport.write(written[0] if frames == 1 else b"".join(written))

    def heartbeat(self) -> None:
        """Send 0x0002."""
        if self.online and self._writable:
            self._tally.heartbeats += 1
            self._ask(Id.HEARTBEAT, b"")

    def _location(self, elapsed_s: float, now_s: float) -> bytes:
        self._mileage += 1
        serial = self._next_serial()
        at_ms, body = self._fix(max(0.0, elapsed_s - self._lag_s))
        self._waiting[serial] = _Waiting(Id.LOCATION, now_s, at_ms, self._mileage)
        return wire.envelope(self._location_head + serial.to_bytes(2, "big") + body)

    def _fix(self, elapsed_s: float) -> tuple[int, bytes]:
        """Drive on to `elapsed_s` and take the position there."""
        tenths = self._drive.tenths(elapsed_s)
        self._metres += max(0.0, elapsed_s - self._drive_s) * tenths / 36.0
        self._drive_s = elapsed_s
        road = self._drive.road
        spot = road[int(self._metres / wire.STEP_M) % len(road)]
        at_ms, bcd = self._drive.now()
        alarm = _ALARM_OVERSPEED if tenths > _LIMIT_TENTHS else 0
        return at_ms, wire.LOCATION.pack(
            alarm, _STATUS_DRIVING, spot.latitude, spot.longitude, 12, tenths, spot.direction, bcd,
            0x01, 4, self._mileage, 0x30, 1, 24 + self._serial % 8, 0x31, 1, 9 + self._serial % 4,
        )  # fmt: skip

    def _register(self) -> None:
        self._ask(Id.REGISTER, wire.register_body(self._index, self._edition))

    def _authenticate(self) -> None:
        self._ask(Id.AUTHENTICATE, wire.authenticate_body(self._code or b"", self._edition))

    def _ask(self, message_id: Id, body: bytes) -> None:
        serial = self._next_serial()
        self._waiting[serial] = _Waiting(message_id, self._drive.clock.monotonic_s(), 0, 0)
        self._send(message_id, serial, body)

    def _answer(self, message_id: Id, body: bytes) -> None:
        self._tally.commands += 1
        self._send(message_id, self._next_serial(), body)

    def _send(self, message_id: Id, serial: int, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(self._header.message(message_id, serial, body))

    def _next_serial(self) -> int:
        self._serial = self._serial + 1 & 0xFFFF
        return self._serial

    # Receiving.

    @override
    def data_received(self, data: bytes) -> None:
        """Check and answer whatever the platform says."""
        now_s = self._drive.clock.monotonic_s()
        try:
            frames = self._framer.feed(data)
        except FramingError as fault:
            self._tally.error(f"{self.phone}: framing: {fault}")
            self.hang_up()
            return
        for frame in frames:
            try:
                self._take(wire.read(frame), now_s)
            except ValueError as fault:
                self._tally.error(f"{self.phone}: {fault} in {frame.hex()}")

    def _take(self, message: Received, now_s: float) -> None:
        if message.phone != self._header.phone:
            raise ValueError("another terminal's number")
        match message.message_id:
            case Id.GENERAL_REPLY:
                self._take_reply(message.body, now_s)
            case Id.REGISTER_REPLY:
                self._take_registration(message.body)
            case Id.SET_PARAMETERS:
                self._set_parameters(message)
            case Id.QUERY_PARAMETERS:
                self._answer(Id.PARAMETERS, wire.parameters_body(message.serial, self._parameters))
            case Id.QUERY_SOME_PARAMETERS:
                known = {key: self._parameters[key] for key in wire.read_ids(message.body) if key in self._parameters}
                self._answer(Id.PARAMETERS, wire.parameters_body(message.serial, known))
            case Id.LOCATE:
                self._answer(Id.LOCATION_REPLY, message.serial.to_bytes(2, "big") + self._fix(self._drive_s)[1])
            case _:
                self._reply(message, _UNSUPPORTED)

    def _take_reply(self, body: bytes, now_s: float) -> None:
        if len(body) != 5:
            raise ValueError("length of a general reply")
        waiting = self._waiting.pop(int.from_bytes(body[:2], "big"), None)
        if waiting is None or waiting.message_id != int.from_bytes(body[2:4], "big"):
            raise ValueError("reply to what was not asked")
        if waiting.message_id == Id.LOCATION:
            self._take_location_reply(int.from_bytes(body[:2], "big"), waiting, body[4], now_s)
        elif waiting.message_id == Id.AUTHENTICATE:
            self._authenticated(accepted=body[4] == _OK)
        elif waiting.message_id == Id.HEARTBEAT:
            self._tally.heartbeats_acknowledged += body[4] == _OK
            self._tally.refused += body[4] != _OK

    def _take_location_reply(self, serial: int, waiting: _Waiting, result: int, now_s: float) -> None:
        tally = self._tally
        tally.outstanding -= 1
        if result != _OK:
            tally.refused += 1
            return
        tally.acknowledged += 1
        if len(tally.latencies_s) < MOST_LATENCIES:
            tally.latencies_s.append(now_s - waiting.sent_s)
        if tally.journal is not None:
            tally.journal.append(Acknowledged(self.phone, serial, waiting.at_ms, waiting.mileage / 10))

    def _take_registration(self, body: bytes) -> None:
        waiting = self._waiting.pop(int.from_bytes(body[:2], "big"), None)
        if len(body) < 3 or waiting is None or waiting.message_id != Id.REGISTER:
            raise ValueError("registration reply to what was not asked")
        if body[2] != _OK:
            self._refused(f"registration refused with result {body[2]}")
            return
        self._tally.registered += 1
        self._code = body[3:]
        self._authenticate()

    def _authenticated(self, *, accepted: bool) -> None:
        if accepted:
            self.online = True
            self.on_online()
        else:
            self._code = None
            self._refused("authentication refused")

    def _refused(self, text: str) -> None:
        """Hang up; the next connection registers anew."""
        self._tally.refused += 1
        self._tally.first_error = self._tally.first_error or f"{self.phone}: {text}"
        self.hang_up()

    def _set_parameters(self, message: Received) -> None:
        result = _FAULTY
        with contextlib.suppress(ValueError):
            self._parameters.update(wire.read_parameters(message.body))
            result = _OK
        self._reply(message, result)

    def _reply(self, message: Received, result: int) -> None:
        body = message.serial.to_bytes(2, "big") + message.message_id.to_bytes(2, "big") + bytes((result,))
        self._answer(Id.GENERAL_REPLY_UP, body)


def _framer() -> FlagEscapeFramer:
    return FlagEscapeFramer(0x7E, 0x7D, {0x01: 0x7D, 0x02: 0x7E}, MOST_FRAME_BYTES)
