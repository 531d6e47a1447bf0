"""What one TCP listener bears, each bound with its reason."""

from __future__ import annotations

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class TcpLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one listener; a peer that exceeds one is refused, paused or closed, and counted by reason.

    max_connections: memory and file descriptors; one gateway process is planned for 10,000 devices, this is twice that.
    max_connections_per_peer: one address may be the NAT of a whole fleet, and must still leave room for others.
    idle_timeout_s: device protocols send a heartbeat at least every 300 s; after two missed ones the peer is gone.
    first_frame_timeout_s: a device speaks first, within seconds; who says nothing whole for a minute is none.
    frame_timeout_s: the longest frame takes 30 s even at 20 kbit/s; slower is an attack (slow loris).
    max_frames_per_s: twice the fastest device (1,000 frames/s); above it reading pauses, nothing is lost.
    burst_frames: a device that was offline sends its backlog at once; two seconds' worth pass unpaused.
    write_buffer_bytes: some 10,000 acknowledgements; a peer that leaves more unread does not read at all.
    linger_s: how long a half-closed connection lives, so that a last reply or acknowledgement is not lost to a reset.
    tls_handshake_timeout_s: a handshake on a bad mobile line takes 3 s.
    sweep_s: how often deadlines are looked at, in one pass for all connections.
    backlog: connections that the kernel accepts while the loop is busy, such as a fleet that reconnects.
    """

    max_connections: Count = 20_000
    max_connections_per_peer: Count = 1_000
    idle_timeout_s: Seconds = 600.0
    first_frame_timeout_s: Seconds = 60.0
    frame_timeout_s: Seconds = 30.0
    max_frames_per_s: Annotated[float, msgspec.Meta(gt=0)] = 2_000.0
    burst_frames: Count = 4_000
    write_buffer_bytes: Count = 256 * 1024
    linger_s: Seconds = 0.5
    tls_handshake_timeout_s: Seconds = 10.0
    sweep_s: Seconds = 1.0
    backlog: Count = 1_024
