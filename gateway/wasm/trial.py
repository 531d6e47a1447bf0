"""Trying payloads on an instance of a plugin that nobody else uses: frames in, outcomes as people see them out.

Owns the thread on which that happens while the gateway runs, with a sandbox of its own: what is tried may hang at every
frame, and the loop goes on. Leaves no trace in the plugin that runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from time import perf_counter
from typing import Any, Final, TypeVar

import msgspec
import wasmtime

from gateway.core.errors import ConfigError, FramingError, NotReady
from gateway.core.flow import Decoded
from gateway.framing.spec import FramingSpec, framer_for
from gateway.wasm.codec import MALFORMED, NOT_SHOWN, NOT_TRIED, TRAPPED, Codec, DecodeResult, code_text
from gateway.wasm.host import WasmCodec
from gateway.wasm.loader import Proven
from gateway.wasm.release import Starter
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.vectors import plain, shown_item

T = TypeVar("T")

TRIAL_S: Final = 5.0
"""Wall time of one trial: a codec that hangs at every frame is seen to hang by then."""
MOST_SHOWN_BYTES: Final = 1 << 20
"""What the items of one trial may take in MessagePack: people read them, and they become JSON."""
MOST_WAITING: Final = 16
"""Trials that may wait for the thread; policy: reject. Their payloads are held meanwhile, and a later one would wait
for minutes."""
_SLICE_FRAMES: Final = 32
"""Frames decoded between two looks at the clock; their results are held together."""


class FrameOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What try-decode gives for one frame. `value` is present when ok (None for a dropped frame)."""

    ok: bool
    value: Any = msgspec.UNSET
    code: int | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class Trial:
    """One instance on which a person tries payloads."""

    def __init__(
        self,
        codec: Codec,
        framing: FramingSpec | None,
        *,
        given_up: Callable[[], bool] = lambda: False,
        most_bytes: int = 1 << 62,
    ) -> None:
        """given_up: asked between frames; once it says so, no further one is tried. most_bytes: of all items."""
        self._codec = codec
        self._framing = framing
        self._given_up = given_up
        self._room = most_bytes
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
        """What the codec makes of frames, one result for each: NOT_TRIED when time was over, NOT_SHOWN without room."""
        results: list[DecodeResult] = []
        try:
            while len(results) < len(frames) and not self._given_up():
                part = frames[len(results) : len(results) + _SLICE_FRAMES]
                results += map(self._with_room, self._codec.decode_batch(part, [aux] * len(part)))
        except NotReady:  # an instance for trying lives as long as the call: there is no later
            results += [TRAPPED] * (len(frames) - len(results))
        return results + [NOT_TRIED] * (len(frames) - len(results))

    def encode(self, request: bytes, aux: int = 0) -> bytes:
        """The bytes that a device would get. Raises CodecError or NotReady."""
        return self._codec.encode(request, aux)

    def _with_room(self, result: DecodeResult) -> DecodeResult:
        if not isinstance(result, Decoded):
            return result
        try:
            size = len(msgspec.msgpack.encode(result))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return MALFORMED
        if size > self._room:
            return NOT_SHOWN
        self._room -= size
        return result

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


class TrialRoom:
    """The thread on which versions are tried, one trial after the other."""

    def __init__(self, starter: Starter, make_sandbox: Callable[[], Sandbox]) -> None:
        """Start no thread yet."""
        self._starter = starter
        self._make_sandbox = make_sandbox
        self._sandbox: Sandbox | None = None
        self._closed = False
        self._asked = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wasm-trial")

    async def on(self, proven: Proven, work: Callable[[Trial], T]) -> T:
        """Do `work` on the thread, with an instance of a version of its own, while the loop goes on.

        Raises what `work` raises, NotReady where too many wait, and ConfigError, CodecError or PluginTrapped where the
        version does not start.
        """
        if self._asked > MOST_WAITING:
            raise NotReady(f"{MOST_WAITING} payloads wait to be tried already; try again")
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._tried, proven, work)
        finally:
            self._asked -= 1

    def close(self) -> None:
        """End the thread; the frames that it tries now are waited for."""
        self._closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._sandbox is not None:
            self._sandbox.close()

    def _tried(self, proven: Proven, work: Callable[[Trial], T]) -> T:
        if self._sandbox is None:
            self._sandbox = self._make_sandbox()
        ends_at = perf_counter() + TRIAL_S
        release, sandbox = proven.release, self._sandbox
        try:
            module = sandbox.adopt(release.sha256, proven.module)  # held: the sandbox only lends it
            program = self._starter.start(release, sandbox)
        except wasmtime.WasmtimeError as failure:
            raise ConfigError(f"plugin {release.id} does not start: {failure}") from failure
        with closing(WasmCodec(program)) as codec:
            del module
            trial = Trial(
                codec,
                release.framing,
                given_up=lambda: self._closed or perf_counter() > ends_at,
                most_bytes=MOST_SHOWN_BYTES,
            )
            return work(trial)


def _outcome(result: DecodeResult) -> FrameOutcome:
    if result is None:
        return FrameOutcome(ok=True, value=None)
    if not isinstance(result, Decoded):
        return FrameOutcome(ok=False, code=result, error=code_text(result))
    try:
        return FrameOutcome(ok=True, value=plain(result.value) if bytes(result.value) else shown_item(result))
    except ConfigError as error:
        return FrameOutcome(ok=False, code=MALFORMED, error=str(error))
