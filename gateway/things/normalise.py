"""Normalise: what a device reported, checked against its product's thing model, value by value.

Owns mapping, types, ranges and qualities. Compiled once per product, because every message passes here. Does not know
which device reported, nor when.

A value of the right type within its bounds is `good`. One outside its bounds (range, enum members, text length) is
`out_of_range` and kept. One of the wrong type is `bad_type` and kept in its JSON form, null where it has none (NaN, an
infinity, a value beyond the bounds of ThingsConfig). A name that the model does not know is `unknown_property` and
kept, unless it cannot be a property id: then it is shed.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeAlias

from gateway.core.flow import Quality
from gateway.things.config import ThingsConfig
from gateway.things.jsonable import INT_MAX, INT_MIN, JsonForm
from gateway.things.model import PROPERTY_ID, DataType, FieldMapping, Product, Property

Check: TypeAlias = "Callable[[Any], tuple[Any, Quality]]"
"""What a value becomes, and how far it may be trusted."""

Quick: TypeAlias = "tuple[type, Any, Any]"
"""Exact type, lowest and highest: a value that passes is good as it is."""

Rule: TypeAlias = "tuple[str, Check]"
"""The property that a field becomes, and its check."""

_FLOAT_MAX: Final = sys.float_info.max
_INT_IN_FLOAT: Final = 2**53
_NAMES_REMEMBERED: Final = 1_024
"""Unknown names whose form was found good; a device that invents more is tested each time."""

_GOOD: Final = Quality.GOOD
_is_property_id = re.compile(PROPERTY_ID).fullmatch
_rfc3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch


class Normaliser:
    """The compiled thing model and mapping of one product, which was checked before."""

    __slots__ = ("_json", "_most", "_quick", "_rivals", "_rules", "_unknown")

    def __init__(self, product: Product, config: ThingsConfig | None = None) -> None:
        """Compile."""
        config = config or ThingsConfig()
        self._most = config.values_per_message
        self._json = JsonForm(config)
        self._unknown: dict[str, Rule] = {}
        self._rivals: dict[str, str] = {}
        self._quick: dict[str, Quick] = {}
        self._rules: dict[str, Rule] = {}
        for name, field in product.model.properties.items():
            self._rules[name] = (name, _check_of(field, self._json))
            quick = _quick_of(field)
            if quick is not None:
                self._quick[name] = quick
        self._map(product.mapping)

    def normalise(self, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Quality] | None, int]:
        """Check one message: values by property, the qualities that are not good, and how many values were shed.

        Takes `values` over: the result may be the same dict, changed. Never raises, whatever the values are. A null
        says that the device has no value: it is kept, and good. Shed are names that cannot be property ids, values
        beyond `values_per_message`, and an unmapped field whose name a mapped one takes.
        """
        shed = 0
        if len(values) > self._most:
            shed = len(values) - self._most
            values = dict(islice(values.items(), self._most))
        if not self._rivals.keys().isdisjoint(values):
            shed += self._drop_rivals(values)
        odd: list[str] = []
        quick = self._quick
        for name, value in values.items():
            if name in quick:
                kind, lowest, highest = quick[name]
                if type(value) is kind and lowest <= value <= highest:
                    continue
            odd.append(name)
        if not odd:
            return values, None, shed
        return self._closely(values, odd, shed)

    def _closely(
        self, values: dict[str, Any], odd: list[str], shed: int
    ) -> tuple[dict[str, Any], dict[str, Quality] | None, int]:
        """Check the values that the quick test did not pass, and rename."""
        checked: dict[str, Any] = {}
        quality: dict[str, Quality] | None = None
        for name in odd:
            rule = self._rules.get(name) or self._unknown.get(name) or self._meet(name)
            value = values.pop(name)
            if rule is None:
                shed += 1
                continue
            target, check = rule
            checked[target], verdict = check(value)
            if verdict is not _GOOD:
                if quality is None:
                    quality = {}
                quality[target] = verdict
        values.update(checked)
        return values, quality, shed

    def _map(self, mapping: tuple[FieldMapping, ...]) -> None:
        """Let mapped fields take the rules of their properties; an unmapped field of a taken name is a rival."""
        model = dict(self._rules)
        mapped = {entry.field for entry in mapping}
        for entry in mapping:
            target = entry.field if entry.rename is None else entry.rename
            _, check = model.get(target) or (target, _unknown_check(self._json))
            self._rules[entry.field] = (target, _scaled(entry, check))
            self._quick.pop(entry.field, None)
            if target not in mapped:
                self._rivals[target] = entry.field

    def _drop_rivals(self, values: dict[str, Any]) -> int:
        """Leave out unmapped fields whose name a mapped one of the same message takes."""
        beaten = [name for name, winner in self._rivals.items() if name in values and winner in values]
        for name in beaten:
            del values[name]
        return len(beaten)

    def _meet(self, name: str) -> Rule | None:
        """The rule of a name that the model does not have; None where it cannot be a property id."""
        if not _is_property_id(name):
            return None
        rule = (name, _unknown_check(self._json))
        if len(self._unknown) < _NAMES_REMEMBERED:
            self._unknown[name] = rule
        return rule


def _scaled(entry: FieldMapping, check: Check) -> Check:
    """The check of a field that is scaled before its property sees it; what is no number passes as it is."""
    scale, offset = _exact(entry.scale), _exact(entry.offset)
    if scale == 1 and offset == 0:
        return check

    def scaled(value: Any) -> tuple[Any, Quality]:
        if type(value) is int or type(value) is float:
            try:
                value = value * scale + offset
            except OverflowError:
                value = math.inf
        return check(value)

    return scaled


def _exact(number: float) -> int | float:
    """A whole factor as an integer, so that integers stay integers."""
    return int(number) if abs(number) < _INT_IN_FLOAT and number == int(number) else number


def _unknown_check(form: JsonForm) -> Check:
    def check(value: Any) -> tuple[Any, Quality]:
        kept, faithful = form.of(value)
        return kept, Quality.UNKNOWN_PROPERTY if faithful else Quality.BAD_TYPE

    return check


def _quick_of(field: Property) -> Quick | None:
    """The quick test of a property; None where its type has none."""
    if field.type == "float":
        return (float, *_float_bounds(field))
    if field.type == "int":
        return (int, *_int_bounds(field))
    return (bool, False, True) if field.type == "bool" else None


def _check_of(field: Property, form: JsonForm) -> Check:
    """The whole check of a property."""

    def wrong(value: Any) -> tuple[Any, Quality]:
        if value is None:
            return None, _GOOD
        return form.of(value)[0], Quality.BAD_TYPE

    return _MAKERS[field.type](field, form, wrong)


# Same types and orders of comparison on both sides: a float compared with an int costs twice.
def _float_bounds(field: Property) -> tuple[float, float]:
    return (
        -_FLOAT_MAX if field.minimum is None else float(field.minimum),
        _FLOAT_MAX if field.maximum is None else float(field.maximum),
    )


def _int_bounds(field: Property) -> tuple[int, int]:
    return (
        INT_MIN if field.minimum is None else max(INT_MIN, math.ceil(field.minimum)),
        INT_MAX if field.maximum is None else min(INT_MAX, math.floor(field.maximum)),
    )


def _float_check(field: Property, _form: JsonForm, wrong: Check) -> Check:
    lowest, highest = _float_bounds(field)

    def check(value: Any) -> tuple[Any, Quality]:
        if type(value) is int:
            try:
                value = float(value)
            except OverflowError:
                return wrong(value)
        elif type(value) is not float:
            return wrong(value)
        if lowest <= value <= highest:
            return value, _GOOD
        return (value, Quality.OUT_OF_RANGE) if -_FLOAT_MAX <= value <= _FLOAT_MAX else (None, Quality.BAD_TYPE)

    return check


def _int_check(field: Property, _form: JsonForm, wrong: Check) -> Check:
    lowest, highest = _int_bounds(field)

    def check(value: Any) -> tuple[Any, Quality]:
        if type(value) is float and value.is_integer() and abs(value) <= _INT_IN_FLOAT:
            value = int(value)
        if type(value) is not int or not INT_MIN <= value <= INT_MAX:
            return wrong(value)
        return value, _GOOD if lowest <= value <= highest else Quality.OUT_OF_RANGE

    return check


def _bool_check(_field: Property, _form: JsonForm, wrong: Check) -> Check:
    def check(value: Any) -> tuple[Any, Quality]:
        return (value, _GOOD) if type(value) is bool else wrong(value)

    return check


def _enum_check(field: Property, form: JsonForm, wrong: Check) -> Check:
    members = frozenset(field.values)
    kinds = {type(member) for member in members}

    def check(value: Any) -> tuple[Any, Quality]:
        if type(value) is float and value.is_integer() and abs(value) <= _INT_IN_FLOAT:
            value = int(value)
        if type(value) not in kinds:
            return wrong(value)
        if value in members:
            return value, _GOOD
        kept, faithful = form.of(value)
        return kept, Quality.OUT_OF_RANGE if faithful else Quality.BAD_TYPE

    return check


def _datetime_check(_field: Property, form: JsonForm, wrong: Check) -> Check:
    def check(value: Any) -> tuple[Any, Quality]:
        if type(value) is str:
            return (value, _GOOD) if _is_moment(value) else wrong(value)
        if isinstance(value, datetime):
            return form.of(value)[0], _GOOD
        return wrong(value)

    return check


def _is_moment(text: str) -> bool:
    """Whether a text is an RFC 3339 date-time; leap seconds are."""
    if len(text) == 20 and text[4::3] == "--T::Z" and _is_iso(text):
        return True
    found = _rfc3339(text)
    return found is not None and _is_iso(found[1])


def _is_iso(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _text_check(field: Property, form: JsonForm, wrong: Check) -> Check:
    longest = sys.maxsize if field.max_length is None else field.max_length

    def check(value: Any) -> tuple[Any, Quality]:
        if type(value) is not str and type(value) is not bytes:
            return wrong(value)
        text, faithful = form.of(value)
        if not faithful:
            return None, Quality.BAD_TYPE
        return text, _GOOD if len(text) <= longest else Quality.OUT_OF_RANGE

    return check


def _container_check(field: Property, form: JsonForm, wrong: Check) -> Check:
    kinds = (dict,) if field.type == "object" else (list, tuple)

    def check(value: Any) -> tuple[Any, Quality]:
        if type(value) not in kinds:
            return wrong(value)
        kept, faithful = form.of(value)
        return kept, _GOOD if faithful else Quality.BAD_TYPE

    return check


_MAKERS: Final[dict[DataType, Callable[[Property, JsonForm, Check], Check]]] = {
    "bool": _bool_check,
    "int": _int_check,
    "float": _float_check,
    "string": _text_check,
    "enum": _enum_check,
    "datetime": _datetime_check,
    "object": _container_check,
    "array": _container_check,
}
