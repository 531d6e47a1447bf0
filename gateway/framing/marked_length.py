"""Cuts a stream by a length field behind a start mark, and finds the next frame again after noise.

For field buses whose frames travel with wake-up bytes before them, echoes and a modem's own chatter between them. Knows
no checksum: that is the codec's business.

Source: DL/T 645-2007, 5.2 (fe fe fe fe, 68 .. .. .. .. .. .. 68, length, 16); CJ/T 188-2004 and M-Bus look alike.
"""

from __future__ import annotations

import re
from typing import Literal

from gateway.core.errors import FramingError

MarkPattern = tuple[int | None, ...]
"""The bytes that every frame starts with; None stands for any byte."""


class MarkedLengthFramer:
    """A frame starts with `start`, is as long as its length field says, and ends with `end`.

    What stands before a frame is skipped, and so is the first byte of what looks like a frame and is none: its length
    cannot be, or its end is missing. Every skipped byte but the preamble's counts as a fault.
    start: begins with a byte. end: may be empty. preamble: the byte that wakes a line up before a frame, if any.
    offset, width, endian, adjustment, strip: as in LengthFieldFramer, counted from the start mark.
    max_noise_bytes: skipped in a row, after which the peer does not speak this protocol.
    """

    __slots__ = (
        "_end",
        "_endian",
        "_extra",
        "_field_end",
        "_header",
        "_held",
        "_least",
        "_most",
        "_most_noise",
        "_needed",
        "_noise",
        "_offset",
        "_preamble",
        "_starts",
        "_strip",
        "faults",
    )

    def __init__(
        self,
        start: MarkPattern,
        end: bytes,
        preamble: int | None,
        offset: int,
        width: int,
        endian: Literal["big", "little"],
        adjustment: int,
        strip: int,
        max_frame_bytes: int,
        max_noise_bytes: int,
    ) -> None:
        octets = [b"." if byte is None else re.escape(bytes((byte,))) for byte in start]
        self._starts = [re.compile(b"".join(octets[:count]), re.DOTALL) for count in range(len(octets) + 1)]
        self._end = end
        self._preamble = b"" if preamble is None else bytes((preamble,))
        self._offset = offset
        self._field_end = offset + width
        self._header = max(self._field_end, len(start))
        self._endian: Literal["big", "little"] = endian
        self._extra = adjustment + self._field_end
        self._strip = strip
        self._least = max(self._header + len(end), strip)
        self._most = max_frame_bytes
        self._most_noise = max_noise_bytes
        self._noise = 0
        self._held = bytearray()
        self._needed = 0
        self.faults = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived and return the frames that are now whole.

        Raises FramingError(`no_start`) where only noise comes.
        """
        held = self._held
        if held:
            held += data
            if len(held) < self._needed:
                return []
            data = bytes(held)
            held.clear()
        frames: list[bytes] = []
        at = 0
        while True:
            begin = self._next_start(data, at)
            self._skip(data[at:begin], frames)
            at = begin
            length = self._length(data, at)
            if len(data) - at < length:
                held += data[at:]
                # Of half a start the next byte decides.
                self._needed = length if len(held) >= len(self._starts) - 1 else 0
                return frames
            if length and data.endswith(self._end, at, at + length):
                frames.append(data[at + self._strip : at + length])
                self._noise = 0
                at += length
            else:
                self._skip(data[at : at + 1], frames)
                at += 1

    def silence(self) -> list[bytes]:
        """Nothing: silence ends no frame here."""
        return []

    @property
    def pending(self) -> int:
        """Bytes held for a frame that is not whole yet."""
        return len(self._held)

    def _next_start(self, data: bytes, at: int) -> int:
        """Where the next frame starts, or may start once more bytes are there; the end of the data where none does."""
        found = self._starts[-1].search(data, at)
        if found:
            return found.start()
        size = len(data)
        for begin in range(max(at, size - len(self._starts) + 2), size):
            if self._starts[size - begin].fullmatch(data, begin):
                return begin
        return size

    def _length(self, data: bytes, at: int) -> int:
        """Bytes of the frame at a start: what its header needs while that is not whole, 0 where it can be none."""
        if len(data) - at < self._header:
            return self._header
        field = data[at + self._offset : at + self._field_end]
        length = int.from_bytes(field, self._endian) + self._extra
        return length if self._least <= length <= self._most else 0

    def _skip(self, noise: bytes, frames: list[bytes]) -> None:
        count = len(noise) - (noise.count(self._preamble) if self._preamble else 0)
        if self._noise + count > self._most_noise:
            self.faults += self._most_noise + 1 - self._noise
            raise FramingError("no_start", f"no frame within {self._most_noise} bytes", frames)
        self._noise += count
        self.faults += count
