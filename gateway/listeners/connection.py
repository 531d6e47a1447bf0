"""What a listener shows of a connection, and what it expects of whoever takes its frames."""

from __future__ import annotations

from typing import Protocol


class Connection(Protocol):
    """One connected peer. Methods are called on the loop's thread only."""

    listener: str
    """Name of the listener in the configuration."""
    product_id: str
    """The product whose devices connect here."""
    tenant_id: str
    peer: str
    """Address as `host:port`, for logs."""

    def send(self, data: bytes) -> None:
        """Queue bytes for the peer; nothing happens once closed. A peer that never reads is closed, counted."""
        ...

    def close(self, reason: str) -> None:
        """Close after what was queued is sent; `reason` is a stable word for the counter."""
        ...

    def hold(self, why: str) -> None:
        """Stop reading from the peer until every holder released (back-pressure)."""
        ...

    def release(self, why: str) -> None:
        """Withdraw a hold; reading goes on when no other is left."""
        ...


class FrameSink(Protocol):
    """Takes the frames of all listeners. Calls come on the loop's thread and must not block."""

    def opened(self, connection: Connection) -> None:
        """A peer connected (TLS done)."""
        ...

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """Frames arrived, in order; never an empty list."""
        ...

    def closed(self, connection: Connection, reason: str) -> None:
        """Nothing more arrives; called exactly once after `opened`.

        What is sent from now on still reaches a peer that closed only its own half.
        """
        ...
