"""One loaded codec plugin: batches in, outcomes out, whatever the plugin does.

Owns the policy around an instance: split, isolate the frame that trapped, discard and respawn, count. An instance
that trapped is gone with its state; the frames that did not trap are decoded again on a fresh one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import TypeAlias

import structlog
import wasmtime
from typing_extensions import override

from gateway.core.clock import Clock
from gateway.core.errors import CodecError, ConfigError, NotReady, PluginTrapped
from gateway.core.flow import Decoded
from gateway.wasm.abi import (
    HEADER_BYTES,
    TOO_LARGE,
    UNSUPPORTED,
    BadBatch,
    check_exports,
    check_imports,
    pack_batch,
    unpack_batch,
)
from gateway.wasm.codec import MALFORMED, TRAPPED, Codec, DecodeResult, code_text
from gateway.wasm.fastcall import CallPath, GuestTrap
from gateway.wasm.imports import HostServices
from gateway.wasm.instance import BAD_POINTER, GuestResult, Instance
from gateway.wasm.manifest import Manifest
from gateway.wasm.stats import PluginStats
from gateway.wasm.watchdog import Watchdog

log = structlog.get_logger(__name__)

STRIKE_WINDOW_S = 60.0
MOST_FRAMES = 1024
"""Frames of one call: past some hundred a longer batch gains nothing, and a failed one is repeated frame by frame."""

_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 30.0
_MOST_STRIKES_KEPT = 1000


class _Failure(enum.Enum):
    """Why a call gave no items."""

    TRAPPED = "trapped"
    TIMED_OUT = "timed out"
    MALFORMED = "malformed"
    DOWN = "down"
    """The plugin does not start; it is tried again after a while."""


class _Down(Exception):
    """There is no instance, and it is not yet time to try again."""


_FATAL = (_Failure.TRAPPED, _Failure.TIMED_OUT)
_Outcome: TypeAlias = "list[DecodeResult] | _Failure | int"
"""What one call gave: items, why there are none, or the code that the plugin gave for the whole."""


class WasmCodec(Codec):
    """A codec plugin in its sandbox. Every call must come from the thread that made it."""

    def __init__(
        self,
        manifest: Manifest,
        module: wasmtime.Module,
        watchdog: Watchdog,
        services: HostServices,
        *,
        engine: wasmtime.Engine,
        granted: frozenset[str],
        path: CallPath,
        clock: Clock,
        settings: bytes,
    ) -> None:
        """Check the module against ABI and grants, link it and start it.

        settings: msgpack for gw_init. Raises ConfigError (not a plugin we take), CodecError (it refused its
        configuration) or PluginTrapped (it failed while starting).
        """
        self.plugin_id = manifest.id
        self.manifest = manifest
        self.stats = PluginStats()
        self.path = path
        self._limits = manifest.limits
        self._deadline_s = manifest.limits.deadline_ms / 1000
        self._batch_deadline_s = max(manifest.limits.batch_deadline_ms, manifest.limits.deadline_ms) / 1000
        self._most = MOST_FRAMES
        self._watchdog = watchdog
        self._engine = engine
        self._clock = clock
        self._settings = settings
        self._services = services
        self._strikes: deque[float] = deque(maxlen=_MOST_STRIKES_KEPT)
        self._retry_at = 0.0
        self._failed_starts = 0
        self._instance: Instance | None = None
        check_exports(module)
        check_imports(module, manifest.caps.asked(), granted)
        self._linker = wasmtime.Linker(engine)
        try:
            services.link(self._linker, module)
            self._program = self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            self._linker.close()
            raise ConfigError("the module's imports cannot be satisfied") from error
        watchdog.watch(self._deadline_s)
        try:
            self._instance = self._spawn()
        except GuestTrap as trap:
            self.close()
            raise PluginTrapped(TRAPPED, f"failed while starting: {trap}") from None
        except (ConfigError, CodecError):
            self.close()
            raise
        self.encodes = self._instance.exports("gw_encode")

    def close(self) -> None:
        """Free the instance and what links it to the host; the codec is of no further use."""
        if self._instance is not None:
            self._instance.close()
            self._instance = None
        self._retry_at = float("inf")
        if hasattr(self, "_program"):
            self._program.close()
        # A closure in a linker is invisible to the garbage collector: without this each plugin leaks its linker.
        self._linker.close()

    @property
    def memory_bytes(self) -> int:
        """Linear memory of the present instance."""
        return 0 if self._instance is None else self._instance.memory_bytes

    @property
    def log_lines_dropped(self) -> int:
        """Lines the plugin logged over its allowance."""
        return self._services.log_lines_dropped

    def strikes_in(self, window_s: float = STRIKE_WINDOW_S) -> int:
        """Strikes within the last seconds: what a quarantine would go by."""
        since = self._clock.monotonic_s() - window_s
        return sum(at >= since for at in self._strikes)

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
        try:
            code, data = self._call("gw_encode", request, aux, self._deadline_s)
        except _Down:
            raise self._not_ready() from None
        except GuestTrap as trap:
            self._strike(f"{trap} in an encode")
            raise PluginTrapped(TRAPPED, f"plugin {self.plugin_id} trapped: {trap}") from None
        if code == BAD_POINTER:
            raise CodecError(MALFORMED, f"plugin {self.plugin_id}: {code_text(MALFORMED)}")
        if code:
            words = self._last_error()
            raise CodecError(code, f"plugin {self.plugin_id}: {code_text(code)}{': ' + words if words else ''}")
        return data

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
            raise self._not_ready()
        if len(frames) == 1:
            return [self._judged(outcome)]
        results: list[DecodeResult] = []
        guilty = False
        for place in range(len(frames)):
            single = self._run_single(frames, aux, place)
            if single is _Failure.DOWN:
                if not results:
                    raise self._not_ready()
                return results
            guilty = guilty or single in _FATAL
            results.append(self._judged(single))
            if single is _Failure.TIMED_OUT or perf_counter() > self._give_up(began):
                break
        if outcome is _Failure.TIMED_OUT and not guilty:
            # No frame alone was too slow, so the batch was too long: make it shorter from now on.
            self._most = max(1, len(frames) // 2)
            self._strike("too slow for its batch deadline")
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
                        raise self._not_ready()
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
                self._strike(f"{outcome.value} on one frame")
            return MALFORMED if outcome is _Failure.MALFORMED else TRAPPED
        return outcome or None

    def _run(self, packed: bytes, count: int) -> _Outcome:
        try:
            code, data = self._call(
                "gw_decode_batch", packed, count, self._deadline_s if count == 1 else self._batch_deadline_s
            )
        except _Down:
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

    def _call(self, name: str, data: bytes, last: int, budget_s: float) -> GuestResult:
        """Call the instance; after a GuestTrap, which is raised on, it is gone.

        Once in a blue moon the watchdog's tick for one call comes only after the next has begun and ends that one
        early: such a call is made again, since nothing is wrong with it.
        """
        while True:
            instance = self._live()
            if instance is None:
                raise _Down
            self.stats.calls += 1
            try:
                return instance.call(name, data, last, budget_s)
            except GuestTrap as trap:
                self._lost(trap)
                if not trap.early:
                    raise

    def _not_ready(self) -> NotReady:
        return NotReady(f"plugin {self.plugin_id} failed and does not start again")

    def _last_error(self) -> str:
        try:
            return "" if self._instance is None else self._instance.last_error()
        except GuestTrap as trap:
            self._lost(trap)
            return ""

    # -- life of the instance -----------------------------------------------------------------------------------

    def _spawn(self) -> Instance:
        instance = Instance(
            self._program,
            self._engine,
            self._watchdog,
            self._limits,
            self.stats,
            path=self.path,
            wasi=self.manifest.caps.wasi,
        )
        try:
            instance.start(self._settings, self._deadline_s)
        except BaseException:
            instance.close()
            raise
        return instance

    def _live(self) -> Instance | None:
        """The instance; where the last one was lost, a new one, unless it keeps failing to start."""
        if self._instance is None and self._clock.monotonic_s() >= self._retry_at:
            try:
                self._instance = self._spawn()
            except (GuestTrap, CodecError, ConfigError) as error:
                self._failed_starts += 1
                wait_s = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** min(self._failed_starts, 16))
                self._retry_at = self._clock.monotonic_s() + wait_s
                log.error("a plugin does not start again", plugin=self.plugin_id, reason=str(error), retry_in_s=wait_s)
            else:
                self._failed_starts = 0
                self.stats.respawns += 1
        return self._instance

    def _lost(self, trap: GuestTrap) -> None:
        """Discard the instance; the next call spawns another."""
        if not trap.timed_out:
            self.stats.traps += 1
        elif not trap.early:
            self.stats.kills += 1
        if self._instance is not None:
            self._instance.close()
            self._instance = None

    def _strike(self, what: str) -> None:
        self.stats.strikes += 1
        self._strikes.append(self._clock.monotonic_s())
        if self.strikes_in() in {1, 10, 100}:  # said early, then ever more rarely: the counter tells the rest
            log.warning("plugin failed", plugin=self.plugin_id, what=what, strikes_last_minute=self.strikes_in())

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
