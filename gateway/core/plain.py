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
_OTHER = re.compile(r"^(?P<text>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


def typed(data: Any, kind: type[T], where: str) -> T:
    """Convert plain data to a struct type.

    where: what the data is, for the message, such as `config.toml`. Raises ConfigError.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as failure:
        raise ConfigError(_explain(str(failure), kind, where)) from failure


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or the list of what is known when nothing is near."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known are: {', '.join(words) or 'none'}"


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
    found = [inspect.type_info(kind)]
    for step in re.findall(r"\[[^\]]*\]|[^.\[\]]+", path):
        found = [inner for each in found for inner in _inside(each, step)]
    return [field.encode_name for each in found if isinstance(each, inspect.StructType) for field in each.fields]


def _inside(kind: inspect.Type, step: str) -> list[inspect.Type]:
    if isinstance(kind, inspect.UnionType):
        return [inner for each in kind.types for inner in _inside(each, step)]
    if isinstance(kind, inspect.StructType):
        fields = [field.type for field in kind.fields if field.encode_name == step]
        return [inner for each in fields for inner in (each.types if isinstance(each, inspect.UnionType) else [each])]
    if isinstance(kind, inspect.DictType):
        return [kind.value_type]
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return [kind.item_type]
    return []
