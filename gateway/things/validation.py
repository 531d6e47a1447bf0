"""What makes a product or a device well-formed, beyond the types of `model.py`.

Owns the rules for ids, thing models and mappings. Does not know who asks, nor what exists already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from gateway.core.errors import Rejected
from gateway.things.model import PROPERTY_ID, FieldMapping, Product, Property, ThingModel
from gateway.things.units import check_unit

PRODUCT_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What a product or plugin may be called: safe in URLs, topics and file names."""

MOST_PROPERTIES: Final = 1_024
"""Properties of a model; a large PLC maps some hundreds."""
MOST_FUNCTIONS: Final = 256
"""Functions, and events, of a model."""
MOST_FIELDS: Final = 128
"""Inputs of a function, or data fields of an event."""
MOST_MEMBERS: Final = 256
"""Members of an enum."""
MOST_TAGS: Final = 64
"""Tags of a product or a device."""

_MOST_STAGES: Final = 8
_MOST_NAME: Final = 200
_MOST_DESCRIPTION: Final = 4_000
_MOST_FIELD: Final = 128
_MOST_TAG_KEY: Final = 64
_MOST_TAG_VALUE: Final = 256
_MOST_TEXT: Final = 1_000_000
_MOST_RETENTION_DAYS: Final = 36_500
_SHOWN: Final = 5

_IS_PROPERTY_ID = re.compile(PROPERTY_ID).fullmatch
_IS_PRODUCT_ID = re.compile(PRODUCT_ID).fullmatch
_NUMERIC: Final = ("int", "float")
_WITH_UNIT: Final = ("int", "float", "array")


def check_product(product: Product) -> None:
    """Raise Rejected, naming each faulty field by its path, unless the product is well-formed."""
    _raise(_product_problems(product))


def check_model(model: ThingModel) -> None:
    """Raise Rejected, naming each faulty field by its path, unless the thing model is well-formed."""
    _raise(_model_problems(model))


def check_device(device_id: str, name: str = "", tags: Mapping[str, str] | None = None) -> None:
    """Raise Rejected unless this can be a device."""
    _raise(_device_problems(device_id, name, tags or {}))


def is_device_id(text: str) -> bool:
    """1 to 64 printable characters that survive URLs and MQTT topics; no space at the ends."""
    return (
        1 <= len(text) <= 64
        and text.isprintable()
        and text.strip() == text
        and not any(char in "/\\+#" for char in text)
        and text not in {".", ".."}
    )


def _raise(problems: Iterator[str]) -> None:
    found = list(islice(problems, _SHOWN + 1))
    if found:
        more = "; and more" if len(found) > _SHOWN else ""
        raise Rejected("; ".join(found[:_SHOWN]) + more)


def _device_problems(device_id: str, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    if not is_device_id(device_id):
        yield "id: a device id has 1 to 64 printable characters, without / \\ + # and without space at its ends"
    yield from _text_problems("name", name, _MOST_NAME)
    yield from _tag_problems("tags", tags)


def _product_problems(product: Product) -> Iterator[str]:
    if not _IS_PRODUCT_ID(product.id):
        yield "id: a product id starts with a letter or digit and has up to 64 letters, digits, '_', '.' or '-'"
    if product.plugin_id is not None and not _IS_PRODUCT_ID(product.plugin_id):
        yield "plugin_id: not a plugin id"
    if len(product.stages) > _MOST_STAGES:
        yield f"stages: at most {_MOST_STAGES}, there are {len(product.stages)}"
    if len(set(product.stages)) < len(product.stages):
        yield "stages: each at most once"
    yield from _text_problems("name", product.name, _MOST_NAME)
    days = product.retention_days
    if days is not None and not 0 < days <= _MOST_RETENTION_DAYS:
        yield f"retention_days: above 0 and at most {_MOST_RETENTION_DAYS}, or left out to keep history"
    for problem in _model_problems(product.model):
        yield f"model.{problem}"
    yield from _mapping_problems(product.mapping)


def _model_problems(model: ThingModel) -> Iterator[str]:
    yield from _fields_problems("properties", model.properties, MOST_PROPERTIES)
    yield from _names_problems("functions", model.functions, MOST_FUNCTIONS)
    for function_id, function in model.functions.items():
        at = f"functions.{function_id}"
        yield from _described_problems(at, function.name, function.description)
        yield from _fields_problems(f"{at}.inputs", function.inputs, MOST_FIELDS)
    yield from _names_problems("events", model.events, MOST_FUNCTIONS)
    for event_id, event in model.events.items():
        at = f"events.{event_id}"
        yield from _described_problems(at, event.name, event.description)
        yield from _fields_problems(f"{at}.data", event.data, MOST_FIELDS)
    yield from _tag_problems("tags", model.tags)


def _fields_problems(at: str, fields: Mapping[str, Property], most: int) -> Iterator[str]:
    yield from _names_problems(at, fields, most)
    for name, field in fields.items():
        for problem in _property_problems(field):
            yield f"{at}.{name}.{problem}"


def _names_problems(at: str, named: Mapping[str, object], most: int) -> Iterator[str]:
    if len(named) > most:
        yield f"{at}: at most {most}, there are {len(named)}"
    for name in named:
        if not _IS_PROPERTY_ID(name):
            yield (
                f"{at}: {name[:64]!r} is not an id: it starts with a letter or '_' and has up to 64 letters, digits, "
                "'_', '.', ':' or '-'"
            )


def _property_problems(field: Property) -> Iterator[str]:
    yield from _text_problems("name", field.name, _MOST_NAME)
    yield from _text_problems("description", field.description, _MOST_DESCRIPTION)
    yield from _bound_problems(field)
    if field.max_length is not None:
        if field.type != "string":
            yield f"max_length: only a string has one, this is of type {field.type}"
        elif not 1 <= field.max_length <= _MOST_TEXT:
            yield f"max_length: from 1 to {_MOST_TEXT}"
    yield from _member_problems(field)
    if field.unit is not None:
        if field.type not in _WITH_UNIT:
            yield f"unit: only int, float and array have one, this is of type {field.type}"
        else:
            yield from _unit_problems(field.unit)


def _bound_problems(field: Property) -> Iterator[str]:
    for name, bound in (("minimum", field.minimum), ("maximum", field.maximum)):
        if bound is None:
            continue
        if field.type not in _NUMERIC:
            yield f"{name}: only int and float have bounds, this is of type {field.type}"
        elif not math.isfinite(bound):
            yield f"{name}: not a number"
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
        yield f"minimum: {field.minimum:g} is above the maximum {field.maximum:g}"


def _member_problems(field: Property) -> Iterator[str]:
    if field.type != "enum":
        if field.values:
            yield f"values: only an enum has members, this is of type {field.type}"
        return
    if not 1 <= len(field.values) <= MOST_MEMBERS:
        yield f"values: an enum has 1 to {MOST_MEMBERS} members"
    if len(set(field.values)) != len(field.values):
        yield "values: a member is named twice"
    for member in field.values:
        if isinstance(member, int) and not -(2**63) <= member < 2**63:
            yield "values: an integer member has at most 64 bits"
        elif isinstance(member, str) and len(member) > _MOST_NAME:
            yield f"values: a member has at most {_MOST_NAME} characters"


def _unit_problems(unit: str) -> Iterator[str]:
    try:
        check_unit(unit)
    except Rejected as wrong:
        yield f"unit: {wrong}"


def _mapping_problems(mapping: tuple[FieldMapping, ...]) -> Iterator[str]:
    if len(mapping) > MOST_PROPERTIES:
        yield f"mapping: at most {MOST_PROPERTIES} entries, there are {len(mapping)}"
    fields: set[str] = set()
    targets: set[str] = set()
    for number, entry in enumerate(mapping):
        at = f"mapping.{number}"
        target = entry.field if entry.rename is None else entry.rename
        if not 1 <= len(entry.field) <= _MOST_FIELD:
            yield f"{at}.field: 1 to {_MOST_FIELD} characters"
        if not _IS_PROPERTY_ID(target):
            yield f"{at}.rename: {target[:64]!r} is not a property id; rename the field to one"
        if not (math.isfinite(entry.scale) and math.isfinite(entry.offset)):
            yield f"{at}: scale and offset are finite numbers"
        if entry.field in fields:
            yield f"{at}.field: {entry.field[:64]!r} is mapped twice"
        if target in targets:
            yield f"{at}.rename: two fields become {target[:64]!r}"
        fields.add(entry.field)
        targets.add(target)


def _described_problems(at: str, name: str, description: str) -> Iterator[str]:
    yield from _text_problems(f"{at}.name", name, _MOST_NAME)
    yield from _text_problems(f"{at}.description", description, _MOST_DESCRIPTION)


def _text_problems(at: str, text: str, most: int) -> Iterator[str]:
    if len(text) > most:
        yield f"{at}: at most {most} characters"


def _tag_problems(at: str, tags: Mapping[str, str]) -> Iterator[str]:
    if len(tags) > MOST_TAGS:
        yield f"{at}: at most {MOST_TAGS}, there are {len(tags)}"
    for key, value in tags.items():
        if not (1 <= len(key) <= _MOST_TAG_KEY and key.isprintable() and "=" not in key):
            yield f"{at}: a key has 1 to {_MOST_TAG_KEY} printable characters, without '='"
        if len(value) > _MOST_TAG_VALUE:
            yield f"{at}.{key[:64]}: at most {_MOST_TAG_VALUE} characters"
