"""Cuts a stream at flag bytes and undoes byte stuffing. Knows no checksum: that is the codec's business.

Source: JT/T 808-2019, 4.4.2 (7e; 7d 02 for 7e, 7d 01 for 7d); the same scheme serves SLIP and PPP.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.errors import FramingError


class FlagEscapeFramer:
    """Frames are what stands between flags, unescaped; a flag may end one frame and begin the next.

    Empty frames are skipped. Bytes before the first flag are noise, each counted as a fault. An escape byte that the
    table does not explain is kept as it is and counted.
    escapes: what follows the escape byte -> what the pair stands for. No value may be a key, and no key the escape
        byte: then replacing pair by pair means the same as reading from left to right (the value that is the escape
        byte itself goes last).
    max_frame_bytes: between flags, before unescaping; as many bytes of noise are borne before the first flag.
    """

    __slots__ = ("_escape", "_flag", "_held", "_inside", "_most", "_pairs", "faults")

    def __init__(self, flag: int, escape: int, escapes: Mapping[int, int], max_frame_bytes: int) -> None:
        self._flag = bytes((flag,))
        self._escape = bytes((escape,))
        self._pairs = tuple(
            (bytes((escape, key)), bytes((value,)))
            for key, value in sorted(escapes.items(), key=lambda entry: entry[1] == escape)
        )
        self._most = max_frame_bytes
        self._held = bytearray()
        self._inside = False
        self.faults = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived and return the frames that are now whole.

        Raises FramingError(`frame_too_long`, or `no_flag` where only noise comes).
        """
        if not self._inside:
            data = self._skip_noise(data)
        held = self._held
        if held:
            if self._flag not in data:
                if len(held) + len(data) > self._most:
                    raise self._too_long([])
                held += data
                return []
            data = bytes(held) + data
            held.clear()
        parts = data.split(self._flag)
        rest = parts.pop()
        if len(data) > self._most:
            self._check(parts, rest)
        if rest:
            held += rest
        return self._unescaped(parts) if self._escape in data else [part for part in parts if part]

    def silence(self) -> list[bytes]:
        """Nothing: silence ends no frame here."""
        return []

    @property
    def pending(self) -> int:
        """Bytes held for a frame that is not whole yet."""
        return len(self._held)

    def _skip_noise(self, data: bytes) -> bytes:
        at = data.find(self._flag)
        self.faults += len(data) if at < 0 else at
        if self.faults > self._most:
            self.faults = self._most + 1
            raise FramingError("no_flag", f"no flag byte within {self._most} bytes")
        self._inside = at >= 0
        return data[at + 1 :] if self._inside else b""

    def _check(self, parts: list[bytes], rest: bytes) -> None:
        for at, part in enumerate(parts):
            if len(part) > self._most:
                raise self._too_long(parts[:at])
        if len(rest) > self._most:
            raise self._too_long(parts)

    def _too_long(self, before: list[bytes]) -> FramingError:
        return FramingError("frame_too_long", f"no flag byte within {self._most} bytes", self._unescaped(before))

    def _unescaped(self, parts: list[bytes]) -> list[bytes]:
        escape = self._escape
        return [self._unescape(part) if escape in part else part for part in parts if part]

    def _unescape(self, part: bytes) -> bytes:
        plain = part
        for pair, value in self._pairs:
            plain = plain.replace(pair, value)
        # Every replaced pair made the frame one byte shorter; the other escape bytes were kept.
        self.faults += part.count(self._escape) - (len(part) - len(plain))
        return plain
