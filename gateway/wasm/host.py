"""One loaded codec plugin: batches in, outcomes out, whatever the plugin does.

Owns the policy around an instance: split, isolate the frame that trapped, discard and respawn, count. An instance
that trapped is gone with its state; the frames that did not trap are decoded again on a fresh one.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from time import perf_counter
from typing import TypeAlias

import structlog
from typing_extensions import override

from gateway.core.errors import CodecError, NotReady
from gateway.core.flow import Decoded
from gateway.wasm.abi import (
    HEADER_BYTES,
    TOO_LARGE,
    UNSUPPORTED,
    BadBatch,
    pack_batch,
    unpack_batch,
)
from gateway.wasm.codec import MALFORMED, TRAPPED, Codec, DecodeResult
from gateway.wasm.fastcall import GuestTrap
from gateway.wasm.instance import BAD_POINTER
from gateway.wasm.program import STRIKE_WINDOW_S, Down, Program

log = structlog.get_logger(__name__)

MOST_FRAMES = 1024
"""Frames of one call: past some hundred a longer batch gains nothing, and a failed one is repeated frame by frame."""


class _Failure(enum.Enum):
    """Why a call gave no items."""

    TRAPPED = "trapped"
    TIMED_OUT = "timed out"
    MALFORMED = "malformed"
    DOWN = "down"
    """The plugin does not start; it is tried again after a while."""


_FATAL = (_Failure.TRAPPED, _Failure.TIMED_OUT)
_Outcome: TypeAlias = "list[DecodeResult] | _Failure | int"
"""What one call gave: items, why there are none, or the code that the plugin gave for the whole."""


class WasmCodec(Codec):
    """A codec plugin in its sandbox. Every call must come from the thread that made its program."""

    def __init__(self, program: Program) -> None:
        """Wrap a program, which is closed with the codec."""
        self.program = program
        self.plugin_id = program.plugin_id
        self.manifest = program.manifest
        self.stats = program.stats
        self.path = program.path
        self.encodes = program.exports("gw_encode")
        self._limits = program.limits
        self._deadline_s = program.limits.deadline_ms / 1000
        self._batch_deadline_s = max(program.limits.batch_deadline_ms, program.limits.deadline_ms) / 1000
        self._most = MOST_FRAMES

    def close(self) -> None:
        """Free the program; the codec is of no further use."""
        self.program.close()

    def strikes_in(self, window_s: float = STRIKE_WINDOW_S) -> int:
        """Strikes within the last seconds."""
        return self.program.strikes_in(window_s)

    @property
    def memory_bytes(self) -> int:
        """Linear memory of the present instance."""
        return self.program.memory_bytes

    @property
    def log_lines_dropped(self) -> int:
        """Lines the plugin logged over its allowance."""
        return self.program.log_lines_dropped

    @override
    def decode_batch(self, frames: Sequence[bytes], aux: Sequence[int] | None = None) -> list[DecodeResult]:
        count = len(frames)
        if not count:
            return []
        if aux is not None and len(aux) != count:
            raise ValueError(f"{len(aux)} aux values for {count} frames")
        if count <= self._most:
            packed = pack_batch(frames, aux)
            if len(packed) <= self._limits.max_input:
                began = perf_counter()
                return self._counted(self._settle(frames, aux, self._run(packed, count), began))
        return self._counted(self._in_pieces(frames, aux))

    @override
    def encode(self, request: bytes, aux: int = 0) -> bytes:
        if not self.encodes:
            raise CodecError(UNSUPPORTED, f"plugin {self.plugin_id} encodes nothing")
        if len(request) > self._limits.max_input:
            raise CodecError(UNSUPPORTED, f"the request is larger than the plugin's max_input {self._limits.max_input}")
        self.stats.encodes += 1
        return self.program.ask("gw_encode", request, aux, self._deadline_s)

    # -- batches ------------------------------------------------------------------------------------------------

    def _in_pieces(self, frames: Sequence[bytes], aux: Sequence[int] | None) -> list[DecodeResult]:
        """Decode more than one call can take; stop early once the time of a batch is used up."""
        began = perf_counter()
        results: list[DecodeResult] = []
        while len(results) < len(frames):
            start = len(results)
            end = self._piece_end(frames, start)
            if end == start:
                results.append(UNSUPPORTED)  # this frame alone is larger than the plugin takes
                continue
            piece, piece_aux = frames[start:end], aux[start:end] if aux is not None else None
            outcome = self._run(pack_batch(piece, piece_aux), len(piece))
            try:
                settled = self._settle(piece, piece_aux, outcome, began)
            except NotReady:
                if not results:
                    raise
                break
            results += settled
            if len(settled) < len(piece) or perf_counter() - began > self._batch_deadline_s:
                break
        return results

    def _piece_end(self, frames: Sequence[bytes], start: int) -> int:
        room = self._limits.max_input
        end = start
        while end < len(frames) and end - start < self._most:
            room -= len(frames[end]) + HEADER_BYTES
            if room < 0:
                break
            end += 1
        return end

    def _settle(
        self, frames: Sequence[bytes], aux: Sequence[int] | None, outcome: _Outcome, began: float
    ) -> list[DecodeResult]:
        """Turn the outcome of one call into one result per frame of a prefix, decoding singly what failed together.

        Raises NotReady where the prefix would be empty since there is no instance.
        """
        if isinstance(outcome, list):
            if TOO_LARGE in outcome and len(frames) > 1:
                self._retry_large(frames, aux, outcome, began)
            return outcome
        if outcome is _Failure.DOWN:
            raise self.program.not_ready()
        if len(frames) == 1:
            return [self._judged(outcome)]
        results: list[DecodeResult] = []
        guilty = False
        for place in range(len(frames)):
            single = self._run_single(frames, aux, place)
            if single is _Failure.DOWN:
                if not results:
                    raise self.program.not_ready()
                return results
            guilty = guilty or single in _FATAL
            results.append(self._judged(single))
            if single is _Failure.TIMED_OUT or perf_counter() > self._give_up(began):
                break
        if outcome is _Failure.TIMED_OUT and not guilty:
            # No frame alone was too slow, so the batch was too long: make it shorter from now on.
            self._most = max(1, len(frames) // 2)
            self.program.strike("too slow for its batch deadline")
        return results

    def _retry_large(
        self, frames: Sequence[bytes], aux: Sequence[int] | None, results: list[DecodeResult], began: float
    ) -> None:
        """Give each frame whose result did not fit beside the others a call of its own, while there is time.

        Without an instance to ask, it and what follows it are left off.
        """
        for place, result in enumerate(results):
            if result == TOO_LARGE:
                single = self._run_single(frames, aux, place)
                if single is _Failure.DOWN:
                    if not place:
                        raise self.program.not_ready()
                    del results[place:]
                    return
                results[place] = self._judged(single)
                if single is _Failure.TIMED_OUT or perf_counter() > self._give_up(began):
                    return

    def _give_up(self, began: float) -> float:
        return began + self._batch_deadline_s + self._deadline_s

    def _run_single(self, frames: Sequence[bytes], aux: Sequence[int] | None, place: int) -> _Outcome:
        return self._run(pack_batch([frames[place]], [aux[place]] if aux is not None else None), 1)

    def _judged(self, outcome: _Outcome) -> DecodeResult:
        """The one result of a call for one frame; a strike where the frame cost an instance."""
        if isinstance(outcome, list):
            return outcome[0]
        if isinstance(outcome, _Failure):
            if outcome in _FATAL:
                self.program.strike(f"{outcome.value} on one frame")
            return MALFORMED if outcome is _Failure.MALFORMED else TRAPPED
        return outcome or None

    def _run(self, packed: bytes, count: int) -> _Outcome:
        try:
            code, data = self.program.call(
                "gw_decode_batch", packed, count, self._deadline_s if count == 1 else self._batch_deadline_s
            )
        except Down:
            return _Failure.DOWN
        except GuestTrap as trap:
            return _Failure.TIMED_OUT if trap.timed_out else _Failure.TRAPPED
        if code == BAD_POINTER:
            return _Failure.MALFORMED
        if code:
            return code
        try:
            items = unpack_batch(data, count)
        except BadBatch:
            return _Failure.MALFORMED
        if self._most < MOST_FRAMES and count >= self._most:
            self._most += 1
        return items

    def _counted(self, results: list[DecodeResult]) -> list[DecodeResult]:
        stats = self.stats
        stats.frames += len(results)
        decoded = 0
        for result in results:
            if isinstance(result, Decoded):
                decoded += 1
            elif result is None:
                stats.dropped += 1
            else:
                stats.errors[result] = stats.errors.get(result, 0) + 1
        stats.decoded += decoded
        return results
