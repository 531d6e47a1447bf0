"""What an answer of the worker means: state to remember, alarms, commands, notices, log lines, and faults to book.

Knows no process: the host tells it what was answered to which items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog

from gateway.core.errors import GatewayError
from gateway.core.flow import AlarmChange, Message, StateDelta
from gateway.core.log import safe_text
from gateway.core.tasks import Supervisor
from gateway.rules.batches import Batches, Subject
from gateway.rules.config import RulesConfig
from gateway.rules.model import Notice, RuleEffects
from gateway.rules.outbox import Outbox
from gateway.rules.rulebook import Rule, Rulebook
from gateway.rules.wire import (
    Action,
    ClearAlarm,
    Evaluated,
    Fault,
    KnownState,
    LogLine,
    Notify,
    RaiseAlarm,
    RunScene,
    SendCommand,
    actions_decoder,
    state_decoder,
)

log = structlog.get_logger(__name__)


class _Effects(NamedTuple):
    """What the calls of one answer want written, in their order."""

    changes: list[AlarmChange]
    notices: list[Notice]


class Decisions:
    """Carries out what rules decided."""

    def __init__(
        self,
        config: RulesConfig,
        book: Rulebook,
        batches: Batches,
        outbox: Outbox,
        effects: RuleEffects,
        supervisor: Supervisor,
    ) -> None:
        """Have carried out nothing."""
        self._config = config
        self._book = book
        self._batches = batches
        self._outbox = outbox
        self._effects = effects
        self._supervisor = supervisor
        self._commands = 0
        self.evaluated = 0
        self.commands_refused = 0
        self.log_lines_dropped = 0

    async def take(self, answer: Evaluated, items: Sequence[Subject]) -> None:
        """Let an answer take effect; waits while the outbox is full."""
        for version, calls in answer.calls.items():
            self.evaluated += calls
            rule = self._book.by_id(version)
            if rule is not None:
                rule.status.evaluated += calls
        deltas = [delta for state in answer.states if (delta := self._remember(state)) is not None]
        effects = _Effects([], [])
        for outcome in answer.outcomes:
            rule = self._book.by_id(outcome.rule)
            if rule is None:
                continue
            self.log_lines_dropped += outcome.dropped_lines
            if outcome.actions is not None:
                self._act(rule, items[outcome.item], outcome.actions, effects)
        for fault in answer.faults:
            self._fault(fault, items[fault.item])
        if effects.changes:
            await self._outbox.put(effects.changes, deltas)
        else:
            self._outbox.keep(deltas)
        if effects.notices:
            await self._outbox.tell(effects.notices)

    def strike(self, rule: Rule, text: str) -> None:
        """Book a hang, crash or overrun."""
        if self._book.strike(rule, text):
            log.error("rule stopped", rule=rule.name, error=rule.status.last_error)

    def _remember(self, state: KnownState) -> StateDelta | None:
        rule = self._book.by_id(state.rule)
        if rule is None or self._batches.dropped(rule.id, state.device):
            return None
        try:
            data = state_decoder.decode(state.data)
        except msgspec.MsgspecError as failure:
            self.strike(rule, f"state: {failure}")
            return None
        self._book.remember(rule, state.device, state.data)
        return StateDelta(self._book.tenant_id, rule.name, state.device, data)

    def _act(self, rule: Rule, item: Subject, encoded: bytes, effects: _Effects) -> None:
        try:
            actions = actions_decoder.decode(encoded)
        except msgspec.MsgspecError as failure:
            self.strike(rule, f"actions: {failure}")
            return
        for action in actions:
            self._do(rule, item, action, effects)

    def _do(self, rule: Rule, item: Subject, action: Action, effects: _Effects) -> None:
        # The gateway's time: lists and retention go by it, and a device's clock may be decades off.
        at_ms = item.received_at_ms if isinstance(item, Message) else item.at_ms
        device = item.device_id or ""
        match action:
            case RaiseAlarm() | ClearAlarm() if self._batches.gone(rule.id, device):
                return
            case RaiseAlarm(severity, message, data):
                raised = AlarmChange("raise", item.tenant_id, device, rule.name, at_ms, severity, message, data)
                effects.changes.append(raised)
            case ClearAlarm():
                effects.changes.append(AlarmChange("clear", item.tenant_id, device, rule.name, at_ms))
            case Notify(channel, title, text, severity):
                actor = f"rule:{rule.name}"
                notice = Notice(item.tenant_id, actor, channel, title, text, severity, item.device_id)
                effects.notices.append(notice)
            case SendCommand():
                self._command(rule, item.tenant_id, action)
            case RunScene():
                self._scene(rule, item.tenant_id, action)
            case LogLine(level, text):
                self._log(rule, level, text)

    def _fault(self, fault: Fault, item: Subject) -> None:
        rule = self._book.by_id(fault.rule)
        if rule is None:
            return
        if fault.actions is not None:
            self._act(rule, item, fault.actions, _Effects([], []))  # log lines: a call that failed has no other effects
        if not fault.overrun:
            self._book.failed(rule, fault.text)
            return
        self._batches.forget(fault.rule)
        self.strike(rule, fault.text)
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

    def _scene(self, rule: Rule, tenant_id: str, wanted: RunScene) -> None:
        if self._commands >= self._config.commands:
            self.commands_refused += 1
            self._book.failed(rule, f"scene {safe_text(wanted.name)} refused: too many commands and scenes in flight")
            return
        self._commands += 1
        self._supervisor.spawn(f"scene of rule {rule.name}", self._start_scene(rule, tenant_id, wanted))

    async def _start_scene(self, rule: Rule, tenant_id: str, wanted: RunScene) -> None:
        try:
            await self._effects.run_scene(tenant_id, wanted.name, wanted.args, f"rule:{rule.name}")
        except GatewayError as refusal:
            self._book.failed(rule, f"scene {safe_text(wanted.name)}: {refusal}")
        finally:
            self._commands -= 1
