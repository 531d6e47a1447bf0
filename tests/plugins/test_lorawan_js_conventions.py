"""Codecs in every style in which they are published, their settings, and what becomes of their answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.js_codecs import JsCodecs, why_refused
from fakes.plugin_codecs import decode_safely, decoded, shown, values_of
from fakes.traffic import FakeClock

from gateway.core.errors import CodecError
from gateway.wasm.host import WasmCodec

REPORTED, THROWN = 256, 257
BODY = "{ return {data: {t: ((bytes[0] << 8) | bytes[1]) / 10, port: port}}; }"
TTN_V3 = (
    f"function decodeUplink(input) {{ var bytes = input.bytes, port = input.fPort; return (function () {BODY})(); }}"
)
THREE_FUNCTIONS = """
function Decoder(b, port) { return {raw: b[0] * 256 + b[1]}; }
function Converter(d, port) { return {t: d.raw / 10, port: port}; }
function Validator(d, port) { return d.t > 0; }
"""
WITH_CLASSES = """
class Sensor { constructor(b) { this.b = b } get t() { return (this.b[0] << 8 | this.b[1]) / 10 } }
function decodeUplink({bytes: b, fPort: port}) { return {data: {t: new Sensor(b).t, port}} }
"""
EUI = bytes.fromhex("70b3d57ed005abcd")


def encoded(codec: WasmCodec, args: Any = None, aux: int = 0, **request: Any) -> bytes:
    return codec.encode(msgspec.msgpack.encode({"command": "set", "args": args, **request}), aux)


@pytest.mark.parametrize(
    "script",
    [
        TTN_V3,
        "'use strict';\n" + TTN_V3,
        "\ufeff" + TTN_V3.replace("; ", ";\r\n"),
        "const decodeUplink = ({bytes, fPort}) => ({data: {t: ((bytes[0] << 8) | bytes[1]) / 10, port: fPort}});",
        "let decodeUplink = function (i) { return {data: {t: (i.bytes[0] * 256 + i.bytes[1]) / 10, port: i.fPort}} };",
        TTN_V3 + "if (typeof module !== 'undefined') module.exports = {decodeUplink: decodeUplink};",
        "(function () {" + TTN_V3 + "module.exports = {decodeUplink: decodeUplink}; })();",
        '"use strict"; Object.defineProperty(exports, "__esModule", { value: true }); exports.decodeUplink = void 0;'
        "(function () {" + TTN_V3 + "exports.decodeUplink = decodeUplink; })();",
        "function Decode(fPort, bytes, variables) { return {t: (bytes[0] * 256 + bytes[1]) / 10, port: fPort}; }",
        "function Decoder(bytes, port) { return {t: (bytes[0] * 256 + bytes[1]) / 10, port: port}; }",
        THREE_FUNCTIONS,
        WITH_CLASSES,
    ],
    ids=[
        "ttn-v3",
        "strict",
        "bom-and-crlf",
        "arrow",
        "let",
        "exports-guarded",
        "exports-only",
        "typescript",
        "chirpstack-v3",
        "ttn-v2",
        "ttn-v2-three-functions",
        "es2015",
    ],
)
def test_a_codec_runs_in_the_style_it_was_published_in(js: JsCodecs, script: str) -> None:
    item = decoded(js(script), bytes((1, 16)), aux=7)
    assert item.kind == "report"
    assert item.device is None
    assert item.points[0].at is None
    assert values_of(item) == shown(item) == {"t": 27.2, "port": 7}


def test_the_first_convention_wins_where_a_script_has_many(js: JsCodecs) -> None:
    script = "function Decoder(b, p) { return {by: 'Decoder'} } function decodeUplink(i) { return {data: {by: 'TTN'}} }"
    assert values_of(decoded(js(script), b"")) == {"by": "TTN"}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("function encodeDownlink(i) { return {bytes: [i.data.on, i.fPort], fPort: 10}; }", b"\x01\x01"),
        ("function encodeDownlink(i) { return {bytes: new Uint8Array([i.data.on, 2])}; }", b"\x01\x02"),
        ("function encodeDownlink(i) { return {bytes: Buffer.from([i.data.on])}; }", b"\x01"),
        ("function encodeDownlink(i) { return {bytes: [i.data.on - 2, 0xff]}; }", b"\xff\xff"),
        ("function Encode(fPort, obj, variables) { return [fPort, obj.on]; }", b"\x01\x01"),
        ("function Encoder(obj, port) { return [port, obj.on]; }", b"\x01\x01"),
        ("function encodeDownlink(i) { return {bytes: [], fPort: 3, warnings: ['nothing to do']}; }", b""),
    ],
)
def test_an_encoder_runs_in_the_style_it_was_published_in(js: JsCodecs, script: str, expected: bytes) -> None:
    assert encoded(js(script), {"on": 1}) == expected


def test_an_encoder_sees_the_name_of_the_command(js: JsCodecs) -> None:
    codec = js("function encodeDownlink(i) { return {bytes: [i.command.length, Object.keys(i.data).length]}; }")
    assert encoded(codec, None, command="reboot") == b"\x06\x00"


def test_a_script_may_have_an_encoder_alone(js: JsCodecs) -> None:
    codec = js("function Encoder(obj, port) { return [1]; }")
    assert encoded(codec) == b"\x01"
    assert decode_safely(codec, b"\x01") == 5


def test_downlinks_are_decoded_where_the_settings_say_so(js: JsCodecs) -> None:
    script = TTN_V3 + "function decodeDownlink(i) { return {data: {down: i.bytes[0]}}; }"
    assert values_of(decoded(js(script, {"direction": "down"}), b"\x05")) == {"down": 5}
    assert "decodeDownlink" in why_refused(js, TTN_V3, {"direction": "down"})


# -- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "frame", "port", "payload"),
    [
        ({}, b"\x01\x02", 9, [1, 2]),
        ({"fport": "aux"}, b"\x01\x02", 9, [1, 2]),
        ({"fport": "first_byte"}, b"\x01\x02", 1, [2]),
        ({"fport": 85}, b"\x01\x02", 85, [1, 2]),
        ({"device": "prefix8"}, EUI + b"\x01", 9, [1]),
        ({"device": "prefix8", "fport": "first_byte"}, EUI + b"\x02\x01", 2, [1]),
        ({"device": "prefix8", "fport": "first_byte"}, EUI + b"\x02", 2, []),
    ],
)
def test_the_envelope_is_taken_off(
    js: JsCodecs, config: dict[str, Any], frame: bytes, port: int, payload: list[int]
) -> None:
    codec = js("function decodeUplink(i) { return {data: {port: i.fPort, bytes: i.bytes}}; }", config)
    item = decoded(codec, frame, aux=9)
    assert values_of(item) == {"port": port, "bytes": payload}
    assert item.device == (EUI.hex() if "device" in config else None)


@pytest.mark.parametrize(
    ("config", "shortest"), [({"fport": "first_byte"}, 1), ({"device": "prefix8", "fport": "first_byte"}, 9)]
)
def test_a_frame_shorter_than_its_envelope_is_truncated(js: JsCodecs, config: dict[str, Any], shortest: int) -> None:
    assert decode_safely(js(TTN_V3, config), bytes(shortest - 1)) == 1


def test_a_command_goes_out_in_the_same_envelope(js: JsCodecs) -> None:
    codec = js(
        "function encodeDownlink(i) { return {bytes: [7], fPort: i.data.port}; }",
        {"device": "prefix8", "fport": "first_byte"},
    )
    assert encoded(codec, {"port": 85}, device=EUI.hex().upper()) == EUI + b"\x55\x07"
    assert encoded(codec, {}, device=EUI.hex()) == EUI + b"\x01\x07"
    for wrong in (None, "70b3d57ed005abc", "70b3d57ed005abcg"):
        with pytest.raises(CodecError, match="16 hex digits") as caught:
            encoded(codec, {}, device=wrong)
        assert caught.value.number == 7
    with pytest.raises(CodecError, match="fPort is not a number from 0 to 255"):
        encoded(codec, {"port": 256}, device=EUI.hex())


def test_variables_reach_both_networks_codecs(js: JsCodecs) -> None:
    config = {"variables": {"offset": "1.5", "nested": {"a": [1, None, True, -2.5]}, "__proto__": 3}}
    for script in (
        "function decodeUplink(i) { return {data: i.variables}; }",
        "function Decode(fPort, bytes, variables) { return variables; }",
    ):
        assert values_of(decoded(js(script, config), b"")) == config["variables"]
    changing = js("function decodeUplink(i) { i.variables.n = (i.variables.n || 0) + 1; return {data: i.variables}; }")
    assert [values_of(decoded(changing, b"")) for _ in range(2)] == [{"n": 1}, {"n": 1}]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"fport": "third_byte"}, "`fport` must be"),
        ({"fport": 256}, "`fport` must be"),
        ({"fport": -1}, "`fport` must be"),
        ({"device": "prefix4"}, "`device` must be"),
        ({"direction": 1}, "`direction` must be"),
        ({"variables": [1]}, "`variables` must be a table"),
        ({"fprot": 1}, "an unknown key; known are `fport`"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_start(js: JsCodecs, config: dict[str, Any], words: str) -> None:
    assert words in why_refused(js, TTN_V3, config)


# -- Answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", ["", "null", "{}", "{data: null}", "{data: {}}", "{data: {a: undefined}}", "{errors: []}"]
)
def test_an_answer_without_data_drops_the_frame(js: JsCodecs, answer: str) -> None:
    assert decode_safely(js(f"function decodeUplink(i) {{ return {answer}; }}"), b"\x01") is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("{errors: ['unknown port']}", "codec.js: errors: unknown port"),
        ("{data: {a: 1}, errors: ['a', {b: 2}]}", 'codec.js: errors: a; {"b":2}'),
        ("{errors: 'too short'}", "codec.js: errors: too short"),
    ],
)
def test_reported_errors_are_the_plugins_own_code_with_its_words(js: JsCodecs, answer: str, words: str) -> None:
    codec = js(f"function decodeUplink(i) {{ return {answer}; }} function encodeDownlink(i) {{ return {answer}; }}")
    assert decode_safely(codec, b"\x01") == REPORTED
    with pytest.raises(CodecError) as caught:
        encoded(codec)
    assert caught.value.number == REPORTED
    assert words in str(caught.value)


def test_a_refusing_validator_is_an_error(js: JsCodecs) -> None:
    codec = js("function Decoder(b, p) { return {a: b[0]} } function Validator(d, p) { return d.a < 5 }")
    assert values_of(decoded(codec, b"\x04")) == {"a": 4}
    assert decode_safely(codec, b"\x05") == REPORTED


def test_warnings_are_shown_beside_the_data_and_are_no_property(js: JsCodecs) -> None:
    item = decoded(js("function decodeUplink(i) { return {data: {a: 1}, warnings: ['low battery']}; }"), b"")
    assert values_of(item) == {"a": 1}
    assert shown(item) == {"a": 1, "warnings": ["low battery"]}
    own = decoded(js("function decodeUplink(i) { return {data: {warnings: 0}, warnings: ['low']}; }"), b"")
    assert values_of(own) == {"warnings": 0}
    assert shown(own) == {"warnings": ["low"]}


@pytest.mark.parametrize("answer", ["{data: 5}", "{data: [1]}", "'text'", "7", "{data: function () {}}"])
def test_data_that_is_no_object_is_an_error(js: JsCodecs, answer: str) -> None:
    assert decode_safely(js(f"function decodeUplink(i) {{ return {answer}; }}"), b"") == THROWN


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        "{bytes: 'ff'}",
        "{bytes: [256]}",
        "{bytes: [1.5]}",
        "{bytes: ['1']}",
        "{bytes: [NaN]}",
        "{bytes: [,1]}",
        "5",
    ],
)
def test_an_encoder_that_gives_no_bytes_is_an_error(js: JsCodecs, answer: str) -> None:
    with pytest.raises(CodecError) as caught:
        encoded(js(f"function encodeDownlink(i) {{ return {answer}; }}"))
    assert caught.value.number == THROWN


def test_no_encoder_and_no_script_are_unsupported(js: JsCodecs) -> None:
    with pytest.raises(CodecError, match="none of the functions encodeDownlink, Encode and Encoder") as caught:
        encoded(js(TTN_V3))
    assert caught.value.number == 5
    bare = js(None)
    assert decode_safely(bare, b"\x01") == 5
    with pytest.raises(CodecError, match="no script"):
        encoded(bare)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("var a = 1;\nvar b = ;\n", "codec.js:2: SyntaxError"),
        ("\n\n\nthrow new TypeError('no such sensor');", "codec.js:4: TypeError: no such sensor"),
        ("\nundefinedThing.x = 1;", "codec.js:2: ReferenceError"),
        ("throw 'just words'", "codec.js: just words"),
        ("throw {toString: function () { throw 1 }}", "codec.js: {}"),
        ("throw {toJSON: function () { throw 1 }}", "codec.js: an exception that cannot be shown"),
        ("function decode(bytes) { return {}; }", "codec.js: has none of the functions decodeUplink"),
        ("var decodeUplink = 5;", "codec.js: has none of the functions decodeUplink"),
        ("", "codec.js: has none of the functions decodeUplink"),
        ("import x from 'y';", "codec.js:1: SyntaxError"),
    ],
)
def test_a_script_that_cannot_work_is_refused_with_its_line(js: JsCodecs, script: str, words: str) -> None:
    assert why_refused(js, script).startswith(words)


def test_a_thrown_error_names_its_line(js: JsCodecs) -> None:
    codec = js("function encodeDownlink(i) {\n  return {bytes: [i.data.missing.deep]};\n}")
    with pytest.raises(CodecError, match=r"codec\.js:2: TypeError") as caught:
        encoded(codec, {})
    assert caught.value.number == THROWN


def test_one_failing_frame_leaves_its_neighbours_alone(js: JsCodecs) -> None:
    codec = js(
        "function decodeUplink(i) { if (i.bytes[0] === 1) throw new Error('x'); return {data: {b: i.bytes[0]}}; }"
    )
    results = codec.decode_batch([b"\x00", b"\x01", b"\x02"])
    assert results[1] == THROWN
    assert [values_of(item) for item in (results[0], results[2]) if item is not None and not isinstance(item, int)] == [
        {"b": 0},
        {"b": 2},
    ]


# -- What a script finds ----------------------------------------------------------------------------------------------


def test_time_is_the_hosts_and_utc(js: JsCodecs) -> None:
    clock = FakeClock(1_700_000_000_000)
    script = """function decodeUplink(i) {
        var same = i.recvTime === i.recvTime, copy = Object.assign({}, i);
        return {data: {now: Date.now(), at: i.recvTime, zone: new Date().getTimezoneOffset(), same: same,
                       kept: copy.recvTime instanceof Date}};
    }"""
    assert values_of(decoded(js(script, clock=clock), b"")) == {
        "now": 1_700_000_000_000,
        "at": "2023-11-14T22:13:20.000Z",
        "zone": 0,
        "same": True,
        "kept": True,
    }


def test_random_numbers_differ_and_are_below_one(js: JsCodecs) -> None:
    script = "function decodeUplink(i) { return {data: {r: Array.from({length: 200}, Math.random)}}; }"
    numbers = values_of(decoded(js(script), b""))["r"]
    assert len(set(numbers)) == 200
    assert all(0 <= number < 1 for number in numbers)
    assert set(numbers).isdisjoint(values_of(decoded(js(script), b""))["r"])


def test_there_is_no_way_out(js: JsCodecs) -> None:
    names = ["require", "process", "fetch", "XMLHttpRequest", "setTimeout", "std", "os", "import_", "WebAssembly"]
    script = f"function decodeUplink(i) {{ return {{data: {{found: {names}.filter(n => n in globalThis)}}}}; }}"
    assert values_of(decoded(js(script), b"")) == {"found": []}


def test_promises_that_a_call_leaves_behind_go_on(js: JsCodecs) -> None:
    codec = js("var n = 0; async function f() { await null; n++ } function decodeUplink(i) { f(); return {data: {n}} }")
    assert [values_of(decoded(codec, b""))["n"] for _ in range(3)] == [0, 1, 2]
