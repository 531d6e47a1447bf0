"""Plain data (TOML, JSON) into typed structs, with errors that name the key, the place and the nearest known key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from gateway.core.errors import ConfigError

T = TypeVar("T")

_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<key>.*?)`(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_PATH = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")
_OTHER = re.compile(r"^(?P<text>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


def typed(data: Any, kind: type[T], where: str) -> T:
    """Convert plain data to a struct type.

    where: what the data is, for the message, such as `config.toml`. Raises ConfigError.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as failure:
        raise ConfigError(_explain(_with_keys(str(failure), data, kind), kind, where)) from failure


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or the list of what is known when nothing is near."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known are: {', '.join(words) or 'none'}"


def _with_keys(text: str, data: Any, kind: type) -> str:
    """An error with the keys of tables, which msgspec writes as `[...]`: found by trying them one at a time."""
    found = _PATH.search(text)
    if found is None or "[...]" not in found[1]:
        return text
    steps: list[str | int] = []
    for step in _STEP.findall(found[1]):
        if step == "[...]":
            table = _at(data, steps)
            keys = [str(key) for key in table] if isinstance(table, dict) else []
            key = next((key for key in keys if _fails_alike(_only(data, steps, key), kind, text)), None)
            if key is None:
                return text
            data = _only(data, steps, key)
            steps.append(key)
        else:
            steps.append(int(step[1:-1]) if step[0] == "[" else step)
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return f"{text[: found.start(1)]}{path}{text[found.end(1) :]}"


def _at(data: Any, steps: list[str | int]) -> Any:
    for step in steps:
        data = data[step]
    return data


def _only(data: Any, steps: list[str | int], key: str) -> Any:
    """The data with the table at a place reduced to one key."""
    if not steps:
        return {key: data[key]}
    first, *rest = steps
    inner = _only(data[first], rest, key)
    if isinstance(data, dict):
        return {**data, first: inner}
    return [inner if place == first else item for place, item in enumerate(data)]


def _fails_alike(data: Any, kind: type, text: str) -> bool:
    try:
        msgspec.convert(data, kind)
    except msgspec.ValidationError as failure:
        return str(failure) == text
    return False


def _explain(text: str, kind: type, where: str) -> str:
    unknown = _UNKNOWN.match(text)
    if unknown is not None:
        path = unknown["path"] or ""
        key = unknown["key"]
        return f"{where}: unknown key `{_join(path, key)}`; {nearest(key, _fields_at(kind, path))}"
    other = _OTHER.match(text)
    path = (other["path"] if other is not None else "") or ""
    reason = other["text"] if other is not None else text
    return f"{where}: {'`' + path.lstrip('.') + '`: ' if path else ''}{reason[:1].lower()}{reason[1:]}"


def _join(path: str, key: str) -> str:
    return f"{path.lstrip('.')}.{key}" if path else key


def _fields_at(kind: type, path: str) -> list[str]:
    """Names a struct knows at a JSON path of `kind`."""
    found = _alternatives(inspect.type_info(kind))
    for step in _STEP.findall(path):
        found = [inner for each in found for inner in _inside(each, step)]
    return [field.encode_name for each in found if isinstance(each, inspect.StructType) for field in each.fields]


def _inside(kind: inspect.Type, step: str) -> list[inspect.Type]:
    if isinstance(kind, inspect.StructType):
        fields = [field.type for field in kind.fields if field.encode_name == step]
        return [inner for each in fields for inner in _alternatives(each)]
    if isinstance(kind, inspect.DictType):
        return _alternatives(kind.value_type)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return _alternatives(kind.item_type)
    return []


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    """The types that a union or an annotated type stands for."""
    if isinstance(kind, inspect.Metadata):
        return _alternatives(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [inner for each in kind.types for inner in _alternatives(each)]
    return [kind]
