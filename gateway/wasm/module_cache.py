"""Compiled modules on disk: loading one takes 0.1 ms, compiling it 20 ms and more.

A cached module is native code that will run in this process, so the folder is ours alone (0700) and every entry is
authenticated with a key of this installation. Whatever is wrong with an entry, the answer is to compile again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import structlog
import wasmtime

from gateway.core.errors import ConfigError
from gateway.core.heap import give_back
from gateway.core.log import safe_text
from gateway.wasm.engine import settings_fingerprint

log = structlog.get_logger(__name__)

_KEY_NAME = "cache.key"
_KEY_BYTES = 32
_TAG_BYTES = 32
_MOST_ENTRIES = 64
"""Entries kept: every plugin of a big installation in its last two versions."""


class ModuleCounts(NamedTuple):
    """Modules taken from the cache, modules compiled, and entries of the cache that were not trusted."""

    hits: int = 0
    compiled: int = 0
    refused: int = 0


class ModuleLoads:
    """What loading their modules came to for each plugin, over all caches. May be used from any thread."""

    def __init__(self) -> None:
        """Know of none."""
        self._counts: dict[str, ModuleCounts] = {}
        self._noting = threading.Lock()

    def note(self, plugin_id: str, before: ModuleCounts, after: ModuleCounts) -> None:
        """Count what a cache did for a plugin between two looks at its counts."""
        with self._noting:
            known = self.of(plugin_id)
            self._counts[plugin_id] = ModuleCounts(*(k + a - b for k, a, b in zip(known, after, before, strict=True)))

    def of(self, plugin_id: str) -> ModuleCounts:
        """The counts of one plugin."""
        return self._counts.get(plugin_id, ModuleCounts())

    def forget(self, plugin_id: str) -> None:
        """Drop the counts of a plugin that is gone."""
        self._counts.pop(plugin_id, None)


class ModuleCache:
    """Compiles modules, or takes what an earlier run compiled. Counts both."""

    def __init__(self, engine: wasmtime.Engine, folder: Path | None) -> None:
        """Use `folder` for entries and key; without one, or when it cannot be made private, always compile."""
        self.hits = 0
        self.compiled = 0
        self.refused = 0
        self._engine = engine
        self._folder = folder
        self._key = b""
        if folder is not None:
            try:
                _make_private(folder)
                self._key = _installation_key(folder / _KEY_NAME)
            except OSError as error:
                log.warning("compiled plugins are not cached", folder=str(folder), reason=error.strerror or str(error))
                self._folder = None

    @property
    def counts(self) -> ModuleCounts:
        """What it did so far."""
        return ModuleCounts(self.hits, self.compiled, self.refused)

    def load(self, wasm: bytes) -> wasmtime.Module:
        """The compiled module; raises ConfigError when the bytes are no valid module of the features we allow."""
        if self._folder is None:
            return self._compile(wasm)
        name = hashlib.sha256(hashlib.sha256(wasm).digest() + settings_fingerprint().encode()).hexdigest()
        path = self._folder / f"{name}.bin"
        module = self._cached(path, name)
        if module is None:
            module = self._compile(wasm)
            self._keep(path, name, module)
        return module

    def _compile(self, wasm: bytes) -> wasmtime.Module:
        try:
            module = wasmtime.Module(self._engine, wasm)
        except wasmtime.WasmtimeError as error:
            raise ConfigError(f"not a module that the sandbox takes: {safe_text(str(error), 300)}") from None
        self.compiled += 1
        give_back()  # the compiler takes tens of MB
        return module

    def _tag(self, name: str, code: bytes) -> bytes:
        return hmac.digest(self._key, name.encode() + code, "sha256")

    def _cached(self, path: Path, name: str) -> wasmtime.Module | None:
        try:
            entry = path.read_bytes()
        except OSError:
            return None
        tag, code = entry[:_TAG_BYTES], entry[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(name, code)):
            self.refused += 1
            log.warning("a cached plugin was changed by someone else; compiling it again", entry=path.name)
            return None
        try:
            module = wasmtime.Module.deserialize(self._engine, code)
        except wasmtime.WasmtimeError:
            return None  # made on another processor
        self.hits += 1
        return module

    def _keep(self, path: Path, name: str, module: wasmtime.Module) -> None:
        code = bytes(module.serialize())
        try:
            _write_private(path, self._tag(name, code) + code)
            entries = sorted(path.parent.glob("*.bin"), key=lambda entry: entry.stat().st_mtime_ns)
            for old in entries[:-_MOST_ENTRIES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("a compiled plugin was not cached", reason=error.strerror or str(error))


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(1, "the folder belongs to another user")
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def _installation_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != _KEY_BYTES or path.stat().st_mode & 0o077:
        key = secrets.token_bytes(_KEY_BYTES)
        _write_private(path, key)
    return key


def _write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step; nobody else can read it, and no reader sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent)  # created 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
