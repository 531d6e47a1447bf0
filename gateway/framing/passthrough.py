"""No framing: what one read brought is a frame. Right for datagrams and trials; on TCP the network cuts at will."""

from __future__ import annotations


class PassthroughFramer:
    """Hands on what arrives, in pieces of at most `max_frame_bytes`; holds nothing."""

    __slots__ = ("_most", "faults")

    def __init__(self, max_frame_bytes: int) -> None:
        self._most = max_frame_bytes
        self.faults = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return what arrived. Never raises."""
        most = self._most
        return [data[at : at + most] for at in range(0, len(data), most)]

    def silence(self) -> list[bytes]:
        """Nothing: nothing is ever held."""
        return []

    @property
    def pending(self) -> int:
        """Always 0."""
        return 0
