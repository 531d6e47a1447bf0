"""What an operator may set of the HTTP server."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Bytes = Annotated[int, msgspec.Meta(ge=1024, le=2**40)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=315_360_000)]
"""At most ten years: longer is a slip, and infinity no number of seconds."""
_Pause = Annotated[float, msgspec.Meta(ge=0, le=315_360_000)]


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP port and its limits; times in seconds, sizes in bytes.

    tls_certificate, tls_key: PEM files; without them the port speaks plain HTTP, meant for loopback or a proxy.
    metrics_token: when set, `/metrics` and the whole of `/health` ask for `Authorization: Bearer` with it.
    max_connections: open sockets; one over it is closed at once, so that a flood does not eat the descriptors that
        device listeners need.
    max_header_bytes: of the request line and of each header field.
    max_headers: header fields of a request.
    max_body_bytes: largest request body; a page of hex to decode fits, an upload does not.
    idle_s: a connection that has not finished a request head for so long is closed (slow clients included).
    body_s: a request body must be complete within this.
    linger_s: how long the rest of a refused body is read away, so that the client sees the answer.
    shutdown_s: how long a stop waits for requests under way.
    max_streams: live streams at once; each costs a task and a read of the event table per wake-up.
    stream_backlog: events or messages that may wait for one stream; a client over it is cut, it resumes by event id.
    stream_stall_s: a client that takes nothing for so long is cut.
    stream_heartbeat_s: comment lines keep proxies from closing a quiet stream.
    stream_check_s: how soon an open stream notices that its token has ended.
    """

    enabled: bool = True
    port: _Port = 8080
    tls_certificate: str | None = None
    tls_key: str | None = None
    metrics_token: str | None = None
    max_connections: _Count = 2000
    max_header_bytes: _Bytes = 8190
    max_headers: _Count = 100
    max_body_bytes: _Bytes = 1_048_576
    idle_s: _Seconds = 75.0
    body_s: _Seconds = 30.0
    linger_s: _Pause = 2.0
    shutdown_s: _Pause = 5.0
    max_streams: _Count = 64
    stream_backlog: _Count = 10_000
    stream_stall_s: _Seconds = 10.0
    stream_heartbeat_s: _Seconds = 15.0
    stream_check_s: _Seconds = 5.0
