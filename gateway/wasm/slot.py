"""One plugin while the gateway runs: the version in use, the one before it, and those that are still leaving.

Owns the swap, on the loop's thread and between two calls by nature: whoever asks for the codec gets the version in use
now. Owns what follows strikes: the way back to the version before, or quarantine. Reads no file and decides nothing for
good; what lies ready and what people want is told to it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, NamedTuple

import structlog
import wasmtime

from gateway.core.clock import Clock
from gateway.core.errors import CodecError, ConfigError, GatewayError, NotReady
from gateway.wasm.abi import UNSUPPORTED
from gateway.wasm.codec import Codec
from gateway.wasm.config import WasmConfig
from gateway.wasm.fastcall import CallPath
from gateway.wasm.host import WasmCodec
from gateway.wasm.imports import HostServices
from gateway.wasm.lane import CallLane
from gateway.wasm.loader import Proven, Refusal
from gateway.wasm.release import Release, Starter
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.shadow import Shadow
from gateway.wasm.stats import PluginStats, summed
from gateway.wasm.status import Handover, LifeCounters, LoadFailure, PluginState, VersionFigures, Waiting
from gateway.wasm.strikes import Quarantine, Strikes
from gateway.wasm.vectors import VectorResult
from gateway.wasm.versions import Survey

log = structlog.get_logger(__name__)

RETIRE_S: Final = 10.0
"""How long a version that was replaced still encodes the acknowledgements of frames that it decoded."""
MOST_RETIRED: Final = 4
"""Replaced versions kept for that; what an older one still owes is encoded by the version in use."""
_MOST_BARRED: Final = 16
"""Releases that struck out and are remembered, so that they do not come back by themselves."""


class Notice(NamedTuple):
    """Something that happened to a plugin.

    type: `plugin.started`, `swapped`, `refused`, `waiting`, `quarantined`, `rolled_back` or `stopped`.
    """

    type: str
    data: dict[str, Any]


class Running:
    """A version in use."""

    def __init__(
        self,
        proven: Proven,
        services: HostServices,
        strikes: Strikes,
        *,
        codec: WasmCodec | None = None,
        lane: CallLane | None = None,
    ) -> None:
        """Hold what runs: a codec on the loop's thread, or a lane of calls on threads of its own."""
        self.proven = proven
        self.services = services
        self.strikes = strikes
        self.codec = codec
        self.lane = lane
        self.since_ms = 0
        self.calls_before = 0
        self.frames_before = 0

    @property
    def release(self) -> Release:
        """What it was started from."""
        return self.proven.release


class Before(NamedTuple):
    """The version that ran before the one in use. well: it did its work and did not strike out."""

    proven: Proven
    well: bool


class Slot:
    """One plugin id. Every call must come from the loop's thread."""

    survey: Survey | None = None
    """What was seen last of what lies ready, with what is decided."""
    acted_on: str | None = None
    """Mark of the survey that was acted on last."""
    glimpsed: str | None = None
    """Mark of a change that was seen once; acted on when it is seen again."""

    def __init__(
        self,
        plugin_id: str,
        config: WasmConfig,
        clock: Clock,
        starter: Starter,
        sandbox: Sandbox,
        make_sandbox: Callable[[], Sandbox],
        notify: Callable[[Notice], None],
    ) -> None:
        """Run nothing yet."""
        self.id = plugin_id
        self._config = config
        self._clock = clock
        self._starter = starter
        self._sandbox = sandbox
        self._make_sandbox = make_sandbox
        self._notify = notify
        self.lock = asyncio.Lock()
        """Held by whoever changes which version runs, over all that it waits for."""
        self.state: PluginState = "refused"
        self.reason = "not loaded yet"
        self.release: Release | None = None
        """Of the version in use, else of the one that was refused last."""
        self.vectors: list[VectorResult] = []
        self.running: Running | None = None
        self.before: Before | None = None
        self.barred: OrderedDict[str, str] = OrderedDict()
        """Digests of releases that struck out, with their versions."""
        self.waiting: Waiting | None = None
        self.last_failure: LoadFailure | None = None
        self.handover: Handover | None = None
        self.life = LifeCounters()
        self.quarantine = Quarantine(config, clock)
        self.shadow: Shadow | None = None
        self.rolled_back_from: str | None = None
        """Version that a rollback left by itself; set until that was decided for good."""
        self._stats = PluginStats()
        self._past_calls = PluginStats()
        self._services: HostServices | None = None
        self._held: Proven | None = None
        self._probing = False
        self._closed = False
        self._taken_out = ""
        self._retired: deque[tuple[float, WasmCodec]] = deque()
        self._leaving: deque[CallLane] = deque()

    # -- for traffic ----------------------------------------------------------------------------------------------

    def codec(self) -> WasmCodec:
        """The codec of the version in use. Raises NotReady in quarantine, ConfigError where it cannot run."""
        running = self.running
        if running is None or running.strikes.fresh:
            running = self._attended()
        if running.codec is None:
            raise ConfigError(f"plugin {self.id} is no codec")
        return running.codec

    def lane(self) -> CallLane:
        """The lane of the version in use. Raises NotReady where it does not run, CodecError for a codec."""
        try:
            running = self._attended()
        except ConfigError as failure:
            raise NotReady(str(failure)) from failure
        if running.lane is None:
            raise CodecError(UNSUPPORTED, f"plugin {self.id} is a codec: it decodes and encodes, but takes no calls")
        return running.lane

    def tick(self) -> None:
        """See to what is due: strikes, the end of a quarantine, versions that have left. Cheap; call it each second."""
        self._retire()
        if self.running is not None and self.shadow is not None and not self.shadow.running and self.running.codec:
            self.running.codec.tap = None
        if (self.running is not None and self.running.strikes.fresh) or self.state == "quarantined":
            try:
                self._attended()
            except (NotReady, ConfigError):
                return  # its state says so

    # -- changing versions ----------------------------------------------------------------------------------------

    @property
    def current(self) -> Proven | None:
        """The version in use, or the one that is held in quarantine."""
        return self._held if self.running is None else self.running.proven

    def use(self, proven: Proven, *, carry: bool = True) -> None:
        """Take a version into use: start it, hand state over, let the last one leave.

        Raises GatewayError or WasmtimeError where it does not start, with nothing changed.
        """
        if self._closed:
            raise NotReady(f"plugin {self.id}: the gateway stops")
        old, known = self.running, self.release
        running = self._started(proven, old if carry else None)
        if old is not None:
            self.before = Before(old.proven, self._did_well(old))
            self.life.swaps += 1
            self._let_go(old, f"version {proven.release.version} came into use")
        running.since_ms = self._clock.now_ms()
        figures = self.stats()
        running.calls_before, running.frames_before = figures.calls, figures.decoded
        self._services = running.services
        self.running = running
        self.release, self.vectors = proven.release, proven.vectors
        if self._held is not None and self._held.release.digest == proven.release.digest:
            self.quarantine.leave()
        else:
            self.quarantine.forget()
        self.state, self.reason, self.waiting, self._held = "running", "", None, None
        self._probing = False
        self._taken_out = ""
        self._say_in_use(proven.release, None if old is None else old.release, known)

    def settled(self) -> None:
        """Note that what is meant to run is what runs."""
        self.waiting = None
        if self.running is not None:
            self.reason = self._taken_out

    def refuse(self, refusal: Refusal) -> None:
        """Note a version that is not taken; what runs goes on."""
        version = refusal.found.version or "?"
        before = (self.state, self.reason)
        if refusal.state == "waiting":
            self.waiting = Waiting(version=version, missing=refusal.missing)
        else:
            self.waiting = None
            self.life.refusals += 1
            failed_at_ms = self._clock.now_ms()
            self.last_failure = LoadFailure(version=version, reason=refusal.reason, at_ms=failed_at_ms)
        if self.running is None and self.state != "quarantined":
            self.state, self.reason = refusal.state, refusal.reason
            self.release, self.vectors = refusal.release or self.release, refusal.vectors
        else:
            self.reason = f"version {version} is not used: {refusal.reason}"
        if before != (self.state, self.reason):  # said once, however often it is looked at
            what = "waiting" if refusal.state == "waiting" else "refused"
            self._tell(what, version=version, reason=refusal.reason)

    def stop(self, state: PluginState, reason: str) -> None:
        """Run no version any more."""
        if self.running is not None:
            self._let_go(self.running, reason)
            self.running = None
            self._tell("stopped", reason=reason)
        self._held = None
        self.quarantine.forget()
        self.state, self.reason, self.waiting = state, reason, None

    def bar(self, release: Release) -> None:
        """Let a release not come back by itself."""
        self.barred[release.digest] = release.version
        self.barred.move_to_end(release.digest)
        while len(self.barred) > _MOST_BARRED:
            self.barred.popitem(last=False)

    def pardon(self, version: str) -> None:
        """Let a version that struck out be tried again."""
        for digest in [digest for digest, name in self.barred.items() if name == version]:
            del self.barred[digest]

    def close(self) -> None:
        """Free everything at once; nobody is told any more, and a shadow's thread ends in the background."""
        self._notify, self._closed = _tell_nobody, True
        self.stop("disabled", "the gateway stops")
        while self._retired:
            self._retired.popleft()[1].close(self._current)
        if self.shadow is not None:
            self.shadow.stop("the plugin is gone, or the gateway stops")

    def join(self) -> None:
        """Wait for the thread of a shadow, once closed."""
        if self.shadow is not None:
            self.shadow.join()

    # -- figures --------------------------------------------------------------------------------------------------

    @property
    def path(self) -> CallPath:
        """How its guests are called, on whatever thread."""
        return self._sandbox.path

    def stats(self) -> PluginStats:
        """Counters since the start, over all versions."""
        lanes = [*self._leaving]
        if self.running is not None and self.running.lane is not None:
            lanes.append(self.running.lane)
        if not lanes and not self._past_calls.calls:
            return self._stats
        return summed([self._stats, self._past_calls, *(lane.stats for lane in lanes)])

    def figures(self) -> VersionFigures | None:
        """What the version in use has done."""
        running = self.running
        if running is None:
            return None
        stats = self.stats()
        return VersionFigures(
            since_ms=running.since_ms,
            calls=stats.calls - running.calls_before,
            frames=stats.decoded - running.frames_before,
            strikes=running.strikes.total,
        )

    def strikes(self) -> int:
        """Strikes of the version in use within the window."""
        return 0 if self.running is None else self.running.strikes.within(self._config.strike_window_s)

    # -- starting and leaving -------------------------------------------------------------------------------------

    def _started(self, proven: Proven, old: Running | None) -> Running:
        release = proven.release
        services = self._starter.services(release, self._services)
        strikes = Strikes(self._clock)
        if release.manifest.kind != "codec":
            after = None if old is None else old.lane
            lane = CallLane(
                release,
                self._starter,
                self._make_sandbox,
                self._clock,
                services=services,
                strikes=strikes,
                after=after,
            )
            self.handover = None if after is None else _left_to(after.release, release)
            return Running(proven, services, strikes, lane=lane)
        program = self._starter.start(release, self._sandbox, services, self._stats, strikes=strikes)
        codec = WasmCodec(program)
        if old is not None and old.codec is not None:
            self.handover = _hand_over(old.codec, codec)
        else:
            self.handover = None
        return Running(proven, services, strikes, codec=codec)

    def _let_go(self, old: Running, why: str) -> None:
        """Let a version leave: it is asked nothing new, and still answers what it began."""
        if self.shadow is not None:
            self.shadow.stop(why)
        if old.codec is not None:
            old.codec.tap = None
            self._retired.append((self._clock.monotonic_s() + RETIRE_S, old.codec))
        if old.lane is not None:
            old.lane.close()
            self._leaving.append(old.lane)
        self._retire()

    def _retire(self) -> None:
        """Free the versions whose time is over, and the oldest where they are too many."""
        now_s = self._clock.monotonic_s()
        while self._retired and (len(self._retired) > MOST_RETIRED or self._retired[0][0] <= now_s):
            self._retired.popleft()[1].close(self._current)
        while self._leaving and (len(self._leaving) > MOST_RETIRED or not self._leaving[0].threads):
            self._past_calls = summed([self._past_calls, self._leaving.popleft().stats])

    def _current(self) -> Codec:
        """What encodes for a version that has left."""
        try:
            return self.codec()
        except ConfigError as failure:
            raise NotReady(str(failure)) from failure

    def _say_in_use(self, new: Release, old: Release | None, known: Release | None) -> None:
        """Tell that a version came into use; `known` is what listeners took their framing from, if there was any."""
        changed = known is not None and known.framing != new.framing
        if old is None:
            self._tell("started", version=new.version, framing_changed=changed)
            return
        handover = "" if self.handover is None else f"{self.handover.outcome} {self.handover.reason}".rstrip()
        self._tell("swapped", version=new.version, before=old.version, state=handover, framing_changed=changed)

    def _tell(self, what: str, **data: Any) -> None:
        say = log.info if what in {"started", "swapped", "stopped"} else log.warning
        say(f"plugin {what.replace('_', ' ')}", plugin=self.id, **data)
        self._notify(Notice(f"plugin.{what}", {"plugin": self.id, **data}))

    # -- strikes --------------------------------------------------------------------------------------------------

    def _attended(self) -> Running:
        """What runs after strikes were counted and a quarantine that is over has ended. Raises as `codec`."""
        if self.running is not None and self.running.strikes.fresh:
            self._count_strikes(self.running)
        if self.running is None and self.state == "quarantined" and self._held is not None and self.quarantine.over:
            self._probe(self._held)
        if self.running is not None:
            return self.running
        text = f"plugin {self.id} is {self.state.replace('_', ' ')}: {self.reason}"
        raise NotReady(text) if self.state == "quarantined" else ConfigError(text)

    def _count_strikes(self, running: Running) -> None:
        window_s = self._config.strike_window_s
        running.strikes.fresh = False
        recent = running.strikes.within(window_s)
        if running.strikes.failed_starts >= self._config.strikes:
            times = running.strikes.failed_starts
            self._strike_out(running, f"{times} starts failed in a row, the last: {running.strikes.last}")
        elif recent >= self._strike_limit(running.strikes):
            when = "in its probe" if self._probing else f"within {window_s:g} s"
            self._strike_out(running, f"{recent} strikes {when}, the last: {running.strikes.last}")
        elif self._probing:
            if self.stats().calls == running.calls_before:
                running.strikes.fresh = True  # the probe is still to come
            else:
                self._probing = False
                log.info("plugin passed its probe", plugin=self.id, version=running.release.version)

    def _strike_limit(self, strikes: Strikes) -> int:
        """Strikes that take a version out of use: in its probe one of its own, or those of two connections."""
        if not self._probing:
            return self._config.strikes
        return 1 if strikes.own else min(2, self._config.strikes)

    def _strike_out(self, running: Running, reason: str) -> None:
        before = self.before
        if before is not None and before.well:
            try:
                self.use(before.proven, carry=False)
            except (GatewayError, wasmtime.WasmtimeError) as error:
                version = before.proven.release.version
                log.error("plugin cannot go back", plugin=self.id, version=version, why=str(error))
            else:
                self._went_back(running, reason)
                return
        self._hold(running.proven, reason)

    def _went_back(self, bad: Running, reason: str) -> None:
        self.bar(bad.release)
        self.before = None
        self.life.rollbacks += 1
        self.rolled_back_from = bad.release.version
        self.reason = self._taken_out = f"version {bad.release.version} was taken out of use: {reason}"
        self.last_failure = LoadFailure(version=bad.release.version, reason=reason, at_ms=self._clock.now_ms())
        version = "" if self.release is None else self.release.version
        self._tell("rolled_back", version=version, before=bad.release.version, reason=reason)

    def _hold(self, proven: Proven, reason: str) -> None:
        if self.running is not None:
            self._let_go(self.running, "the plugin is quarantined")
            self.running = None
        self._held = proven
        self._probing = False
        self.life.quarantines += 1
        wait_s = self.quarantine.enter(reason)
        self.state, self.reason = "quarantined", f"{reason}; it is tried again after {wait_s:g} s"
        self.last_failure = LoadFailure(version=proven.release.version, reason=reason, at_ms=self._clock.now_ms())
        self._tell("quarantined", version=proven.release.version, reason=reason, wait_s=wait_s)

    def _probe(self, proven: Proven) -> None:
        """Let the next call decide whether the quarantine was enough."""
        try:
            self.use(proven, carry=False)
        except (GatewayError, wasmtime.WasmtimeError) as error:
            self._hold(proven, f"it does not start: {error}")
            return
        self._probing = True
        if self.running is not None:
            self.running.strikes.fresh = True  # so that whoever asks next looks closer

    def _did_well(self, running: Running) -> bool:
        stats = self.stats()
        served = stats.calls > running.calls_before if running.lane else stats.decoded > running.frames_before
        recent = running.strikes.within(self._config.strike_window_s)
        return served and recent < self._config.strikes and not self._probing


def _tell_nobody(_notice: Notice) -> None:
    return


def _left_to(old: Release, new: Release) -> Handover:
    """Whether both versions of a callable plugin carry state; each thread then hands it over with its next call."""
    for release in (old, new):
        if not release.manifest.state.carry:
            return Handover(outcome="fresh", reason=f"{release.version} carries no state")
    return Handover(outcome="carried", reason="with the next calls")


def _hand_over(old: WasmCodec, new: WasmCodec) -> Handover:
    """Give the new version what the old one kept, where both say so."""
    for codec in (old, new):
        if not codec.manifest.state.carry:
            return Handover(outcome="fresh", reason=f"{codec.manifest.version} carries no state")
    ends = perf_counter() + new.program.start_s  # one time for both: the loop waits
    state = old.program.save_state(new.program.start_s)
    if state is None:
        return Handover(outcome="fresh", reason=f"{old.manifest.version} gave none")
    if not new.program.load_state(state, max(0.0, ends - perf_counter())):
        return Handover(outcome="fresh", reason=f"{new.manifest.version} did not take it", size=len(state))
    return Handover(outcome="carried", size=len(state))
