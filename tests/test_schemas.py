import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.errors import envelope
from gateway.core.errors import Rejected
from gateway.core.flow import Decoded, Event, Message, Notice, Point
from gateway.things.model import PROPERTY_ID, EventType, FieldMapping, Function, Property, ThingModel
from gateway.things.validation import check_model

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "schemas"

spec = importlib.util.spec_from_file_location("schemas_generate", SCHEMAS / "generate.py")
assert spec is not None
assert spec.loader is not None
generate: ModuleType = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)

NAMES = sorted([*generate.TYPES, "error"])


def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{name}.json").read_bytes())


def fits(name: str, document: Any) -> bool:
    plain = json.loads(msgspec.json.encode(document))
    return bool(jsonschema.Draft202012Validator(schema(name)).is_valid(plain))


def test_the_files_are_what_the_types_say() -> None:
    stale = [name for name, text in generate.schemas().items() if (SCHEMAS / name).read_bytes() != text]
    assert not stale, "run: python schemas/generate.py"


def test_no_schema_is_left_over() -> None:
    assert sorted(path.stem for path in SCHEMAS.glob("*.json")) == NAMES


def test_a_stale_file_fails_the_check_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    assert generate.main(["--check"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "event.json").write_text("{}")
    assert generate.main(["--check"]) == 1


def test_the_generator_runs_as_a_script() -> None:
    run = subprocess.run(
        [sys.executable, str(SCHEMAS / "generate.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert "example: python schemas/generate.py --check" in run.stdout


@pytest.mark.parametrize("name", NAMES)
def test_each_schema_is_one_with_a_title_and_described_types(name: str) -> None:
    found = schema(name)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["title"]
    assert found["$schema"] == generate.DIALECT
    for definition in found.get("$defs", {}).values():
        assert definition.get("description") or definition.get("enum"), definition["title"]


# Thing models

MODEL = ThingModel(
    properties={
        "temperature": Property(type="float", unit="Cel", minimum=-40, maximum=85),
        "mode": Property(type="enum", values=("auto", 2), writable=True),
    },
    functions={"reboot": Function(inputs={"delay": Property(type="int", unit="s")})},
    events={"fault": EventType(level="critical")},
    tags={"vendor": "acme"},
)


def test_a_thing_model_fits() -> None:
    assert fits("thing-model", msgspec.to_builtins(MODEL))
    assert fits("thing-model", {})
    mapping = msgspec.to_builtins(FieldMapping(field="t °C", rename="temperature", scale=0.1))
    product = {"id": "p", "model": msgspec.to_builtins(MODEL), "mapping": [mapping]}
    assert fits("product", product)
    assert fits("product", {"id": "p", "model": "models/p.json"})


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"propertys": {}},
        {"properties": {"t": {}}},
        {"properties": {"t": {"type": "flaot"}}},
        {"properties": {"t": {"type": "float", "unti": "Cel"}}},
        {"properties": {"t t": {"type": "float"}}},
        {"properties": {"t": {"type": "float", "minimum": "1"}}},
        {"properties": {"t": {"type": "enum", "values": [1.5]}}},
        {"events": {"e": {"level": "loud"}}},
        {"functions": {"f": {"inputs": {"a b": {"type": "int"}}}}},
    ],
)
def test_what_the_code_refuses_does_not_fit(document: Any) -> None:
    assert not fits("thing-model", document)
    with pytest.raises((msgspec.ValidationError, Rejected)):
        check_model(msgspec.convert(document, ThingModel))


@given(
    st.dictionaries(
        st.from_regex(re.compile(PROPERTY_ID, re.ASCII), fullmatch=True),
        st.builds(Property, type=st.sampled_from(["bool", "datetime", "object"]), name=st.text(max_size=9)),
        max_size=4,
    )
)
def test_every_model_that_the_code_takes_fits(properties: dict[str, Property]) -> None:
    model = ThingModel(properties=properties)
    check_model(model)
    assert fits("thing-model", msgspec.to_builtins(model))


@pytest.mark.parametrize("path", sorted(ROOT.glob("plugins/*/thing-model.json")), ids=lambda path: path.parent.name)
def test_the_thing_model_of_each_shipped_plugin_fits_and_is_well_formed(path: Path) -> None:
    document = json.loads(path.read_bytes())
    jsonschema.validate(document, schema("thing-model"))
    check_model(msgspec.convert(document, ThingModel))


@pytest.mark.parametrize("path", sorted(ROOT.glob("plugins/*/plugin.toml")), ids=lambda path: path.parent.name)
def test_the_manifest_of_each_shipped_plugin_fits(path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text()), schema("manifest"))


def test_the_shipped_configuration_fits() -> None:
    jsonschema.validate(tomllib.loads((ROOT / "config.toml").read_text()), schema("config"))
    assert not fits("config", {"sever": {}})


# What travels


def test_what_travels_fits() -> None:
    message = Message("default", "p", "d", 1, 2, 3, {"t": 1.5, "o": {"a": [None]}}, None, 4)
    plain = {name: value for name, value in msgspec.to_builtins(message).items() if name != "device_key"}
    assert fits("message", plain)
    assert not fits("message", {**plain, "quality": {"t": "perfect"}})
    assert fits("event", msgspec.to_builtins(Event("default", "device.online", 1, "d", {"peer": "x"}, 2)))
    assert not fits("event", {"type": "device.online"})
    decoded = Decoded("report", "d", [Point(1, {"t": 1})], Notice("fault", {"code": 3}))
    document = {name: getattr(decoded, name) for name in ("kind", "device", "points", "event")}
    assert fits("decoded", {**msgspec.to_builtins(document), "ack": {"command": "reply", "args": {}}})
    assert not fits("decoded", {"kind": "shout"})


def test_the_device_key_is_no_part_of_a_message_outside() -> None:
    assert "device_key" not in (SCHEMAS / "message.json").read_text()


# Failures


def test_a_failure_of_the_api_fits() -> None:
    answer = envelope(404, "not_found", "no device 'x'", "r-1")
    assert isinstance(answer.body, bytes)
    assert fits("error", json.loads(answer.body))
    assert fits("error", {"success": False, "error": "x", "code": "http.418", "request_id": "r"})
    assert not fits("error", {"success": False, "error": "x", "code": "made.up", "request_id": "r"})
    assert not fits("error", {"success": True, "error": "x", "code": "not_found", "request_id": "r"})


def test_every_code_that_the_gateway_raises_is_in_the_schema() -> None:
    raised = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        raised |= set(re.findall(r'^    code(?:: ClassVar\[str\])? = "([a-z_.]+)"', path.read_text(), re.MULTILINE))
    assert raised >= {"not_found", "internal", "storage.failed"}
    assert raised <= set(generate.error_codes())
