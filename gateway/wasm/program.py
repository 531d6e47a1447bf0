"""A plugin's module linked into one thread's sandbox, with the instance that is alive at present.

Owns the life of instances: spawn, discard after a trap, respawn with back-off, strikes. What a call means is its
callers' business (`WasmCodec`, `WasmCaller`).
"""

from __future__ import annotations

import structlog
import wasmtime

from gateway.core.clock import Clock
from gateway.core.errors import CodecError, ConfigError, NotReady, PluginTrapped
from gateway.wasm.abi import check_exports, check_imports
from gateway.wasm.codec import MALFORMED, TRAPPED, code_text
from gateway.wasm.fastcall import GuestTrap
from gateway.wasm.imports import HostServices
from gateway.wasm.instance import BAD_POINTER, GuestResult, Instance
from gateway.wasm.manifest import Manifest
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.stats import PluginStats
from gateway.wasm.strikes import STRIKE_WINDOW_S, Strikes

log = structlog.get_logger(__name__)

_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 30.0


class Down(Exception):
    """There is no instance, and it is not yet time to try again."""


class Program:
    """A plugin that can be called. Every call must come from the thread that made it."""

    def __init__(
        self,
        manifest: Manifest,
        module: wasmtime.Module,
        sandbox: Sandbox,
        services: HostServices,
        *,
        granted: frozenset[str],
        clock: Clock,
        start: bytes,
        start_s: float | None = None,
        stats: PluginStats | None = None,
        strikes: Strikes | None = None,
    ) -> None:
        """Check the module against ABI and grants, link it and start it.

        start: msgpack for gw_init. start_s: wall time of a whole start, the manifest's where not said. stats,
        strikes: to go on with. Raises ConfigError (not a plugin we take), CodecError
        (it refused its configuration) or PluginTrapped (it failed while starting).
        """
        self.manifest = manifest
        self.plugin_id = manifest.id
        self.limits = manifest.limits
        self.stats = stats or PluginStats()
        self.strikes = strikes or Strikes(clock)
        self.path = sandbox.path
        self._sandbox = sandbox
        self._module = module  # the sandbox lends it to others while this one lives
        self._clock = clock
        self._start = start
        self.start_s = self.limits.start_deadline_ms / 1000 if start_s is None else start_s
        """Wall time of a whole start, and of handing state over."""
        self._services = services
        self._retry_at = 0.0
        self._failed_starts = 0
        self._instance: Instance | None = None
        check_exports(module, manifest.kind)
        check_imports(module, manifest.caps.asked(), granted)
        self._linker = wasmtime.Linker(sandbox.engine)
        try:
            services.link(self._linker, module)
            self._program = self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            self._linker.close()
            raise ConfigError("the module's imports cannot be satisfied") from error
        sandbox.watchdog.watch(min(self.limits.deadline_ms / 1000, self.start_s))
        try:
            self._instance = self._spawn()
        except GuestTrap as trap:
            self.close()
            raise PluginTrapped(TRAPPED, f"failed while starting: {trap}") from None
        except (ConfigError, CodecError):
            self.close()
            raise
        self._exports = frozenset(export.name for export in module.exports if export.name is not None)

    def close(self) -> None:
        """Free the instance and what links it to the host; the program is of no further use."""
        if self._instance is not None:
            self._instance.close()
            self._instance = None
        self._retry_at = float("inf")
        if hasattr(self, "_program"):
            self._program.close()
        # A closure in a linker is invisible to the garbage collector: without this each plugin leaks its linker.
        self._linker.close()

    @property
    def memory_bytes(self) -> int:
        """Linear memory of the present instance."""
        return 0 if self._instance is None else self._instance.memory_bytes

    @property
    def log_lines_dropped(self) -> int:
        """Lines the plugin logged over its allowance."""
        return self._services.log_lines_dropped

    def exports(self, name: str) -> bool:
        """Whether the module has an optional export."""
        return name in self._exports

    def strikes_in(self, window_s: float = STRIKE_WINDOW_S) -> int:
        """Strikes within the last seconds: what a quarantine goes by."""
        return self.strikes.within(window_s)

    def strike(self, what: str, party: int | None = None) -> None:
        """Count a fault of the plugin; `party`: the connection whose frame brought it about, where it was one."""
        self.stats.strikes += 1
        recent = self.strikes.note(what, party)
        if recent in {1, 10, 100}:  # said early, then ever more rarely: the counter tells the rest
            log.warning("plugin failed", plugin=self.plugin_id, what=what, strikes_last_minute=recent)

    def call(self, name: str, data: bytes, last: int, budget_s: float) -> GuestResult:
        """Call an export (ptr, len, x); after a GuestTrap, which is raised on, the instance is gone. Raises Down.

        Once in a blue moon the watchdog's tick for one call comes only after the next has begun and ends that one
        early: such a call is made again, since nothing is wrong with it.
        """
        while True:
            instance = self._live()
            if instance is None:
                raise Down
            self.stats.calls += 1
            try:
                return instance.call(name, data, last, budget_s)
            except GuestTrap as trap:
                self._lost(trap)
                if not trap.early:
                    raise

    def ask(
        self, name: str, data: bytes, last: int, budget_s: float, *, fair: bool = True, party: int | None = None
    ) -> bytes:
        """Call for one answer: its bytes. Raises CodecError, PluginTrapped (and counts a strike) or NotReady.

        fair: the budget is what the manifest promises; running out of a shorter one is no fault of the plugin.
        party: the connection that the data came from.
        """
        try:
            code, answer = self.call(name, data, last, budget_s)
        except Down:
            raise self.not_ready() from None
        except GuestTrap as trap:
            if fair or not trap.timed_out:
                self.strike(f"{trap} in {name}", party)
            raise PluginTrapped(TRAPPED, f"plugin {self.plugin_id} trapped: {trap}") from None
        if code == BAD_POINTER:
            raise CodecError(MALFORMED, f"plugin {self.plugin_id}: {code_text(MALFORMED)}")
        if code:
            words = self._last_error(party)
            raise CodecError(code, f"plugin {self.plugin_id}: {code_text(code)}{': ' + words if words else ''}")
        return answer

    def traps_aside(self, name: str, data: bytes, last: int, budget_s: float, *, fair: bool = True) -> bool | None:
        """Whether a call makes an instance of its own trap. The live one is not touched.

        None where that is not known: none starts, or one ran out of a budget that is not `fair`, as `ask` has it.
        """
        if self._instance is None and self._clock.monotonic_s() < self._retry_at:
            return None
        try:
            instance = self._spawn()
        except (GuestTrap, CodecError, ConfigError):
            return None
        self.stats.calls += 1
        try:
            instance.call(name, data, last, budget_s)
        except GuestTrap as trap:
            return None if trap.early or (trap.timed_out and not fair) else True
        finally:
            instance.close()
        return False

    def not_ready(self) -> NotReady:
        """What to raise while there is no instance."""
        return NotReady(f"plugin {self.plugin_id} failed and does not start again")

    # -- state over a reload --------------------------------------------------------------------------------------

    def save_state(self, budget_s: float | None = None) -> bytes | None:
        """What gw_state_save gives; None where there is none, or the plugin cannot give it. Never raises.

        budget_s: wall time it may take; that of a start where not said.
        """
        if self._instance is None or not self.exports("gw_state_save"):
            return None
        try:
            code, state = self._instance.save_state(self._state_s(budget_s))
        except GuestTrap as trap:
            self._lost(trap)
            self.strike(f"{trap} in gw_state_save")
            return None
        return None if code else state

    def load_state(self, state: bytes, budget_s: float | None = None) -> bool:
        """Hand a saved state over before the first call; whether the plugin took it. Never raises.

        budget_s: as for `save_state`.
        """
        if self._instance is None or not self.exports("gw_state_load") or len(state) > self.limits.max_input:
            return False
        try:
            return self._instance.load_state(state, self._state_s(budget_s))
        except GuestTrap as trap:
            self._lost(trap)
            self.strike(f"{trap} in gw_state_load")
            return False

    def _state_s(self, budget_s: float | None) -> float:
        return self.limits.start_deadline_ms / 1000 if budget_s is None else budget_s

    # -- life of the instance -------------------------------------------------------------------------------------

    def _last_error(self, party: int | None) -> str:
        """The plugin's words on its code. Raises PluginTrapped (and counts a strike) where saying them cost it."""
        try:
            return "" if self._instance is None else self._instance.last_error()
        except GuestTrap as trap:
            self._lost(trap)
            if trap.early:
                return ""
            self.strike(f"{trap} in gw_last_error", party)
            raise PluginTrapped(TRAPPED, f"plugin {self.plugin_id} trapped: {trap}") from None

    def _spawn(self) -> Instance:
        instance = Instance(
            self._program,
            self._sandbox.engine,
            self._sandbox.watchdog,
            self.limits,
            self.stats,
            path=self.path,
            wasi=self.manifest.caps.wasi,
            start_s=self.start_s,
        )
        try:
            instance.start(self._start)
        except BaseException:
            instance.close()
            raise
        return instance

    def _live(self) -> Instance | None:
        """The instance; where the last one was lost, a new one, unless it keeps failing to start."""
        if self._instance is None and self._clock.monotonic_s() >= self._retry_at:
            try:
                self._instance = self._spawn()
            except (GuestTrap, CodecError, ConfigError) as error:
                self._failed_starts += 1
                self.strikes.failed_starts = self._failed_starts
                self.strike(f"it does not start again: {error}")
                wait_s = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2 ** min(self._failed_starts, 16))
                self._retry_at = self._clock.monotonic_s() + wait_s
                log.error("a plugin does not start again", plugin=self.plugin_id, reason=str(error), retry_in_s=wait_s)
            else:
                self._failed_starts = self.strikes.failed_starts = 0
                self.stats.respawns += 1
        return self._instance

    def _lost(self, trap: GuestTrap) -> None:
        """Discard the instance; the next call spawns another."""
        if not trap.timed_out:
            self.stats.traps += 1
        elif not trap.early:
            self.stats.kills += 1
        if self._instance is not None:
            self._instance.close()
            self._instance = None
