"""Cuts a stream by a length field in each frame's header. Knows nothing else of the header."""

from __future__ import annotations

from typing import Literal

from gateway.core.errors import FramingError


class LengthFieldFramer:
    """A frame is as long as the field at `offset` says: value + adjustment + the bytes up to the field's end.

    strip: bytes cut off each frame's front. A length that cannot be true is a fault at once; nothing is held for it.
    """

    __slots__ = ("_endian", "_extra", "_header", "_held", "_least", "_most", "_needed", "_offset", "_strip", "faults")

    def __init__(
        self,
        offset: int,
        width: int,
        endian: Literal["big", "little"],
        adjustment: int,
        strip: int,
        max_frame_bytes: int,
    ) -> None:
        self._offset = offset
        self._header = offset + width
        self._endian: Literal["big", "little"] = endian
        self._extra = adjustment + self._header
        self._strip = strip
        self._least = max(self._header, strip)
        self._most = max_frame_bytes
        self._held = bytearray()
        self._needed = 0
        self.faults = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived and return the frames that are now whole.

        Raises FramingError(`bad_length` below what the header needs, `frame_too_long` over the maximum).
        """
        held = self._held
        if held:
            held += data
            if len(held) < self._needed:
                return []
            data = bytes(held)
            held.clear()
        offset, header, strip, endian = self._offset, self._header, self._strip, self._endian
        frames: list[bytes] = []
        at, size = 0, len(data)
        self._needed = header
        while size - at >= header:
            length = int.from_bytes(data[at + offset : at + header], endian) + self._extra
            if not self._least <= length <= self._most:
                raise self._refused(length, frames)
            if size - at < length:
                self._needed = length
                break
            frames.append(data[at + strip : at + length])
            at += length
        if at < size:
            held += data[at:]
        return frames

    def silence(self) -> list[bytes]:
        """Nothing: silence ends no frame here."""
        return []

    @property
    def pending(self) -> int:
        """Bytes held for a frame that is not whole yet."""
        return len(self._held)

    def _refused(self, length: int, before: list[bytes]) -> FramingError:
        if length < self._least:
            return FramingError("bad_length", f"a frame of {length} bytes cannot hold its own header", before)
        return FramingError("frame_too_long", f"a frame of {length} bytes; at most {self._most} are allowed", before)
