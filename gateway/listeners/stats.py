"""Counters of one listener, and how `/metrics` shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.core.metrics import Sample


@dataclass(slots=True)
class ListenerStats:
    """What happened since the start.

    refused: peers that never became a connection, by reason. closed: connections that ended, by reason.
    framing_faults: bytes or frames that a framer skipped. half_frames: peers that left in the middle of a frame.
    rate_pauses: how often a peer was paused for sending too fast.
    """

    opened: int = 0
    frames: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    framing_faults: int = 0
    half_frames: int = 0
    rate_pauses: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)

    def samples(self, listener: str, live: int) -> Iterator[Sample]:
        """Every counter as it stands; `live` is the number of open connections."""
        labels = {"listener": listener}
        yield Sample("gateway_listener_connections", "Open connections.", "gauge", labels, live)
        for name, text, value in (
            ("opened", "Connections opened.", self.opened),
            ("frames", "Frames received.", self.frames),
            ("bytes_received", "Bytes received.", self.bytes_in),
            ("bytes_sent", "Bytes sent.", self.bytes_out),
            ("framing_faults", "Bytes or frames that a framer skipped.", self.framing_faults),
            ("half_frames", "Peers that left in the middle of a frame.", self.half_frames),
            ("rate_pauses", "Pauses of peers that sent too fast.", self.rate_pauses),
        ):
            yield Sample(f"gateway_listener_{name}_total", text, "counter", labels, value)
        for name, text, by_reason in (
            ("refused", "Peers refused.", self.refused),
            ("closed", "Connections closed.", self.closed),
        ):
            for reason, value in by_reason.items():
                yield Sample(f"gateway_listener_{name}_total", text, "counter", labels | {"reason": reason}, value)
