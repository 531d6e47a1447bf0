"""Cuts a stream where the line falls silent, as Modbus RTU does. Knows no clock: its owner tells it of silence.

Source: Modbus over Serial Line V1.02, 2.5.1.1.
"""

from __future__ import annotations

from gateway.core.errors import FramingError


class GapFramer:
    """Whatever arrived between two silences is one frame."""

    __slots__ = ("_held", "_most", "faults")

    def __init__(self, max_frame_bytes: int) -> None:
        self._most = max_frame_bytes
        self._held = bytearray()
        self.faults = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Hold what arrived; no frame is whole before the line is silent.

        Raises FramingError(`frame_too_long`).
        """
        if len(self._held) + len(data) > self._most:
            raise FramingError("frame_too_long", f"no silence within {self._most} bytes")
        self._held += data
        return []

    def silence(self) -> list[bytes]:
        """Return what the silence ended, if anything."""
        if not self._held:
            return []
        frame = bytes(self._held)
        self._held.clear()
        return [frame]

    @property
    def pending(self) -> int:
        """Bytes held for a frame that is not whole yet."""
        return len(self._held)
