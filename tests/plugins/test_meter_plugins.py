"""What every codec of meters promises: its vectors, the papers beside it, and input of any kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.plugin_codecs import PLUGINS, decode_safely, encode_safely, plugin_alone, running, thing_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.framing.spec import framer_for
from gateway.things.validation import check_model
from gateway.wasm.host import WasmCodec
from gateway.wasm.manifest import load_manifest
from gateway.wasm.plugins import PluginHost

VECTORS_LEAST = {"cjt188": 70, "dlt645": 120, "modbus-meter": 50}
BOUNDS = {
    "cjt188": ["512 in all", "255 bytes", "1970 to 9999"],
    "dlt645": ["512 in all", "255 bytes", "38 bytes", "2000 to 2099"],
    "modbus-meter": [
        "32 blocks",
        "512 points",
        "512 in all",
        "125 registers",
        "2,000 bits",
        "123 registers",
        "1,024 connections",
    ],
}

hostile = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=VECTORS_LEAST)
def plugin_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def host(plugin_id: str) -> Iterator[PluginHost]:
    with plugin_alone(plugin_id) as alone:
        yield alone


@pytest.fixture
def meter(host: PluginHost, plugin_id: str) -> WasmCodec:
    return running(host, plugin_id)


def vector_files(plugin_id: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (PLUGINS / plugin_id).glob("vectors*.json")]


def test_every_vector_of_every_file_runs_and_holds(host: PluginHost, plugin_id: str) -> None:
    results = host.run_vectors(plugin_id)

    assert [result for result in results if not result.ok] == []
    assert len(results) == sum(len(file["vectors"]) for file in vector_files(plugin_id)) > VECTORS_LEAST[plugin_id]


def test_every_file_of_vectors_names_where_they_come_from(plugin_id: str) -> None:
    for file in vector_files(plugin_id):
        sources = [file["source"]] if isinstance(file["source"], str) else file["source"]
        assert sources
        assert all(len(words.split()) > 3 for words in sources)


def test_the_thing_model_is_sound_and_names_what_the_schema_names(plugin_id: str) -> None:
    model = thing_model(plugin_id)

    check_model(model)
    assert {name: (one.type, one.unit) for name, one in model.properties.items()} == {
        field.name: (field.type, field.unit) for field in load_manifest(PLUGINS / plugin_id).schema.fields
    }


def test_the_readme_names_every_command_setting_and_bound(plugin_id: str) -> None:
    readme = (PLUGINS / plugin_id / "README.md").read_text()
    words = (*thing_model(plugin_id).functions, *load_manifest(PLUGINS / plugin_id).config)

    assert [word for word in words if f"`{word}`" not in readme] == []
    assert [bound for bound in BOUNDS[plugin_id] if bound not in readme] == []


@pytest.mark.parametrize("plugin_id", ["cjt188", "dlt645"])
def test_captured_frames_are_cut_from_one_stream_with_a_modems_chatter_between(plugin_id: str) -> None:
    entries = json.loads((PLUGINS / plugin_id / "vectors.json").read_text())["vectors"]
    captured = [bytes.fromhex(entry["frame_hex"]) for entry in entries if "frame_hex" in entry]
    stream = b"www.modem.example 7\r\n" + b"\x00beat\xfe\xfe".join(captured)
    with plugin_alone(plugin_id) as alone:
        framing = alone.framing(plugin_id)
    assert framing is not None

    for size in (1, 5, 7, len(stream)):
        framer = framer_for(framing)
        frames = [frame for at in range(0, len(stream), size) for frame in framer.feed(stream[at : at + size])]
        assert frames == [wire.lstrip(b"\xfe") for wire in captured]


@hostile
@given(content=st.binary(max_size=300))
def test_any_bytes_give_a_value_or_a_code(meter: WasmCodec, content: bytes) -> None:
    decode_safely(meter, content)


@hostile
@given(request=st.binary(max_size=200))
def test_any_request_is_encoded_or_refused(meter: WasmCodec, request: bytes) -> None:
    encode_safely(meter, request)
