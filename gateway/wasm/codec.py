"""The codec port: what the pipeline may ask of a plugin, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from gateway.core.flow import Decoded

TRAPPED: Final = -1
"""Host's own result code: the frame made the plugin trap or run out of time."""
MALFORMED: Final = -2
"""Host's own result code: what the plugin returned is not what the ABI asks for."""
NOT_TRIED: Final = -3
"""Host's own result code of a trial: its time was over before the frame's turn came."""
NOT_SHOWN: Final = -4
"""Host's own result code of a trial: the answer has no room for what came of the frame."""

CODE_TEXTS: Final = {
    NOT_SHOWN: "not shown: the answer is full; try fewer frames at once",
    NOT_TRIED: "not tried: out of time",
    MALFORMED: "malformed result",
    TRAPPED: "trapped",
    0: "dropped",
    1: "truncated",
    2: "unknown type",
    3: "checksum",
    4: "output too large",
    5: "unsupported",
    6: "needs more bytes",
    7: "bad config",
}
"""Text of each result code. Source: ABI gw1; codes from 256 on are the plugin's own."""


def code_text(code: int) -> str:
    """Text of a result code, for people and for the API."""
    return CODE_TEXTS.get(code, f"plugin error {code}")


DecodeResult = Decoded | int | None
"""One frame's outcome: a message, an error code (ABI, or TRAPPED, MALFORMED), or None where there is none."""


class Codec(Protocol):
    """One loaded codec plugin. Calls run on the thread that made it and return within its deadline."""

    plugin_id: str

    def decode_batch(self, frames: Sequence[bytes], aux: Sequence[int] | None = None) -> list[DecodeResult]:
        """Decode frames in order, giving one result per frame of a non-empty prefix.

        The prefix is shorter than the input only after the time of a batch was used up (a frame ran into the
        deadline, say): the caller lets the loop breathe and comes back with the rest.
        Raises NotReady, and blames no frame, while the plugin has failed and cannot be started again: the frames may
        be given again later.
        """
        ...

    def encode(self, request: bytes, aux: int = 0, *, party: int | None = None) -> bytes:
        """Turn an encode request (msgpack `{command, args, device, serial, ...}`) into bytes for the device.

        party: the connection whose frame is answered, where it is an answer. Raises CodecError; PluginTrapped where
        the plugin failed rather than refused; NotReady while it has failed and cannot be started again.
        """
        ...
