"""No bytes make the plugin trap: a value or an error code, never anything else."""

from __future__ import annotations

import importlib.util
import json
from datetime import datetime
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from fakes.jt808_frames import PHONE, frame, location_body, sealed
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.core.errors import CodecError, PluginTrapped
from gateway.core.flow import Decoded
from gateway.wasm.codec import DecodeResult
from gateway.wasm.host import WasmCodec

ROOT = Path(__file__).parents[2]
KNOWN_IDS = (0x0001, 0x0002, 0x0003, 0x0100, 0x0102, 0x0104, 0x0107, 0x0200, 0x0201, 0x0210, 0x0500, 0x0704)
TRUNCATED, CHECKSUM = 1, 3
NAMED_EXTRAS = 64

words = st.integers(0, 0xFFFF)
printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
calendar_times = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2099, 12, 31))  # noqa: DTZ001 - GMT+8

hostile = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def captured() -> tuple[bytes, ...]:
    vectors = json.loads((ROOT / "plugins" / "jt808" / "vectors.json").read_text())["vectors"]
    wires = [bytes.fromhex(vector["frame_hex"])[1:-1] for vector in vectors]
    return tuple(wire.replace(b"\x7d\x02", b"\x7e").replace(b"\x7d\x01", b"\x7d") for wire in wires)


@cache
def reference() -> ModuleType:
    """The plain Python decoder that the benchmark compares with: written apart from the C code."""
    spec = importlib.util.spec_from_file_location("jt808_reference", ROOT / "bench" / "jt808.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decode(codec: WasmCodec, content: bytes) -> DecodeResult:
    """Decode one frame and check what must hold of every outcome."""
    [outcome] = codec.decode_batch([content])
    assert codec.stats.traps == codec.stats.kills == 0
    if isinstance(outcome, Decoded):
        value = msgspec.msgpack.decode(outcome.value)
        json.dumps([value, [point.values for point in outcome.points]], allow_nan=False)
        assert value["terminal_phone"] == outcome.device
    else:
        assert outcome in {TRUNCATED, CHECKSUM}
    return outcome


@hostile
@given(content=st.binary(max_size=1200))
@example(b"")
def test_any_bytes_give_a_value_or_a_code(jt808: WasmCodec, content: bytes) -> None:
    decode(jt808, content)
    decode(jt808, sealed(content))


@hostile
@given(
    message_id=st.sampled_from(KNOWN_IDS) | st.integers(0, 0xFFFF),
    body=st.binary(max_size=300),
    version=st.none() | st.integers(0, 255),
    parts=st.none() | st.tuples(st.integers(0, 4), st.integers(0, 4)) | st.tuples(words, words),
    encryption=st.sampled_from([0, 0, 0, 1 << 10, 7 << 10]),
)
def test_any_body_under_any_sound_header_gives_a_value(
    jt808: WasmCodec, message_id: int, body: bytes, version: int | None, parts: tuple[int, int] | None, encryption: int
) -> None:
    phone = PHONE if version is None else "0" * 20
    content = frame(message_id, body, phone=phone, version=version, parts=parts, flags=encryption)

    assert isinstance(decode(jt808, content), Decoded)


@hostile
@given(data=st.data())
def test_damaged_captures_give_a_value_or_a_code(jt808: WasmCodec, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(captured()))[:-1])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    decode(jt808, sealed(bytes(content)))


def test_captures_cut_at_every_length_give_a_value_or_a_code(jt808: WasmCodec) -> None:
    for content in captured():
        for end in range(len(content)):
            decode(jt808, sealed(content[:end]))
            decode(jt808, content[:end])


def test_every_single_flipped_bit_is_found_by_the_checksum(jt808: WasmCodec) -> None:
    content = captured()[1]
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode(jt808, bytes(flipped)) == CHECKSUM


@hostile
@given(
    fixed=st.binary(min_size=22, max_size=22),
    time=st.binary(min_size=6, max_size=6) | calendar_times.map(lambda moment: bytes.fromhex(f"{moment:%y%m%d%H%M%S}")),
    extras=st.binary(max_size=60)
    | st.lists(st.tuples(st.sampled_from([0x01, 0x30, 0x31, 0x2A, 0xEB]), st.binary(max_size=6)), max_size=12).map(
        lambda pairs: b"".join(bytes((extra, len(value))) + value for extra, value in pairs)
    ),
)
def test_a_location_is_what_an_independent_decoder_makes_of_it(
    jt808: WasmCodec, fixed: bytes, time: bytes, extras: bytes
) -> None:
    content = frame(0x0200, fixed + time + extras)

    outcome = decode(jt808, content)

    expected: Any = reference().decode(content)
    assert isinstance(outcome, Decoded)
    assert [{"at": point.at, "values": point.values} for point in outcome.points] == expected["points"]
    assert msgspec.msgpack.decode(outcome.value) == expected["value"]
    assert msgspec.msgpack.decode(outcome.ack) == expected["ack"]


def test_a_flood_of_empty_extras_is_decoded_in_time(jt808: WasmCodec) -> None:
    [outcome] = jt808.decode_batch([frame(0x0200, location_body(extras=b"\xeb\x00" * 20_000))])

    assert isinstance(outcome, Decoded)
    raw = outcome.points[0].values["extras_raw"]
    assert len(raw) == NAMED_EXTRAS + 1
    assert raw[f"0xeb.{NAMED_EXTRAS}"] == ""
    assert raw["rest"] == "eb00" * (20_000 - NAMED_EXTRAS)
    assert outcome.points[0].values["extras_well_formed"] is True


def test_extras_behind_the_named_ones_still_tell_mileage_and_damage(jt808: WasmCodec) -> None:
    named, known = b"\xeb\x00" * NAMED_EXTRAS, b"\x01\x04\x00\x00\x30\x39"

    [within, over, damaged] = jt808.decode_batch(
        [
            frame(0x0200, location_body(extras=extras))
            for extras in (named + known, named + b"\xec\x01\x02" + known, named + known + b"\xec\x09\x02")
        ]
    )

    for outcome, rest, whole in (
        (within, None, True),
        (over, "ec0102010400003039", True),
        (damaged, "ec0902", False),
    ):
        assert isinstance(outcome, Decoded)
        values = outcome.points[0].values
        assert values["mileage_km"] == 1234.5
        assert values["extras_raw"].get("rest") == rest
        assert values["extras_well_formed"] is whole


# Encoding.

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
keys = st.text(max_size=10) | st.integers(0, 9)
json_like = st.recursive(
    scalars | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)
request_keys = st.sampled_from(
    ["phone", "version", "serial", "serials", "message_id", "result", "credential", "parameters", "ids"]
)
parameter_maps = st.dictionaries(
    st.sampled_from(["0x0001", "0x0013", "0x0081", "0x84", "0xf001", "x"]) | st.text(max_size=12),
    json_like | st.just({"hex": "00ff"}),
    max_size=4,
)
commands = st.sampled_from(["general_reply", "register_reply", "set_parameters", "query_parameters", "locate"])


def encode(codec: WasmCodec, request: bytes) -> bytes | None:
    """Encode and check what must hold of every outcome."""
    try:
        wire = codec.encode(request)
    except CodecError as failure:
        refused = failure
    else:
        assert (wire[0], wire[-1]) == (0x7E, 0x7E)
        return wire
    assert not isinstance(refused, PluginTrapped)
    assert refused.number in {4, 5, 7}
    return None


@hostile
@given(request=st.binary(max_size=200) | json_like.map(msgspec.msgpack.encode))
def test_any_request_is_encoded_or_refused(jt808: WasmCodec, request: bytes) -> None:
    encode(jt808, request)


@hostile
@given(
    command=commands,
    args=st.dictionaries(request_keys, json_like | parameter_maps | words | st.just(PHONE), max_size=6),
    device=st.sampled_from([PHONE, "0" * 20, "12", "01381234567x"]) | json_like,
    serial=words | json_like,
    credential=st.text(max_size=300) | json_like,
)
def test_any_arguments_of_known_commands_are_encoded_or_refused(
    jt808: WasmCodec, command: str, args: dict[str, Any], device: Any, serial: Any, credential: Any
) -> None:
    request = {"command": command, "args": args, "device": device, "serial": serial, "credential": credential}

    encode(jt808, msgspec.msgpack.encode(request))


@hostile
@given(
    values=st.dictionaries(st.sampled_from([0x0001, 0x0029, 0x0055]), st.integers(0, 2**32 - 1), max_size=3),
    shorts=st.dictionaries(st.sampled_from([0x0031, 0x0081]), st.integers(0, 2**16 - 1), max_size=2),
    texts=st.dictionaries(st.sampled_from([0x0010, 0x0013, 0x0083]), st.text(printable, max_size=60)),
    raw=st.dictionaries(st.integers(0xF000, 0xFFFFFFFF), st.binary(max_size=60).map(bytes.hex), min_size=1, max_size=5),
)
def test_parameters_come_back_as_they_were_set(
    jt808: WasmCodec, values: dict[int, int], shorts: dict[int, int], texts: dict[int, str], raw: dict[int, str]
) -> None:
    typed = {**values, **shorts, **texts, **{key: {"hex": digits} for key, digits in raw.items()}}
    parameters = {f"0x{key:08x}" if key > 0xFFFF else f"0x{key:04x}": value for key, value in typed.items()}
    request = {"command": "set_parameters", "args": {"parameters": parameters}, "device": PHONE, "serial": 3}

    wire = encode(jt808, msgspec.msgpack.encode(request))

    assert wire is not None
    content = wire[1:-1].replace(b"\x7d\x02", b"\x7e").replace(b"\x7d\x01", b"\x7d")
    outcome = decode(jt808, frame(0x0104, b"\x00\x03" + content[12:-1]))
    assert isinstance(outcome, Decoded)
    assert outcome.reply_to == 3
    assert msgspec.msgpack.decode(outcome.value)["parameters"] == parameters


@pytest.mark.parametrize("depth", [10, 10_000])
def test_a_deeply_nested_request_is_refused(jt808: WasmCodec, depth: int) -> None:
    nested = b"\x82\xa1x" + b"\x91" * depth + b"\xc0" + b"\xa7command\xa3fly"

    assert encode(jt808, nested) is None


def test_more_serials_than_the_output_holds_are_refused_with_a_code(jt808: WasmCodec) -> None:
    args = {"phone": "7e" * 6, "message_id": 0x7E7E, "serials": [0x7E7E] * 130_000}
    request = msgspec.msgpack.encode({"command": "general_reply", "args": args})[: 128 << 10]

    assert encode(jt808, request) is None
