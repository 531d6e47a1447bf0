"""Subscriptions decide who gets what."""

from __future__ import annotations

from fakes.rules_fakes import event, message
from hypothesis import given
from hypothesis import strategies as st

from gateway.rules.matching import Matcher, Subscription

NAMES = st.sampled_from(["a", "b", "c"])


@given(
    st.lists(st.tuples(st.none() | NAMES, st.none() | NAMES), max_size=5),
    st.lists(st.tuples(NAMES, st.dictionaries(NAMES, st.integers(), max_size=3)), max_size=20),
)
def test_a_plan_names_exactly_the_subscriptions_that_match(
    wanted: list[tuple[str | None, str | None]], messages: list[tuple[str, dict[str, int]]]
) -> None:
    matcher = Matcher(
        "default", [Subscription(1, number, "message", product=p, property=q) for number, (p, q) in enumerate(wanted)]
    )
    for product, values in messages:
        sent = message(product=product)
        sent.values = values
        expected = tuple(
            (1, number) for number, (p, q) in enumerate(wanted) if p in {None, product} and (q is None or q in values)
        )
        assert matcher.message_plan(sent) == expected
        assert matcher.wants_message(sent) == bool(expected)


def test_a_device_that_invents_shapes_cannot_fill_the_memory() -> None:
    matcher = Matcher("default", [Subscription(1, 1, "message")])
    for number in range(10_000):
        assert matcher.wants_message(message(**{f"p{number}": 1}))
    assert len(matcher._plans) <= 4096


def test_an_event_type_may_end_in_a_star() -> None:
    matcher = Matcher("default", [Subscription(1, 1, "event", type="device.*"), Subscription(2, 1, "event")], {1: "r"})
    assert matcher.event_plan(event("device.online")) == ((1, 1), (2, 1))
    assert matcher.event_plan(event("devices.online")) == ((2, 1),)
    assert matcher.event_plan(event("device.online", rule="r")) == ((2, 1),)
    assert not matcher.wants_event(event("device.online", tenant="other"))
