"""What the plugins of one thread share: engine, watchdog, call path and compiled modules.

Every thread that runs guests has a sandbox of its own: an engine's epoch ends whatever call is running in it, so two
threads must not share one. Knows no plugin.
"""

from __future__ import annotations

from pathlib import Path
from weakref import WeakValueDictionary

import wasmtime

from gateway.wasm.config import WasmConfig
from gateway.wasm.engine import make_engine
from gateway.wasm.fastcall import CallPath, active_path, path_reason
from gateway.wasm.module_cache import ModuleCache
from gateway.wasm.watchdog import Watchdog


class Sandbox:
    """Made by the thread that will call its guests, closed after they are."""

    def __init__(self, config: WasmConfig, cache_dir: Path | None = None) -> None:
        """Have no guests. `cache_dir` is made private to this user; None keeps no compiled modules."""
        self.engine = make_engine()
        self.watchdog = Watchdog(self.engine.increment_epoch)
        self.path: CallPath = "public" if config.call_path == "public" else active_path()
        self.path_reason = "" if self.path == "fast" else (_asked_for(config) or path_reason())
        self.cache = ModuleCache(self.engine, cache_dir if config.cache else None)
        self._modules: WeakValueDictionary[str, wasmtime.Module] = WeakValueDictionary()

    def module(self, sha256: str, wasm: bytes) -> wasmtime.Module:
        """The compiled module, one for all who run it at the same time. Raises ConfigError."""
        module = self._modules.get(sha256)
        if module is None:
            module = self._modules[sha256] = self.cache.load(wasm)
        return module

    def adopt(self, sha256: str, module: wasmtime.Module) -> wasmtime.Module:
        """A module that another sandbox compiled, made fit for this one; may be called from any thread."""
        mine = self._modules.get(sha256)
        if mine is None:
            mine = self._modules[sha256] = wasmtime.Module.deserialize(self.engine, module.serialize())
        return mine

    def close(self) -> None:
        """End the watchdog; every guest was closed before."""
        self.watchdog.close()


def _asked_for(config: WasmConfig) -> str:
    return "[wasm] call_path asks for it" if config.call_path == "public" else ""
