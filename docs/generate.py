# ruff: noqa: INP001, T201 - a script beside its output, no package; it says what it wrote
"""Writes `docs/configuration.md` from the configuration's types: `python docs/generate.py [--check]`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gateway.config import LATER, PREFIX, GatewayConfig, ProductEntry
from gateway.listeners.tcp import TcpListenerConfig
from gateway.notify.config import PluginChannelConfig
from gateway.sinks.jsonl import JsonLinesConfig
from gateway.wasm.stages import StageConfig

PAGE = Path(__file__).parent / "configuration.md"
HEAD = """# Configuration

One file, `config.toml`; `gateway run` reads the one in the present folder, or `-c PATH`. Relative paths start at the
file's folder. Every key has a default. An unknown key is refused, with the nearest known one.

**Environment.** `GATEWAY__SECTION__KEY=value` overrides any key: `GATEWAY__HTTP__PORT=0`,
`GATEWAY__LISTENERS__JT808__PORT=8808` (`_` stands for `-` in names too). Values are read as TOML, else taken as text.

**Secrets** never stand in the file. Write `metrics_token = { file = "PATH" }` or `{ env = "NAME" }`, or use the
environment. The first password of `admin` comes from `GATEWAY_ADMIN_PASSWORD`, or is printed once.

**Changes.** After SIGHUP the gateway reads the file again: products and listeners follow by difference (an identical
entry is not touched, a changed one restarts only itself); rules and scenes follow their files by themselves; other
sections need a restart. A file with an error changes nothing.

`gateway check` looks over everything and starts nothing. Times are in seconds (`_s`), milliseconds (`_ms`) or days,
sizes in bytes. This page is generated from the types; `make docs` writes it.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_sections()]).rstrip() + "\n"


def _sections() -> Iterator[str]:
    for field in msgspec.structs.fields(GatewayConfig):
        if field.name in LATER:
            continue
        if field.name == "listeners":
            yield from _section("listeners.NAME", TcpListenerConfig)
        elif field.name == "sinks":
            yield from _section("sinks.NAME", JsonLinesConfig)
        elif field.name == "notify":
            yield from _section("notify.NAME", PluginChannelConfig)
        elif field.name == "stages":
            yield from _section("stages.NAME", StageConfig)
        elif field.name == "products":
            yield from _section("products.ID", ProductEntry)
        else:
            yield from _section(field.name, type(field.default))
    names = ", ".join(f"`[{name}]`" for name in LATER)
    yield f"## Sections of later versions\n\n{names}: valid with `enabled` and `port`, ignored with one log line.\n"


def _section(name: str, kind: type[msgspec.Struct]) -> Iterator[str]:
    yield f"## [{name}]\n"
    first, described = _read(kind)
    yield first + "\n"
    yield "| key | default | meaning |\n|---|---|---|"
    nested: list[tuple[str, type[msgspec.Struct]]] = []
    if kind.__struct_config__.tag is not None:
        yield f"| `{kind.__struct_config__.tag_field}` | required | `{kind.__struct_config__.tag}` |"
    for field in msgspec.structs.fields(kind):
        inner = next((one for one in _kinds(field.type) if issubclass(one, msgspec.Struct)), None)
        if inner is not None and field.name != "mapping":
            nested.append((f"{name}.{field.name}", inner))
            yield f"| `{field.name}` | | the section `[{name}.{field.name}]` |"
        else:
            yield f"| `{field.name}` | {_default(field)} | {described.get(field.name, '')} |"
    yield ""
    for inner_name, inner_kind in nested:
        yield from _section(inner_name, inner_kind)


def _read(kind: type[msgspec.Struct]) -> tuple[str, dict[str, str]]:
    """A struct's docstring: its opening, and what it says of each key."""
    text = inspect.cleandoc(kind.__doc__ or "")
    names = "|".join(field.name for field in msgspec.structs.fields(kind))
    starts = rf"(?:^|(?<=\. ))((?:{names})(?:, (?:{names}))*): "
    opening, *rest = re.split(starts, text, flags=re.MULTILINE) if names else [text]
    described: dict[str, str] = {}
    for keys, meaning in zip(rest[::2], rest[1::2], strict=True):
        for key in keys.split(", "):
            described[key] = " ".join(meaning.split())
    for base in kind.__mro__[1:]:
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            described = _read(base)[1] | described
    return " ".join(opening.split()).replace('`[listeners.NAME]` with `type = "tcp"`.', "A TCP listener."), described


def _kinds(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _kinds(inner)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # type: ignore[operator]  # msgspec types both loosely
    return "" if value is None else f"`{msgspec.json.encode(value).decode()}`"


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.exists() and PAGE.read_text() == text else f"{PAGE.name} is out of date; run: make docs")
    PAGE.write_text(text)
    print(f"wrote {PAGE.name}; {PREFIX}... overrides every key of it")
