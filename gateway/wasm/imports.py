"""Host functions that a plugin may import: log, clock, configuration, a small store, randomness.

Each is linked only if the manifest asks and the operator grants. A host function never raises: the exception would
surface in another plugin's call. The key-value store lives in memory: it outlives a respawn, not the process.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
import wasmtime

from gateway.core.clock import Clock
from gateway.core.log import safe_text
from gateway.wasm.abi import HOST_MODULE, IMPORTS, WASI_MODULE

log = structlog.get_logger(__name__)

MISSING: Final = -1
_LOG_LINES_PER_S: Final = 20
"""Lines a plugin may log in one second; a plugin in a loop must not fill the disk. The rest is counted."""
_LOG_TEXT_BYTES: Final = 512
_KEY_BYTES: Final = 256
_STORE_KEYS: Final = 1024
_STORE_BYTES: Final = 1 << 20
"""Keys and values of one plugin together; over it kv_set answers -1."""
_RANDOM_BYTES: Final = 4096
_LEVELS: Final = ("debug", "info", "warning", "error")


class _Kept:
    """What outlives a version of the plugin: its store, its log allowance and what was counted."""

    def __init__(self) -> None:
        self.store: dict[bytes, bytes] = {}
        self.store_bytes = 0
        self.storing = threading.Lock()  # instances of one plugin may run on several threads
        self.log_second = -1
        self.log_lines = 0
        self.log_lines_dropped = 0
        self.failures = 0


class HostServices:
    """What one plugin's imports act on, over all its instances."""

    def __init__(self, plugin_id: str, clock: Clock, settings: Mapping[str, Any]) -> None:
        """`settings` is the operator's configuration of the plugin."""
        self._plugin_id = plugin_id
        self._clock = clock
        self._settings = {key.encode(): msgspec.msgpack.encode(value) for key, value in settings.items()}
        self._kept = _Kept()

    def heir(self, settings: Mapping[str, Any]) -> HostServices:
        """The services of another version, with settings of its own: it goes on with store and log allowance."""
        services = HostServices(self._plugin_id, self._clock, settings)
        services._kept = self._kept
        return services

    def copied(self, settings: Mapping[str, Any]) -> HostServices:
        """The services of a version on trial: it begins with a copy of the store, and changes nobody else's."""
        services = HostServices(self._plugin_id, self._clock, settings)
        with self._kept.storing:
            services._kept.store = dict(self._kept.store)
            services._kept.store_bytes = self._kept.store_bytes
        return services

    @property
    def log_lines_dropped(self) -> int:
        """Lines that the plugin logged over its allowance."""
        return self._kept.log_lines_dropped

    @property
    def failures(self) -> int:
        """Host functions that failed, which none should."""
        return self._kept.failures

    def link(self, linker: wasmtime.Linker, module: wasmtime.Module) -> None:
        """Define what the module imports; its imports were checked (abi.check_imports)."""
        wanted = {(item.module, item.name) for item in module.imports}
        if any(source == WASI_MODULE for source, _ in wanted):
            linker.define_wasi()
        functions: dict[str, tuple[Callable[..., Any], Any]] = {
            "log": (self._log, None),
            "now_ms": (self._now_ms, 0),
            "config": (self._config, MISSING),
            "kv_get": (self._kv_get, MISSING),
            "kv_set": (self._kv_set, MISSING),
            "random": (self._random, None),
        }
        for name, (function, on_failure) in functions.items():
            if (HOST_MODULE, name) in wanted:
                _, params, results = IMPORTS[name]
                kind = wasmtime.FuncType([_kind(one) for one in params], [_kind(one) for one in results])
                linker.define_func(HOST_MODULE, name, kind, self._walled(function, on_failure), access_caller=True)

    def _walled(self, function: Callable[..., Any], on_failure: Any) -> Callable[..., Any]:
        def call(caller: wasmtime.Caller, *args: int) -> Any:
            try:
                return function(_CallerMemory(caller), *args)
            except Exception as error:
                self._kept.failures += 1
                log.error("a host function failed", plugin=self._plugin_id, function=function.__name__, exc_info=error)
                return on_failure

        return call

    def _log(self, memory: _CallerMemory, level: int, start: int, size: int) -> None:
        second = int(self._clock.monotonic_s())
        kept = self._kept
        if second != kept.log_second:
            kept.log_second, kept.log_lines = second, 0
        kept.log_lines += 1
        text = memory.read(start, min(size & 0xFFFF_FFFF, _LOG_TEXT_BYTES))
        if text is None or kept.log_lines > _LOG_LINES_PER_S:
            kept.log_lines_dropped += 1
            return
        word = _LEVELS[level] if 0 <= level < len(_LEVELS) else "info"
        shown = safe_text(text.decode(errors="replace"), _LOG_TEXT_BYTES)
        getattr(log, word)("plugin says", plugin=self._plugin_id, text=shown)

    def _now_ms(self, _memory: _CallerMemory) -> int:
        return self._clock.now_ms()

    def _config(self, memory: _CallerMemory, key: int, key_size: int, to: int, room: int) -> int:
        return self._give(memory, self._settings, (key, key_size), (to, room))

    def _kv_get(self, memory: _CallerMemory, key: int, key_size: int, to: int, room: int) -> int:
        return self._give(memory, self._kept.store, (key, key_size), (to, room))

    def _give(
        self, memory: _CallerMemory, source: Mapping[bytes, bytes], at_key: tuple[int, int], at_value: tuple[int, int]
    ) -> int:
        """Length of the value of a key, which is written only where it fits."""
        key = memory.read(*at_key) if 0 <= at_key[1] <= _KEY_BYTES else None
        value = source.get(key) if key is not None else None
        if value is None:
            return MISSING
        to, room = at_value
        if len(value) <= room & 0xFFFF_FFFF and not memory.write(to, value):
            return MISSING
        return len(value)

    def _kv_set(self, memory: _CallerMemory, key_start: int, key_size: int, start: int, size: int) -> int:
        if not 0 <= key_size <= _KEY_BYTES or not 0 <= size <= _STORE_BYTES:
            return MISSING
        key, value = memory.read(key_start, key_size), memory.read(start, size)
        if key is None or value is None:
            return MISSING
        kept = self._kept
        with kept.storing:
            known = kept.store.get(key)
            grown = kept.store_bytes + len(value) - len(known or b"") + (len(key) if known is None else 0)
            if grown > _STORE_BYTES or (known is None and len(kept.store) >= _STORE_KEYS):
                return MISSING
            kept.store[key] = value
            kept.store_bytes = grown
        return 0

    def _random(self, memory: _CallerMemory, start: int, size: int) -> None:
        memory.write(start, secrets.token_bytes(min(size & 0xFFFF_FFFF, _RANDOM_BYTES)))


class _CallerMemory:
    """The memory of the instance that called, with every range checked."""

    def __init__(self, caller: wasmtime.Caller) -> None:
        memory = caller.get("memory")
        if not isinstance(memory, wasmtime.Memory):
            raise TypeError("the caller has no memory")
        self._caller = caller
        self._memory = memory

    def read(self, start: int, size: int) -> bytes | None:
        start &= 0xFFFF_FFFF
        if start + size > self._memory.data_len(self._caller):
            return None
        return bytes(self._memory.read(self._caller, start, start + size))

    def write(self, start: int, data: bytes) -> bool:
        start &= 0xFFFF_FFFF
        if start + len(data) > self._memory.data_len(self._caller):
            return False
        if data:
            self._memory.write(self._caller, data, start)
        return True


def _kind(name: str) -> wasmtime.ValType:
    return wasmtime.ValType.i32() if name == "i32" else wasmtime.ValType.i64()
