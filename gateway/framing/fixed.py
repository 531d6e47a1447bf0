"""Cuts a stream into frames of one size. Knows no way to find a lost boundary again: the size is all there is."""

from __future__ import annotations


class FixedFramer:
    """Every `frame_bytes` bytes are a frame."""

    __slots__ = ("_held", "_size", "faults")

    def __init__(self, frame_bytes: int) -> None:
        self._size = frame_bytes
        self._held = bytearray()
        self.faults = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived and return the frames that are now whole. Never raises."""
        size, held = self._size, self._held
        if held:
            held += data
            if len(held) < size:
                return []
            data = bytes(held)
            held.clear()
        whole = len(data) - len(data) % size
        if whole < len(data):
            held += data[whole:]
        return [data[at : at + size] for at in range(0, whole, size)]

    def silence(self) -> list[bytes]:
        """Nothing: silence ends no frame here."""
        return []

    @property
    def pending(self) -> int:
        """Bytes held for a frame that is not whole yet."""
        return len(self._held)
