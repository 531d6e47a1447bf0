"""Who gets which message or event: subscriptions compiled into plans, with a bounded cache of message shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.core.flow import Event, Message
from gateway.rules.wire import Plan

_SHAPES = 4096
"""Shapes (product and property names) with a known plan; a device that invents shapes empties the cache, no more."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One `on.message{...}` or `on.event{...}` of a rule; None matches all. An event type may end in `*`."""

    rule: int
    handler: int
    kind: str
    product: str | None = None
    property: str | None = None
    type: str | None = None


class Matcher:
    """Finds the plan of a message or event. Rules are those of one tenant."""

    def __init__(
        self, tenant_id: str, subscriptions: Iterable[Subscription] = (), names: dict[int, str] | None = None
    ) -> None:
        """Compile; `names` are those of the rules, to keep a rule from hearing of its own alarms."""
        self._tenant_id = tenant_id
        every = list(subscriptions)
        self._messages = [each for each in every if each.kind == "message"]
        self._events = [each for each in every if each.kind == "event"]
        self._names = names or {}
        self._plans: dict[tuple[str, ...], Plan] = {}

    def wants_message(self, message: Message) -> bool:
        """Whether any rule subscribed to it; asked for every message that is published."""
        plan = self._plans.get((message.product_id, *message.values))
        if plan is None:
            plan = self.message_plan(message)
        return bool(plan) and message.tenant_id == self._tenant_id

    def message_plan(self, message: Message) -> Plan:
        """Rules and handlers for a message, in the order of loading."""
        shape = (message.product_id, *message.values)
        plan = self._plans.get(shape)
        if plan is None:
            if len(self._plans) >= _SHAPES:
                self._plans.clear()
            plan = self._plans[shape] = tuple(
                (each.rule, each.handler)
                for each in self._messages
                if (each.product is None or each.product == message.product_id)
                and (each.property is None or each.property in message.values)
            )
        return plan

    def wants_event(self, event: Event) -> bool:
        """Whether any rule subscribed to it."""
        return event.tenant_id == self._tenant_id and bool(self.event_plan(event))

    def event_plan(self, event: Event) -> Plan:
        """Rules and handlers for an event; a rule does not hear of the alarms that it raised itself."""
        cause = event.data.get("rule")
        return tuple(
            (each.rule, each.handler)
            for each in self._events
            if _type_matches(each.type, event.type) and (cause is None or self._names.get(each.rule) != cause)
        )


def _type_matches(wanted: str | None, kind: str) -> bool:
    if wanted is None:
        return True
    return kind.startswith(wanted[:-1]) if wanted.endswith("*") else kind == wanted
