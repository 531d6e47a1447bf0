"""The plugin host: every plugin of the process, its versions, and what people decide about them.

A version that cannot be used is refused with a reason, and what ran before goes on. Owns the engine, the thread that
loads, and one slot for each plugin; what happens inside a slot is `slot.py`'s. Knows no product and no listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import ConfigError, Conflict, GatewayError, NotFound, NotReady
from gateway.core.metrics import Sample
from gateway.framing.spec import FramingSpec
from gateway.wasm.area import Decisions, PluginArea
from gateway.wasm.codec import Codec
from gateway.wasm.config import WasmConfig
from gateway.wasm.fastcall import CallPath
from gateway.wasm.figures import module_samples, plugin_samples
from gateway.wasm.host import WasmCodec
from gateway.wasm.lane import CallLane
from gateway.wasm.loader import Proven, Refusal, Unchanged
from gateway.wasm.manifest import Capability, Manifest
from gateway.wasm.module_cache import ModuleCache
from gateway.wasm.overview import status_of
from gateway.wasm.program import Program
from gateway.wasm.release import Release
from gateway.wasm.shadow import Shadow, ShadowReport
from gateway.wasm.shelf import PluginShelf
from gateway.wasm.slot import Notice, Slot
from gateway.wasm.status import PluginStatus
from gateway.wasm.trial import FrameOutcome, Trial
from gateway.wasm.vectors import VectorResult
from gateway.wasm.versions import Found

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TICK_S: Final = 1.0
"""How often strikes, quarantines and versions that have left are seen to while no traffic does so."""
MOST_SHADOW_MINUTES: Final = 24 * 60.0


class PluginHost:
    """All plugins of the process. Every call must come from the thread that made the host, its loop's."""

    def __init__(
        self,
        config: WasmConfig,
        plugin_dirs: Sequence[Path],
        cache_dir: Path | None,
        clock: Clock | None = None,
        *,
        area: PluginArea | None = None,
    ) -> None:
        """Load nothing yet. `cache_dir` is made private to this user; None keeps no compiled modules.

        area: the installed versions and decisions; without one there are only folders.
        """
        self._config = config
        self._shelf = PluginShelf(config, plugin_dirs, cache_dir, clock or SystemClock(), area)

    @property
    def path(self) -> CallPath:
        """How plugins are called: `fast`, or `public` where the fast path is not to be trusted."""
        return self._shelf.sandbox.path

    @property
    def path_reason(self) -> str:
        """Why the fast path is not used; empty when it is."""
        return self._shelf.sandbox.path_reason

    @property
    def cache(self) -> ModuleCache:
        """The compiled modules."""
        return self._shelf.sandbox.cache

    def on_notice(self, listener: Callable[[Notice], None]) -> None:
        """Tell `listener`, on this thread, what happens to plugins from now on."""
        self._shelf.on_notice(listener)

    def load_all(self) -> list[PluginStatus]:
        """Find and load every plugin; a folder whose id another one has already is ignored. Returns the statuses."""
        self._shelf.load_all()
        return self.plugins()

    def close(self) -> None:
        """Free every plugin; end the watchdog, the loader's thread, and those of calls once these are answered."""
        self._shelf.close()

    # -- for traffic ----------------------------------------------------------------------------------------------

    def codec(self, plugin_id: str) -> Codec:
        """The codec in use now; raises NotFound, NotReady in quarantine, or ConfigError saying why it does not run."""
        return self._shelf.known(plugin_id).codec()

    async def call(
        self, plugin_id: str, args: dict[str, Any], *, timeout_s: float, most_bytes: int | None = None
    ) -> Any:
        """Hand a plugin of a kind other than codec plain arguments and return its plain answer, on a thread of its own.

        most_bytes: what the caller takes of msgpack; the manifest's max_output where not said. Raises NotFound,
        NotReady (it does not run now, or has no time) or CodecError (PluginTrapped included).
        """
        return await self._lane(plugin_id).call(args, timeout_s=timeout_s, most_bytes=most_bytes)

    def running(self, plugin_id: str) -> Release:
        """The version that runs now, the same object until another does. Raises NotFound or NotReady."""
        slot = self._shelf.known(plugin_id)
        slot.tick()
        if slot.running is None:
            raise NotReady(f"plugin {plugin_id} is {slot.state.replace('_', ' ')}: {slot.reason}")
        return slot.running.release

    def start_here(self, release: Release) -> Program:
        """A new instance on this thread, for the caller to close; its faults count as those of the version in use.

        Raises ConfigError, CodecError or PluginTrapped.
        """
        running = self._shelf.known(release.id).running
        if running is None or running.release is not release:
            return self._shelf.starter.start(release, self._shelf.sandbox)
        return self._shelf.starter.start(release, self._shelf.sandbox, running.services, strikes=running.strikes)

    def _lane(self, plugin_id: str) -> CallLane:
        return self._shelf.known(plugin_id).lane()

    # -- showing --------------------------------------------------------------------------------------------------

    def manifest(self, plugin_id: str) -> Manifest:
        """The manifest of the version in use; raises NotFound, or ConfigError where none could be read."""
        return self._release(plugin_id).manifest

    def framing(self, plugin_id: str) -> FramingSpec | None:
        """The framing that the manifest names, None where it names none; raises as `manifest` does."""
        return self._release(plugin_id).framing

    def granted(self, plugin_id: str) -> frozenset[str]:
        """Capabilities that the manifest asks for and the operator grants. Raises as `manifest` does."""
        return self.manifest(plugin_id).caps.asked() & self._shelf.may_use(plugin_id)

    def plugins(self) -> list[PluginStatus]:
        """Every plugin, by id."""
        return [self.status(slot.id) for slot in self._shelf]

    def status(self, plugin_id: str) -> PluginStatus:
        """One plugin; raises NotFound."""
        return status_of(self._shelf.known(plugin_id), self._shelf.may_use(plugin_id))

    def samples(self) -> Iterator[Sample]:
        """Figures of every plugin for `/metrics`."""
        yield from plugin_samples(self.plugins())
        for slot in self._shelf:
            yield from module_samples(slot.id, self._shelf.starter.loads.of(slot.id))

    # -- trying ---------------------------------------------------------------------------------------------------

    def try_decode(self, plugin_id: str, inputs: Sequence[bytes]) -> list[list[FrameOutcome]]:
        """Run framing and codec over bytes as on the wire, each input as a stream of its own. Raises as `trial`."""
        with self.trial(plugin_id) as trial:
            return [[outcome for part in trial.decode(data, len(data) + 1) for outcome in part] for data in inputs]

    @contextmanager
    def trial(self, plugin_id: str) -> Iterator[Trial]:
        """An instance of its own to try payloads on: trying leaves no trace in the running codec.

        Raises NotFound, NotReady, or ConfigError where the plugin does not run.
        """
        release = self._codecs_release(plugin_id)
        with closing(WasmCodec(self._shelf.starter.start(release, self._shelf.sandbox))) as codec:
            yield Trial(codec, release.framing)

    async def on_trial(self, plugin_id: str, work: Callable[[Trial], T]) -> T:
        """Do `work` on such an instance, on a thread of its own and in bounded time, while the loop goes on.

        Raises as `trial`, NotReady where too many trials wait, and what `work` raises.
        """
        self.codec(plugin_id)
        running = self._shelf.known(plugin_id).running
        if running is None:
            raise NotReady(f"plugin {plugin_id} does not run")
        return await self._shelf.trials.on(running.proven, work)

    def try_encode(self, plugin_id: str, request: dict[str, Any], aux: int = 0) -> bytes:
        """Encode a request on an instance of its own; raises CodecError beside what try_decode raises."""
        release = self._codecs_release(plugin_id)
        with closing(WasmCodec(self._shelf.starter.start(release, self._shelf.sandbox))) as codec:
            return codec.encode(msgspec.msgpack.encode(request), aux)

    def run_vectors(self, plugin_id: str) -> list[VectorResult]:
        """Run the manifest's vectors on a fresh instance; raises NotFound, ConfigError or CodecError."""
        return self._shelf.starter.prove(self._release(plugin_id), self._shelf.sandbox)

    # -- what people decide ---------------------------------------------------------------------------------------

    async def discover(self, plugin_id: str) -> None:
        """Know a plugin that was installed just now, and run nothing of it. Raises NotFound where it is not there."""
        survey = await self._shelf.loader.aside(partial(self._shelf.sources.survey, plugin_id))
        if not survey.found:
            raise NotFound(f"no plugin {plugin_id!r}")
        self._shelf.slot(plugin_id).survey = survey

    async def activate(self, plugin_id: str, version: str) -> PluginStatus:
        """Let a version run from now on, over restarts, too; the status says whether it runs or waits for a grant.

        Raises NotFound, StorageFailed, or ConfigError or CodecError saying why the version is not taken; then the old
        one goes on.
        """
        return await self._activate(plugin_id, version)

    async def _activate(self, plugin_id: str, version: str, digest: str | None = None) -> PluginStatus:
        """Activate a version, which must have this digest where one is named."""
        async with self._shelf.changing(plugin_id) as slot:
            survey = await self._shelf.look(slot)
            found = survey.version(version)
            if found is None:
                why = survey.refused.get(version)
                raise ConfigError(why) if why else NotFound(f"plugin {plugin_id!r} has no version {version!r}")
            slot.pardon(version)
            verdict = await self._shelf.judge(slot, found, again=slot.running is None)
            if isinstance(verdict, Refusal) and verdict.state != "waiting":
                slot.refuse(verdict)
                raise ConfigError(f"plugin {plugin_id} {version}: {verdict.reason}")
            if digest is not None and isinstance(verdict, Proven) and verdict.release.digest != digest:
                raise Conflict(f"plugin {plugin_id} {version} was changed since its shadow began; shadow it again")
            decided = _decided_for(slot, survey.decisions, found)
            await self._shelf.decide(slot, decided)
            try:
                self._shelf.take(slot, verdict)
            except GatewayError:
                await self._shelf.decide(slot, survey.decisions)
                raise
        await self._shelf.follow_runtime(plugin_id)
        return self.status(plugin_id)

    async def rollback(self, plugin_id: str) -> PluginStatus:
        """Go back to the version that ran before. Raises NotFound, Conflict where there is none, else as `activate`."""
        slot = self._shelf.known(plugin_id)
        before, named = slot.before, self._shelf.sources.decisions(plugin_id).previous
        if before is None:
            if named is None:
                raise Conflict(f"plugin {plugin_id} has no version to go back to")
            return await self.activate(plugin_id, named)
        async with self._shelf.changing(plugin_id) as slot:
            survey = await self._shelf.look(slot)
            left = slot.current
            slot.pardon(before.proven.release.version)
            await self._shelf.decide(slot, _decided_for(slot, survey.decisions, before.proven.found, left))
            try:
                self._shelf.take(slot, before.proven)
            except GatewayError:
                await self._shelf.decide(slot, survey.decisions)
                raise
            if left is not None:
                slot.bar(left.release)  # a folder's new content does not come back by itself
        await self._shelf.follow_runtime(plugin_id)
        return self.status(plugin_id)

    async def disable(self, plugin_id: str) -> PluginStatus:
        """Run no version until the plugin is enabled again, over restarts, too. Raises NotFound, StorageFailed."""
        async with self._shelf.changing(plugin_id) as slot:
            decisions = (await self._shelf.look(slot)).decisions
            await self._shelf.decide(slot, msgspec.structs.replace(decisions, disabled=True))
            slot.stop("disabled", "somebody disabled it")
        return self.status(plugin_id)

    async def enable(self, plugin_id: str) -> PluginStatus:
        """Let the plugin run again; the status says whether it does. Raises NotFound, StorageFailed."""
        async with self._shelf.changing(plugin_id) as slot:
            decisions = (await self._shelf.look(slot)).decisions
            await self._shelf.decide(slot, msgspec.structs.replace(decisions, disabled=False))
            await self._shelf.reconcile(slot, await self._shelf.look(slot))
        return self.status(plugin_id)

    async def grant(self, plugin_id: str, caps: Sequence[Capability]) -> PluginStatus:
        """Let the plugin use capabilities beside the default ones, and let a version run that waited for them.

        Raises NotFound, StorageFailed, or Conflict where the configuration says what it may use.
        """
        return await self._allow(plugin_id, lambda granted: tuple(sorted({*granted, *caps})))

    async def revoke(self, plugin_id: str) -> PluginStatus:
        """Take back all capabilities beside the default ones; a version that asks for one runs no more.

        Raises as `grant`.
        """
        return await self._allow(plugin_id, lambda _granted: None)

    async def _allow(self, plugin_id: str, change: Callable[[tuple[str, ...]], tuple[str, ...] | None]) -> PluginStatus:
        if plugin_id in self._config.grants:
            raise Conflict(f"[wasm.grants] says what {plugin_id} may use; change it there, or take the entry out")
        async with self._shelf.changing(plugin_id) as slot:
            decisions = (await self._shelf.look(slot)).decisions
            granted = change(decisions.granted or ())
            await self._shelf.decide(slot, msgspec.structs.replace(decisions, granted=granted))
            await self._shelf.reconcile(slot, await self._shelf.look(slot))
        await self._shelf.follow_runtime(plugin_id)
        return self.status(plugin_id)

    async def remove(self, plugin_id: str, version: str | None = None) -> None:
        """Remove an installed version, or all of them with every decision; a folder's version then runs.

        Raises NotFound, StorageFailed, or Conflict for the version in use and for what is not installed.
        """
        async with self._shelf.changing(plugin_id) as slot:
            current = slot.current
            used = None if current is None or current.found.source == "folder" else current.found.version
            if version is not None and version == used:
                raise Conflict(f"{plugin_id} {version} is in use; activate another version first")
            await self._shelf.loader.aside(lambda: self._shelf.sources.remove(plugin_id, version))
            if slot.before is not None and version in {None, slot.before.proven.found.version}:
                slot.before = None
            if not (await self._shelf.look(slot)).found:
                slot.stop("refused", "it was removed")
            else:
                await self._shelf.reconcile(slot, await self._shelf.look(slot))
            self._shelf.forget_if_gone(slot)

    # -- shadow ---------------------------------------------------------------------------------------------------

    async def shadow(self, plugin_id: str, version: str, minutes: float) -> ShadowReport:
        """Let a version decode copies of live frames beside the one in use. Ends a shadow that runs.

        Raises NotFound, NotReady, Conflict, or ConfigError saying why the version cannot run.
        """
        if not 0 < minutes <= MOST_SHADOW_MINUTES:
            raise ConfigError(f"a shadow runs for more than 0 and at most {MOST_SHADOW_MINUTES:g} minutes")
        async with self._shelf.changing(plugin_id) as slot:
            survey = await self._shelf.look(slot)
            found = survey.version(version)
            if found is None:
                raise NotFound(f"plugin {plugin_id!r} has no version {version!r}")
            slot.codec()  # raises where it does not run, or is no codec
            verdict = await self._shelf.judge(slot, found)
            live = slot.codec()
            if isinstance(verdict, Unchanged):
                raise Conflict(f"plugin {plugin_id} {version} is the version in use")
            if isinstance(verdict, Refusal):
                raise ConfigError(f"plugin {plugin_id} {version}: {verdict.reason}")
            if verdict.release.manifest.kind != "codec" or slot.running is None:
                raise Conflict(f"plugin {plugin_id} {version} is no codec: only codecs have live frames to look at")
            self.stop_shadow(plugin_id)
            services = self._shelf.starter.services_on_trial(verdict.release, slot.running.services)
            slot.shadow = live.tap = Shadow(
                verdict.release,
                slot.running.release,
                self._shelf.starter,
                self._shelf.make_sandbox,
                services,
                self._shelf.clock,
                minutes,
            )
        return slot.shadow.report()

    def stop_shadow(self, plugin_id: str) -> None:
        """End a shadow, if one runs; its report stays until the next. Raises NotFound."""
        slot = self._shelf.known(plugin_id)
        if slot.shadow is not None:
            slot.shadow.stop("somebody stopped it")
        slot.tick()

    def shadow_report(self, plugin_id: str) -> ShadowReport | None:
        """What came of the last shadow; None where there was none. Raises NotFound."""
        slot = self._shelf.known(plugin_id)
        return None if slot.shadow is None else slot.shadow.report()

    async def promote(self, plugin_id: str) -> PluginStatus:
        """Activate the version in shadow, if it is still the same. Raises Conflict where not, else as `activate`."""
        slot = self._shelf.known(plugin_id)
        if slot.shadow is None:
            raise Conflict(f"plugin {plugin_id} has no version in shadow")
        release = slot.shadow.release
        return await self._activate(plugin_id, release.version, release.digest)

    # -- watching -------------------------------------------------------------------------------------------------

    async def watch(self, poll_s: float) -> None:
        """Follow folders and installed versions for ever; a supervised part."""
        looked_at_s = self._shelf.clock.monotonic_s()
        while True:
            await asyncio.sleep(min(_TICK_S, poll_s))
            await self.attend()
            if self._shelf.clock.monotonic_s() - looked_at_s >= poll_s:
                looked_at_s = self._shelf.clock.monotonic_s()
                await self.poll()

    async def attend(self) -> None:
        """See to what is due in every plugin, and keep what plugins' failures decided."""
        await self._shelf.attend()

    async def poll(self) -> None:
        """Look at all versions and decisions; a change that is seen twice the same is acted on."""
        await self._shelf.poll()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _release(self, plugin_id: str) -> Release:
        slot = self._shelf.known(plugin_id)
        if slot.release is None:
            raise ConfigError(f"plugin {plugin_id}: {slot.reason}")
        return slot.release

    def _codecs_release(self, plugin_id: str) -> Release:
        self.codec(plugin_id)
        return self._release(plugin_id)


def _decided_for(slot: Slot, decisions: Decisions, found: Found, left: Proven | None = None) -> Decisions:
    """Decisions after a version was chosen: the folder's is chosen by naming none."""
    leaving = left or slot.current
    previous = decisions.previous
    if leaving is not None and leaving.release.version != found.version:
        previous = leaving.release.version
    active = found.version if found.source == "installed" else None
    return msgspec.structs.replace(decisions, active=active, previous=previous, disabled=False)
