"""The lane of one release's calls: threads, each with a sandbox and an instance of its own, and what waits for them.

Owns the threads' life, the queue and each call's time. Knows no plugin host: whoever swaps versions closes a lane and
makes the next one. The event loop only puts calls in and takes answers out; msgpack of large data is the threads' work.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import structlog
import wasmtime

from gateway.core.clock import Clock
from gateway.core.errors import CodecError, ConfigError, GatewayError, NotReady
from gateway.wasm.caller import WasmCaller
from gateway.wasm.imports import HostServices
from gateway.wasm.release import Release, Starter
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.stats import PluginStats, summed
from gateway.wasm.strikes import Strikes

log = structlog.get_logger(__name__)

MOST_WAITING: Final = 64
"""Calls of one lane that may wait for a thread; policy: reject. It bounds the arguments that are held meanwhile."""
IDLE_S: Final = 30.0
"""A thread without a call for so long ends, and its instance's memory goes back to the machine."""
GRACE_S: Final = 0.25
"""What a running call may overstay its caller's time: the watchdog ends it then and tells more than a timeout would."""
_UNFAIR_KILLS: Final = 2
"""Calls in a row that a worker may lose to their callers' deadlines alone; whoever is asked for less time than the
manifest names once too often, and never answers, is taken for one that hangs."""
_PREDECESSOR_S: Final = 5.0
"""How long an instance waits for the state that the one before it leaves."""
_FIRST_RETRY_S: Final = 0.2
_LONGEST_RETRY_S: Final = 30.0


class CallLane:
    """Calls of one release on `limits.workers` threads. Made and used on the loop's thread; a call never blocks it."""

    def __init__(
        self,
        release: Release,
        starter: Starter,
        make_sandbox: Callable[[], Sandbox],
        clock: Clock,
        *,
        services: HostServices | None = None,
        strikes: Strikes | None = None,
        after: CallLane | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        """Start nothing yet: the first call does.

        services: what the instances share, to go on with that of an earlier version. strikes: where their faults are
        counted together. after: the lane that this one replaces, closed by now or soon; where both manifests say
        `[state] carry`, this one's instances start with the state that those of the other leave.
        """
        self.plugin_id = release.id
        self.release = release
        self.services = services or starter.services(release)
        self._clock = clock
        self._queue = _Queue(release.id, idle_s)
        self.workers = [
            _Worker(number, self._queue, release, starter, self.services, strikes, make_sandbox, clock)
            for number in range(release.manifest.limits.workers)
        ]
        if after is not None and release.manifest.state.carry and after.release.manifest.state.carry:
            for worker, before in zip(self.workers, after.workers, strict=False):
                worker.follow(before)

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet."""
        return len(self._queue.calls)

    @property
    def rejected(self) -> int:
        """Calls that found the queue full."""
        return self._queue.rejected

    @property
    def threads(self) -> int:
        """Threads at present."""
        return sum(worker.running for worker in self.workers)

    @property
    def stats(self) -> PluginStats:
        """Counters of all threads, past ones included."""
        return summed(worker.stats for worker in self.workers)

    @property
    def memory_bytes(self) -> int:
        """Linear memory of the instances, as it was after their last calls."""
        return sum(worker.memory_bytes for worker in self.workers)

    async def call(self, args: Any, *, timeout_s: float, most_bytes: int | None = None) -> Any:
        """Hand arguments to the plugin and return its answer, both plain data.

        timeout_s bounds waiting and running together; running is bounded by the manifest's call_deadline_ms, too.
        most_bytes: what the caller takes, in msgpack; the manifest's max_output where not said.
        Raises CodecError (the plugin refused, or answered nonsense), PluginTrapped, or NotReady: too many calls wait,
        its turn did not come in time, the plugin does not start, or the lane is closed.
        """
        call = _Call(args, most_bytes, self._clock.monotonic_s() + timeout_s)
        self._queue.put(call, self.workers)
        try:
            done, _ = await asyncio.wait((call.answer,), timeout=timeout_s)
            if not done and call.began:
                done, _ = await asyncio.wait((call.answer,), timeout=GRACE_S)
            if not done:
                why = "did not answer" if call.began else "had no thread free"
                raise NotReady(f"plugin {self.plugin_id} {why} within {timeout_s:g} s")
            return call.answer.result()
        finally:
            self._queue.drop(call)

    def close(self) -> None:
        """Take no more calls. Those that wait or run are still answered; the threads end in the background."""
        self._queue.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads of a closed lane; whether all have ended. Blocks: not for the loop while calls run."""
        deadline = self._clock.monotonic_s() + timeout_s
        return all(worker.join(max(0.0, deadline - self._clock.monotonic_s())) for worker in self.workers)


class _Call:
    """One call on its way: arguments in; an answer or an error out, unless nobody waits for it any more."""

    __slots__ = ("abandoned", "answer", "args", "began", "deadline", "loop", "most_bytes")

    def __init__(self, args: Any, most_bytes: int | None, deadline: float) -> None:
        self.args = args
        self.most_bytes = most_bytes
        self.deadline = deadline
        self.began = False
        self.abandoned = False
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self.loop.create_future()

    def settle(self, result: Any, failure: GatewayError | None = None) -> None:
        """Hand the outcome over, from a thread; who asked may be gone, and the loop with them."""
        if not self.abandoned:
            try:
                self.loop.call_soon_threadsafe(self._settle, result, failure)
            except RuntimeError:
                log.warning("a plugin answered after the loop of its caller was closed")

    def _settle(self, result: Any, failure: GatewayError | None) -> None:
        if self.abandoned or self.answer.done():
            return
        if failure is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(failure)


class _Queue:
    """Calls that wait for a thread, and the threads that wait for a call."""

    def __init__(self, plugin_id: str, idle_s: float) -> None:
        self.calls: deque[_Call] = deque()
        self.rejected = 0
        self._plugin_id = plugin_id
        self._idle_s = idle_s
        self._free = 0
        self._closed = False
        self._change = threading.Condition()

    def put(self, call: _Call, workers: list[_Worker]) -> None:
        """Let a call wait, and start one more thread where all are busy. Raises NotReady."""
        with self._change:
            if self._closed:
                raise NotReady(f"plugin {self._plugin_id} is stopping; try again")
            if len(self.calls) >= MOST_WAITING:
                self.rejected += 1
                raise NotReady(f"plugin {self._plugin_id} is busy: {MOST_WAITING} calls wait already")
            idle = next((worker for worker in workers if not worker.running), None)
            if idle is not None and self._free <= len(self.calls):
                try:
                    idle.start()
                except RuntimeError as failure:
                    if not any(worker.running for worker in workers):
                        raise NotReady(f"no thread for plugin {self._plugin_id}: {failure}") from failure
            self.calls.append(call)
            self._change.notify()

    def take(self, worker: _Worker) -> _Call | None:
        """The next call; None when the worker is to end, since nothing came for long or the lane is closed."""
        with self._change:
            self._free += 1
            while not self.calls and not self._closed:
                if not self._change.wait(self._idle_s):
                    break
            self._free -= 1
            if self.calls:
                call = self.calls.popleft()
                call.began = True
                return call
            worker.running = False  # said under the lock, so that the next call starts another thread
            return None

    def drop(self, call: _Call) -> None:
        """Nobody waits for the call any more: it does not begin, and what it gives goes nowhere."""
        call.abandoned = True
        if not call.began:
            with self._change:
                if call in self.calls:
                    self.calls.remove(call)

    def close(self) -> None:
        """Take no more, and let the workers end once what waits is done."""
        with self._change:
            self._closed = True
            self._change.notify_all()


class _Worker:
    """One thread at a time, and the state and counters that go from one to the next."""

    def __init__(
        self,
        number: int,
        queue: _Queue,
        release: Release,
        starter: Starter,
        services: HostServices,
        strikes: Strikes | None,
        make_sandbox: Callable[[], Sandbox],
        clock: Clock,
    ) -> None:
        self.running = False
        self.stats = PluginStats()
        self.memory_bytes = 0
        self.left: bytes | None = None
        """State of the last instance that ended, until the next one takes it."""
        self.source: _Worker | None = None
        """The worker of an earlier version that has the state with which the first instance here begins."""
        self._name = f"wasm-{release.id}-{number}"
        self._queue = queue
        self._release = release
        self._starter = starter
        self._services = services
        self._strikes = strikes
        self._make_sandbox = make_sandbox
        self._clock = clock
        self._most_s = release.manifest.limits.call_deadline_ms / 1000
        self._thread: threading.Thread | None = None
        self._failed_starts = 0
        self._retry_at = 0.0
        self._unfair_kills = 0

    def follow(self, before: _Worker) -> None:
        """Begin with the state of another version's worker; one that never ran passes on what it would have had."""
        self.source = before.source if before.source is not None else before

    def start(self) -> None:
        """Start a thread, which begins where the last one ended. Raises RuntimeError where there can be none."""
        thread = threading.Thread(target=self._run, args=(self._thread,), name=self._name, daemon=True)
        thread.start()
        self._thread = thread
        self.running = True

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    # -- on the thread ----------------------------------------------------------------------------------------------

    def _run(self, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        sandbox: Sandbox | None = None
        caller: WasmCaller | None = None
        while (call := self._queue.take(self)) is not None:
            try:
                sandbox = sandbox or self._make_sandbox()
                caller = caller or self._begin(sandbox)
                call.settle(self._answer(caller, call))
            except GatewayError as failure:
                call.settle(None, failure)
            except Exception as failure:  # wall: foreign code; a thread that died would leave its callers waiting
                log.error("a plugin call failed in the host", plugin=self._release.id, exc_info=failure)
                call.settle(None, NotReady(f"plugin {self._release.id} cannot be called: {type(failure).__name__}"))
            del call  # not kept while this thread waits for the next
        if caller is not None:
            self._end(caller)
        if sandbox is not None:
            sandbox.close()

    def _answer(self, caller: WasmCaller, call: _Call) -> Any:
        budget_s = min(self._most_s, call.deadline - self._clock.monotonic_s())
        if call.abandoned or budget_s <= 0:
            raise NotReady(f"plugin {self._release.id} had no thread free in time")
        fair = budget_s >= self._most_s
        kills = self.stats.kills
        try:
            return caller.call(
                call.args, budget_s, most_bytes=call.most_bytes, fair=fair or self._unfair_kills >= _UNFAIR_KILLS
            )
        finally:
            killed = self.stats.kills > kills
            self._unfair_kills = self._unfair_kills + 1 if killed and not fair else 0
            self.memory_bytes = caller.program.memory_bytes

    def _begin(self, sandbox: Sandbox) -> WasmCaller:
        """An instance with the state of the one before. Raises NotReady, and that at once after a failed start."""
        now_s = self._clock.monotonic_s()
        if now_s < self._retry_at:
            wait_s = self._retry_at - now_s
            raise NotReady(f"plugin {self._release.id} did not start; it is tried again in {wait_s:.1f} s")
        try:
            program = self._starter.start(self._release, sandbox, self._services, self.stats, strikes=self._strikes)
        except (ConfigError, CodecError, wasmtime.WasmtimeError) as failure:
            wait_s = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** min(self._failed_starts, 16))
            self._failed_starts += 1
            self._retry_at = now_s + wait_s
            log.error("a plugin does not start", plugin=self._release.id, reason=str(failure), retry_in_s=wait_s)
            raise NotReady(f"plugin {self._release.id} does not start: {failure}") from failure
        self._failed_starts = 0
        state = self._inherited()
        if state is not None and not program.load_state(state, program.start_s):
            log.warning("a plugin did not take the state that was left to it", plugin=self._release.id)
        return WasmCaller(program)

    def _inherited(self) -> bytes | None:
        source, self.source = self.source or self, None
        if source is not self and not source.join(_PREDECESSOR_S):
            log.warning("state is not carried over: a call of the last version still runs", plugin=self._release.id)
            return None
        state, source.left = source.left, None
        return state

    def _end(self, caller: WasmCaller) -> None:
        if self._release.manifest.state.carry:
            self.left = caller.program.save_state(caller.program.start_s)
        caller.close()
        self.memory_bytes = 0
