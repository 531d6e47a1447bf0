"""The worker process of Lua scripts: `python -m gateway.rules.worker SOCKET HEARTBEAT ADDRESS_SPACE`.

Reads requests from a socket pair, runs scripts in their sandboxes, answers. Before it enters a script it names it in
memory shared with the gateway, so that a worker that must be killed leaves behind who was at fault. Knows no loop, no
device and no database.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.core.flow import Event, Message
from gateway.rules.config import RulesConfig, ScenesConfig
from gateway.rules.sandbox import LuaError, PluginCall, Result, RuleSandbox, SceneSandbox, shown
from gateway.rules.wire import (
    EMPTY_STATE,
    HEARTBEAT_SLOTS,
    LENGTH,
    Answer,
    CallPlugin,
    Done,
    DropRun,
    Evaluate,
    Evaluated,
    Fault,
    KnownState,
    Load,
    Loaded,
    Outcome,
    Refused,
    Request,
    ResumeRun,
    ServeRules,
    Slice,
    StartRun,
    Unload,
    encoder,
    greeting_decoder,
    request_decoder,
    told_decoder,
)

_ORPHAN_S = 30.0
"""A request that takes so long has lost its gateway, which would have killed it: the kernel ends the process."""

_OVERRUN = 2


class Heartbeat:
    """Names the script that runs, for whoever must kill this process."""

    def __init__(self, descriptor: int) -> None:
        """Map the memory that the gateway opened."""
        self.slots = memoryview(mmap.mmap(descriptor, HEARTBEAT_SLOTS * 8)).cast("q")

    def enter(self, script: int, item: int) -> None:
        """A script starts to work on an item."""
        slots = self.slots
        slots[1] = item
        slots[2] += 1
        slots[0] = script

    def rest(self) -> None:
        """No script runs."""
        self.slots[0] = 0


class PluginDoor:
    """Asks the gateway for what plugins answer, while the script that wants to know waits."""

    def __init__(self, peer: socket.socket, heartbeat: Heartbeat, config: RulesConfig) -> None:
        """Ask over the socket on which the request came."""
        self._peer = peer
        self._heartbeat = heartbeat
        self._most_calls = config.plugin_calls
        self._most_s = config.plugin_ms / 1000
        self._call = -1
        self._asked = 0
        self._waited_s = 0.0

    def __call__(self, plugin: bytes, args: bytes) -> bytes | None:
        """See `sandbox.PluginCall`. What one call of a rule may ask and wait begins anew with the next call."""
        try:
            return self._call_plugin(plugin, args)
        except BaseException:  # noqa: BLE001 - what is raised into Lua is an object of Python, and a script could catch it
            os._exit(1)

    def _call_plugin(self, plugin: bytes, args: bytes) -> bytes | None:
        call = self._heartbeat.slots[2]
        if call != self._call:
            self._call, self._asked, self._waited_s = call, 0, 0.0
        self._asked += 1
        if self._asked > self._most_calls:
            return None
        left_ms = int((self._most_s - self._waited_s) * 1000)
        if left_ms < 1:
            return encoder.encode((False, f"this call waited {self._most_s * 1000:g} ms for plugins already"))
        began = time.perf_counter()
        asked = CallPlugin(self._heartbeat.slots[0], plugin.decode(errors="replace"), args, left_ms)
        answer = self._answer(encoder.encode(asked))
        self._waited_s += time.perf_counter() - began
        return answer

    def _answer(self, request: bytes) -> bytes:
        self._peer.sendall(LENGTH.pack(len(request)) + request)
        frame = _read(self._peer)
        if frame is None:
            raise ConnectionResetError("the gateway is gone")
        signal.setitimer(signal.ITIMER_REAL, _ORPHAN_S)
        return told_decoder.decode(frame).answer


class RuleWorker:
    """Evaluates batches."""

    def __init__(self, config: RulesConfig, heartbeat: Heartbeat, call_plugin: PluginCall) -> None:
        """Have no rules yet."""
        self._config = config
        self._heartbeat = heartbeat
        self._call_plugin = call_plugin
        self._rules: dict[int, RuleSandbox] = {}
        self._files: dict[int, Load] = {}

    def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        match request:
            case Evaluate():
                return self._evaluate(request)
            case Load():
                return self._load(request)
            case Unload():
                self._rules.pop(request.id, None)
                self._files.pop(request.id, None)
                return Done()
            case _:
                return Refused(f"a worker of rules knows no {type(request).__name__}")

    def _load(self, request: Load) -> Loaded:
        self._heartbeat.enter(request.id, -1)
        try:
            sandbox = RuleSandbox(self._config, self._call_plugin)
            error, declared = sandbox.load(request.source, request.name)
        except LuaError as failure:
            error, declared = shown(str(failure)), b""
        else:
            if not error:
                self._rules[request.id] = sandbox
                self._files[request.id] = request
        return Loaded(error, declared)

    def _evaluate(self, request: Evaluate) -> Evaluated:
        for state in request.states:
            if state.rule in self._rules:
                self._heartbeat.enter(state.rule, -1)
                data = None if state.data == EMPTY_STATE else state.data
                self._rules[state.rule].set_state(state.device, data)
        for rule in {rule for plan in request.plans for rule, _ in plan} & self._rules.keys():
            self._rules[rule].set_now(request.now_ms)
        items: Sequence[Message | Event] = request.messages or request.events
        batch = _Batch(self._rules, self._heartbeat, request)
        ends = time.perf_counter() + self._config.limits.slice_ms / 1000
        room = self._config.limits.answer_bytes // 2
        done = 0
        for subject, plan in zip(items, request.plan_of, strict=True):
            batch.evaluate(done, subject, plan)
            done += 1
            if batch.overran or batch.size > room or time.perf_counter() > ends:
                break
        for fault in batch.overran.values():
            fault.reload_error = self._start_over(fault.rule)
        return batch.result(done)

    def _start_over(self, rule: int) -> str:
        """Give a rule a new runtime; returns the error that keeps it from loading."""
        error = self._load(self._files[rule]).error
        if error:
            del self._rules[rule], self._files[rule]
        return error


class _Batch:
    """Collects what the calls of one request did. A rule that overran is out for the rest of it."""

    def __init__(self, rules: dict[int, RuleSandbox], heartbeat: Heartbeat, request: Evaluate) -> None:
        self._heartbeat = heartbeat
        self._plans = [
            [(rule, handler, rules[rule]) for rule, handler in plan if rule in rules] for plan in request.plans
        ]
        self._calls: dict[int, int] = dict.fromkeys((rule for plan in self._plans for rule, _, _ in plan), 0)
        self._states: dict[tuple[int, str], bytes] = {}
        self._outcomes: list[Outcome] = []
        self._faults: list[Fault] = []
        self.overran: dict[int, Fault] = {}
        self.size = 0

    def result(self, done: int) -> Evaluated:
        """What came of the first `done` items."""
        states = [KnownState(rule, device, data) for (rule, device), data in self._states.items()]
        return Evaluated(done, self._calls, states, self._outcomes, self._faults)

    def evaluate(self, item: int, subject: Message | Event, plan: int) -> None:
        """Call every handler of an item's plan."""
        for rule, handler, sandbox in self._plans[plan]:
            if rule in self.overran:
                continue
            self._calls[rule] += 1
            self._heartbeat.enter(rule, item)
            answer = _call(sandbox, handler, subject)
            if answer is not None:
                self._take(rule, item, subject.device_id or "", answer)

    def _take(self, rule: int, item: int, device: str, answer: tuple[Any, ...]) -> None:
        outcome, data = answer[0], answer[1]
        actions, dropped = answer[2:] if len(answer) > 2 else (None, 0)
        self.size += len(data or b"") + len(actions or b"")
        if outcome:
            self._fault(rule, item, outcome, data, actions)
            return
        if data is not None:
            self._states[rule, device] = data
        if actions is not None or dropped:
            self._outcomes.append(Outcome(rule, item, actions, dropped))

    def _fault(self, rule: int, item: int, outcome: int, result: bytes | None, actions: bytes | None) -> None:
        fault = Fault(rule, item, outcome == _OVERRUN, shown(result or b""), actions)
        self._faults.append(fault)
        if fault.overrun:
            self.overran[rule] = fault


def _call(sandbox: RuleSandbox, handler: int, subject: Message | Event) -> Result:
    """Call a handler; a failure of Lua itself (no memory for the call) is an overrun."""
    try:
        if isinstance(subject, Message):
            return sandbox.on_message(handler, subject)
        return sandbox.on_event(handler, subject)
    except (LuaError, MemoryError, OverflowError) as failure:
        return _OVERRUN, str(failure).encode()


class SceneWorker:
    """Runs scenes slice by slice."""

    def __init__(self, config: ScenesConfig, heartbeat: Heartbeat) -> None:
        """Have no scenes yet."""
        self._config = config
        self._heartbeat = heartbeat
        self._scenes: dict[int, SceneSandbox] = {}
        self._runs: dict[str, tuple[int, SceneSandbox]] = {}

    def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        match request:
            case Load():
                return self._load(request)
            case Unload():
                self._scenes.pop(request.id, None)
                return Done()
            case StartRun() if request.id in self._scenes:
                sandbox = self._scenes[request.id]
                self._runs[request.run] = request.id, sandbox
                return self._slice(request.run, lambda: sandbox.begin(request.run, request.now_ms, request.args))
            case ResumeRun() if request.run in self._runs:
                sandbox = self._runs[request.run][1]
                return self._slice(request.run, lambda: sandbox.resume(request.run, request.now_ms, request.result))
            case DropRun():
                self._drop(request.run)
                return Done()
            case _:
                return Refused(f"a worker of scenes has nothing for {type(request).__name__}")

    def _load(self, request: Load) -> Loaded:
        self._heartbeat.enter(request.id, -1)
        try:
            sandbox = SceneSandbox(self._config)
            error, declared = sandbox.load(request.source, request.name)
        except LuaError as failure:
            error, declared = shown(str(failure)), b""
        else:
            if not error:
                self._scenes[request.id] = sandbox
        return Loaded(error, declared)

    def _slice(self, run: str, step: Callable[[], Slice]) -> Slice:
        self._heartbeat.enter(self._runs[run][0], 0)
        try:
            taken = step()
        except (LuaError, MemoryError, OverflowError) as failure:
            taken = Slice("failed", error=shown(str(failure)))
        if taken.outcome in {"done", "failed"}:
            self._drop(run)
        return taken

    def _drop(self, run: str) -> None:
        _, sandbox = self._runs.pop(run, (0, None))
        if sandbox is not None:
            sandbox.drop(run)


def serve(peer: socket.socket, heartbeat: Heartbeat) -> None:
    """Answer requests until the gateway closes its end."""
    greeting = _read(peer)
    if greeting is None:
        return
    served = greeting_decoder.decode(greeting)
    worker: RuleWorker | SceneWorker
    if isinstance(served, ServeRules):
        worker = RuleWorker(served.config, heartbeat, PluginDoor(peer, heartbeat, served.config))
    else:
        worker = SceneWorker(served.config, heartbeat)
    while (frame := _read(peer)) is not None:
        signal.setitimer(signal.ITIMER_REAL, _ORPHAN_S)
        answer = encoder.encode(worker.answer(request_decoder.decode(frame)))
        heartbeat.rest()
        signal.setitimer(signal.ITIMER_REAL, 0)
        peer.sendall(LENGTH.pack(len(answer)) + answer)


def _read(peer: socket.socket) -> bytes | None:
    """The next frame, or None at the end."""
    head = _exactly(peer, LENGTH.size)
    return None if head is None else _exactly(peer, LENGTH.unpack(head)[0])


def _exactly(peer: socket.socket, length: int) -> bytes | None:
    data = peer.recv(length, socket.MSG_WAITALL)
    if len(data) == length:
        return data
    parts = bytearray(data)
    while data and len(parts) < length:
        data = peer.recv(length - len(parts))
        parts += data
    return bytes(parts) if len(parts) == length else None


def _shrink(address_space: int) -> None:
    """Bound memory, leave no core file, and end with the gateway only."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - Path would import more than it saves here
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + address_space, mapped + address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stop in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the gateway still needs its worker then
        signal.signal(stop, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def main() -> None:
    """Serve on the descriptors that the command line names."""
    descriptor, shared, address_space = (int(argument) for argument in sys.argv[1:4])
    _shrink(address_space)
    with socket.socket(fileno=descriptor) as peer:
        try:
            serve(peer, Heartbeat(shared))
        except (BrokenPipeError, ConnectionResetError):
            return  # the gateway is gone


if __name__ == "__main__":
    main()
