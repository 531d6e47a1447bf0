"""The rules host: messages and events go to the worker in batches, what rules decide comes back as effects.

Whatever a rule does, its worker can be killed: the gateway holds every rule's state, and nothing of a batch takes
effect before its answer arrived, so that a batch cut by a kill is evaluated again and each effect still happens once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import msgspec
import structlog

from gateway.core.bus import Bus, Overflow, Subscription
from gateway.core.clock import Clock
from gateway.core.errors import NotFound, NotReady
from gateway.core.flow import Event, Message, StateDelta
from gateway.core.log import safe_text
from gateway.core.metrics import Sample
from gateway.core.scope import DEFAULT_TENANT
from gateway.core.tasks import Supervisor
from gateway.rules.batches import Batches, Subject
from gateway.rules.config import RulesConfig
from gateway.rules.decisions import Decisions
from gateway.rules.model import Notice, RuleEffects, RuleStatus
from gateway.rules.outbox import Outbox
from gateway.rules.plugin_calls import RulePluginCalls
from gateway.rules.process import WorkerLost, WorkerProcess
from gateway.rules.rulebook import Rule, Rulebook
from gateway.rules.scripts import ScriptFile, ScriptFolder
from gateway.rules.wire import (
    Evaluate,
    Evaluated,
    Load,
    Loaded,
    ServeRules,
    Unload,
    declared_decoder,
    encoder,
)

log = structlog.get_logger(__name__)

_STOP_S = 5.0
"""Time at a stop for what waits to be evaluated, and again for its effects to be written."""
_LOSSES = 3
"""Workers that may be lost over one batch, or one start, without a rule being named, before it is given up."""

Work: TypeAlias = tuple[Sequence[Subject], frozenset[int]]
"""Items to evaluate and the rules to leave out."""


@dataclass(slots=True)
class _Lane:
    """A subscription with what was taken from it and is not evaluated yet, which outlives a restart of its part."""

    queue: Subscription[Message] | Subscription[Event]
    work: deque[Work] = field(default_factory=deque)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


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
        self._folder = ScriptFolder(Path(config.directory), config.files, config.limits.source_bytes)
        self._worker = WorkerProcess("rules", ServeRules(config))
        self._book = Rulebook(config, clock, DEFAULT_TENANT, initial_state)
        self._outbox = Outbox(effects, config.outbox, config.keep_s, self._not_told)
        self._batches = Batches(config, self._book, clock)
        self._decisions = Decisions(config, self._book, self._batches, self._outbox, effects, supervisor)
        self._plugins = RulePluginCalls(effects, config, clock)
        self._turn = asyncio.Lock()
        self._messages = bus.messages.subscribe(
            "rules", config.queue_messages, Overflow.DROP_OLDEST, self._book.wants_message
        )
        self._events = bus.events.subscribe("rules", config.queue_events, Overflow.DROP_OLDEST, self._book.wants_event)
        self._lanes = (_Lane(self._messages), _Lane(self._events))
        self.skipped = 0
        self.notices_refused = 0

    # What the outside sees -------------------------------------------------------------------------------------------

    def statuses(self) -> list[RuleStatus]:
        """Every rule file and how it fares."""
        return self._book.statuses()

    async def restart_rule(self, name: str) -> RuleStatus:
        """Load a rule's file again, forgiving its strikes, and say how it fares now; raises NotFound."""
        rule = self._book.named(name)
        if rule is None:
            raise NotFound(f"no rule {safe_text(name)}")
        self._folder.forget(rule.stem)
        await self._look()
        return rule.status

    def device_deleted(self, tenant_id: str, device_id: str) -> None:
        """Forget what every rule remembers of a device, and what they want of it that is not written yet."""
        if tenant_id == self._book.tenant_id:
            self._batches.drop(device_id)
            self._outbox.forget_states(tenant_id, device_id, self._book.forget(device_id))
            self._outbox.forget_alarms(tenant_id, device_id)

    def forget_state(self, tenant_id: str, rule_name: str, device_id: str) -> None:
        """Let a rule decide anew on a device, as if it had never seen it."""
        if tenant_id != self._book.tenant_id:
            return
        rule = self._book.named(rule_name)
        if rule is not None:
            self._batches.drop(device_id, rule.id)
        self._book.forget(device_id, rule_name)
        self._outbox.forget_states(tenant_id, device_id, [rule_name])

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
        decisions = self._decisions
        for name, help_text, value in (
            ("gateway_rules_shed_total", "Messages and events that no rule saw.", self.shed),
            ("gateway_rules_worker_restarts_total", "Workers of rules replaced.", self.worker_restarts),
            (
                "gateway_rules_commands_refused_total",
                "Commands of rules over the bound.",
                decisions.commands_refused,
            ),
            (
                "gateway_rules_log_lines_dropped_total",
                "Log lines of rules over the bound.",
                decisions.log_lines_dropped,
            ),
            ("gateway_rules_effects_retries_total", "Writes of effects tried again.", self._outbox.retries),
            ("gateway_rules_effects_refused_total", "Alarm changes that storage refused.", self._outbox.refused),
            ("gateway_rules_notifications_refused_total", "Notifications refused to rules.", self.notices_refused),
            ("gateway_rules_plugin_calls_total", "Calls of plugins by rules.", self._plugins.made),
            ("gateway_rules_plugin_failures_total", "Those that gave no answer.", self._plugins.failed),
        ):
            yield Sample(name, help_text, "counter", {}, value)
        yield Sample("gateway_rules_waiting", "Messages and events that wait for rules.", "gauge", {}, self.waiting)

    @property
    def evaluated(self) -> int:
        """Calls of all rules."""
        return self._decisions.evaluated

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
        for name, lane in zip(("rules-messages", "rules-events"), self._lanes, strict=True):
            self._supervisor.start(name, partial(self._serve, lane))
        self._supervisor.start("rules-files", self._watch)

    async def stop(self) -> None:
        """Evaluate what waits and write its effects, within bounds, then end the worker."""
        await self._supervisor.stop_part("rules-files")
        self._bus.messages.unsubscribe(self._messages)
        self._bus.events.unsubscribe(self._events)
        try:
            await asyncio.wait_for(asyncio.gather(*(lane.ended.wait() for lane in self._lanes)), _STOP_S)
        except TimeoutError:
            log.error("rules stopped before they saw everything", waiting=self.waiting)
        await self._supervisor.stop_part("rules-messages")
        await self._supervisor.stop_part("rules-events")
        await self._outbox.drain(_STOP_S)
        await self._supervisor.stop_part("rules-outbox")
        await self._worker.stop()

    def _not_told(self, notice: Notice, why: str) -> None:
        self.notices_refused += 1
        rule = self._book.named(notice.actor.removeprefix("rule:"))
        if rule is not None:
            self._book.failed(rule, f"notify {safe_text(notice.channel)}: {why}")

    # Files -----------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._config.poll_s)
            await self._look()
            if not self._worker.running and any(rule.active for rule in self._book):
                async with self._turn:
                    await self._ready()  # replaced while nobody waits for it, and not by the next message

    async def _look(self) -> None:
        async with self._turn:
            changed, gone = await asyncio.to_thread(self._folder.look)
            for stem in gone:
                rule = self._book.remove(stem)
                if rule is not None:
                    await self._unload(rule.id)
            while changed:
                try:
                    await self._install(self._book.of_file(changed[0]), changed[0])
                except BaseException:
                    self._folder.put_back(changed)
                    raise
                del changed[0]

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
        self._batches.forget(version)
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
            self._batches.forget()
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
        self._decisions.strike(rule, text)
        return rule

    # Evaluation ------------------------------------------------------------------------------------------------------

    async def _serve(self, lane: _Lane) -> None:
        most = self._config.batch_messages
        while True:
            if not lane.work:
                batch = await lane.queue.take()
                if not batch:
                    break
                waiting = [*batch, *lane.queue.take_all(most - len(batch))]
                lane.work.extend((waiting[at : at + most], frozenset()) for at in range(0, len(waiting), most))
            await self._evaluate(lane.work)
        lane.ended.set()

    async def _evaluate(self, work: deque[Work]) -> None:
        """Evaluate items in order, over as many workers as it takes; what was not answered stays in `work`."""
        losses: dict[tuple[int, int], int] = {}
        async with self._turn:
            while work:
                items, without = work[0]
                await self._ready()
                request = encoder.encode(self._batches.request(items, without))
                try:
                    left, answer = await self._ask(request, items, without)
                except WorkerLost as lost:
                    left, answer = self._after(lost, items, without, losses), None
                work.popleft()
                work.extendleft(reversed(left))
                if answer is not None:
                    await self._decisions.take(answer, items)

    async def _ask(
        self, request: bytes, items: Sequence[Subject], without: frozenset[int]
    ) -> tuple[list[Work], Evaluated | None]:
        """What is left to do, and the answer if there is one. Raises WorkerLost."""
        if len(request) > self._config.frame_bytes:
            return self._halves(items, without), None
        answer = await self._worker.ask(request, Evaluate, self._plugins.for_rule)
        if not isinstance(answer, Evaluated):
            self.skipped += len(items)
            return [], None
        rest = items[max(1, answer.done) :]
        return [(rest, without)] if rest else [], answer

    def _halves(self, items: Sequence[Subject], without: frozenset[int]) -> list[Work]:
        self._batches.forget()  # the request that named those states was not sent
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
