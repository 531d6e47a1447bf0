"""One version of a plugin as it lies in a folder: manifest, module, script and promises; read, checked, started.

Owns reading and starting. Knows neither where releases come from nor which one is in use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import wasmtime

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError
from gateway.framing.spec import FramingSpec, framer_for, framing_spec
from gateway.wasm.caller import WasmCaller
from gateway.wasm.config import WasmConfig
from gateway.wasm.host import WasmCodec
from gateway.wasm.imports import HostServices
from gateway.wasm.manifest import Manifest, Vector, load_manifest, load_vectors
from gateway.wasm.module_cache import ModuleLoads
from gateway.wasm.program import Program
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.stats import PluginStats
from gateway.wasm.strikes import Strikes
from gateway.wasm.vectors import VectorResult, run_vectors

HOST_NAME = "flux-gateway"
_ON_THE_LOOP: Final = frozenset({"codec", "crypto"})
"""Kinds of plugins that start where all traffic waits for them."""


class NotBuilt(ConfigError):
    """The plugin's module is not there yet; the text says how to make it."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a plugin, complete.

    sha256: of the module. digest: of all that decides how it behaves (manifest, module, script, vectors); two releases
    with the same one are the same. memory: `wasm` is the module itself, as large as the manifest's file.
    """

    folder: Path
    manifest: Manifest
    wasm: bytes
    sha256: str
    digest: str
    script: str | None
    framing: FramingSpec | None
    vectors: tuple[Vector, ...]

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self.manifest.id

    @property
    def version(self) -> str:
        """The version that the manifest names."""
        return self.manifest.version


def read_release(folder: Path, config: WasmConfig, runtime: Callable[[str], Release]) -> Release:
    """Read a plugin's folder. `runtime` gives the release whose module runs scripts, by plugin id.

    Raises ConfigError naming the file and what is wrong; NotBuilt where the module is missing.
    """
    manifest = load_manifest(folder)
    framing = None if manifest.framing is None else framing_spec(manifest.framing, f"{manifest.id}: framing")
    vectors = tuple(load_vectors(manifest, folder))
    if manifest.runtime is not None:
        engine = runtime(manifest.runtime)
        wasm = engine.wasm
        # What its runtime imports is what a script asks for: an author knows no host functions.
        manifest = msgspec.structs.replace(manifest, caps=manifest.caps | engine.manifest.caps)
        script = _script(folder / (manifest.script or ""), manifest.limits.max_input)
    else:
        wasm, script = _module(folder, manifest, config.max_module_bytes), None
    sha256 = hashlib.sha256(wasm).hexdigest()
    if manifest.sha256 is not None and sha256 != manifest.sha256:
        raise ConfigError(f"{folder / manifest.wasm_name}: its SHA-256 is {sha256}, not the manifest's")
    try:
        parts = (msgspec.msgpack.encode(manifest), msgspec.msgpack.encode(vectors), (script or "").encode())
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"{manifest.id}: its manifest or vectors hold what no plugin can be given: {error}"
        ) from error
    digest = hashlib.sha256(sha256.encode() + b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    return Release(
        folder=folder,
        manifest=manifest,
        wasm=wasm,
        sha256=sha256,
        digest=digest,
        script=script,
        framing=framing,
        vectors=vectors,
    )


class Starter:
    """Starts releases as the operator configured them. May be used from any thread; a program belongs to the one."""

    def __init__(self, config: WasmConfig, clock: Clock, granted: Callable[[str], frozenset[str]]) -> None:
        """`granted` gives the capabilities that a plugin may use, by its id."""
        self._config = config
        self._clock = clock
        self._granted = granted
        self.loads = ModuleLoads()

    def module(self, release: Release, sandbox: Sandbox) -> wasmtime.Module:
        """The release's compiled module, lent by the sandbox. Raises ConfigError."""
        before = sandbox.cache.counts
        module = sandbox.module(release.sha256, release.wasm)
        self.loads.note(release.id, before, sandbox.cache.counts)
        return module

    def services(self, release: Release, before: HostServices | None = None) -> HostServices:
        """What the imports of the release act on; one store and one log allowance for all its instances.

        before: those of the version that this one replaces, to go on with their store.
        """
        settings = self._settings(release)
        return HostServices(release.id, self._clock, settings) if before is None else before.heir(settings)

    def services_on_trial(self, release: Release, live: HostServices) -> HostServices:
        """Services that begin as those of the live version are now and change nothing of theirs."""
        return live.copied(self._settings(release))

    def start(
        self,
        release: Release,
        sandbox: Sandbox,
        services: HostServices | None = None,
        stats: PluginStats | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        strikes: Strikes | None = None,
    ) -> Program:
        """A running program of the release. Raises ConfigError, CodecError or PluginTrapped, saying why not.

        settings: what gw_init gets, the manifest's with the operator's over them where not said.
        """
        config = self._settings(release) if settings is None else settings
        start = {"config": config, "host": HOST_NAME, "plugin_id": release.id}
        if release.script is not None:
            start["script"] = release.script
        return Program(
            release.manifest,
            self.module(release, sandbox),
            sandbox,
            services or self.services(release),
            granted=self._granted(release.id),
            clock=self._clock,
            start=msgspec.msgpack.encode(start),
            start_s=self._start_s(release.manifest),
            stats=stats,
            strikes=strikes,
        )

    def _start_s(self, manifest: Manifest) -> float:
        """Time of a whole start; codecs and crypto plugins start on the loop's thread, where the operator bounds it."""
        asked = manifest.limits.start_deadline_ms
        return (min(asked, self._config.max_start_ms) if manifest.kind in _ON_THE_LOOP else asked) / 1000

    def prove(
        self, release: Release, sandbox: Sandbox, given_up: Callable[[], bool] = lambda: False
    ) -> list[VectorResult]:
        """Run the release's own vectors on an instance of their own, until done or given up. Raises as `start` does.

        They promise how it behaves as it is shipped: the operator's settings do not touch them.
        """
        shipped = release.manifest.config
        services = HostServices(release.id, self._clock, shipped)
        program = self.start(release, sandbox, services, settings=shipped)
        try:
            framer = None if release.framing is None else partial(framer_for, release.framing)
            if release.manifest.kind == "codec":
                return run_vectors(release.vectors, codec=WasmCodec(program), framer=framer, given_up=given_up)
            return run_vectors(release.vectors, caller=WasmCaller(program), given_up=given_up)
        finally:
            program.close()

    def _settings(self, release: Release) -> Mapping[str, Any]:
        return release.manifest.config | self._config.settings.get(release.id, {})


def _script(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(most + 1)
        if len(text) > most:
            raise ConfigError(f"{path}: larger than the plugin's max_input = {most}; raise [limits] max_input")
        return text.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error


def _module(folder: Path, manifest: Manifest, most: int) -> bytes:
    path = folder / manifest.wasm_name
    try:
        with path.open("rb") as file:
            wasm = file.read(most + 1)
    except FileNotFoundError:
        raise NotBuilt(f"run: gateway plugin build {manifest.id}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(wasm) > most:
        raise ConfigError(f"{path}: larger than [wasm] max_module_bytes = {most}")
    return wasm
