from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.flow import Quality
from gateway.things.config import ThingsConfig
from gateway.things.model import FieldMapping, Product, Property, ThingModel
from gateway.things.normalise import Normaliser

GOOD, OUT, BAD, UNKNOWN = Quality.GOOD, Quality.OUT_OF_RANGE, Quality.BAD_TYPE, Quality.UNKNOWN_PROPERTY

PROPERTIES = {
    "temperature": Property(type="float", minimum=-40, maximum=85),
    "free": Property(type="float"),
    "count": Property(type="int", minimum=0, maximum=10.5),
    "whole": Property(type="int"),
    "on": Property(type="bool"),
    "text": Property(type="string", max_length=4),
    "mode": Property(type="enum", values=("auto", "off", 3)),
    "time": Property(type="datetime"),
    "shape": Property(type="object"),
    "series": Property(type="array"),
}


def product(*mapping: FieldMapping) -> Product:
    return Product(tenant_id="default", id="p", model=ThingModel(properties=PROPERTIES), mapping=mapping)


def check(name: str, value: Any) -> tuple[Any, Quality]:
    kept, quality, shed = Normaliser(product()).normalise({name: value})
    assert shed == 0
    assert set(kept) == {name}
    return kept[name], (quality or {}).get(name, GOOD)


@pytest.mark.parametrize(
    ("name", "value", "kept", "quality"),
    [
        ("temperature", 21.5, 21.5, GOOD),
        ("temperature", -40.0, -40.0, GOOD),
        ("temperature", 85.0, 85.0, GOOD),
        ("temperature", 85.1, 85.1, OUT),
        ("temperature", -41, -41.0, OUT),
        ("temperature", 21, 21.0, GOOD),
        ("temperature", True, True, BAD),
        ("temperature", "21", "21", BAD),
        ("temperature", None, None, GOOD),
        ("temperature", float("nan"), None, BAD),
        ("temperature", float("inf"), None, BAD),
        ("free", float("-inf"), None, BAD),
        ("free", 1.7976931348623157e308, 1.7976931348623157e308, GOOD),
        ("free", 2**64, 18446744073709551616.0, GOOD),
        ("free", 10**400, None, BAD),
        ("count", 10, 10, GOOD),
        ("count", 11, 11, OUT),
        ("count", -1, -1, OUT),
        ("count", 3.0, 3, GOOD),
        ("count", 3.5, 3.5, BAD),
        ("count", False, False, BAD),
        ("whole", 2**63 - 1, 2**63 - 1, GOOD),
        ("whole", -(2**63), -(2**63), GOOD),
        ("whole", 2**63, "9223372036854775808", BAD),
        ("whole", 1e300, 1e300, BAD),
        ("whole", float("nan"), None, BAD),
        ("on", True, True, GOOD),
        ("on", 1, 1, BAD),
        ("on", None, None, GOOD),
        ("text", "abcd", "abcd", GOOD),
        ("text", "abcde", "abcde", OUT),
        ("text", b"\x01\xff", "01ff", GOOD),
        ("text", 7, 7, BAD),
        ("mode", "auto", "auto", GOOD),
        ("mode", "on", "on", OUT),
        ("mode", 3, 3, GOOD),
        ("mode", 3.0, 3, GOOD),
        ("mode", 4, 4, OUT),
        ("mode", True, True, BAD),
        ("mode", ["auto"], ["auto"], BAD),
        ("mode", 2**63, "9223372036854775808", BAD),
        ("time", datetime(2026, 6, 15, 2, 57, 25, tzinfo=UTC), "2026-06-15T02:57:25Z", GOOD),
        ("time", 1781492245, 1781492245, BAD),
        ("shape", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, GOOD),
        ("shape", {1: b"\x0a"}, {"1": "0a"}, BAD),
        ("shape", {"a": float("nan")}, {"a": None}, BAD),
        ("shape", {None: 1}, None, BAD),
        ("shape", [1], [1], BAD),
        ("series", [1, 2.5, "x", b"\xff"], [1, 2.5, "x", "ff"], GOOD),
        ("series", (1, 2), [1, 2], GOOD),
        ("series", {}, {}, BAD),
    ],
)
def test_each_value_keeps_its_worth_and_gets_its_quality(name: str, value: Any, kept: Any, quality: Quality) -> None:
    result = check(name, value)
    assert result == (kept, quality)
    assert type(result[0]) is type(kept)


@pytest.mark.parametrize(
    ("text", "quality"),
    [
        ("2026-06-15T02:57:25Z", GOOD),
        ("2026-06-15t02:57:25z", GOOD),
        ("2026-06-15 02:57:25+08:00", GOOD),
        ("2026-06-15T02:57:25.123456789-11:30", GOOD),
        ("2016-12-31T23:59:60Z", GOOD),
        ("2024-02-29T00:00:00Z", GOOD),
        ("2026-02-29T00:00:00Z", BAD),
        ("2026-06-15T24:00:00Z", BAD),
        ("2026-06-15T02:57:25", BAD),
        ("2026-06-15", BAD),
        ("2026-W25-1T02:57:25Z", BAD),
        ("20260615T025725Z", BAD),
        ("2026-06-15T02:57:25Z\n", BAD),
        ("٢٠٢٦-06-15T02:57:25Z", BAD),
        ("", BAD),
    ],
)
def test_a_datetime_is_rfc3339_text(text: str, quality: Quality) -> None:
    assert check("time", text) == (text, quality)


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - made UTC below
def test_every_moment_of_the_calendar_is_a_datetime(moment: datetime) -> None:
    text = moment.isoformat() + "Z"
    assert check("time", text) == (text, GOOD)


def test_a_message_of_good_values_is_passed_on_without_a_copy() -> None:
    values = {"temperature": 1.0, "count": 2, "on": False}
    kept, quality, shed = Normaliser(product()).normalise(values)
    assert kept is values
    assert (quality, shed) == (None, 0)


def test_an_unknown_property_is_kept_and_said_to_be_unknown() -> None:
    kept, quality, shed = Normaliser(product()).normalise({"temperature": 1.0, "novel": {"a": b"\x01"}})
    assert kept == {"temperature": 1.0, "novel": {"a": "01"}}
    assert quality == {"novel": UNKNOWN}
    assert shed == 0


@pytest.mark.parametrize("name", ["", "1st", "a b", "a" * 65, "täg", 'a"b', "a\n"])
def test_a_name_that_cannot_be_a_property_is_shed_and_counted(name: str) -> None:
    assert Normaliser(product()).normalise({name: 1.0, "count": 1}) == ({"count": 1}, None, 1)


def test_a_device_that_invents_names_without_end_does_not_grow_the_normaliser() -> None:
    normaliser = Normaliser(product())
    for number in range(3_000):
        kept, quality, _ = normaliser.normalise({f"n{number}": number})
        assert kept == {f"n{number}": number}
        assert quality == {f"n{number}": UNKNOWN}
    assert len(normaliser._unknown) <= 1_024


def test_more_values_than_the_bound_are_shed_and_counted() -> None:
    normaliser = Normaliser(product(), ThingsConfig(values_per_message=3))
    kept, _, shed = normaliser.normalise({f"v{number}": number for number in range(10)})
    assert (len(kept), shed) == (3, 7)


@pytest.mark.parametrize("name", ["text", "novel", "temperature"])
def test_a_text_beyond_the_bound_becomes_null_and_bad(name: str) -> None:
    normaliser = Normaliser(product(), ThingsConfig(text_chars=10))
    assert normaliser.normalise({name: "x" * 11}) == ({name: None}, {name: BAD}, 0)
    assert normaliser.normalise({name: b"x" * 6}) == ({name: None}, {name: BAD}, 0)


def test_nesting_and_members_are_bounded_over_all_levels() -> None:
    normaliser = Normaliser(product(), ThingsConfig(value_depth=2, value_items=5))
    assert normaliser.normalise({"series": [[1], [2]]})[1] is None
    assert normaliser.normalise({"series": [[[1]]]}) == ({"series": None}, {"series": BAD}, 0)
    assert normaliser.normalise({"series": [[1, 2], [3, 4]]}) == ({"series": None}, {"series": BAD}, 0)


def test_a_value_nested_without_end_becomes_null() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    assert check("series", deep) == (None, BAD)


# Mapping


def mapped(*mapping: FieldMapping, **values: Any) -> tuple[dict[str, Any], dict[str, Quality] | None, int]:
    return Normaliser(product(*mapping)).normalise(dict(values))


def test_a_field_is_scaled_then_renamed_then_checked() -> None:
    entry = FieldMapping(field="raw", rename="temperature", scale=0.5, offset=-40)
    assert mapped(entry, raw=100) == ({"temperature": 10.0}, None, 0)
    assert mapped(entry, raw=1000) == ({"temperature": 460.0}, {"temperature": OUT}, 0)
    assert mapped(entry, raw="x") == ({"temperature": "x"}, {"temperature": BAD}, 0)
    assert mapped(entry, raw=None) == ({"temperature": None}, None, 0)


def test_a_whole_factor_keeps_an_integer_exact() -> None:
    entry = FieldMapping(field="whole", scale=10, offset=7)
    kept, quality, _ = mapped(entry, whole=2**53 + 1)
    assert (kept, quality) == ({"whole": (2**53 + 1) * 10 + 7}, None)


def test_a_scaled_value_beyond_any_float_becomes_null() -> None:
    entry = FieldMapping(field="free", scale=1e308)
    assert mapped(entry, free=1e300) == ({"free": None}, {"free": BAD}, 0)
    assert mapped(FieldMapping(field="free", scale=0.5), free=10**400) == ({"free": None}, {"free": BAD}, 0)


def test_a_mapped_field_wins_over_an_unmapped_one_of_its_name() -> None:
    entry = FieldMapping(field="raw", rename="temperature")
    assert mapped(entry, temperature=99.0, raw=1.0) == ({"temperature": 1.0}, None, 1)
    assert mapped(entry, raw=1.0, temperature=99.0) == ({"temperature": 1.0}, None, 1)
    assert mapped(entry, temperature=99.0) == ({"temperature": 99.0}, {"temperature": OUT}, 0)


def test_two_fields_can_change_names() -> None:
    swap = (FieldMapping(field="count", rename="whole"), FieldMapping(field="whole", rename="count"))
    assert mapped(*swap, count=-5, whole=3) == ({"whole": -5, "count": 3}, None, 0)


def test_a_field_with_any_name_can_be_renamed_to_a_property() -> None:
    normaliser = Normaliser(product(FieldMapping(field="temp °C", rename="temperature")))
    assert normaliser.normalise({"temp °C": 4.0}) == ({"temperature": 4.0}, None, 0)


def test_a_field_can_be_mapped_to_a_name_that_the_model_does_not_know() -> None:
    assert mapped(FieldMapping(field="a", rename="b", scale=2), a=2) == ({"b": 4}, {"b": UNKNOWN}, 0)


# Any value at all

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC))
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(scalars.filter(lambda key: key == key), inner, max_size=4)  # noqa: PLR0124 - NaN
    ),
    max_leaves=20,
)
names = st.sampled_from([*PROPERTIES, "raw", "raw2"]) | st.text(max_size=6)


@given(st.dictionaries(names, anything, max_size=12))
def test_any_values_of_a_plugin_become_json_with_a_quality_each(values: dict[str, Any]) -> None:
    # Through msgpack, as values come from a plugin.
    values = msgspec.msgpack.decode(msgspec.msgpack.encode(values))
    mapping = (
        FieldMapping(field="raw", rename="temperature", scale=0.1, offset=1),
        FieldMapping(field="raw2", rename="count", scale=3),
    )
    names_sent = len(values)
    kept, quality, shed = Normaliser(product(*mapping)).normalise(values)
    assert len(kept) + shed == names_sent
    assert set(quality or ()) <= set(kept)
    assert msgspec.json.decode(msgspec.json.encode(kept)) == kept
    for name, value in kept.items():
        if name not in (quality or {}) and value is not None:
            assert check(name, value) == (value, GOOD)
