"""The rules that are installed: versions, status, strikes and what they remember. Knows no process and no database."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from gateway.core.clock import Clock
from gateway.core.flow import Event, Message, StateDelta
from gateway.core.log import safe_text
from gateway.rules.config import RulesConfig
from gateway.rules.matching import Matcher, Subscription
from gateway.rules.model import RuleStatus
from gateway.rules.scripts import ScriptFile
from gateway.rules.wire import EMPTY_STATE, Declared, encoder

_ERROR_CHARS = 500


class Rule:
    """One rule file. `id` names the version that runs and changes with its content; 0 while none runs."""

    def __init__(self, file: ScriptFile) -> None:
        """Be known and not loaded."""
        self.stem = file.name
        self.id = 0
        self.good: ScriptFile | None = None
        self.subscriptions: list[Subscription] = []
        self.status = RuleStatus(name=file.name, path=str(file.path), state="broken")
        self.strikes: deque[float] = deque()
        self.log_room = 0.0
        self.log_at_s = 0.0

    @property
    def name(self) -> str:
        """By which alarms and state know it."""
        return self.status.name

    @property
    def active(self) -> bool:
        """Whether it gets messages: also while a newer version of its file is broken."""
        return self.id != 0 and self.status.state != "stopped"


class Rulebook:
    """All rules of one tenant."""

    def __init__(self, config: RulesConfig, clock: Clock, tenant_id: str, states: Iterable[StateDelta]) -> None:
        """Start with what the rules remember and no rule."""
        self._config = config
        self._clock = clock
        self.tenant_id = tenant_id
        self._rules: dict[str, Rule] = {}
        self._by_id: dict[int, Rule] = {}
        self._versions = 0
        self._states: dict[str, dict[str, bytes]] = {}  # by device, then by the rule's name
        for each in states:
            if each.tenant_id == tenant_id:
                self._states.setdefault(each.device_id, {})[each.rule] = encoder.encode(each.data)
        self.matcher = Matcher(tenant_id)
        self.strikes = 0

    def __iter__(self) -> Iterator[Rule]:
        """Rules in the order of their files' first appearance."""
        return iter(self._rules.values())

    def wants_message(self, message: Message) -> bool:
        """Whether any active rule subscribed to a message."""
        return self.matcher.wants_message(message)

    def wants_event(self, event: Event) -> bool:
        """Whether any active rule subscribed to an event."""
        return self.matcher.wants_event(event)

    def by_id(self, version: int) -> Rule | None:
        """The rule whose present version has this id."""
        return self._by_id.get(version)

    def named(self, name: str) -> Rule | None:
        """The rule of that name."""
        return next((rule for rule in self if rule.name == name), None)

    def of_file(self, file: ScriptFile) -> Rule:
        """The rule of a file, new when need be."""
        return self._rules.setdefault(file.name, Rule(file))

    def new_version(self) -> int:
        """An id that no version had."""
        self._versions += 1
        return self._versions

    def install(self, rule: Rule, file: ScriptFile, version: int, declared: Declared) -> str:
        """Let a version that the worker loaded be the present one; returns why not."""
        name = declared.name or rule.stem
        other = self.named(name)
        if other is not None and other is not rule:
            return f"the name {safe_text(name)} is taken by {other.stem}.lua"
        self._by_id.pop(rule.id, None)
        rule.id, rule.good = version, file
        self._by_id[version] = rule
        rule.subscriptions = [
            Subscription(version, index, **each) for index, each in enumerate(declared.subscriptions, start=1)
        ]
        rule.strikes.clear()
        status = rule.status
        status.name, status.state, status.description = name, "running", declared.description
        status.subscriptions = declared.subscriptions
        status.loaded_at_ms, status.last_error, status.last_error_at_ms = self._clock.now_ms(), "", None
        self.rematch()
        return ""

    def remove(self, stem: str) -> Rule | None:
        """Forget a rule whose file is gone; what it remembers stays, in case the file comes back."""
        rule = self._rules.pop(stem, None)
        if rule is not None:
            self._by_id.pop(rule.id, None)
            self.rematch()
        return rule

    def rematch(self) -> None:
        """Compile the subscriptions of the active rules."""
        active = [rule for rule in self if rule.active]
        self.matcher = Matcher(
            self.tenant_id,
            [each for rule in active for each in rule.subscriptions],
            {rule.id: rule.name for rule in active},
        )

    def broken(self, rule: Rule, error: str) -> None:
        """A version did not load; the one before goes on, unless it was stopped."""
        if rule.status.state == "stopped":
            self._by_id.pop(rule.id, None)
            rule.id, rule.good = 0, None
        rule.status.state = "broken"
        self._note(rule, error)

    def uninstall(self, rule: Rule, error: str) -> None:
        """The present version cannot run any more."""
        self._by_id.pop(rule.id, None)
        rule.id, rule.good = 0, None
        self.broken(rule, error)
        self.rematch()

    def failed(self, rule: Rule, error: str) -> None:
        """A call failed."""
        rule.status.errors += 1
        self._note(rule, error)

    def strike(self, rule: Rule, error: str) -> bool:
        """A call hung, crashed or overran; True when that was one too many and the rule is stopped."""
        now_s = self._clock.monotonic_s()
        self.strikes += 1
        rule.status.strikes += 1
        rule.strikes.append(now_s)
        while rule.strikes and now_s - rule.strikes[0] > self._config.strike_window_s:
            rule.strikes.popleft()
        self.failed(rule, error)
        if len(rule.strikes) < self._config.strikes or rule.status.state == "stopped":
            return False
        rule.status.state = "stopped"
        self.rematch()
        return True

    def state(self, rule: Rule, device_id: str) -> bytes:
        """What a rule remembers of a device."""
        return self._states.get(device_id, {}).get(rule.name, EMPTY_STATE)

    def remember(self, rule: Rule, device_id: str, state: bytes) -> None:
        """Take the state as a call left it."""
        if state == EMPTY_STATE:
            self.forget(device_id, rule.name)
        else:
            self._states.setdefault(device_id, {})[rule.name] = state

    def forget(self, device_id: str, rule_name: str | None = None) -> list[str]:
        """Drop what a rule, or every rule, remembers of a device; returns the names of those that remembered."""
        known = self._states.get(device_id, {})
        dropped = [name for name in known if rule_name in {None, name}]
        for name in dropped:
            del known[name]
        if not known:
            self._states.pop(device_id, None)
        return dropped

    def log_allowed(self, rule: Rule) -> bool:
        """Whether a rule may write one more line now."""
        now_s, rate = self._clock.monotonic_s(), self._config.log_lines_per_s
        rule.log_room = min(rate, rule.log_room + (now_s - rule.log_at_s) * rate)
        rule.log_at_s = now_s
        if rule.log_room < 1:
            return False
        rule.log_room -= 1
        return True

    def statuses(self) -> list[RuleStatus]:
        """Copies, for the API."""
        return [msgspec.structs.replace(rule.status) for rule in self]

    def _note(self, rule: Rule, error: str) -> None:
        rule.status.last_error = safe_text(error, _ERROR_CHARS)
        rule.status.last_error_at_ms = self._clock.now_ms()
