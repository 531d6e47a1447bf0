# ruff: noqa: INP001 - a script beside its output, no package
"""Write the JSON Schemas in this folder from the code's own types: `python schemas/generate.py [--check]`.

With `--check` nothing is written; the exit status says whether the files are what would be written.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from gateway.api import errors as api_errors
from gateway.config import GatewayConfig
from gateway.core import errors as core_errors
from gateway.core.flow import Decoded, Event, Message
from gateway.things.files import ProductFile
from gateway.things.model import ThingModel
from gateway.wasm.manifest import Manifest

FOLDER: Final = Path(__file__).resolve().parent
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

TYPES: Final[dict[str, tuple[str, type]]] = {
    "config": ("Configuration (config.toml)", GatewayConfig),
    "decoded": ("What a codec plugin returns for a frame (ABI gw1)", Decoded),
    "event": ("Event", Event),
    "manifest": ("Plugin manifest (plugin.toml)", Manifest),
    "message": ("Stored message", Message),
    "product": ("Product file", ProductFile),
    "thing-model": ("Thing model", ThingModel),
}
"""File name -> title and type; `error` is written by hand below, because its code is a closed list."""

INSIDE: Final = {"Message": ("device_key",)}
"""Fields that never leave the process."""

_FIELD = re.compile(r"^(?P<names>[a-z_]+(?:, [a-z_]+)*): (?P<text>.+)$")


def schemas() -> dict[str, bytes]:
    """Every schema by file name, as it is to be on the disk."""
    written = {name: _of_type(name, title, kind) for name, (title, kind) in TYPES.items()}
    written["error"] = {**_head("error", "Failure of an API call"), **_error()}
    return {
        f"{name}.json": msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"
        for name, schema in written.items()
    }


def error_codes() -> list[str]:
    """Every stable code that an API failure may carry."""
    codes = {error.code for module in (core_errors, api_errors) for error in _errors_of(module)}
    codes |= {code for code, _ in api_errors.HTTP_CODES.values()} | {api_errors.INTERNAL[0]}
    return sorted(codes)


def _errors_of(module: ModuleType) -> list[type[core_errors.GatewayError]]:
    classes = [item for item in vars(module).values() if isinstance(item, type)]
    return [item for item in classes if issubclass(item, core_errors.GatewayError)]


def _head(name: str, title: str) -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": f"urn:flux-gateway:schema:{name}", "title": title}


def _of_type(name: str, title: str, kind: type) -> dict[str, Any]:
    schema = msgspec.json.schema(_with_any_for_raw(kind))
    for name_of_type, definition in schema.get("$defs", {}).items():
        for field in INSIDE.get(name_of_type, ()):
            del definition["properties"][field]
            definition["required"].remove(field)
        _describe_fields(definition)
    return {**_head(name, title), **schema}


def _with_any_for_raw(kind: type) -> type:
    """The type with `Any` where it keeps a value undecoded, of which msgspec writes no schema."""
    fields = msgspec.structs.fields(kind)
    if all(field.type is not msgspec.Raw for field in fields):
        return kind
    members = [
        (field.encode_name, Any, None)
        if field.type is msgspec.Raw
        else (field.encode_name, field.type, _default_of(field))
        for field in fields
    ]
    return msgspec.defstruct(kind.__name__, members, namespace={"__doc__": kind.__doc__}, kw_only=True)


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.field(default=field.default) if field.default is not msgspec.NODEFAULT else msgspec.field()


def _describe_fields(definition: dict[str, Any]) -> None:
    """Move `field: text` paragraphs of a type's description to the fields they speak of."""
    if "description" not in definition:
        return
    kept: list[str] = []
    for paragraph in _paragraphs(definition["description"]):
        found = _FIELD.match(paragraph)
        fields = [definition.get("properties", {}).get(name) for name in found["names"].split(", ")] if found else []
        if found is None or not all(isinstance(field, dict) for field in fields):
            kept.append(paragraph)
            continue
        for field in fields:
            if isinstance(field, dict):
                field["description"] = found["text"][:1].upper() + found["text"][1:]
    definition["description"] = "\n".join(kept).strip()


def _paragraphs(text: str) -> list[str]:
    """The lines of a docstring, continued ones joined."""
    joined: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        if line.startswith(" ") and joined and joined[-1]:
            joined[-1] += f" {line.strip()}"
        else:
            joined.append(line.strip())
    return joined


def _error() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "success": {"const": False},
            "error": {"type": "string", "description": "What is wrong and what to do, for people."},
            "code": {
                "description": "What is wrong, for programs; `http.NNN` where only the HTTP status says it.",
                "anyOf": [{"enum": error_codes()}, {"type": "string", "pattern": "^http\\.[0-9]{3}$"}],
            },
            "request_id": {"type": "string", "description": "Stands in the log beside the failure."},
        },
        "required": ["success", "error", "code", "request_id"],
        "additionalProperties": False,
    }


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python schemas/generate.py --check")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not up to date")
    check = parser.parse_args(arguments).check
    status = 0
    for name, text in schemas().items():
        path = FOLDER / name
        if path.exists() and path.read_bytes() == text:
            continue
        if check:
            sys.stderr.write(f"{name} is not up to date; run: python schemas/generate.py\n")
            status = 1
        else:
            path.write_bytes(text)
            sys.stdout.write(f"wrote {name}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
