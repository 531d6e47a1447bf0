"""The framer port: bytes in, whole frames out, no sockets and no time."""

from __future__ import annotations

from typing import Protocol


class Framer(Protocol):
    """Cuts one connection's byte stream into frames.

    Whatever way the bytes are split over calls, the frames are the same, and any bytes give frames or a
    FramingError. Holds at most its configured maximum of bytes.
    """

    faults: int
    """Bytes or frames skipped as malformed without giving the peer up (counted in metrics)."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived and return the frames that are now whole.

        Raises FramingError, carrying the frames cut before the fault; the framer is of no further use then.
        """
        ...

    def silence(self) -> list[bytes]:
        """The line was silent for the framing's gap: return what that ends. Most framers return nothing."""
        ...

    @property
    def pending(self) -> int:
        """Bytes held for a frame that is not whole yet."""
        ...
