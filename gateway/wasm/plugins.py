"""The plugin host: finds plugins, loads those that keep their promises, and says of each how it fares.

A plugin that cannot be used is refused with a reason, and the gateway goes on. Owns engine, watchdog and caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog
import wasmtime

from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import CodecError, ConfigError, FramingError, GatewayError, NotFound, NotReady
from gateway.core.flow import Decoded
from gateway.framing.spec import FramingSpec, framer_for
from gateway.wasm.abi import UNSUPPORTED
from gateway.wasm.codec import MALFORMED, TRAPPED, Codec, DecodeResult, code_text
from gateway.wasm.config import WasmConfig
from gateway.wasm.fastcall import CallPath
from gateway.wasm.host import WasmCodec
from gateway.wasm.lane import CallLane
from gateway.wasm.manifest import Limits, Manifest, plugin_folders
from gateway.wasm.module_cache import ModuleCache
from gateway.wasm.program import Program
from gateway.wasm.release import NotBuilt, Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.stats import PluginStats
from gateway.wasm.vectors import VectorResult, plain, shown_item

log = structlog.get_logger(__name__)

PluginState = Literal["running", "refused", "not_built"]


class PluginStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin as the API shows it.

    reason: why it is refused, or how to build it. path: how the host calls it. strikes: within the last minute.
    """

    id: str
    folder: str
    state: PluginState
    reason: str = ""
    version: str = ""
    kind: str = ""
    description: str = ""
    license: str = ""
    sha256: str = ""
    framing: dict[str, Any] | None = None
    limits: Limits | None = None
    path: CallPath | None = None
    vectors_passed: int = 0
    vectors_failed: int = 0
    memory_bytes: int = 0
    strikes: int = 0
    log_lines_dropped: int = 0
    stats: PluginStats | None = None


class FrameOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What try-decode gives for one frame. `value` is present when ok (None for a dropped frame)."""

    ok: bool
    value: Any = msgspec.UNSET
    code: int | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class _Plugin:
    """What the host knows of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.state: PluginState = "refused"
        self.reason = ""
        self.release: Release | None = None
        self.codec: WasmCodec | None = None
        self.vectors: list[VectorResult] = []


class Trial:
    """One instance on which a person tries payloads."""

    def __init__(self, codec: Codec, framing: FramingSpec | None) -> None:
        self._codec = codec
        self._framing = framing
        self.skipped = 0
        """Bytes or frames that the framing of the last input skipped."""

    def decode(self, data: bytes, most: int) -> Iterator[list[FrameOutcome]]:
        """Frame and decode one input, at most so many frames between two answers."""
        frames, rest = self._framed(data)
        for at in range(0, len(frames), most):
            yield [_outcome(result) for result in _decode_all(self._codec, frames[at : at + most])]
        if rest is not None:
            yield [rest]

    def _framed(self, data: bytes) -> tuple[list[bytes], FrameOutcome | None]:
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


class PluginHost:
    """All plugins of the process. Every call must come from the thread that made the host."""

    def __init__(
        self, config: WasmConfig, plugin_dirs: Sequence[Path], cache_dir: Path | None, clock: Clock | None = None
    ) -> None:
        """Load nothing yet. `cache_dir` is made private to this user; None keeps no compiled modules."""
        self._config = config
        self._dirs = tuple(plugin_dirs)
        self._clock = clock or SystemClock()
        self._cache_dir = cache_dir
        self._sandbox = self._make_sandbox()
        self._starter = Starter(config, self._clock, self._granted)
        self._plugins: dict[str, _Plugin] = {}
        self._lanes: dict[str, CallLane] = {}

    @property
    def path(self) -> CallPath:
        """How plugins are called: `fast`, or `public` where the fast path is not to be trusted."""
        return self._sandbox.path

    @property
    def path_reason(self) -> str:
        """Why the fast path is not used; empty when it is."""
        return self._sandbox.path_reason

    @property
    def cache(self) -> ModuleCache:
        """The compiled modules."""
        return self._sandbox.cache

    def load_all(self) -> list[PluginStatus]:
        """Find and load every plugin; a folder whose id another one has already is refused. Returns the statuses."""
        for root in self._dirs:
            for folder in plugin_folders(root):
                known = self._plugins.get(folder.name)
                if known is None:
                    self._plugins[folder.name] = _Plugin(folder)
                else:
                    log.error("plugin ignored", plugin=known.id, folder=str(folder), reason=f"also in {known.folder}")
        for plugin in self._plugins.values():
            self._load(plugin)
            log.info("plugin found", plugin=plugin.id, state=plugin.state, reason=plugin.reason)
        return self.plugins()

    def close(self) -> None:
        """Free every plugin and end the watchdog."""
        for plugin in self._plugins.values():
            if plugin.codec is not None:
                plugin.codec.close()
                plugin.codec = None
        for lane in self._lanes.values():
            lane.close()
        self._sandbox.close()

    def codec(self, plugin_id: str) -> Codec:
        """The running codec; raises NotFound, or ConfigError saying why the plugin does not run."""
        return self._running(plugin_id)

    def manifest(self, plugin_id: str) -> Manifest:
        """The manifest; raises NotFound, or ConfigError where it could not be read."""
        plugin = self._known(plugin_id)
        if plugin.release is None:
            raise ConfigError(f"plugin {plugin_id}: {plugin.reason}")
        return plugin.release.manifest

    def framing(self, plugin_id: str) -> FramingSpec | None:
        """The framing that the manifest names, None where it names none; raises as `manifest` does."""
        plugin = self._known(plugin_id)
        if plugin.release is None:
            raise ConfigError(f"plugin {plugin_id}: {plugin.reason}")
        return plugin.release.framing

    def plugins(self) -> list[PluginStatus]:
        """Every plugin that was found, by id."""
        return [self._status(self._plugins[key]) for key in sorted(self._plugins)]

    def status(self, plugin_id: str) -> PluginStatus:
        """One plugin; raises NotFound."""
        return self._status(self._known(plugin_id))

    def try_decode(self, plugin_id: str, inputs: Sequence[bytes]) -> list[list[FrameOutcome]]:
        """Run framing and codec over bytes as on the wire, each input as a stream of its own. Raises as `trial`."""
        with self.trial(plugin_id) as trial:
            return [[outcome for part in trial.decode(data, len(data) + 1) for outcome in part] for data in inputs]

    @contextmanager
    def trial(self, plugin_id: str) -> Iterator[Trial]:
        """An instance of its own to try payloads on: trying leaves no trace in the running codec.

        Raises NotFound, or ConfigError where the plugin does not run.
        """
        release = self._release_in_use(plugin_id)
        with closing(WasmCodec(self._starter.start(release, self._sandbox))) as codec:
            yield Trial(codec, release.framing)

    def try_encode(self, plugin_id: str, request: dict[str, Any], aux: int = 0) -> bytes:
        """Encode a request on an instance of its own; raises CodecError beside what try_decode raises."""
        release = self._release_in_use(plugin_id)
        with closing(WasmCodec(self._starter.start(release, self._sandbox))) as codec:
            return codec.encode(msgspec.msgpack.encode(request), aux)

    def run_vectors(self, plugin_id: str) -> list[VectorResult]:
        """Run the manifest's vectors on a fresh instance; raises NotFound, ConfigError or CodecError."""
        plugin = self._known(plugin_id)
        if plugin.release is None:
            raise ConfigError(f"plugin {plugin_id}: {plugin.reason}")
        return self._starter.prove(plugin.release, self._sandbox)

    # -- calls --------------------------------------------------------------------------------------------------

    async def call(
        self, plugin_id: str, args: dict[str, Any], *, timeout_s: float, most_bytes: int | None = None
    ) -> Any:
        """Hand a plugin of a kind other than codec plain arguments and return its plain answer, on a thread of its own.

        most_bytes: what the caller takes of msgpack; the manifest's max_output where not said. Raises NotFound,
        NotReady (it does not run now, or has no time) or CodecError (PluginTrapped included).
        """
        return await self._lane(plugin_id).call(args, timeout_s=timeout_s, most_bytes=most_bytes)

    def running(self, plugin_id: str) -> Release:
        """The version that runs now, the same object until another does; raises NotFound or NotReady."""
        plugin = self._known(plugin_id)
        if plugin.release is None or plugin.state != "running":
            raise NotReady(f"plugin {plugin_id} is {plugin.state.replace('_', ' ')}: {plugin.reason}")
        return plugin.release

    def start_here(self, release: Release) -> Program:
        """A new instance of a release on the host's thread, for the caller to close; raises as `Starter.start`."""
        return self._starter.start(release, self._sandbox)

    def _lane(self, plugin_id: str) -> CallLane:
        release = self.running(plugin_id)
        if release.manifest.kind == "codec":
            raise CodecError(UNSUPPORTED, f"plugin {plugin_id} is a codec: it decodes and encodes, but takes no calls")
        if plugin_id not in self._lanes:
            self._lanes[plugin_id] = CallLane(release, self._starter, self._make_sandbox, self._clock)
        return self._lanes[plugin_id]

    def _make_sandbox(self) -> Sandbox:
        return Sandbox(self._config, self._cache_dir)

    # -- loading ------------------------------------------------------------------------------------------------

    def _load(self, plugin: _Plugin) -> None:
        """Bring one plugin up, or note why not; nothing a plugin does here ends the gateway."""
        try:
            plugin.release = release = read_release(plugin.folder, self._config, self._runtime)
            _module = self._sandbox.module(release.sha256, release.wasm)  # held from the proof to the start
            plugin.vectors = self._starter.prove(release, self._sandbox)
            failed = [result for result in plugin.vectors if not result.ok]
            if failed:
                raise ConfigError(f"{len(failed)} test vectors fail; {failed[0].name}: {failed[0].detail}")
            if release.manifest.kind == "codec":
                plugin.codec = WasmCodec(self._starter.start(release, self._sandbox))
        except NotBuilt as missing:
            plugin.state, plugin.reason = "not_built", str(missing)
        except (GatewayError, wasmtime.WasmtimeError) as error:
            plugin.state, plugin.reason = "refused", str(error)
        else:
            plugin.state, plugin.reason = "running", ""

    def _runtime(self, plugin_id: str) -> Release:
        plugin = self._plugins.get(plugin_id)
        if plugin is None:
            raise ConfigError(f"its runtime {plugin_id!r} is not among the plugins")
        return plugin.release or read_release(plugin.folder, self._config, _no_runtime)

    def _granted(self, plugin_id: str) -> frozenset[str]:
        return frozenset(self._config.grants.get(plugin_id, self._config.default_grants))

    # -- trying and showing -------------------------------------------------------------------------------------

    def _known(self, plugin_id: str) -> _Plugin:
        plugin = self._plugins.get(plugin_id)
        if plugin is None:
            raise NotFound(f"no plugin {plugin_id!r}")
        return plugin

    def _running(self, plugin_id: str) -> WasmCodec:
        plugin = self._known(plugin_id)
        if plugin.codec is None:
            if plugin.state == "running":
                raise ConfigError(f"plugin {plugin_id} is no codec")
            raise ConfigError(f"plugin {plugin_id} is {plugin.state.replace('_', ' ')}: {plugin.reason}")
        return plugin.codec

    def _release_in_use(self, plugin_id: str) -> Release:
        self._running(plugin_id)
        release = self._known(plugin_id).release
        if release is None:
            raise ConfigError(f"plugin {plugin_id} is not loaded")
        return release

    def _status(self, plugin: _Plugin) -> PluginStatus:
        release, codec = plugin.release, plugin.codec
        manifest = None if release is None else release.manifest
        passed = sum(result.ok for result in plugin.vectors)
        return PluginStatus(
            id=plugin.id,
            folder=str(plugin.folder),
            state=plugin.state,
            reason=plugin.reason,
            version="" if manifest is None else manifest.version,
            kind="" if manifest is None else manifest.kind,
            description="" if manifest is None else manifest.description,
            license="" if manifest is None else manifest.license,
            sha256="" if release is None else release.sha256,
            framing=None if manifest is None else manifest.framing,
            limits=None if manifest is None else manifest.limits,
            path=None if codec is None else codec.path,
            vectors_passed=passed,
            vectors_failed=len(plugin.vectors) - passed,
            memory_bytes=0 if codec is None else codec.memory_bytes,
            strikes=0 if codec is None else codec.strikes_in(),
            log_lines_dropped=0 if codec is None else codec.log_lines_dropped,
            stats=None if codec is None else codec.stats,
        )


def _no_runtime(plugin_id: str) -> Release:
    raise ConfigError(f"a runtime cannot have a runtime of its own ({plugin_id!r})")


def _decode_all(codec: Codec, frames: Sequence[bytes]) -> list[DecodeResult]:
    """Decode to the end, over kills: a person is waiting for all of it, and no loop for this thread."""
    results: list[DecodeResult] = []
    try:
        while len(results) < len(frames):
            results += codec.decode_batch(frames[len(results) :])
    except NotReady:  # an instance for trying lives as long as the call: there is no later
        results += [TRAPPED] * (len(frames) - len(results))
    return results


def _outcome(result: DecodeResult) -> FrameOutcome:
    if result is None:
        return FrameOutcome(ok=True, value=None)
    if not isinstance(result, Decoded):
        return FrameOutcome(ok=False, code=result, error=code_text(result))
    try:
        return FrameOutcome(ok=True, value=plain(result.value) if bytes(result.value) else shown_item(result))
    except ConfigError as error:
        return FrameOutcome(ok=False, code=MALFORMED, error=str(error))
