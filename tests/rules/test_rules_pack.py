"""Values cross the sandbox's border unchanged, or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
from fakes.rules_fakes import message
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rules.config import RulesConfig
from gateway.rules.sandbox import RuleSandbox

SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=300)
)
# Lua has neither null inside tables nor a difference between an empty array and an empty map.
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, min_size=1, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=30,
)


def sandbox(body: str) -> RuleSandbox:
    made = RuleSandbox(RulesConfig(state_bytes=1_000_000))
    error, _ = made.load(f"on.message{{}}(function(msg, state) {body} end)".encode(), "pack.lua")
    assert error == ""
    return made


KEEPING = sandbox("state.kept = msg.values.v")
KEPT = sandbox("state.kept = state.kept state.touched = true")


def kept(value: Any) -> Any:
    answer = KEEPING.on_message(1, message(v=value))
    assert answer is not None
    assert answer[0] == 0, answer
    assert answer[1] is not None
    KEEPING.set_state("d1", None)
    return msgspec.msgpack.decode(answer[1])["kept"]


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_a_value_that_a_rule_keeps_comes_out_as_it_went_in(value: Any) -> None:
    found = kept(value)
    assert found == value
    assert type(found) is type(value)


@given(st.dictionaries(st.text(max_size=40), VALUES, max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_state_that_is_given_to_a_rule_comes_back_the_same(state: dict[str, Any]) -> None:
    KEPT.set_state("d1", msgspec.msgpack.encode(state))
    answer = KEPT.on_message(1, message())
    assert answer is not None
    if answer[1] is not None:
        assert msgspec.msgpack.decode(answer[1]) == state | {"touched": True}
    else:
        assert state.get("touched") is True


@given(st.dictionaries(st.text(min_size=1, max_size=20), SCALARS | VALUES, min_size=1, max_size=150))
@settings(max_examples=60, deadline=None)
def test_every_property_arrives_whatever_its_name(values: dict[str, Any]) -> None:
    seeing = sandbox("state.seen = msg.values")
    answer = seeing.on_message(1, message(**values) if "device" not in values else message())
    assert answer is not None
    if "device" not in values and not {"at", "product"} & values.keys():
        assert answer[1] is not None
        assert msgspec.msgpack.decode(answer[1])["seen"] == values


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_in_a_log_line_leave_as_text(data: bytes) -> None:
    escaped = "".join(f"\\{byte:03d}" for byte in data)
    answer = sandbox(f'log.info("{escaped}")').on_message(1, message())
    assert answer is not None
    assert answer[2] is not None
    assert isinstance(msgspec.msgpack.decode(answer[2])[0]["text"], str)
