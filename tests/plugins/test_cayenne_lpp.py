"""Cayenne LPP through the public door: a JavaScript codec in its folder, run by the shipped runtime."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.js_codecs import JsCodecs
from fakes.plugin_codecs import PLUGINS, decode_safely, decoded, running, values_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import CodecError
from gateway.core.flow import Decoded
from gateway.wasm.config import WasmConfig
from gateway.wasm.host import WasmCodec
from gateway.wasm.plugins import PluginHost

REFUSED = 256
many = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Type: name, bytes, signed, parts of a unit. Source: myDevices, "Cayenne Low Power Payload", Data Types.
NUMBERS = {
    0: ("digital_input", 1, False, 1),
    1: ("digital_output", 1, False, 1),
    2: ("analog_input", 2, True, 100),
    3: ("analog_output", 2, True, 100),
    101: ("luminosity", 2, False, 1),
    102: ("presence", 1, False, 1),
    103: ("temperature", 2, True, 10),
    104: ("relative_humidity", 1, False, 2),
    115: ("barometric_pressure", 2, False, 10),
}


@pytest.fixture(scope="module")
def lpp(js_runtime: JsCodecs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WasmCodec]:
    host = host_of(tmp_path_factory.mktemp("plugins"), tmp_path_factory.mktemp("compiled"))
    yield running(host, "cayenne-lpp")
    host.close()


def host_of(root: Path, compiled: Path | None, script: str | None = None) -> PluginHost:
    """A host of the runtime, which was built before, and of the codec, with another script where one is given."""
    (root / "lorawan-js").symlink_to(PLUGINS / "lorawan-js")
    shutil.copytree(PLUGINS / "cayenne-lpp", root / "cayenne-lpp")
    manifest = root / "cayenne-lpp" / "plugin.toml"
    # A machine that runs many tests at once is slow.
    manifest.write_text(manifest.read_text().replace("deadline_ms = 50", "deadline_ms = 1000"))
    if script is not None:
        (root / "cayenne-lpp" / "codec.js").write_text(script)
    host = PluginHost(WasmConfig(), [root], compiled)
    host.load_all()
    return host


def encoded(codec: WasmCodec, **args: Any) -> bytes:
    return codec.encode(msgspec.msgpack.encode({"command": "set", "args": args}))


readings = st.lists(
    st.tuples(st.integers(0, 255), st.sampled_from(sorted(NUMBERS)), st.binary(min_size=2, max_size=2)),
    min_size=1,
    max_size=8,
    unique_by=lambda reading: reading[:2],
)


@many
@given(readings=readings)
def test_readings_become_properties_named_by_type_and_channel(
    lpp: WasmCodec, readings: list[tuple[int, int, bytes]]
) -> None:
    frame, wanted = b"", {}
    for channel, kind, data in readings:
        name, size, signed, per_unit = NUMBERS[kind]
        frame += bytes((channel, kind)) + data[:size]
        wanted[f"{name}_{channel}"] = int.from_bytes(data[:size], "big", signed=signed) / per_unit
    assert values_of(decoded(lpp, frame)) == wanted
    for cut in range(1, len(frame)):
        outcome = decode_safely(lpp, frame[:cut])
        assert outcome == REFUSED or (isinstance(outcome, Decoded) and values_of(outcome).items() <= wanted.items())


@many
@given(frame=st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_code(lpp: WasmCodec, frame: bytes) -> None:
    decode_safely(lpp, frame)


@many
@given(
    channel=st.integers(0, 255), on=st.integers(0, 255), hundredths=st.integers(-(2**15), 2**15 - 1), other=st.text()
)
def test_outputs_are_sent_as_they_would_be_read(
    lpp: WasmCodec, channel: int, on: int, hundredths: int, other: str
) -> None:
    outputs = {f"digital_output_{channel}": on, f"analog_output_{channel}": hundredths / 100}
    assert values_of(decoded(lpp, encoded(lpp, **outputs))) == outputs
    with pytest.raises(CodecError) as caught:
        encoded(lpp, **outputs, **{f"{other}_1_": 1})
    assert caught.value.number == REFUSED


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"digital_output_1": 256},
        {"digital_output_1": -1},
        {"digital_output_1": "on"},
        {"digital_output_1": None},
        {"digital_output_1": ""},
        {"digital_output_1": "1"},
        {"digital_output_1": True},
        {"digital_output_1": [5]},
        {"digital_output_1": {}},
        {"digital_output_1": 1, "analog_output_1": None},
        {"analog_output_1": float("nan")},
        {"digital_output_256": 1},
        {"analog_output_1": 327.68},
        {"temperature_1": 20},
        {"constructor_1": 1},
        {"__proto___1": 1},
    ],
)
def test_what_cannot_be_sent_is_refused(lpp: WasmCodec, args: dict[str, Any]) -> None:
    with pytest.raises(CodecError) as caught:
        encoded(lpp, **args)
    assert caught.value.number == REFUSED


def test_a_script_that_breaks_a_promise_is_refused_by_its_name(js_runtime: JsCodecs, tmp_path: Path) -> None:
    host = host_of(tmp_path, None, "function decodeUplink(input) { return {data: {temperature_3: 1}}; }")
    try:
        states = {status.id: (status.state, status.reason) for status in host.plugins()}
    finally:
        host.close()
    assert states["lorawan-js"] == ("running", "")
    assert states["cayenne-lpp"][0] == "refused"
    assert "two temperatures" in states["cayenne-lpp"][1]


def test_a_script_with_a_mistake_is_refused_with_its_line(js_runtime: JsCodecs, tmp_path: Path) -> None:
    host = host_of(tmp_path, None, "function decodeUplink(input) {\n  return {data: };\n}")
    try:
        reasons = {status.id: status.reason for status in host.plugins()}
    finally:
        host.close()
    assert "codec.js:2: SyntaxError" in reasons["cayenne-lpp"]
