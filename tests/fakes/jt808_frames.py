"""JT/T 808 frames for tests, built from the standard's own words: after framing, so without flags and escapes."""

from __future__ import annotations

import functools
import operator

PHONE = "013812345678"
PHONE_2019 = "00000000013812345678"


def sealed(content: bytes) -> bytes:
    """Add the checksum."""
    return content + bytes((functools.reduce(operator.xor, content, 0),))


def frame(
    message_id: int,
    body: bytes = b"",
    *,
    phone: str = PHONE,
    serial: int = 1,
    version: int | None = None,
    parts: tuple[int, int] | None = None,
    flags: int = 0,
) -> bytes:
    """One frame. `parts` is (total, index)."""
    attributes = min(len(body), 0x3FF) | flags | (0x4000 if version is not None else 0) | (0x2000 if parts else 0)
    header = message_id.to_bytes(2, "big") + attributes.to_bytes(2, "big")
    header += b"" if version is None else bytes((version,))
    header += bytes.fromhex(phone) + serial.to_bytes(2, "big")
    if parts:
        header += parts[0].to_bytes(2, "big") + parts[1].to_bytes(2, "big")
    return sealed(header + body)


def parted(message_id: int, body: bytes, size: int, *, phone: str = PHONE, serial: int = 1) -> list[bytes]:
    """A message cut into parts of `size` bytes, with serials that count up."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return [
        frame(message_id, piece, phone=phone, serial=(serial + index) % 0x10000, parts=(len(pieces), index + 1))
        for index, piece in enumerate(pieces)
    ]


def location_body(*, altitude: int = 50, bcd: str = "260301075959", extras: bytes = b"") -> bytes:
    """20 degrees north, 114 degrees east, 80 km/h to the west."""
    place = (20_000_000).to_bytes(4, "big") + (114_000_000).to_bytes(4, "big") + altitude.to_bytes(2, "big")
    return (
        bytes(4)
        + bytes((0, 0, 0, 3))
        + place
        + (800).to_bytes(2, "big")
        + (270).to_bytes(2, "big")
        + bytes.fromhex(bcd)
        + extras
    )


def batch_body(locations: list[bytes]) -> bytes:
    """Body of 0x0704."""
    return len(locations).to_bytes(2, "big") + b"\0" + b"".join(len(one).to_bytes(2, "big") + one for one in locations)
