"""Trying payloads on an instance of a plugin that nobody else uses: frames in, outcomes as people see them out.

Knows framing and codec. Leaves no trace in the plugin that runs, and does not know where instances come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.core.errors import ConfigError, FramingError, NotReady
from gateway.core.flow import Decoded
from gateway.framing.spec import FramingSpec, framer_for
from gateway.wasm.codec import MALFORMED, TRAPPED, Codec, DecodeResult, code_text
from gateway.wasm.vectors import plain, shown_item


class FrameOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What try-decode gives for one frame. `value` is present when ok (None for a dropped frame)."""

    ok: bool
    value: Any = msgspec.UNSET
    code: int | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class Trial:
    """One instance on which a person tries payloads."""

    def __init__(self, codec: Codec, framing: FramingSpec | None) -> None:
        self._codec = codec
        self._framing = framing
        self.skipped = 0
        """Bytes or frames that the framing of the last input skipped."""

    def decode(self, data: bytes, most: int) -> Iterator[list[FrameOutcome]]:
        """Frame and decode one input, at most so many frames between two answers."""
        frames, rest = self.framed(data)
        for at in range(0, len(frames), most):
            yield [_outcome(result) for result in self.results(frames[at : at + most])]
        if rest is not None:
            yield [rest]

    def results(self, frames: Sequence[bytes], aux: int = 0) -> list[DecodeResult]:
        """What the codec makes of frames, one result for each."""
        return _decode_all(self._codec, frames, [aux] * len(frames))

    def framed(self, data: bytes) -> tuple[list[bytes], FrameOutcome | None]:
        """The frames of an input, and what became of a rest that is none."""
        self.skipped = 0
        if self._framing is None:
            return [data], None
        framer = framer_for(self._framing)
        rest: FrameOutcome | None = None
        try:
            frames = [*framer.feed(data), *framer.silence()]
        except FramingError as error:
            frames = list(error.frames)
            rest = FrameOutcome(ok=False, code=MALFORMED, error=f"framing: {error}")
        else:
            if framer.pending:
                rest = FrameOutcome(ok=False, code=6, error=code_text(6))
        self.skipped = framer.faults
        return frames, rest


def _decode_all(codec: Codec, frames: Sequence[bytes], aux: Sequence[int]) -> list[DecodeResult]:
    """Decode to the end, over kills: a person is waiting for all of it, and no loop for this thread."""
    results: list[DecodeResult] = []
    try:
        while len(results) < len(frames):
            done = len(results)
            results += codec.decode_batch(frames[done:], aux[done:])
    except NotReady:  # an instance for trying lives as long as the call: there is no later
        results += [TRAPPED] * (len(frames) - len(results))
    return results


def _outcome(result: DecodeResult) -> FrameOutcome:
    if result is None:
        return FrameOutcome(ok=True, value=None)
    if not isinstance(result, Decoded):
        return FrameOutcome(ok=False, code=result, error=code_text(result))
    try:
        return FrameOutcome(ok=True, value=plain(result.value) if bytes(result.value) else shown_item(result))
    except ConfigError as error:
        return FrameOutcome(ok=False, code=MALFORMED, error=str(error))
