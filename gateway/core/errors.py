"""Errors by consequence: a class exists only where a caller acts differently.

Each carries a stable `code` and renders its own message. `gateway/api/errors.py` maps them to HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class GatewayError(Exception):
    """Root of what the gateway raises on purpose."""

    code: ClassVar[str] = "internal"


class ConfigError(GatewayError):
    """The operator must change the configuration; the text says which key and how."""

    code = "config.invalid"


class FramingError(GatewayError):
    """The peer broke the framing; close it.

    reason: stable word for the counter, such as `frame_too_long`.
    frames: the whole frames cut from the same bytes before the fault; they are as good as any.
    """

    code = "framing.broken"

    def __init__(self, reason: str, detail: str, frames: Sequence[bytes] = ()) -> None:
        """Keep the counter's word beside the text for the log."""
        super().__init__(detail)
        self.reason = reason
        self.frames = tuple(frames)


class CodecError(GatewayError):
    """A plugin refused a payload or failed on it; count it, the frame is not a message.

    number: the ABI's error code (WASM ABI gw1), or 0 where the host itself refused.
    """

    code = "codec.failed"

    def __init__(self, number: int, detail: str) -> None:
        """Keep the ABI's number beside its text."""
        super().__init__(detail)
        self.number = number


class PluginTrapped(CodecError):
    """The plugin trapped or ran out of time; its instance was discarded and a strike counted."""

    code = "codec.trapped"


class NotReady(GatewayError):
    """A part is starting, stopping or overloaded; try again later."""

    code = "not_ready"


class AuthFailed(GatewayError):
    """Who asks is unknown, or the proof is wrong or expired."""

    code = "auth.failed"


class Forbidden(GatewayError):
    """Known, but without the permission."""

    code = "auth.forbidden"


class Throttled(GatewayError):
    """Too many attempts; `retry_after_s` says when the next one is allowed."""

    code = "auth.throttled"

    def __init__(self, retry_after_s: float) -> None:
        """Render the wait."""
        super().__init__(f"too many attempts; try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class NotFound(GatewayError):
    """No such object in the caller's tenant."""

    code = "not_found"


class Conflict(GatewayError):
    """The change does not fit the present state."""

    code = "conflict"


class Rejected(GatewayError):
    """The input is well-formed but wrong; the text names the field."""

    code = "invalid"


class StorageFailed(GatewayError):
    """The database refused a commit (disk full, I/O error); nothing of it was kept."""

    code = "storage.failed"
