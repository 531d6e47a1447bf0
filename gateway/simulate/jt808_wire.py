"""JT/T 808 as a terminal writes and reads it: frames, bodies, and a route to drive. Knows no sockets and no time.

Source: JT/T 808-2013 and JT/T 808-2019, chapters 4 and 8.
"""

from __future__ import annotations

import enum
import itertools
import math
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

Edition = Literal["2013", "2019"]

_HAS_VERSION: Final = 1 << 14
_HAS_PARTS: Final = 1 << 13
_BODY_BYTES: Final = 0x3FF
_VERSION: Final = 1
_GMT_PLUS_8: Final = timedelta(hours=8)

LOCATION: Final = struct.Struct(">IIIIHHH6sBBIBBBBBB")
"""Alarm, status, latitude, longitude, altitude, speed, direction, time; extras 0x01, 0x30 and 0x31."""


class Id(enum.IntEnum):
    """Message ids that the simulator speaks."""

    GENERAL_REPLY_UP = 0x0001
    HEARTBEAT = 0x0002
    REGISTER = 0x0100
    AUTHENTICATE = 0x0102
    PARAMETERS = 0x0104
    LOCATION = 0x0200
    LOCATION_REPLY = 0x0201
    GENERAL_REPLY = 0x8001
    REGISTER_REPLY = 0x8100
    SET_PARAMETERS = 0x8103
    QUERY_PARAMETERS = 0x8104
    QUERY_SOME_PARAMETERS = 0x8106
    LOCATE = 0x8201


class Received(NamedTuple):
    """A message from the platform."""

    message_id: int
    phone: bytes
    serial: int
    body: bytes


def checksum(data: bytes) -> int:
    """XOR of all bytes."""
    folded = int.from_bytes(data, "little")
    width = 1 << max(0, (len(data) - 1).bit_length())
    while width > 1:
        width >>= 1
        bits = 8 * width
        folded = folded >> bits ^ folded & (1 << bits) - 1
    return folded


def envelope(data: bytes) -> bytes:
    """Put header and body on the wire: checksum, escapes, flags."""
    data += bytes((checksum(data),))
    if b"\x7d" in data or b"\x7e" in data:
        data = data.replace(b"\x7d", b"\x7d\x01").replace(b"\x7e", b"\x7d\x02")
    return b"\x7e" + data + b"\x7e"


class Header:
    """Builds the headers of one terminal."""

    def __init__(self, phone: str, edition: Edition) -> None:
        """Take a phone number of 12 digits (20 in the edition of 2019)."""
        self.phone = bytes.fromhex(phone)
        if len(self.phone) != (10 if edition == "2019" else 6):
            raise ValueError(f"{phone} is no phone number of the edition of {edition}")
        self._flags = _HAS_VERSION if edition == "2019" else 0
        self._name = (bytes((_VERSION,)) if edition == "2019" else b"") + self.phone

    def before_serial(self, message_id: int, body_bytes: int) -> bytes:
        """The part of a header that is the same for every message of a kind and size."""
        return struct.pack(">HH", message_id, body_bytes | self._flags) + self._name

    def message(self, message_id: int, serial: int, body: bytes) -> bytes:
        """A whole message on the wire."""
        return envelope(self.before_serial(message_id, len(body)) + serial.to_bytes(2, "big") + body)


def read(frame: bytes) -> Received:
    """Read an unescaped frame; raises ValueError that says what is wrong."""
    if len(frame) < 13 or checksum(frame):
        raise ValueError("too short" if len(frame) < 13 else "checksum")
    message_id, attributes = struct.unpack_from(">HH", frame)
    phone_at, phone_end = (5, 15) if attributes & _HAS_VERSION else (4, 10)
    body = frame[phone_end + 2 : -1]
    if attributes & _HAS_PARTS or len(body) != attributes & _BODY_BYTES:
        raise ValueError("body length")
    return Received(
        message_id, frame[phone_at:phone_end], int.from_bytes(frame[phone_end : phone_end + 2], "big"), body
    )


# Bodies.


def register_body(index: int, edition: Edition) -> bytes:
    """Province 44, city 3, an invented maker, a plate that names the terminal."""
    wide = edition == "2019"
    maker, model, name = (11, 30, 30) if wide else (5, 20, 7)
    fields = (b"FLUXS", maker), (b"SIM-808", model), (f"{index % 10_000_000:07d}".encode(), name)
    texts = b"".join(text.ljust(width, b"\0") for text, width in fields)
    return struct.pack(">HH", 44, 3) + texts + b"\x01" + f"SIM{index:05d}".encode()


def authenticate_body(code: bytes, edition: Edition) -> bytes:
    """The code; in the edition of 2019 behind its length, with an IMEI and a software version."""
    if edition == "2013":
        return code
    return bytes((len(code),)) + code + b"860000000000000" + b"SIM-1.0".ljust(20, b"\0")


def bcd_time(at_ms: int) -> bytes:
    """YYMMDDhhmmss in GMT+8."""
    moment = datetime.fromtimestamp(at_ms // 1000, tz=UTC) + _GMT_PLUS_8
    return bytes.fromhex(f"{moment:%y%m%d%H%M%S}")


def parameters_body(answered: int, parameters: Mapping[int, bytes]) -> bytes:
    """Answer to a query: serial, count, (id, length, value)."""
    listed = b"".join(struct.pack(">IB", key, len(value)) + value for key, value in parameters.items())
    return struct.pack(">HB", answered, len(parameters)) + listed


def read_parameters(body: bytes) -> dict[int, bytes]:
    """Parameters of 0x8103; raises ValueError where count and lengths do not fit."""
    found: dict[int, bytes] = {}
    at = 1
    while at + 5 <= len(body):
        key, size = struct.unpack_from(">IB", body, at)
        found[key] = body[at + 5 : at + 5 + size]
        at += 5 + size
    if not body or at != len(body) or body[0] != len(found):
        raise ValueError("parameter list")
    return found


def read_ids(body: bytes) -> list[int]:
    """Parameter ids of 0x8106; raises ValueError where the count does not fit."""
    if not body or len(body) != 1 + 4 * body[0]:
        raise ValueError("list of ids")
    return list(struct.unpack(f">{body[0]}I", body[1:]))


# The route.


class Spot(NamedTuple):
    """A place on the route, as on the wire: millionths of a degree and degrees from north."""

    latitude: int
    longitude: int
    direction: int


STEP_M: Final = 5.0
"""Distance between neighbouring spots."""


def ring_road(radius_m: float = 4_000.0) -> list[Spot]:
    """Spots of a closed ring around the middle of Shenzhen, driven clockwise."""
    latitude, longitude = 22.55, 114.06
    metres_a_degree = 111_320.0
    count = round(2 * math.pi * radius_m / STEP_M)
    spots = []
    for number in range(count):
        bearing = 2 * math.pi * number / count
        north = radius_m * math.cos(bearing) / metres_a_degree
        east = radius_m * math.sin(bearing) / (metres_a_degree * math.cos(math.radians(latitude)))
        heading = round(math.degrees(bearing) + 90) % 360
        spots.append(Spot(round((latitude + north) * 1e6), round((longitude + east) * 1e6), heading))
    return spots


_DRIVE: Final = ((0.0, 40.0), (0.2, 60.0), (0.3, 95.0), (0.45, 110.0), (0.55, 95.0), (0.65, 60.0), (1.0, 45.0))
"""Share of the run -> km/h: over 80 once, below 75 for good afterwards."""


def speed_km_h(share: float) -> float:
    """Speed at a share (0 to 1) of the run."""
    share = min(max(share, 0.0), 1.0)
    for (before, slow), (after, fast) in itertools.pairwise(_DRIVE):
        if share <= after:
            return slow + (fast - slow) * (share - before) / (after - before)
    return _DRIVE[-1][1]
