"""The rules host: messages and events go to the worker in batches, what rules decide comes back as effects.

Whatever a rule does, its worker can be killed: the gateway holds every rule's state, and nothing of a batch takes
effect before its answer arrived, so that a batch cut by a kill is evaluated again and each effect still happens once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from gateway.core.bus import Bus, Overflow
from gateway.core.clock import Clock
from gateway.core.errors import NotFound, NotReady
from gateway.core.flow import AlarmChange, Event, Message, StateDelta
from gateway.core.log import safe_text
from gateway.core.metrics import Sample
from gateway.core.scope import DEFAULT_TENANT
from gateway.core.tasks import Supervisor
from gateway.rules.config import RulesConfig
from gateway.rules.matching import Matcher
from gateway.rules.model import RuleEffects, RuleStatus
from gateway.rules.outbox import Outbox
from gateway.rules.process import WorkerLost, WorkerProcess
from gateway.rules.rulebook import Rule, Rulebook
from gateway.rules.scripts import ScriptFile, ScriptFolder
from gateway.rules.wire import (
    EMPTY_STATE,
    Action,
    ClearAlarm,
    Evaluate,
    Evaluated,
    Fault,
    KnownState,
    Load,
    Loaded,
    LogLine,
    Plan,
    RaiseAlarm,
    SendCommand,
    ServeRules,
    Unload,
    actions_decoder,
    declared_decoder,
    encoder,
    state_decoder,
)

log = structlog.get_logger(__name__)

_STOP_S = 5.0
"""Time at a stop for what waits to be evaluated, and again for its effects to be written."""
_LOSSES = 3
"""Workers that may be lost over one batch, or one start, without a rule being named, before it is given up."""

Subject = Message | Event
Work = tuple[Sequence[Subject], frozenset[int]]
"""Items to evaluate and the rules to leave out."""


class RulesHost:
    """Runs the rule files of one directory."""

    def __init__(
        self,
        config: RulesConfig,
        supervisor: Supervisor,
        clock: Clock,
        bus: Bus,
        effects: RuleEffects,
        initial_state: list[StateDelta],
    ) -> None:
        """Run nothing yet; `initial_state` is what the rules remembered when the gateway stopped."""
        self._config = config
        self._supervisor = supervisor
        self._clock = clock
        self._bus = bus
        self._effects = effects
        self._folder = ScriptFolder(Path(config.directory), config.files, config.limits.source_bytes)
        self._worker = WorkerProcess("rules", ServeRules(config))
        self._book = Rulebook(config, clock, DEFAULT_TENANT, initial_state)
        self._outbox = Outbox(effects, config.outbox, config.keep_s)
        self._known: dict[int, dict[str, None]] = {}
        self._turn = asyncio.Lock()
        self._ended = [asyncio.Event(), asyncio.Event()]
        self._messages = bus.messages.subscribe(
            "rules",
            config.queue_messages,
            Overflow.DROP_OLDEST,
            self._book.wants_message,
        )
        self._events = bus.events.subscribe("rules", config.queue_events, Overflow.DROP_OLDEST, self._book.wants_event)
        self._commands = 0
        self.evaluated = 0
        self.skipped = 0
        self.commands_refused = 0
        self.log_lines_dropped = 0

    # What the outside sees -------------------------------------------------------------------------------------------

    def statuses(self) -> list[RuleStatus]:
        """Every rule file and how it fares."""
        return self._book.statuses()

    async def restart_rule(self, name: str) -> None:
        """Load a rule's file again, forgiving its strikes; raises NotFound."""
        rule = self._book.named(name)
        if rule is None:
            raise NotFound(f"no rule {safe_text(name)}")
        self._folder.forget(rule.stem)
        await self._look()

    def processes(self) -> dict[str, int]:
        """Id of the worker process while it lives."""
        return {} if self._worker.pid is None else {"rules": self._worker.pid}

    def samples(self) -> Iterator[Sample]:
        """Figures for `/metrics`."""
        for status in self._book.statuses():
            rule = {"rule": status.name}
            yield Sample("gateway_rule_calls_total", "Calls of rules.", "counter", rule, status.evaluated)
            yield Sample("gateway_rule_errors_total", "Calls of rules that failed.", "counter", rule, status.errors)
            yield Sample("gateway_rule_strikes_total", "Hangs, crashes, overruns.", "counter", rule, status.strikes)
            running = float(status.state == "running")
            yield Sample("gateway_rule_running", "Whether a rule runs.", "gauge", rule, running)
        for name, help_text, value in (
            ("gateway_rules_shed_total", "Messages and events that no rule saw.", self.shed),
            ("gateway_rules_worker_restarts_total", "Workers of rules replaced.", self.worker_restarts),
            ("gateway_rules_commands_refused_total", "Commands of rules over the bound.", self.commands_refused),
            ("gateway_rules_log_lines_dropped_total", "Log lines of rules over the bound.", self.log_lines_dropped),
            ("gateway_rules_effects_retries_total", "Writes of effects tried again.", self._outbox.retries),
            ("gateway_rules_effects_refused_total", "Alarm changes that storage refused.", self._outbox.refused),
        ):
            yield Sample(name, help_text, "counter", {}, value)
        yield Sample("gateway_rules_waiting", "Messages and events that wait for rules.", "gauge", {}, self.waiting)

    @property
    def worker_restarts(self) -> int:
        """Workers that had to be replaced."""
        return max(0, self._worker.starts - 1)

    @property
    def strikes(self) -> int:
        """Hangs, crashes and overruns of all rules."""
        return self._book.strikes

    @property
    def shed(self) -> int:
        """Messages and events that waited too long for the worker, or that no worker survived."""
        return self._messages.shed + self._events.shed + self.skipped

    @property
    def waiting(self) -> int:
        """Messages and events that wait for the worker."""
        return len(self._messages) + len(self._events)

    async def start(self) -> None:
        """Load the rules and begin to evaluate what the bus brings from now on."""
        await self._look()
        self._supervisor.start("rules-outbox", self._outbox.run)
        self._supervisor.start("rules-messages", self._serve_messages)
        self._supervisor.start("rules-events", self._serve_events)
        self._supervisor.start("rules-files", self._watch)

    async def stop(self) -> None:
        """Evaluate what waits and write its effects, within bounds, then end the worker."""
        await self._supervisor.stop_part("rules-files")
        self._bus.messages.unsubscribe(self._messages)
        self._bus.events.unsubscribe(self._events)
        try:
            await asyncio.wait_for(asyncio.gather(*(ended.wait() for ended in self._ended)), _STOP_S)
        except TimeoutError:
            log.error("rules stopped before they saw everything", waiting=self.waiting)
        await self._supervisor.stop_part("rules-messages")
        await self._supervisor.stop_part("rules-events")
        await self._outbox.drain(_STOP_S)
        await self._supervisor.stop_part("rules-outbox")
        await self._worker.stop()

    # Files -----------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._config.poll_s)
            await self._look()

    async def _look(self) -> None:
        async with self._turn:
            changed, gone = await asyncio.to_thread(self._folder.look)
            for stem in gone:
                rule = self._book.remove(stem)
                if rule is not None:
                    await self._unload(rule.id)
            for file in changed:
                await self._install(self._book.of_file(file), file)

    async def _install(self, rule: Rule, file: ScriptFile) -> None:
        """Load a new version of a rule; the present one stays until that worked."""
        if file.problem:
            self._book.broken(rule, file.problem)
            return
        version, before = self._book.new_version(), rule.id
        error = ""
        for _ in range(2):  # a worker that was killed from outside is no fault of the file
            await self._ready()
            try:
                error = await self._load(rule, file, version)
                break
            except WorkerLost as lost:
                error = "loading the file does not end" if lost.hung else "the worker ended while it loaded the file"
                if lost.hung:
                    break
        if error:
            self._book.broken(rule, error)
            log.error("rule does not load", rule=rule.name, error=rule.status.last_error, old_version_runs=rule.active)
        else:
            await self._unload(before)
            log.info("rule loaded", rule=rule.name)

    async def _load(self, rule: Rule, file: ScriptFile, version: int) -> str:
        answer = await self._worker.ask(encoder.encode(Load(version, f"{file.name}.lua", file.source)), Load)
        if not isinstance(answer, Loaded):
            return "the worker refused the file"
        if answer.error or version == rule.id:
            return answer.error
        try:
            declared = declared_decoder.decode(answer.declared)
        except msgspec.MsgspecError as failure:
            return str(failure)
        error = self._book.install(rule, file, version, declared)
        if error:
            await self._unload(version)
        return error

    async def _unload(self, version: int) -> None:
        self._known.pop(version, None)
        if version and self._worker.running:
            try:
                await self._worker.ask(encoder.encode(Unload(version)), Unload)
            except WorkerLost:
                log.info("worker lost while idle; the next batch starts another")

    # The worker ------------------------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        """Have a worker with every active rule loaded; raises NotReady when none can be had."""
        losses = 0
        while not self._worker.running:
            await self._worker.start()
            self._known.clear()
            try:
                for rule in [rule for rule in self._book if rule.active and rule.good is not None]:
                    await self._reload(rule)
            except WorkerLost as lost:
                losses += 1
                if not self._blame(lost) and losses >= _LOSSES:
                    raise NotReady("the worker of rules does not start") from lost

    async def _reload(self, rule: Rule) -> None:
        if rule.good is not None:
            error = await self._load(rule, rule.good, rule.id)
            if error:
                self._book.uninstall(rule, error)

    def _blame(self, lost: WorkerLost) -> Rule | None:
        """Give a strike to the rule that ran when the worker was lost; None when none did."""
        rule = self._book.by_id(lost.script)
        if rule is None:
            return None
        text = "a call did not end; its worker was killed" if lost.hung else "the worker ended during a call"
        self._strike(rule, text)
        return rule

    def _strike(self, rule: Rule, text: str) -> None:
        if self._book.strike(rule, text):
            log.error("rule stopped", rule=rule.name, error=rule.status.last_error)

    # Evaluation ------------------------------------------------------------------------------------------------------

    async def _serve_messages(self) -> None:
        most = self._config.batch_messages
        while batch := await self._messages.take():
            waiting = [*batch, *self._messages.take_all(most - len(batch))]
            for first in range(0, len(waiting), most):
                await self._evaluate(waiting[first : first + most])
        self._ended[0].set()

    async def _serve_events(self) -> None:
        most = self._config.batch_messages
        while batch := await self._events.take():
            for first in range(0, len(batch), most):
                await self._evaluate(batch[first : first + most])
        self._ended[1].set()

    async def _evaluate(self, items: Sequence[Subject]) -> None:
        """Evaluate items in order, over as many workers as it takes."""
        work: deque[Work] = deque([(items, frozenset())])
        losses: dict[tuple[int, int], int] = {}
        async with self._turn:
            while work:
                items, without = work.popleft()
                await self._ready()
                request = encoder.encode(self._request(items, without))
                if len(request) > self._config.frame_bytes:
                    work.extendleft(reversed(self._halves(items, without)))
                    continue
                try:
                    answer = await self._worker.ask(request, Evaluate)
                except WorkerLost as lost:
                    work.extendleft(reversed(self._after(lost, items, without, losses)))
                    continue
                if not isinstance(answer, Evaluated):
                    self.skipped += len(items)
                    continue
                done = max(1, answer.done)
                if done < len(items):
                    work.appendleft((items[done:], without))
                await self._take(answer, items)

    def _halves(self, items: Sequence[Subject], without: frozenset[int]) -> list[Work]:
        self._known.clear()  # the request that named those states was not sent
        if len(items) == 1:
            self.skipped += 1
            log.error("too large for the rules", device=items[0].device_id)
            return []
        middle = len(items) // 2
        return [(items[:middle], without), (items[middle:], without)]

    def _after(
        self, lost: WorkerLost, items: Sequence[Subject], without: frozenset[int], losses: dict[tuple[int, int], int]
    ) -> list[Work]:
        """What is left to do when a worker was lost over items: everything, without the rule at fault from there on."""
        rule = self._blame(lost)
        place = lost.script, lost.item
        losses[place] = losses.get(place, 0) + 1
        if rule is None:
            if losses[place] < _LOSSES:
                return [(items, without)]
            self.skipped += len(items)
            return []
        if not lost.hung and losses[place] == 1:
            return [(items, without)]  # killed from outside, perhaps: one more chance
        guilty = max(0, lost.item)
        rest = (items[guilty:], without | {lost.script})
        return [(items[:guilty], without), rest] if guilty else [rest]

    def _request(self, items: Sequence[Subject], without: frozenset[int]) -> Evaluate:
        plans: dict[Plan, int] = {}
        plan_of: list[int] = []
        states: list[KnownState] = []
        self._evict(states)
        matcher = self._book.matcher
        for item in items:
            plan = _plan(matcher, item, without)
            plan_of.append(plans.setdefault(plan, len(plans)))
            device = item.device_id or ""
            for rule, _ in plan:
                known = self._known.setdefault(rule, {})
                if device not in known:
                    known[device] = None
                    self._introduce(rule, device, states)
        messages = [item for item in items if isinstance(item, Message)]
        events = [item for item in items if isinstance(item, Event)] if not messages else []
        return Evaluate(self._clock.now_ms(), list(plans), plan_of, states, messages, events)

    def _evict(self, states: list[KnownState]) -> None:
        for rule, known in self._known.items():
            while len(known) > self._config.cached_states:
                device = next(iter(known))
                del known[device]
                states.append(KnownState(rule, device, EMPTY_STATE))

    def _introduce(self, version: int, device: str, states: list[KnownState]) -> None:
        rule = self._book.by_id(version)
        state = EMPTY_STATE if rule is None else self._book.state(rule, device)
        if state != EMPTY_STATE:
            states.append(KnownState(version, device, state))

    # Effects ---------------------------------------------------------------------------------------------------------

    async def _take(self, answer: Evaluated, items: Sequence[Subject]) -> None:
        for version, calls in answer.calls.items():
            self.evaluated += calls
            rule = self._book.by_id(version)
            if rule is not None:
                rule.status.evaluated += calls
        deltas = [delta for state in answer.states if (delta := self._remember(state)) is not None]
        changes: list[AlarmChange] = []
        for outcome in answer.outcomes:
            rule = self._book.by_id(outcome.rule)
            if rule is None:
                continue
            self.log_lines_dropped += outcome.dropped_lines
            if outcome.actions is not None:
                self._act(rule, items[outcome.item], outcome.actions, changes)
        for fault in answer.faults:
            self._fault(fault, items[fault.item])
        if changes:
            await self._outbox.put(changes, deltas)
        else:
            self._outbox.keep(deltas)

    def _remember(self, state: KnownState) -> StateDelta | None:
        rule = self._book.by_id(state.rule)
        if rule is None:
            return None
        try:
            data = state_decoder.decode(state.data)
        except msgspec.MsgspecError as failure:
            self._strike(rule, f"state: {failure}")
            return None
        self._book.remember(rule, state.device, state.data)
        return StateDelta(self._book.tenant_id, rule.name, state.device, data)

    def _act(self, rule: Rule, item: Subject, encoded: bytes, changes: list[AlarmChange]) -> None:
        try:
            actions = actions_decoder.decode(encoded)
        except msgspec.MsgspecError as failure:
            self._strike(rule, f"actions: {failure}")
            return
        for action in actions:
            self._do(rule, item, action, changes)

    def _do(self, rule: Rule, item: Subject, action: Action, changes: list[AlarmChange]) -> None:
        at_ms = item.observed_at_ms if isinstance(item, Message) else item.at_ms
        device = item.device_id or ""
        match action:
            case RaiseAlarm(severity, message, data):
                changes.append(AlarmChange("raise", item.tenant_id, device, rule.name, at_ms, severity, message, data))
            case ClearAlarm():
                changes.append(AlarmChange("clear", item.tenant_id, device, rule.name, at_ms))
            case SendCommand():
                self._command(rule, item.tenant_id, action)
            case LogLine(level, text):
                self._log(rule, level, text)

    def _fault(self, fault: Fault, item: Subject) -> None:
        rule = self._book.by_id(fault.rule)
        if rule is None:
            return
        if fault.actions is not None:
            self._act(rule, item, fault.actions, [])  # log lines: a call that failed has no other effects
        if not fault.overrun:
            self._book.failed(rule, fault.text)
            return
        self._known.pop(fault.rule, None)
        self._strike(rule, fault.text)
        if fault.reload_error:
            self._book.uninstall(rule, fault.reload_error)

    def _log(self, rule: Rule, level: str, text: str) -> None:
        if self._book.log_allowed(rule):
            getattr(log, level)("rule says", rule=rule.name, text=safe_text(text, self._config.limits.log_line_bytes))
        else:
            self.log_lines_dropped += 1

    def _command(self, rule: Rule, tenant_id: str, command: SendCommand) -> None:
        if self._commands >= self._config.commands:
            self.commands_refused += 1
            self._book.failed(rule, f"command {command.name} refused: {self._commands} are in flight")
            return
        self._commands += 1
        self._supervisor.spawn("rule-command", self._send(rule, tenant_id, command))

    async def _send(self, rule: Rule, tenant_id: str, command: SendCommand) -> None:
        timeout_s = command.timeout_s or self._config.command_timeout_s
        try:
            ended = await self._effects.command(
                tenant_id, command.device, command.name, command.args, f"rule:{rule.name}", timeout_s
            )
        finally:
            self._commands -= 1
        if ended.get("error"):
            self._book.failed(rule, f"command {command.name} to {command.device}: {ended['error']}")


def _plan(matcher: Matcher, item: Subject, without: frozenset[int]) -> Plan:
    plan = matcher.message_plan(item) if isinstance(item, Message) else matcher.event_plan(item)
    return tuple(each for each in plan if each[0] not in without) if without else plan
