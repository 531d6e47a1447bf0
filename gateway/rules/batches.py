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

    def forget(self, rule: int | None = None) -> None:
        """The worker no longer holds the states of a rule, or of any."""
        if rule is None:
            self._known.clear()
        else:
            self._known.pop(rule, None)

    def request(self, items: Sequence[Subject], without: frozenset[int]) -> Evaluate:
        """Ask for items, leaving out some rules. Items are either all messages or all events."""
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


def _plan(matcher: Matcher, item: Subject, without: frozenset[int]) -> Plan:
    plan = matcher.message_plan(item) if isinstance(item, Message) else matcher.event_plan(item)
    return tuple(each for each in plan if each[0] not in without) if without else plan
