from __future__ import annotations

import re
import struct
import tomllib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from fakes.meter_frames import modbus_rtu
from fakes.plugin_codecs import (
    PLUGINS,
    decode_safely,
    decoded,
    encode_safely,
    plugin_alone,
    running,
    shown,
    thing_model,
    values_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.framing.spec import framer_for
from gateway.things.units import check_unit
from gateway.wasm.host import WasmCodec
from gateway.wasm.manifest import load_manifest
from gateway.wasm.plugins import PluginHost

FOLDER = PLUGINS / "modbus-meter"
TRUNCATED, UNKNOWN, CHECKSUM, NO_MODEM = 1, 2, 3, 512
MODEMS = 1024

hostile = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


modem_states = st.lists(st.integers(0, 2**40) | st.text(max_size=50), max_size=3)


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    with plugin_alone("modbus-meter") as alone:
        yield alone


@pytest.fixture
def meter(host: PluginHost) -> WasmCodec:
    return running(host, "modbus-meter")


def a_block(**changes: Any) -> dict[str, Any]:
    return {"name": "b", "function": 3, "address": 100, "count": 4, "points": [{"name": "p", "address": 100}]} | changes


def a_point(**changes: Any) -> list[dict[str, Any]]:
    return a_block(points=[{"name": "p", "address": 100} | changes])["points"]  # type: ignore[no-any-return]


def registers(*words: int) -> bytes:
    return struct.pack(f">{len(words)}H", *words)


def reply(data: bytes, function: int = 3, unit_id: int = 1) -> bytes:
    return modbus_rtu(unit_id, function, bytes((len(data),)) + data)


def ask(command: str, serial: int, device: str = "meter-1", **args: Any) -> dict[str, Any]:
    return {"command": command, "args": args, "device": device, "serial": serial}


def refusal(blocks: Any, **more: Any) -> str:
    """Why a map is refused."""
    with plugin_alone("modbus-meter", {"blocks": blocks, **more}) as alone:
        status = alone.status("modbus-meter")
    assert status.state == "refused"
    return status.reason


SINGLE_WRITES = [
    ("write_register", {"address": 300, "value": 7}),
    ("write_coil", {"address": 172, "on": True}),
    ("write_coil", {"address": 172, "on": False}),
]


@pytest.mark.parametrize(("command", "args"), SINGLE_WRITES)
def test_on_a_line_that_echoes_the_echo_of_a_write_acknowledges_nothing(command: str, args: dict[str, Any]) -> None:
    with plugin_alone("modbus-meter", {"echo": True}) as alone:
        codec = running(alone, "modbus-meter")
        sent = [codec.encode(msgspec.msgpack.encode(ask(command, serial, **args))) for serial in (0, 7)]
        assert sent[0] == sent[1]  # on trial first, as the gateway does it
        assert decode_safely(codec, sent[0]) is None
        answer = decoded(codec, sent[0])
        assert (answer.kind, answer.reply_to, answer.ok) == ("reply", 7, True)
        assert decoded(codec, sent[0]).kind == "heartbeat"


def test_on_a_line_that_echoes_another_write_or_unit_is_no_echo_and_an_exception_still_answers() -> None:
    with plugin_alone("modbus-meter", {"echo": True}) as alone:
        codec = running(alone, "modbus-meter")
        codec.encode(msgspec.msgpack.encode(ask("write_register", 8, address=300, value=7)))
        assert decoded(codec, modbus_rtu(1, 6, registers(300, 8))).reply_to == 8  # its address, without an echo
        codec.encode(msgspec.msgpack.encode(ask("write_register", 9, address=300, value=7)))
        assert decoded(codec, modbus_rtu(2, 6, registers(300, 7))).kind == "heartbeat"
        assert decode_safely(codec, modbus_rtu(1, 6, registers(300, 7))) is None
        refused = decoded(codec, modbus_rtu(1, 0x86, b"\x02"))
        assert (refused.reply_to, refused.ok) == (9, False)
        codec.encode(msgspec.msgpack.encode(ask("write_registers", 10, address=1, values=[10, 258])))
        assert decode_safely(codec, modbus_rtu(1, 16, bytes.fromhex("0001000204000a0102"))) is None
        assert decoded(codec, modbus_rtu(1, 16, registers(1, 2))).reply_to == 10


@pytest.mark.parametrize("echo", [1, "true", None])
def test_an_echo_that_is_neither_true_nor_false_is_refused(echo: Any) -> None:
    assert "echo must be true" in refusal([a_block()], echo=echo)


def test_a_reply_in_pieces_is_one_frame_when_the_line_falls_silent(host: PluginHost) -> None:
    framing = host.framing("modbus-meter")
    assert framing is not None
    framer = framer_for(framing)
    whole = reply(bytes(8), 4)

    assert framer.feed(whole[:3]) + framer.feed(whole[3:]) == []
    assert framer.silence() == [whole]


def test_the_thing_model_names_what_the_shipped_map_reports() -> None:
    model = thing_model("modbus-meter")
    manifest = load_manifest(FOLDER)
    mapped = {point["name"]: point.get("unit") for block in manifest.config["blocks"] for point in block["points"]}

    assert {name: one.unit for name, one in model.properties.items()} == mapped
    assert {field.name: field.unit for field in manifest.schema.fields} == mapped


@pytest.mark.parametrize("path", sorted((FOLDER / "maps").glob("*.toml")), ids=lambda path: path.stem)
def test_every_map_that_is_shipped_beside_is_taken(path: Any) -> None:
    setting = tomllib.loads(path.read_text())["wasm"]["settings"]["modbus-meter"]
    with plugin_alone("modbus-meter", setting) as alone:
        codec = running(alone, "modbus-meter")
        for block in setting["blocks"]:
            item = decoded(codec, reply(bytes(2 * block["count"]), block["function"]))
            assert set(values_of(item)) == {point["name"] for point in block["points"]}
            assert shown(item)["block"] == block["name"]
            for point in block["points"]:
                if "unit" in point:
                    check_unit(point["unit"])


def test_the_example_of_the_readme_is_a_map() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    setting = tomllib.loads(text)["wasm"]["settings"]["modbus-meter"]
    words = [0] * 80
    words[0:2] = [0x4366, 0x0000]
    words[12] = 0x10000 - 55
    words[20:22] = [0x0001, 0x0002]
    words[30] = 0b1000

    with plugin_alone("modbus-meter", setting) as alone:
        item = decoded(running(alone, "modbus-meter"), reply(registers(*words), 4))

    assert values_of(item) == {"voltage": 230.0, "temperature": -5.5, "energy": 1310.73, "door_open": True}


@pytest.mark.parametrize(
    ("point", "words", "value"),
    [
        ({}, (0xFFFF,), 65535),
        ({"type": "s16"}, (0x8000,), -32768),
        ({"type": "u16", "order": "badc"}, (0x1234,), 0x3412),
        ({"type": "u32"}, (0xFFFF, 0xFFFE), 0xFFFFFFFE),
        ({"type": "u32", "order": "cdab"}, (0x0002, 0x0001), 0x00010002),
        ({"type": "u32", "order": "badc"}, (0x0100, 0x0200), 0x00010002),
        ({"type": "u32", "order": "dcba"}, (0x0200, 0x0100), 0x00010002),
        ({"type": "s32"}, (0xFFFF, 0xFFFE), -2),
        ({"type": "u64"}, (0xFFFF,) * 4, 2**64 - 1),
        ({"type": "u64", "order": "cdab"}, (4, 3, 2, 1), 0x0001000200030004),
        ({"type": "f32"}, (0x4366, 0x3333), struct.unpack(">f", bytes.fromhex("43663333"))[0]),
        ({"type": "f64", "order": "dcba"}, (0, 0, 0, 0xF03F), 1.0),
        ({"type": "f32"}, (0x7F80, 0), None),
        ({"type": "f32", "scale": 1e300}, (0x7F7F, 0xFFFF), None),
        ({"type": "bit", "bit": 15}, (0x8000,), True),
        ({"type": "bit"}, (0xFFFE,), False),
        ({"scale": 0.1}, (2301,), 230.1),
        ({"scale": 0.001}, (4999,), 4.999),
        ({"scale": 10, "offset": -5}, (7,), 65.0),
        ({"scale": 0.3}, (10,), 3.0),
        ({"type": "u32", "scale": 0.0001}, (0xEE6B, 0x27FF), 399_999.9999),
        ({"type": "u32", "scale": 0.3333333}, (0xEE6B, 0x2800), 1_333_333_200.0),
        ({"type": "u32", "scale": 0.9999999}, (0xEE6B, 0x2800), 3_999_999_600.0),
        ({"scale": 1e-12}, (5,), 5e-12),
        ({"type": "s16", "scale": -0.5}, (3,), -1.5),
        ({"offset": 0.5}, (1,), 1.5),
    ],
)
def test_a_point_is_read_by_its_type_order_and_scale(point: dict[str, Any], words: tuple[int, ...], value: Any) -> None:
    padded = (*words, *(0 for _ in range(4 - len(words))))
    with plugin_alone("modbus-meter", {"blocks": [a_block(points=a_point(**point))]}) as alone:
        item = decoded(running(alone, "modbus-meter"), reply(registers(*padded)))

    assert values_of(item) == {"p": value}


def test_bits_are_read_from_the_lowest_of_the_first_byte_on() -> None:
    points = [{"name": f"c{number}", "address": 20 + number} for number in (0, 7, 8, 18)]
    blocks = [a_block(function=1, address=20, count=19, points=points)]
    with plugin_alone("modbus-meter", {"blocks": blocks}) as alone:
        codec = running(alone, "modbus-meter")
        item = decoded(codec, reply(b"\x81\x00\x04", 1))
        # Eight bytes, as a request has: the number of bytes tells the reply.
        echo = decode_safely(codec, modbus_rtu(1, 1, registers(20, 19)))

    assert values_of(item) == {"c0": True, "c7": True, "c8": False, "c18": True}
    assert echo is None


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        (None, "blocks must be a list of 1 to 32 blocks"),
        ([], "blocks must be a list of 1 to 32 blocks"),
        ([a_block(name=f"b{number}", count=number + 4) for number in range(33)], "blocks must be a list of 1 to 32"),
        (["x"], r"blocks\[1\]: a block has name, unit_id"),
        ([a_block(adress=1)], r"blocks\[1\]: a block has name, unit_id"),
        ([a_block(name="1st")], r"blocks\[1\]: name must be a word"),
        ([a_block(unit_id=248)], "unit_id must be 1 to 247"),
        ([a_block(function=5)], "function must be 1 to 4"),
        ([a_block(address=-1)], "address must be 0 to 65535"),
        ([a_block(count=126)], "count must be 1 to 125 registers"),
        ([a_block(function=1, count=2001)], "or 1 to 2000 bits"),
        ([a_block(address=65535, count=2)], "count must be"),
        ([a_block(points=[])], "points must be a list of one point"),
        ([a_block(points=5)], "points must be a list of one point"),
        ([{key: value for key, value in a_block().items() if key != "points"}], "points is missing"),
        ([a_block(points=[{"name": "p"}])], r"blocks\[1\].points\[1\]: address must lie in the block"),
        ([a_block(points=a_point(name="a b"))], "name must be a property id"),
        ([a_block(points=a_point(name="p" * 65))], "name must be a property id"),
        ([a_block(points=a_point() + a_point())], r"points\[2\]: another point of the block has this name"),
        ([a_block(points=a_point(scal=1))], "a point has name, address, type"),
        ([a_block(points=a_point(type="int"))], "type must be u16, s16"),
        ([a_block(points=a_point(order="ab"))], "order must be abcd"),
        ([a_block(points=a_point(address=103, type="u32"))], "with all registers of the type"),
        ([a_block(points=a_point(address=99))], "address must lie in the block"),
        ([a_block(points=a_point(bit=3))], "bit must be 0 to 15"),
        ([a_block(points=a_point(type="bit", bit=16))], "bit must be 0 to 15"),
        ([a_block(points=a_point(scale="x"))], "scale and offset must be numbers"),
        ([a_block(points=a_point(scale=0))], "scale not 0"),
        ([a_block(points=a_point(type="bit", scale=2))], "a bit has no scale"),
        ([a_block(function=2, points=a_point(type="u16"))], "type must be bit"),
        ([a_block(), a_block(count=5)], r"blocks\[2\]: another block has this name"),
        (
            [a_block(count=125, address=0, points=[{"name": f"p{n}", "address": 0} for n in range(513)])],
            "a map has at most 512 points",
        ),
    ],
)
def test_a_wrong_map_is_refused_with_the_place_and_what_to_write(blocks: Any, says: str) -> None:
    assert re.search(says, refusal(blocks))


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ({}, {}, True),
        ({"unit_id": 1}, {"unit_id": 1}, True),
        ({"unit_id": 1}, {}, True),
        ({}, {"unit_id": 1}, True),
        ({"unit_id": 1}, {"unit_id": 2}, False),
        ({}, {"function": 4}, False),
        ({}, {"count": 5}, False),
        ({"function": 1, "count": 9}, {"function": 1, "count": 16}, True),
    ],
)
def test_blocks_whose_replies_look_alike_are_refused(
    first: dict[str, Any], second: dict[str, Any], *, alike: bool
) -> None:
    blocks = [a_block(**first), a_block(name="c", **second)]
    with plugin_alone("modbus-meter", {"blocks": blocks}) as alone:
        status = alone.status("modbus-meter")

    assert status.state == ("refused" if alike else "running")
    assert alike == ("its replies look like those of blocks[1]" in status.reason)


def test_blocks_of_two_units_are_told_apart_and_asked_apart() -> None:
    blocks = [
        a_block(unit_id=1, points=a_point(name="left")),
        a_block(name="c", unit_id=2, points=a_point(name="right")),
    ]
    with plugin_alone("modbus-meter", {"blocks": blocks}) as alone:
        codec = running(alone, "modbus-meter")
        items = [decoded(codec, reply(bytes(8), unit_id=unit_id)) for unit_id in (1, 2)]
        unknown = decode_safely(codec, reply(bytes(8), unit_id=3))
        asked = [encode_safely(codec, ask("read", 1, f"meter-{unit_id}", block="c")) for unit_id in (1, 2)]

    assert [list(values_of(item)) for item in items] == [["left"], ["right"]]
    assert [item.device for item in items] == ["meter-1", "meter-2"]
    assert unknown == UNKNOWN
    assert asked == [None, modbus_rtu(2, 3, registers(100, 4))]


# Modems.


@pytest.fixture(scope="module")
def modem_host() -> Iterator[PluginHost]:
    with plugin_alone("modbus-meter", {"modem_prefix": "REG:"}) as alone:
        yield alone


@pytest.fixture
def line(modem_host: PluginHost) -> WasmCodec:
    return running(modem_host, "modbus-meter")


@pytest.fixture(scope="module")
def heir() -> Iterator[WasmCodec]:
    with plugin_alone("modbus-meter", {"modem_prefix": "REG:"}) as alone:
        yield running(alone, "modbus-meter")


def test_a_modems_registration_names_the_meters_of_its_connection(line: WasmCodec) -> None:
    totals = reply(bytes(8), 4, unit_id=7)
    assert decode_safely(line, totals, 71) == NO_MODEM

    assert decode_safely(line, b"REG:pump-house.2\r\n", 71) is None
    assert decode_safely(line, b"REG:mill", 72) is None

    assert decoded(line, totals, 71).device == "pump-house.2-7"
    assert decoded(line, totals, 72).device == "mill-7"
    assert decode_safely(line, b"REG:pump-house.3", 71) is None
    assert decoded(line, totals, 71).device == "pump-house.3-7"


def test_a_command_finds_its_way_back_over_a_modem(line: WasmCodec) -> None:
    decode_safely(line, b"REG:mill", 5)

    assert encode_safely(line, ask("read", 4711, "mill-12", block="totals")) == modbus_rtu(12, 4, registers(0x156, 4))

    item = decoded(line, reply(bytes(8), 4, unit_id=12), 5)
    assert (item.kind, item.device, item.reply_to, item.ok) == ("reply", "mill-12", 4711, True)
    assert encode_safely(line, ask("read", 1, "mill", block="totals")) is None
    assert encode_safely(line, ask("read", 1, "-12", block="totals")) is None


@pytest.mark.parametrize("packet", [b"REG:", b"REG:a b", b"REG:" + b"a" * 41, b"REG:\xff", b"reg:mill", b"REG:a/b"])
def test_a_packet_that_names_nothing_is_no_registration(line: WasmCodec, packet: bytes) -> None:
    assert decode_safely(line, packet, 99) == CHECKSUM
    assert decode_safely(line, reply(bytes(8), 4), 99) == NO_MODEM


def test_the_oldest_of_too_many_modems_is_forgotten() -> None:
    with plugin_alone("modbus-meter", {"modem_prefix": ""}) as alone:
        codec = running(alone, "modbus-meter")
        for connection in range(1, MODEMS + 2):
            assert decode_safely(codec, f"modem{connection}".encode(), connection) is None
        totals = reply(bytes(8), 4)

        assert decode_safely(codec, totals, 1) == NO_MODEM
        assert decoded(codec, totals, 2).device == "modem2-1"
        assert decoded(codec, totals, MODEMS + 1).device == f"modem{MODEMS + 1}-1"


def test_the_names_of_modems_outlive_a_reload(line: WasmCodec) -> None:
    decode_safely(line, b"REG:mill", 5)
    state = line.program.save_state(1.0)
    assert state is not None

    with plugin_alone("modbus-meter", {"modem_prefix": "REG:"}) as alone:
        newer = running(alone, "modbus-meter")
        assert decode_safely(newer, reply(bytes(8), 4), 5) == NO_MODEM
        assert newer.program.load_state(state, 1.0)
        assert decoded(newer, reply(bytes(8), 4), 5).device == "mill-1"


def test_the_state_of_as_many_modems_as_there_may_be_fits_the_input() -> None:
    with plugin_alone("modbus-meter", {"modem_prefix": ""}) as alone:
        codec = running(alone, "modbus-meter")
        for connection in range(MODEMS):
            decode_safely(codec, b"m" * 40, 2**32 - 1 - connection)
        state = codec.program.save_state(1.0)

        assert state is not None
        assert len(msgspec.msgpack.decode(state)) == MODEMS
        assert codec.program.load_state(state, 1.0)


@hostile
@given(state=st.binary(max_size=60) | st.lists(modem_states, max_size=4).map(msgspec.msgpack.encode))
def test_any_state_is_taken_or_refused(heir: WasmCodec, state: bytes) -> None:
    heir.program.load_state(state, 1.0)

    assert heir.stats.traps == 0


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"device_prefix": "a/b"}, "device_prefix must be at most 32"),
        ({"device_prefix": "a" * 33}, "device_prefix must be at most 32"),
        ({"device_prefix": "line1"}, "must not end in a digit"),
        ({"modem_prefix": 7}, "modem_prefix must be text"),
        ({"modem_prefix": "a" * 33}, "modem_prefix must be text"),
    ],
)
def test_a_wrong_prefix_is_refused_with_what_to_write(setting: dict[str, Any], says: str) -> None:
    assert says in refusal(load_manifest(FOLDER).config["blocks"], **setting)


# Hostile input.


@hostile
@given(unit_id=st.integers(0, 255), function=st.integers(0, 255), data=st.binary(max_size=252))
def test_any_sound_frame_gives_a_value_or_a_code(meter: WasmCodec, unit_id: int, function: int, data: bytes) -> None:
    decode_safely(meter, modbus_rtu(unit_id, function, data))


@hostile
@given(words=st.lists(st.integers(0, 0xFFFF), min_size=80, max_size=80), unit_id=st.integers(1, 247))
def test_any_registers_of_a_block_give_all_of_its_points(meter: WasmCodec, words: list[int], unit_id: int) -> None:
    values = values_of(decoded(meter, reply(registers(*words), 4, unit_id)))

    [first] = struct.unpack(">f", registers(*words[:2]))
    assert len(values) == 12
    assert values["voltage"] == (first if first - first == 0 else None)


def test_every_flipped_bit_is_found_by_the_crc(meter: WasmCodec) -> None:
    content = reply(bytes(8), 4)
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode_safely(meter, bytes(flipped)) == CHECKSUM


@hostile
@given(
    command=st.sampled_from(["read", "write_register", "write_registers", "write_coil"]),
    args=st.dictionaries(
        st.sampled_from(["block", "address", "value", "values", "on"]),
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=20)
        | st.lists(st.integers(-1, 65536), max_size=130)
        | st.sampled_from(["totals", 0, 1, True, [1, 2]]),
    ),
    device=st.sampled_from(["meter-1", "meter-247", "meter-", ""]) | st.text(max_size=70),
)
def test_any_arguments_are_encoded_or_refused(
    meter: WasmCodec, command: str, args: dict[str, Any], device: str
) -> None:
    wire = encode_safely(meter, {"command": command, "args": args, "device": device, "serial": 9})

    if wire is not None:
        assert modbus_rtu(wire[0], wire[1], wire[2:-2]) == wire


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None, max_examples=40)
@given(
    blocks=json_like
    | st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["a", "b"]), "function": st.integers(0, 5), "address": st.integers(0, 70_000)},
            optional={
                "count": st.integers(0, 130),
                "points": json_like
                | st.lists(st.dictionaries(st.sampled_from(["name", "address", "type"]), json_like)),
            },
        ),
        max_size=3,
    )
)
def test_any_map_is_taken_or_refused_with_words(blocks: Any) -> None:
    with plugin_alone("modbus-meter", {"blocks": blocks}) as alone:
        status = alone.status("modbus-meter")

    assert status.state == "running" or "code 7" in status.reason
