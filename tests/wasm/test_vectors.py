from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wasm.vectors import difference

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(_json)
def test_everything_contains_itself(value: Any) -> None:
    assert difference(value, value, "value") == ""


@given(st.dictionaries(st.text(max_size=3), _json, min_size=1, max_size=4))
def test_a_map_contains_every_part_of_it_but_not_the_other_way_round(value: Any) -> None:
    key = next(iter(value))
    rest = {other: value[other] for other in value if other != key}
    assert difference(rest, value, "value") == ""
    assert difference(value, rest, "value") == f"value.{key}: missing"


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        (1, True, False),
        (False, 0, False),
        (None, 0, False),
        (None, None, True),
        ([1, 2], [1, 2], True),
        ([1], [1, 2], False),
        ([{"a": 1}], [{"a": 1, "b": 2}], True),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, False),
        ({}, [], False),
        ("1", 1, False),
        ({"a": None}, {}, False),
    ],
)
def test_values_compare_as_json_does(expected: Any, actual: Any, equal: bool) -> None:
    assert (difference(expected, actual, "value") == "") is equal
