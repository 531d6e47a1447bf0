from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from fakes.jt808_frames import PHONE, frame, location_body

from gateway.core.errors import CodecError
from gateway.core.flow import Decoded
from gateway.things.model import ThingModel
from gateway.wasm.host import WasmCodec
from gateway.wasm.manifest import load_manifest
from gateway.wasm.plugins import PluginHost


def captures(folder: Path) -> list[dict[str, object]]:
    vectors = json.loads((folder / "vectors.json").read_text())["vectors"]
    assert len(vectors) == 47
    return vectors


def test_every_vector_of_the_manifest_holds(plugin_host: PluginHost) -> None:
    results = plugin_host.run_vectors("jt808")

    assert [result for result in results if not result.ok] == []
    assert len(results) >= 47 + 50


def test_captured_frames_decode_from_the_wire_to_exactly_the_expected_location(
    plugin_host: PluginHost, jt808_folder: Path
) -> None:
    for capture in captures(jt808_folder):
        [[outcome]] = plugin_host.try_decode("jt808", [bytes.fromhex(str(capture["frame_hex"]))])
        expected = capture["expect"]
        assert isinstance(expected, dict)
        assert outcome.ok
        assert {key: outcome.value[key] for key in expected} == expected


def test_a_point_has_the_fields_of_the_location_and_nothing_but_the_raw_extras_beside(
    plugin_host: PluginHost, jt808: WasmCodec, jt808_folder: Path
) -> None:
    seen = 0
    for capture in captures(jt808_folder):
        expected = capture["expect"]
        assert isinstance(expected, dict)
        if "location" in expected:
            seen += 1
            wire = bytes.fromhex(str(capture["frame_hex"]))[1:-1]
            content = wire.replace(b"\x7d\x02", b"\x7e").replace(b"\x7d\x01", b"\x7d")
            [item] = jt808.decode_batch([content])
            assert isinstance(item, Decoded)
            [point] = item.points
            raw = point.values.pop("extras_raw", None)
            assert point.values == expected["location"]
            assert raw == msgspec.msgpack.decode(item.value).get("extras_raw")
    assert seen == 29


def test_the_thing_model_names_every_field_the_plugin_reports(jt808_folder: Path) -> None:
    model = msgspec.json.decode((jt808_folder / "thing-model.json").read_bytes(), type=ThingModel)
    fields = load_manifest(jt808_folder).schema.fields

    assert {name: (one.type, one.unit) for name, one in model.properties.items()} == {
        field.name: (field.type, field.unit) for field in fields
    }


def test_every_function_of_the_thing_model_can_be_encoded(jt808: WasmCodec, jt808_folder: Path) -> None:
    model = msgspec.json.decode((jt808_folder / "thing-model.json").read_bytes(), type=ThingModel)
    calls: dict[str, tuple[dict[str, object], int]] = {
        "set_parameters": ({"parameters": {"0x0001": 60}}, 0x8103),
        "query_parameters": ({"ids": ["0x0001"]}, 0x8106),
        "locate": ({}, 0x8201),
    }

    assert set(model.functions) == set(calls)
    for name, (args, message_id) in calls.items():
        request = {"command": name, "args": args, "device": PHONE, "serial": 9}
        assert jt808.encode(msgspec.msgpack.encode(request))[1:3] == message_id.to_bytes(2, "big")


def test_an_acknowledgement_travels_from_the_item_to_the_wire_unchanged(jt808: WasmCodec) -> None:
    [item] = jt808.decode_batch([frame(0x0200, location_body(), serial=0x7E7D)])
    assert isinstance(item, Decoded)

    reply = jt808.encode(bytes(item.ack))

    assert reply.startswith(b"\x7e\x80\x01")
    assert b"\x7d\x02\x7d\x01\x02\x00\x00" in reply


def link(body: bytes, said: int | None = None) -> bytes:
    return (len(body) if said is None else said).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("declared", "links", "altitudes"),
    [
        (3, [link(location_body(altitude=1)), link(b"abc"), link(location_body(altitude=2))], [1, 2]),
        (3, [link(location_body(altitude=1)), link(b""), link(location_body(altitude=2))], [1, 2]),
        (3, [link(location_body(altitude=1)), link(b"abc"), link(location_body(altitude=2), 99)], [1, 2]),
        (2, [link(location_body(altitude=1)), link(location_body(altitude=2), 0xFFFF)], [1, 2]),
        (2, [link(location_body(altitude=1)), link(location_body()[:-1], 28)], [1]),
        (4, [link(location_body(altitude=1)), link(location_body(altitude=2))], [1, 2]),
        (9, [link(location_body(altitude=1)), link(b"abc"), link(location_body(altitude=2), 99)], [1]),
        (1, [link(location_body(altitude=1)), b"\x00"], [1]),
    ],
    ids=["short", "empty", "short, then long", "long", "cut off", "too few", "no lengths to go by", "a byte too many"],
)
def test_what_decodes_of_a_damaged_batch_is_stored_and_acknowledged(
    jt808: WasmCodec, declared: int, links: list[bytes], altitudes: list[int]
) -> None:
    [item] = jt808.decode_batch([frame(0x0704, declared.to_bytes(2, "big") + b"\0" + b"".join(links))])

    assert isinstance(item, Decoded)
    assert [point.values["altitude_m"] for point in item.points] == altitudes
    assert msgspec.msgpack.decode(item.ack)["args"]["result"] == 0
    value = msgspec.msgpack.decode(item.value)
    assert value["batch"]["well_formed"] is False
    assert len(value["locations"]) == len(altitudes)


@pytest.mark.parametrize(
    ("message_id", "body"),
    [(0x0200, b"abc"), (0x0201, b"abc"), (0x0704, b"a"), (0x0704, b"\0\1\0\0\3abc"), (0x0104, b"a"), (0x0001, b"a")],
)
def test_a_message_that_says_nothing_is_kept_raw_and_acknowledged(
    jt808: WasmCodec, message_id: int, body: bytes
) -> None:
    [item] = jt808.decode_batch([frame(message_id, body)])

    assert isinstance(item, Decoded)
    assert item.event is not None
    assert item.event.data["body"] == body.hex()
    assert msgspec.msgpack.decode(item.ack)["args"]["result"] == 0


@pytest.mark.parametrize("command", [0x8104, 0x8106, 0x8107, 0x8201])
def test_only_a_failing_general_reply_ends_a_command_that_has_an_answer_of_its_own(
    jt808: WasmCodec, command: int
) -> None:
    said = b"\x00\x11" + command.to_bytes(2, "big")
    taken, refused = jt808.decode_batch([frame(0x0001, said + b"\0"), frame(0x0001, said + b"\3")])

    assert isinstance(taken, Decoded)
    assert isinstance(refused, Decoded)
    assert (taken.kind, taken.reply_to, bytes(taken.ack)) == ("heartbeat", None, b"")
    assert (refused.kind, refused.reply_to, refused.ok) == ("reply", 0x11, False)


def test_a_refused_command_says_why_in_the_plugins_own_words(jt808: WasmCodec) -> None:
    request = {"command": "set_parameters", "args": {"parameters": {"0xf001": 1}}, "device": PHONE, "serial": 1}

    with pytest.raises(CodecError, match="0xf001 is not in the standard") as refused:
        jt808.encode(msgspec.msgpack.encode(request))
    assert refused.value.number == 7


def test_the_readme_and_the_docs_name_every_command_and_bound(jt808_folder: Path) -> None:
    readme = (jt808_folder / "README.md").read_text()
    docs = (jt808_folder.parents[1] / "docs" / "jt808.md").read_text()

    for word in ("set_parameters", "query_parameters", "locate", "extras_raw"):
        assert word in docs
    for bound in ("256 messages", "128 parts", "2,048 parts", "8 messages", "256 parts"):
        assert bound in readme
