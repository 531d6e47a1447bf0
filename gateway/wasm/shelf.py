"""Every plugin's slot, kept in line with what lies ready and with what people decided.

Owns finding, loading and following versions, for all plugins of the process: what is judged on the loader's thread is
taken into use on the loop's. Knows neither who asks nor what for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog
import wasmtime

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, GatewayError, NotFound
from gateway.wasm.area import Decisions, PluginArea
from gateway.wasm.config import WasmConfig
from gateway.wasm.loader import Loader, Proven, Refusal, Unchanged, Verdict
from gateway.wasm.release import Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.slot import Notice, Slot
from gateway.wasm.trial import TrialRoom
from gateway.wasm.versions import Found, PluginSources, Survey

log = structlog.get_logger(__name__)


class PluginShelf:
    """All slots. Every call must come from the thread that made the shelf, its loop's."""

    def __init__(
        self,
        config: WasmConfig,
        plugin_dirs: Sequence[Path],
        cache_dir: Path | None,
        clock: Clock,
        area: PluginArea | None,
    ) -> None:
        """Load nothing yet; the parameters are the host's."""
        self.clock = clock
        self._config = config
        self._cache_dir = cache_dir
        self.sandbox = self.make_sandbox()
        self.starter = Starter(config, clock, self.may_use)
        self.sources = PluginSources(plugin_dirs, area)
        self.loader = Loader(
            config, self.starter, self.sandbox, self.make_sandbox, runtime=self._runtime, granted=self.may_use
        )
        self.trials = TrialRoom(self.starter, self.make_sandbox)
        self._slots: dict[str, Slot] = {}
        self._listeners: list[Callable[[Notice], None]] = []

    def load_all(self) -> None:
        """Find and load every plugin; a folder whose id another one has already is ignored."""
        for folder, kept in self.sources.ignored():
            log.error("plugin ignored", plugin=folder.name, folder=str(folder), reason=f"also in {kept}")
        for survey in self.sources.survey_all():
            slot = self.slot(survey.id)
            slot.survey, slot.acted_on = survey, survey.mark
        for slot in self._slots.values():
            self._load(slot)
            log.info("plugin found", plugin=slot.id, state=slot.state, reason=slot.reason)

    def close(self) -> None:
        """Free every plugin; end the watchdog, the threads of loading and trying, those of calls once answered."""
        self.trials.close()
        self.loader.close()
        for slot in self._slots.values():
            slot.close()
        for slot in self._slots.values():
            slot.join()
        self.sandbox.close()

    def on_notice(self, listener: Callable[[Notice], None]) -> None:
        """Tell `listener`, on this thread, what happens to plugins from now on."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[Slot]:
        """Every slot as of now, by id."""
        return iter([self._slots[plugin_id] for plugin_id in sorted(self._slots)])

    def known(self, plugin_id: str) -> Slot:
        """A plugin's slot. Raises NotFound."""
        slot = self._slots.get(plugin_id)
        if slot is None:
            raise NotFound(f"no plugin {plugin_id!r}")
        return slot

    def slot(self, plugin_id: str) -> Slot:
        """A plugin's slot, an empty one where there was none."""
        slot = self._slots.get(plugin_id)
        if slot is None:
            slot = self._slots[plugin_id] = Slot(
                plugin_id, self._config, self.clock, self.starter, self.sandbox, self.make_sandbox, self._notify
            )
        return slot

    @asynccontextmanager
    async def changing(self, plugin_id: str) -> AsyncIterator[Slot]:
        """A plugin's slot, whose versions nobody else changes meanwhile. Raises NotFound."""
        slot = self.known(plugin_id)
        async with slot.lock:
            yield slot

    def make_sandbox(self) -> Sandbox:
        """A sandbox for another thread, which closes it."""
        return Sandbox(self._config, self._cache_dir)

    def may_use(self, plugin_id: str) -> frozenset[str]:
        """Capabilities that a plugin may use; called from any thread."""
        if plugin_id in self._config.grants:
            return frozenset(self._config.grants[plugin_id])
        slot = self._slots.get(plugin_id)
        granted = None if slot is None or slot.survey is None else slot.survey.decisions.granted
        return frozenset({*self._config.default_grants, *(granted or ())})

    # -- following ------------------------------------------------------------------------------------------------

    async def attend(self) -> None:
        """See to what is due in every slot, and keep what slots decided by themselves."""
        for slot in self:
            slot.tick()
            if slot.rolled_back_from is None or slot.current is None or slot.lock.locked():
                continue
            async with slot.lock:
                decisions = await self.loader.aside(partial(self.sources.decisions, slot.id))
                found = slot.current.found
                active = found.version if found.source == "installed" else None
                try:
                    await self.decide(slot, msgspec.structs.replace(decisions, active=active, previous=None))
                except GatewayError as failure:
                    log.error("a rollback is not kept over a restart", plugin=slot.id, reason=str(failure))
                slot.rolled_back_from = None

    async def poll(self) -> None:
        """Look at all versions and decisions; a change that is seen twice the same is acted on."""
        surveys = {survey.id: survey for survey in await self.loader.aside(self.sources.survey_all)}
        for plugin_id in [name for name in self._slots if name not in surveys]:
            surveys[plugin_id] = await self.loader.aside(partial(self.sources.survey, plugin_id))
        for survey in surveys.values():
            slot = self.slot(survey.id)
            if slot.lock.locked():
                continue  # somebody changes it now: the next look sees what came of that, and others need not wait
            if slot.acted_on == survey.mark:
                slot.glimpsed = None
            elif slot.glimpsed != survey.mark:
                slot.glimpsed = survey.mark
            else:
                slot.glimpsed = None
                async with slot.lock:
                    await self.reconcile(slot, survey)
                    self.forget_if_gone(slot)
                await self.follow_runtime(slot.id)

    async def reconcile(self, slot: Slot, survey: Survey) -> None:
        """Let run what is meant to run; where it cannot, what runs goes on. The caller holds the slot's lock."""
        slot.survey, slot.acted_on = survey, survey.mark
        if slot.current is not None and slot.current.release.manifest.caps.asked() - self.may_use(slot.id):
            slot.stop("waiting", "a capability that it asks for was taken back")
        for found in self._meant(slot, survey):
            if self._settle(slot, await self.judge(slot, found)) or slot.current is not None:
                return

    async def follow_runtime(self, plugin_id: str) -> None:
        """Load again whatever is run by a plugin's module, if that changed."""
        for slot in self:
            release = slot.release
            if (release is None and slot.state == "refused") or (release and release.manifest.runtime == plugin_id):
                async with slot.lock:
                    await self.reconcile(slot, await self.look(slot))

    def forget_if_gone(self, slot: Slot) -> None:
        """Forget a plugin of which nothing lies ready and nothing runs."""
        if slot.survey is None or slot.survey.found or slot.survey.refused or slot.current is not None:
            return
        slot.close()
        self._slots.pop(slot.id, None)
        self.starter.loads.forget(slot.id)
        log.info("plugin removed", plugin=slot.id)

    # -- single steps ---------------------------------------------------------------------------------------------

    async def look(self, slot: Slot) -> Survey:
        """What lies ready of a plugin now, and what is decided about it."""
        slot.survey = survey = await self.loader.aside(partial(self.sources.survey, slot.id))
        return survey

    async def decide(self, slot: Slot, decisions: Decisions) -> None:
        """Keep decisions, and know of them at once. Raises StorageFailed."""
        await self.loader.aside(partial(self.sources.decide, slot.id, decisions))
        await self.look(slot)

    async def judge(self, slot: Slot, found: Found, *, again: bool = False) -> Verdict:
        """Judge a version; `again`: even if it is the one that the slot has."""
        using = None if again or slot.current is None else slot.current.release.digest
        return await self.loader.judge_aside(found, using, tuple(slot.barred))

    def take(self, slot: Slot, verdict: Verdict) -> bool:
        """Act on a verdict; whether the version runs.

        Raises ConfigError, CodecError or NotReady where one that was proven does not start with the operator's
        settings.
        """
        match verdict:
            case Proven():
                try:
                    slot.use(verdict)
                except wasmtime.WasmtimeError as failure:
                    text = f"plugin {slot.id} {verdict.release.version} does not start: {failure}"
                    raise ConfigError(text) from failure
            case Unchanged():
                slot.settled()
            case Refusal():
                slot.refuse(verdict)
                return False
        return True

    def _settle(self, slot: Slot, verdict: Verdict) -> bool:
        """Act on a verdict; one that does not start is refused, too."""
        try:
            return self.take(slot, verdict)
        except GatewayError as error:
            release = verdict.release if isinstance(verdict, Proven) else None
            slot.refuse(Refusal(found=verdict.found, state="refused", reason=str(error), release=release))
            return False

    def _load(self, slot: Slot) -> None:
        """Bring a plugin up at the start, on this thread; nothing a plugin does here ends the gateway."""
        if slot.survey is None:
            return
        for found in self._meant(slot, slot.survey):
            if self._settle(slot, self.loader.judge(found, barred=slot.barred)):
                return
        if slot.state == "disabled":
            slot.release = self.loader.read(slot.survey.preferred())  # its framing is asked for all the same

    def _meant(self, slot: Slot, survey: Survey) -> list[Found]:
        """What is meant to run, first choice first; stops a plugin of which nothing is."""
        if survey.decisions.disabled:
            if slot.state != "disabled":
                slot.stop("disabled", "somebody disabled it")
            return []
        preferred = survey.preferred()
        if not preferred and slot.state == "running":
            slot.reason = "nothing of it lies ready any more; it runs until the gateway stops"
        elif not preferred:
            refusals = "; ".join(f"{version}: {reason}" for version, reason in survey.refused.items())
            slot.stop("refused", refusals or "nothing of it lies ready any more")
        return preferred

    def _runtime(self, plugin_id: str) -> Release:
        """The release whose module runs another plugin's script; called from any thread. Raises ConfigError."""
        slot = self._slots.get(plugin_id)
        if slot is not None and slot.release is not None:
            return slot.release
        preferred = [] if slot is None or slot.survey is None else slot.survey.preferred()
        if not preferred:
            raise ConfigError(f"its runtime {plugin_id!r} is not among the plugins")
        return read_release(preferred[0].folder, self._config, _no_runtime)

    def _notify(self, notice: Notice) -> None:
        for listener in self._listeners:
            listener(notice)


def _no_runtime(plugin_id: str) -> Release:
    raise ConfigError(f"a runtime cannot have a runtime of its own ({plugin_id!r})")
