"""Shadow mode: another version of a codec decodes copies of live frames beside the one in use, and is compared with it.

Owns the candidate's thread, its queue and the comparison. Live traffic hands references over and goes on: what the
candidate cannot keep up with is dropped and counted. The thread rests as long as it worked, so that it takes no more
than half of what Python has to give, and a candidate that hangs hangs there alone.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from time import perf_counter, sleep
from typing import Any, Final, NamedTuple

import msgspec
import structlog
import wasmtime
from typing_extensions import override

from gateway.core.clock import Clock
from gateway.core.errors import GatewayError, NotReady
from gateway.core.flow import Decoded
from gateway.wasm.abi import MOST_VALUES, unpack_results
from gateway.wasm.bulk import unfolds_within
from gateway.wasm.codec import DecodeResult, code_text
from gateway.wasm.host import Tap, WasmCodec
from gateway.wasm.imports import HostServices
from gateway.wasm.release import Release, Starter
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.shown import to_shown
from gateway.wasm.stats import PluginStats
from gateway.wasm.status import ShadowSummary

log = structlog.get_logger(__name__)

MOST_WAITING_FRAMES: Final = 8_192
MOST_WAITING_BYTES: Final = 16 << 20
"""Frames and bytes that may wait for the candidate; policy: reject, so that what it sees is whole batches."""
MOST_DIFFERENCES: Final = 50
"""Differences kept in full; the rest is counted."""
_SHOWN_FRAME_BYTES: Final = 4_096
_SHOWN_ITEM_BYTES: Final = 16 << 10
"""How much of a frame and of an item a difference shows."""
_MOST_NESTING: Final = 16
"""Levels of a value that are shown; what is deeper, or has no JSON, is shown as its bytes."""
_LONGEST_REST_S: Final = 0.1
_LOOK_S: Final = 0.5
"""How often a thread without frames looks whether its time is over."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A frame on which the versions differ. kinds: the fields that differ, or `outcome` or `code`."""

    at_ms: int
    frame: str
    aux: int
    kinds: tuple[str, ...]
    live: Any
    candidate: Any


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a shadow so far, or at its end.

    version beside against, which is live. ended: why, empty while it runs. dropped: frames that the candidate did not
    see, since it was too slow. failed: frames that it could not be asked, since it did not start again. kinds:
    differences by what differs; one frame may count for several. traps, kills: instances that the candidate lost.
    live_us, candidate_us: microseconds for a frame.
    """

    plugin: str
    version: str
    against: str
    started_at_ms: int
    ends_at_ms: int
    ended: str
    frames: int
    same: int
    different: int
    dropped: int
    failed: int
    kinds: dict[str, int]
    traps: int
    kills: int
    live_us: float
    candidate_us: float
    differences: tuple[Difference, ...]


class _Batch(NamedTuple):
    frames: Sequence[bytes]
    aux: Sequence[int]
    results: bytes
    size: int
    at_ms: int


class Shadow(Tap):
    """One candidate beside the live version. `offer` and `stop` are the loop's; the rest runs on a thread."""

    def __init__(
        self,
        release: Release,
        against: Release,
        starter: Starter,
        make_sandbox: Callable[[], Sandbox],
        services: HostServices,
        clock: Clock,
        minutes: float,
    ) -> None:
        """Start the candidate, whose vectors passed, on a thread of its own."""
        self.release = release
        self._against = against
        self._starter = starter
        self._make_sandbox = make_sandbox
        self._services = services
        self._clock = clock
        self._stats = PluginStats()
        self._started_at_ms = clock.now_ms()
        self._ends_at_s = clock.monotonic_s() + minutes * 60
        self._ends_at_ms = self._started_at_ms + round(minutes * 60_000)
        self._queue: deque[_Batch] = deque()
        self._wake = threading.Event()
        self._ended = ""
        self._offered_frames = self._offered_bytes = 0
        self._taken_frames = self._taken_bytes = 0
        self._dropped = self._same = self._different = self._failed = 0
        self._live_s = self._candidate_s = 0.0
        self._live_frames = 0
        self._kinds: Counter[str] = Counter()
        self._differences: list[Difference] = []
        self._thread = threading.Thread(target=self._run, name=f"wasm-shadow-{release.id}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it still takes frames."""
        return not self._ended

    @override
    def offer(self, frames: Sequence[bytes], aux: Sequence[int] | None, results: bytes, took_s: float) -> None:
        if self._ended:
            return
        self._live_s += took_s
        self._live_frames += len(frames)
        size = sum(map(len, frames)) + len(results)
        waiting = self._offered_frames - self._taken_frames + len(frames)
        if waiting > MOST_WAITING_FRAMES or self._offered_bytes - self._taken_bytes + size > MOST_WAITING_BYTES:
            self._dropped += len(frames)
            return
        self._offered_frames += len(frames)
        self._offered_bytes += size
        self._queue.append(_Batch(frames, aux or (), results, size, self._clock.now_ms()))
        if not self._wake.is_set():
            self._wake.set()

    def stop(self, why: str) -> None:
        """Take no more frames; the thread ends by itself, and what it found stays."""
        self._ended = self._ended or why
        self._wake.set()

    def join(self) -> None:
        """Wait for the thread once it is stopped, as long as a call of the candidate may take: not for a busy loop."""
        self._thread.join()

    def summary(self) -> ShadowSummary:
        """What a list of plugins shows."""
        return ShadowSummary(
            version=self.release.version,
            running=self.running,
            frames=self._same + self._different + self._failed,
            different=self._different,
            dropped=self._dropped,
        )

    def report(self) -> ShadowReport:
        """Everything found so far."""
        same, different, failed = self._same, self._different, self._failed  # the thread goes on counting
        done = same + different
        return ShadowReport(
            plugin=self.release.id,
            version=self.release.version,
            against=self._against.version,
            started_at_ms=self._started_at_ms,
            ends_at_ms=self._ends_at_ms,
            ended=self._ended,
            frames=done + failed,
            same=same,
            different=different,
            dropped=self._dropped,
            failed=failed,
            kinds=dict(self._kinds),
            traps=self._stats.traps,
            kills=self._stats.kills,
            live_us=round(self._live_s / self._live_frames * 1e6, 3) if self._live_frames else 0.0,
            candidate_us=round(self._candidate_s / done * 1e6, 3) if done else 0.0,
            differences=tuple(self._differences),
        )

    # -- on the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            sandbox = self._make_sandbox()
            try:
                self._watch(sandbox)
            finally:
                sandbox.close()
        except (GatewayError, wasmtime.WasmtimeError) as failure:
            self.stop(f"the candidate does not start: {failure}")
        except Exception as failure:  # wall: foreign code; a thread that died silently would seem to agree
            log.error("a shadow failed", plugin=self.release.id, version=self.release.version, exc_info=failure)
            self.stop(f"it failed in the host: {type(failure).__name__}")
        self._queue.clear()

    def _watch(self, sandbox: Sandbox) -> None:
        codec = WasmCodec(self._starter.start(self.release, sandbox, self._services, self._stats))
        try:
            while not self._ended:
                if self._clock.monotonic_s() >= self._ends_at_s:
                    self.stop("its time is over")
                elif not self._queue:
                    self._wake.wait(_LOOK_S)
                    self._wake.clear()
                else:
                    began = perf_counter()
                    self._compare_batch(codec, self._queue.popleft())
                    sleep(min(perf_counter() - began, _LONGEST_REST_S))
        finally:
            codec.close()

    def _compare_batch(self, codec: WasmCodec, batch: _Batch) -> None:
        self._taken_frames += len(batch.frames)
        self._taken_bytes += batch.size
        live = unpack_results(batch.results)
        began = perf_counter()
        found = self._decoded(codec, batch)
        self._candidate_s += perf_counter() - began
        for place, result in enumerate(found):
            if (result or None) == (live[place] or None):  # a guest may say 0 for nil
                self._same += 1
            else:
                self._compare(batch, place, live[place], result)
        self._failed += len(live) - len(found)

    def _decoded(self, codec: WasmCodec, batch: _Batch) -> list[DecodeResult]:
        """What the candidate makes of a batch, as far as it can be asked at all."""
        results: list[DecodeResult] = []
        try:
            while len(results) < len(batch.frames) and not self._ended:
                done = len(results)
                results += codec.decode_batch(batch.frames[done:], batch.aux[done:] or None)
        except NotReady:
            pass  # counted by the caller: it does not start again at present
        return results

    def _compare(self, batch: _Batch, place: int, live: DecodeResult, candidate: DecodeResult) -> None:
        old, new = _shown(live), _shown(candidate)
        kinds = _kinds(old, new)
        if not kinds:
            self._same += 1  # the same data, packed in another way
            return
        self._kinds.update(kinds)
        if len(self._differences) < MOST_DIFFERENCES:
            frame = batch.frames[place]
            self._differences.append(
                Difference(
                    at_ms=batch.at_ms,
                    frame=frame[:_SHOWN_FRAME_BYTES].hex(),
                    aux=batch.aux[place] if batch.aux else 0,
                    kinds=kinds,
                    live=_bounded(old),
                    candidate=_bounded(new),
                )
            )
        self._different += 1


def _shown(result: DecodeResult) -> Any:
    """A result as plain data: an item by its fields, a code with its text, None for a frame that was dropped."""
    if not result:
        return None
    if not isinstance(result, Decoded):
        return {"code": result, "error": code_text(result)}
    shown = msgspec.to_builtins(result, builtin_types=(bytes, msgspec.Raw))
    for name in ("ack", "value"):
        shown[name] = _unpacked(getattr(result, name))
    return to_shown(shown)


def _unpacked(raw: msgspec.Raw) -> Any:
    if not bytes(raw):
        return None
    try:
        value = to_shown(msgspec.msgpack.decode(raw)) if unfolds_within(raw, MOST_VALUES) else None
        msgspec.json.encode(value)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return bytes(raw)
    return bytes(raw) if value is None or _is_deeper(value, _MOST_NESTING) else value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether a value is nested deeper than so many levels, which is what every encoder of a report bears."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_is_deeper(item, levels - 1) for item in inner)


def _kinds(old: Any, new: Any) -> tuple[str, ...]:
    """What differs between two results as `_shown` gives them; empty where nothing does."""
    if old is None or new is None or ("code" in old) != ("code" in new):
        return () if old is new else ("outcome",)
    if "code" in old:
        return () if old == new else ("code",)
    return tuple(name for name in old if not _alike(old[name], new[name]))


def _alike(old: Any, new: Any) -> bool:
    """Whether values are the same; NaN is, here, the same as NaN."""
    return bool(old == new) or repr(old) == repr(new)


def _bounded(shown: Any) -> Any:
    """An item as it is, or where it is too large to be shown, the beginning of its text."""
    text = repr(shown)
    return shown if len(text) <= _SHOWN_ITEM_BYTES else {"$cut": text[:_SHOWN_ITEM_BYTES]}
