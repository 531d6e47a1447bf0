"""Framers alone: bytes and frames per second for 64-byte frames, one or sixteen of them in a feed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from gateway.framing.framer import Framer
from gateway.framing.spec import (
    DelimiterSpec,
    FixedSpec,
    FlagEscapeSpec,
    FramingSpec,
    LengthFieldSpec,
    framer_for,
)

BODY = 60
SECONDS = 0.25


class LoopFramer:
    """What flag_escape is compared with: the same framing, one Python step per byte."""

    def __init__(self) -> None:
        self._frame = bytearray()
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        frames: list[bytes] = []
        for byte in data:
            if byte == 0x7E:
                if self._frame:
                    frames.append(bytes(self._frame))
                    self._frame.clear()
            elif self._escaped:
                self._frame.append(0x7D if byte == 1 else 0x7E)
                self._escaped = False
            elif byte == 0x7D:
                self._escaped = True
            else:
                self._frame.append(byte)
        return frames


def _plain(size: int) -> bytes:
    """Bytes that need no escape and hold no newline, the same in every run."""
    return bytes(32 + at % 90 for at in range(size))


def _escaping() -> bytes:
    """A body of which two bytes had to be escaped, as in most real location reports."""
    body = bytearray(_plain(BODY))
    body[10:12], body[40:42] = b"\x7d\x01", b"\x7d\x02"
    return bytes(body)


CASES: tuple[tuple[str, FramingSpec, bytes], ...] = (
    ("fixed", FixedSpec(frame_bytes=64), _plain(64)),
    ("delimiter", DelimiterSpec(), _plain(63) + b"\n"),
    ("length_field", LengthFieldSpec(strip=2), (62).to_bytes(2, "big") + _plain(62)),
    ("flag_escape, nothing escaped", FlagEscapeSpec(), b"\x7e" + _plain(62) + b"\x7e"),
    ("flag_escape, 2 bytes escaped", FlagEscapeSpec(), b"\x7e\x00" + _escaping() + b"\x00\x7e"),
)


def rows() -> Iterable[tuple[str, str, str]]:
    """One row per framer and feed size: what, figure, note."""
    for name, spec, wire in CASES:
        for count in (1, 16):
            yield _row(f"framer {name}, {count} a feed", framer_for(spec).feed, wire, count)
        if name.startswith("flag_escape, 2"):
            yield _row("plain loop, 2 bytes escaped, 16 a feed", LoopFramer().feed, wire, 16)
    yield _row("framer flag_escape, a frame in two feeds", _halved(framer_for(FlagEscapeSpec())), CASES[-1][2], 1)


def _halved(framer: Framer) -> Callable[[bytes], list[bytes]]:
    def feed(data: bytes) -> list[bytes]:
        framer.feed(data[:30])
        return framer.feed(data[30:])

    return feed


def _row(what: str, feed: Callable[[bytes], list[bytes]], wire: bytes, count: int) -> tuple[str, str, str]:
    segment = wire * count
    if len(feed(segment)) != count:
        raise RuntimeError(f"{what}: lost a frame")
    feeds, used = 0, 0.0
    while used < SECONDS:
        started = time.process_time()
        for _ in range(1_000):
            feed(segment)
        used += time.process_time() - started
        feeds += 1_000
    frames = feeds * count / used
    return what, f"{frames / 1e6:.2f} M frames/CPU-s", f"{frames * len(wire) / 1e6:.0f} MB/s of 64-byte frames"
