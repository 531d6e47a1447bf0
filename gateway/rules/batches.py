"""Batches for the worker: who gets which item, and the states that the worker does not have yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from gateway.core.clock import Clock
from gateway.core.flow import Event, Message
from gateway.rules.config import RulesConfig
from gateway.rules.matching import Matcher
from gateway.rules.rulebook import Rulebook
from gateway.rules.wire import EMPTY_STATE, Evaluate, KnownState, Plan

Subject: TypeAlias = Message | Event


class Batches:
    """Builds requests, remembering which states the present worker holds."""

    def __init__(self, config: RulesConfig, book: Rulebook, clock: Clock) -> None:
        """Suppose a worker that holds nothing."""
        self._config = config
        self._book = book
        self._clock = clock
        self._known: dict[int, dict[str, None]] = {}
        self._dropped: dict[tuple[int, str], bool] = {}  # and whether the device is gone

    def forget(self, rule: int | None = None) -> None:
        """The worker no longer holds the states of a rule, or of any."""
        if rule is None:
            self._known.clear()
        else:
            self._known.pop(rule, None)

    def drop(self, device: str, rule: int | None = None) -> None:
        """Take the book's word again for what a rule, or every rule, remembers of a device."""
        for version, known in self._known.items():
            if device in known and rule in {None, version}:
                self._dropped[version, device] = rule is None or self._dropped.get((version, device), False)

    def dropped(self, rule: int, device: str) -> bool:
        """Whether a state was dropped since the last request, whose answer then speaks of it in vain."""
        return (rule, device) in self._dropped

    def gone(self, rule: int, device: str) -> bool:
        """Whether that was so for every rule: the device was deleted."""
        return self._dropped.get((rule, device), False)

    def request(self, items: Sequence[Subject], without: frozenset[int]) -> Evaluate:
        """Ask for items, leaving out some rules. Items are either all messages or all events."""
        plans: dict[Plan, int] = {}
        plan_of: list[int] = []
        states: list[KnownState] = []
        self._replace_dropped(states)
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

    def _replace_dropped(self, states: list[KnownState]) -> None:
        for version, device in self._dropped:
            rule = self._book.by_id(version)
            states.append(KnownState(version, device, self._book.state(rule, device) if rule else EMPTY_STATE))
        self._dropped.clear()

    def _evict(self, states: list[KnownState]) -> None:
        for rule, known in self._known.items():
            while len(known) > self._config.cached_states:
                device = next(iter(known))
                del known[device]
                states.append(KnownState(rule, device, EMPTY_STATE))

    def _introduce(self, version: int, device: str, states: list[KnownState]) -> None:
        rule = self._book.by_id(version)
        state = EMPTY_STATE if rule is None else self._book.state(rule, device)
        states.append(KnownState(version, device, state))  # also when empty: the worker may still hold one


def _plan(matcher: Matcher, item: Subject, without: frozenset[int]) -> Plan:
    plan = matcher.message_plan(item) if isinstance(item, Message) else matcher.event_plan(item)
    return tuple(each for each in plan if each[0] not in without) if without else plan
