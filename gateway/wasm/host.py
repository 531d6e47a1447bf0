"""One loaded codec plugin: batches in, outcomes out, whatever the plugin does.

Owns the policy around an instance: split, isolate the frame that trapped, discard and respawn, count, and refuse what
is proven to trap. An instance that trapped is gone with its state; the frames that did not trap are decoded again on a
fresh one. Does not know of other versions of the plugin.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Protocol, TypeAlias

from typing_extensions import override

from gateway.core.errors import CodecError, NotReady
from gateway.core.flow import Decoded
from gateway.wasm.abi import (
    HEADER_BYTES,
    TOO_LARGE,
    UNSUPPORTED,
    BadBatch,
    UnfoldsTooFar,
    pack_batch,
    pack_results,
    unpack_batch,
)
from gateway.wasm.codec import MALFORMED, TRAPPED, Codec, DecodeResult
from gateway.wasm.fastcall import GuestTrap
from gateway.wasm.instance import BAD_POINTER
from gateway.wasm.poison import PoisonMemory
from gateway.wasm.program import Down, Program
from gateway.wasm.stats import count_code
from gateway.wasm.strikes import STRIKE_WINDOW_S

MOST_FRAMES = 1024
"""Frames of one call: past some hundred a longer batch gains nothing, and a failed one is repeated frame by frame."""


class _Failure(enum.Enum):
    """Why a call gave no items."""

    TRAPPED = "trapped"
    TIMED_OUT = "timed out"
    MALFORMED = "malformed"
    UNFOLDED = "answered far too many values"
    DOWN = "down"
    """The plugin does not start; it is tried again after a while."""


_FATAL = (_Failure.TRAPPED, _Failure.TIMED_OUT)
_Outcome: TypeAlias = "list[DecodeResult] | _Failure | int"
"""What one call gave: items, why there are none, or the code that the plugin gave for the whole."""


class Tap(Protocol):
    """Who looks on at live frames: another version in shadow."""

    def offer(self, frames: Sequence[bytes], aux: Sequence[int] | None, results: bytes, took_s: float) -> None:
        """Take frames with what became of them (msgpack, one result each). Returns at once, never raises."""
        ...


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
        self._poison = PoisonMemory()
        self._poisons = self._poison.known
        self._raw: bytes | None = None
        self._successor: Callable[[], Codec] | None = None
        self.tap: Tap | None = None

    def close(self, successor: Callable[[], Codec] | None = None) -> None:
        """Free the program. The codec is of no further use, but that it hands on what it is still asked to encode.

        successor: gives the codec that goes on, or raises NotReady.
        """
        self._successor = successor
        self.tap = None
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
        if count <= self._most and not self._poisons and self.tap is None:
            packed = pack_batch(frames, aux)
            if len(packed) <= self._limits.max_input:
                began = perf_counter()
                return self._counted(self._settle(frames, aux, self._run(packed, count), began))
        return self._counted(self._watched(frames, aux))

    @override
    def encode(self, request: bytes, aux: int = 0, *, party: int | None = None) -> bytes:
        if not self.encodes:
            raise CodecError(UNSUPPORTED, f"plugin {self.plugin_id} encodes nothing")
        if self._successor is not None:
            return self._successor().encode(request, aux, party=party)
        if len(request) > self._limits.max_input:
            raise CodecError(UNSUPPORTED, f"the request is larger than the plugin's max_input {self._limits.max_input}")
        self.stats.encodes += 1
        return self.program.ask("gw_encode", request, aux, self._deadline_s, party=party)

    # -- batches ------------------------------------------------------------------------------------------------

    def _watched(self, frames: Sequence[bytes], aux: Sequence[int] | None) -> list[DecodeResult]:
        """Decode with an eye on what is known to trap, and with whoever looks on."""
        began = perf_counter()
        results = self._guarded(frames, aux, began) if self._poisons else self._decode(frames, aux, began)
        if self.tap is not None:
            took_s = perf_counter() - began
            seen = len(results)
            self.tap.offer(frames[:seen], None if aux is None else aux[:seen], self._shown(results), took_s)
        return results

    def _decode(self, frames: Sequence[bytes], aux: Sequence[int] | None, began: float) -> list[DecodeResult]:
        if len(frames) <= self._most:
            packed = pack_batch(frames, aux)
            if len(packed) <= self._limits.max_input:
                outcome = self._run(packed, len(frames))
                results = self._settle(frames, aux, outcome, began)
                if results is not outcome:
                    self._raw = None
                return results
        results = self._in_pieces(frames, aux, began)
        self._raw = None
        return results

    def _guarded(self, frames: Sequence[bytes], aux: Sequence[int] | None, began: float) -> list[DecodeResult]:
        """Decode around the frames that are proven to trap."""
        refused: list[int] = []
        known = self._poisons
        for place, frame in enumerate(frames):
            if hash(frame) not in known:
                continue
            tried = self._poison.suspicion(frame) == "suspect"
            if self._is_poison(frame, 0 if aux is None else aux[place]):
                refused.append(place)
            if tried:  # what follows comes again, so that the loop waits for one trial only
                frames, aux = frames[: place + 1], None if aux is None else aux[: place + 1]
                break
        return self._around(refused, frames, aux, began) if refused else self._decode(frames, aux, began)

    def _around(
        self, refused: list[int], frames: Sequence[bytes], aux: Sequence[int] | None, began: float
    ) -> list[DecodeResult]:
        kept = sorted(set(range(len(frames))).difference(refused))
        results: list[DecodeResult] = []
        if kept:
            kept_aux = None if aux is None else [aux[place] for place in kept]
            results = self._decode([frames[place] for place in kept], kept_aux, began)
            self._raw = None
        reached = len(frames) if len(results) == len(kept) else kept[len(results)]
        outcomes = list(results)
        for place in refused:
            if place < reached:
                outcomes.insert(place, TRAPPED)
                self.stats.poison_refused += 1
        return outcomes

    def _is_poison(self, frame: bytes, aux: int) -> bool:
        """Whether a frame traps by itself; a suspect is tried on an instance of its own."""
        suspicion = self._poison.suspicion(frame)
        if suspicion != "suspect":
            return suspicion == "proven"
        traps = self.program.traps_aside("gw_decode_batch", pack_batch([frame], [aux]), 1, self._deadline_s)
        if traps:
            self._poison.prove(frame)
        elif traps is not None:
            self._poison.clear(frame)  # it was what came before, not the frame
        return bool(traps)

    def _shown(self, results: list[DecodeResult]) -> bytes:
        """Results as msgpack: the guest's own bytes where they are just that, since those are there already."""
        raw, self._raw = self._raw, None
        if raw is None or any(result == MALFORMED for result in results):
            return pack_results(results)
        return raw

    def _in_pieces(self, frames: Sequence[bytes], aux: Sequence[int] | None, began: float) -> list[DecodeResult]:
        """Decode more than one call can take; stop early once the time of a batch is used up."""
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
                self._raw = None  # it is what one of the frames alone came to
            return outcome
        if outcome is _Failure.DOWN:
            raise self.program.not_ready()
        if len(frames) == 1:
            return [self._judged(outcome, frames[0], None if aux is None else aux[0])]
        return self._singly(frames, aux, outcome, began)

    def _singly(
        self, frames: Sequence[bytes], aux: Sequence[int] | None, outcome: _Outcome, began: float
    ) -> list[DecodeResult]:
        """Decode frames one by one after they failed together, as far as the time allows."""
        results: list[DecodeResult] = []
        guilty = False
        for place, frame in enumerate(frames):
            single: _Outcome
            if self._poisons and self._is_poison(frame, 0 if aux is None else aux[place]):
                self.stats.poison_refused += 1
                single = [TRAPPED]
                guilty = True
            else:
                single = self._run_single(frames, aux, place)
            if single is _Failure.DOWN:
                if not results:
                    raise self.program.not_ready()
                return results
            guilty = guilty or single in _FATAL
            results.append(self._judged(single, frame, None if aux is None else aux[place]))
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

        Without time or an instance to ask, it and what follows it are left off.
        """
        in_time = True
        for place, result in enumerate(results):
            if result != TOO_LARGE:
                continue
            single = self._run_single(frames, aux, place) if in_time else _Failure.DOWN
            if single is _Failure.DOWN:
                if not place:
                    raise self.program.not_ready()
                del results[place:]  # the caller comes back with the rest
                return
            results[place] = self._judged(single, frames[place], None if aux is None else aux[place])
            in_time = single is not _Failure.TIMED_OUT and perf_counter() <= self._give_up(began)

    def _give_up(self, began: float) -> float:
        return began + self._batch_deadline_s + self._deadline_s

    def _run_single(self, frames: Sequence[bytes], aux: Sequence[int] | None, place: int) -> _Outcome:
        return self._run(pack_batch([frames[place]], [aux[place]] if aux is not None else None), 1)

    def _judged(self, outcome: _Outcome, frame: bytes, party: int | None) -> DecodeResult:
        """The one result of a call for one frame of `party`; a strike where it cost an instance or the loop's time."""
        if isinstance(outcome, list):
            return outcome[0]
        if isinstance(outcome, _Failure):
            if outcome in _FATAL or outcome is _Failure.UNFOLDED:
                self.program.strike(f"{outcome.value} on one frame", party)
            if outcome in _FATAL:
                self._poison.suspect(frame)
            return TRAPPED if outcome in _FATAL else MALFORMED
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
        except BadBatch as failure:
            return _Failure.UNFOLDED if isinstance(failure, UnfoldsTooFar) else _Failure.MALFORMED
        if self._most < MOST_FRAMES and count >= self._most:
            self._most += 1
        if self.tap is not None:
            self._raw = data
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
                count_code(stats.errors, result)
        stats.decoded += decoded
        return results
