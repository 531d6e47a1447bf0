"""One running instance of a plugin: its store, memory, input buffer and calls, each call under a deadline.

Owns the life of a wasmtime Store. Knows no policy: what to do after a trap is the host's business.
"""

from __future__ import annotations

from bisect import bisect_left
from threading import get_ident
from time import perf_counter, thread_time

import wasmtime

from gateway.core.errors import CodecError, ConfigError
from gateway.core.log import safe_text
from gateway.wasm.abi import ABI_MAJOR, ABI_MINOR, SIGNATURES, TOO_LARGE
from gateway.wasm.engine import check_thread_stack
from gateway.wasm.fastcall import CallPath, Guest, GuestTrap, guest_function, guest_memory, trap_reason
from gateway.wasm.manifest import Limits
from gateway.wasm.stats import LATENCY_BOUNDS_S, PluginStats
from gateway.wasm.watchdog import Watchdog

_TABLE_ELEMENTS = 100_000
"""Room for every function of a big compiled language; 8 bytes each."""
_LAST_ERROR_BYTES = 512
_SHORTEST_S = LATENCY_BOUNDS_S[0]
_SLOW_S = 50e-6
"""After a call of at least this long the next one's processor time is read from the system. To read it costs half a
microsecond, a tenth of a small frame: for such frames, and for a first slow one, wall time stands for it."""

GuestResult = tuple[int, bytes]
"""What a call gave: (0, bytes), or (code, b"") where the guest answered with a code; code -1 says "bad pointer"."""

BAD_POINTER = -1


class Instance:
    """A plugin in a store of its own. Only the thread that made it may call it; after a GuestTrap only close it."""

    def __init__(
        self,
        program: wasmtime.InstancePre,
        engine: wasmtime.Engine,
        watchdog: Watchdog,
        limits: Limits,
        stats: PluginStats,
        *,
        path: CallPath,
        wasi: bool,
        start_s: float,
    ) -> None:
        """Instantiate within the limits and begin the time of the whole start.

        Raises GuestTrap (its start failed) or ConfigError (it breaks the ABI).
        """
        check_thread_stack()
        self._stats = stats
        self._owner = get_ident()
        self._watchdog = watchdog
        self._limits = limits
        self._deadline_s = limits.deadline_ms / 1000
        self._start_ends = perf_counter() + start_s
        self._armed = -1
        self._is_slow = False
        self._functions: dict[str, Guest] = {}
        self._store = wasmtime.Store(engine)
        try:
            self._store.set_limits(
                memory_size=limits.memory_mib << 20, table_elements=_TABLE_ELEMENTS, instances=1, tables=4, memories=1
            )
            if wasi:
                self._store.set_wasi(wasmtime.WasiConfig())  # no files, no network, no environment, no output
            self._bind(program, path)
        except BaseException:
            self.close()
            raise

    def _bind(self, program: wasmtime.InstancePre, path: CallPath) -> None:
        exports = self._instantiate(program).exports(self._store)
        memory = exports["memory"]
        if not isinstance(memory, wasmtime.Memory):
            raise ConfigError("the module does not export its memory")
        self._memory = guest_memory(self._store, memory, path)
        for name in SIGNATURES:
            function = exports.get(name)
            if isinstance(function, wasmtime.Func):
                self._functions[name] = guest_function(self._store, function, path)
        if "_initialize" in self._functions:
            self._call("_initialize", self._start_left_s())
        version = self._call("gw_abi", self._start_left_s()) & 0xFFFF_FFFF
        if version >> 16 != ABI_MAJOR or version & 0xFFFF > ABI_MINOR:
            raise ConfigError(f"the plugin speaks ABI {version >> 16}.{version & 0xFFFF}; this host speaks 1.0")
        most = self._limits.max_input
        self._input = self._call("gw_buf", self._start_left_s(), most) & 0xFFFF_FFFF
        if not self._input or self._input + most > self._memory.size():
            raise ConfigError(f"the plugin has no input buffer of max_input = {most} bytes")

    def _instantiate(self, program: wasmtime.InstancePre) -> wasmtime.Instance:
        """Instantiate; a start function runs under the deadline, too."""
        self._arm()
        self._watchdog.begin(self._start_ends)
        try:
            return program.instantiate(self._store)
        except wasmtime.Trap as error:
            raise trap_reason(error) from None
        except wasmtime.WasmtimeError as error:
            raise ConfigError(f"cannot be instantiated: {safe_text(str(error), 200)}") from None
        finally:
            self._watchdog.running = False

    def exports(self, name: str) -> bool:
        """Whether the plugin has an optional export."""
        return name in self._functions

    def call(self, name: str, data: bytes, last: int, budget_s: float) -> GuestResult:
        """Call a (ptr, len, x) export with `data` (at most max_input bytes) in the input buffer; raises GuestTrap."""
        self._memory.write(self._input, data)
        return self._result(self._call(name, budget_s, self._input, len(data), last))

    def save_state(self, budget_s: float) -> GuestResult:
        """Call gw_state_save, which must be there; raises GuestTrap."""
        return self._result(self._call("gw_state_save", budget_s))

    def load_state(self, state: bytes, budget_s: float) -> bool:
        """Call gw_state_load, which must be there, with at most max_input bytes; whether it took them."""
        self._memory.write(self._input, state)
        return self._call("gw_state_load", budget_s, self._input, len(state)) & 0xFFFF_FFFF == 0

    def _result(self, packed: int) -> GuestResult:
        pointer, size = packed >> 32, packed & 0xFFFF_FFFF
        if not pointer:
            return size, b""
        if size > self._limits.max_output:
            return TOO_LARGE, b""
        result = self._memory.read(pointer, size)
        return (BAD_POINTER, b"") if result is None else (0, result)

    def _start_left_s(self) -> float:
        """What is left of the time of the start: all its steps share it."""
        return max(0.0, self._start_ends - perf_counter())

    def start(self, config: bytes) -> None:
        """Call gw_init where there is one, in what is left of the start's time.

        Raises CodecError with the code and text of a plugin that refuses.
        """
        if "gw_init" not in self._functions:
            return
        if len(config) > self._limits.max_input:
            raise ConfigError("the plugin's configuration is larger than its max_input")
        self._memory.write(self._input, config)
        code = self._call("gw_init", self._start_left_s(), self._input, len(config)) & 0xFFFF_FFFF
        if code:
            raise CodecError(code, f"the plugin refused to start (code {code}): {self.last_error() or 'no reason'}")

    def last_error(self) -> str:
        """The plugin's own words on its last error code, made safe for a log; raises GuestTrap."""
        if "gw_last_error" not in self._functions:
            return ""
        packed = self._call("gw_last_error", self._deadline_s)
        text = self._memory.read(packed >> 32, min(packed & 0xFFFF_FFFF, _LAST_ERROR_BYTES)) if packed >> 32 else b""
        return safe_text((text or b"").decode(errors="replace"), _LAST_ERROR_BYTES)

    @property
    def memory_bytes(self) -> int:
        """Linear memory at present."""
        return self._memory.size()

    def close(self) -> None:
        """Free the store and its memory now; nothing of it may be used again."""
        if hasattr(self, "_memory"):
            self._memory.release()
        self._functions = {}
        self._store.close()

    def _call(self, name: str, budget_s: float, *args: int) -> int:
        """Call a guest function under a deadline; the hot path."""
        if get_ident() != self._owner:
            raise RuntimeError("a plugin instance was called from a thread that does not own it")
        function = self._functions[name]
        watchdog = self._watchdog
        if self._armed != watchdog.epoch:
            self._arm()
        cpu_s = thread_time() if self._is_slow else 0.0
        began = perf_counter()
        watchdog.begin(began + budget_s)
        try:
            return function(*args)
        except GuestTrap as trap:
            trap.early = trap.timed_out and perf_counter() < watchdog.deadline
            raise
        finally:
            watchdog.running = False
            took_s = perf_counter() - began
            stats = self._stats
            stats.busy_s += took_s
            if took_s < _SHORTEST_S:
                stats.latency[0] += 1
                if cpu_s:
                    self._is_slow = False
            else:
                self._note_long(took_s, cpu_s)

    def _note_long(self, took_s: float, cpu_s: float) -> None:
        """Count a call that was no quick one; `cpu_s` is the thread's processor time before it, 0 where not known."""
        stats = self._stats
        stats.latency[bisect_left(LATENCY_BOUNDS_S, took_s)] += 1
        if cpu_s:
            stats.stalled_s += max(0.0, took_s - (thread_time() - cpu_s))
        self._is_slow = took_s > _SLOW_S

    def _arm(self) -> None:
        """Set the store's deadline to the next tick of the epoch; a store without one would trap at once."""
        self._armed = self._watchdog.epoch
        self._store.set_epoch_deadline(1)
