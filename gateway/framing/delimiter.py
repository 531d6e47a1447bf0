"""Cuts a stream at a delimiter, as text protocols do. Knows no quoting: every delimiter ends a frame."""

from __future__ import annotations

from gateway.core.errors import FramingError


class DelimiterFramer:
    """Frames are what stands between delimiters, without them; empty ones are skipped.

    max_frame_bytes: counts the frame with its delimiter, so that a delimiter that is half here never holds more.
    """

    __slots__ = ("_delimiter", "_held", "_most", "faults")

    def __init__(self, delimiter: bytes, max_frame_bytes: int) -> None:
        self._delimiter = delimiter
        self._most = max_frame_bytes
        self._held = bytearray()
        self.faults = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived and return the frames that are now whole.

        Raises FramingError(`frame_too_long`).
        """
        held, delimiter = self._held, self._delimiter
        if held:
            if not self._ends_in(data):
                if len(held) + len(data) >= self._most:
                    raise self._too_long([])
                held += data
                return []
            data = bytes(held) + data
            held.clear()
        parts = data.split(delimiter)
        rest = parts.pop()
        if len(data) >= self._most:
            self._check(parts, rest)
        held += rest
        return [part for part in parts if part]

    def silence(self) -> list[bytes]:
        """Nothing: silence ends no frame here."""
        return []

    @property
    def pending(self) -> int:
        """Bytes held for a frame that is not whole yet."""
        return len(self._held)

    def _ends_in(self, data: bytes) -> bool:
        """Whether a delimiter ends in `data`; it may have begun in what is held."""
        overlap = len(self._delimiter) - 1
        return self._delimiter in (bytes(self._held[-overlap:]) + data if overlap else data)

    def _check(self, parts: list[bytes], rest: bytes) -> None:
        room = self._most - len(self._delimiter)
        for at, part in enumerate(parts):
            if len(part) > room:
                raise self._too_long(parts[:at])
        if len(rest) >= self._most:
            raise self._too_long(parts)

    def _too_long(self, before: list[bytes]) -> FramingError:
        return FramingError(
            "frame_too_long", f"no delimiter within {self._most} bytes", [part for part in before if part]
        )
