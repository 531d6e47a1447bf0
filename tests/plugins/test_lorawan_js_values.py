"""What JavaScript computes arrives as it was computed: numbers, text, nested data, and what codecs lean on."""

from __future__ import annotations

import base64
import math
import re
import struct
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import msgspec
import pytest
from fakes.js_codecs import JsCodecs, js_value
from fakes.plugin_codecs import decode_safely, decoded, values_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.wasm.host import WasmCodec

THROWN, TOO_LARGE = 257, 4
many = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
finite = st.floats(allow_nan=False, allow_infinity=False)
# What a decoder gets is bytes, so that arguments of a function under test travel as JSON in UTF-8.
CALL = """
function decodeUplink(input) {
    var args = JSON.parse(new TextDecoder().decode(Uint8Array.from(input.bytes)));
    return {data: {v: work.apply(null, args)}};
}
"""


def calling(js: JsCodecs, function: str) -> WasmCodec:
    return js(f"var work = {function};{CALL}")


def called(codec: WasmCodec, *args: Any) -> Any:
    return values_of(decoded(codec, msgspec.json.encode(args)))["v"]


# -- Carrying ---------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | finite | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_any_json_arrives_as_it_is(js: JsCodecs) -> None:
    codec = calling(js, "function (v) { return v; }")

    @many
    @given(value=json_values)
    @example(value={"__proto__": 1, "": {"toJSON": 2}, "\0": "\0", "10": 1, "9": 2})
    def promise(value: Any) -> None:
        assert called(codec, value) == value

    promise()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("undefined", "absent"),
        ("function () {}", "absent"),
        ("Symbol('s')", "absent"),
        ("null", None),
        ("NaN", None),
        ("-Infinity", None),
        ("-0", 0),
        ("[undefined, , NaN, function () {}]", [None, None, None, None]),
        ("new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("new Date(NaN)", None),
        ("{toJSON: function () { return [1, {toJSON: function () { return 'in'; }}]; }}", [1, "in"]),
        ("new Map([[1, 2]])", {}),
        ("2n ** 63n", 2**63),
        ("-(2n ** 63n)", -(2**63)),
        ("2n ** 64n - 1n", 2**64 - 1),
        ("2n ** 64n", str(2**64)),
        ("-(2n ** 63n) - 1n", str(-(2**63) - 1)),
        ("new Uint16Array([1, 65535])", [1, 65535]),
        ("new Float64Array([1.5, NaN])", [1.5, None]),
        ("Buffer.from('AB')", [65, 66]),
        ("new DataView(new ArrayBuffer(2))", {}),
        ("'a\\ud800b' + '\\udc00' + '\\ud83d\\ude00'", "a\ufffdb\ufffd\U0001f600"),
        ("({['\\ud800']: 1})", {"\ufffd": 1}),
        ("'\\0'", "\0"),
        ("9007199254740993", 9007199254740992),
        ("1e300", 1e300),
        ("Object.create({inherited: 1}, {hidden: {value: 2}, own: {value: 3, enumerable: true}})", {"own": 3}),
    ],
)
def test_what_json_cannot_say_has_a_fixed_form(js: JsCodecs, expression: str, expected: Any) -> None:
    value = js_value(js, expression)
    assert value == expected
    assert type(value) is type(expected)


def test_a_whole_number_is_an_integer_and_no_other_is(js: JsCodecs) -> None:
    values = js_value(js, "[210 / 10, 21.5, 4294967296, -2147483649, 1e15]")
    assert list(map(type, values)) == [int, float, int, int, int]
    assert values == [21, 21.5, 2**32, -(2**31) - 1, 10**15]


def test_sixteen_levels_travel_and_a_deeper_or_endless_one_is_an_error(js: JsCodecs) -> None:
    nest = (
        "function decodeUplink(i) { var v = 1; for (var n = 1; n < i.bytes[0]; n++) v = [v]; return {data: {v: v}}; }"
    )
    codec = js(nest)
    assert decoded(codec, b"\x10").points
    assert decode_safely(codec, b"\x11") == THROWN
    for script in (
        "function decodeUplink(i) { var o = {}; o.o = o; return {data: o}; }",
        "function decodeUplink(i) { var o = {toJSON: function () { return {o: o}; }}; return {data: {o: o}}; }",
        "function decodeUplink(i) { var o = {toJSON: function () { return o; }}; return {data: {o: o}}; }",
    ):
        assert decode_safely(js(script), b"") == THROWN


def test_a_result_that_does_not_fit_is_too_large_and_alone(js: JsCodecs) -> None:
    codec = js("function decodeUplink(i) { return {data: {v: 'x'.repeat(i.bytes[0] * 10000)}}; }")
    assert [item if isinstance(item, int) else "fits" for item in codec.decode_batch([b"\x01", b"\xff", b"\x02"])] == [
        "fits",
        TOO_LARGE,
        "fits",
    ]


# -- Numbers ----------------------------------------------------------------------------------------------------------


def test_fixed_digits_are_rounded_as_the_language_says(js: JsCodecs) -> None:
    """Source: ECMAScript 2020, 20.1.3.3: of two equally near, the larger; the sign is taken off first."""
    codec = calling(js, "function (x, digits) { return x.toFixed(digits); }")

    @many
    @given(x=st.floats(-1e20, 1e20) | st.integers(-(10**6), 10**6).map(lambda n: n / 64), digits=st.integers(0, 30))
    @example(x=2.5, digits=0)
    @example(x=-1.5, digits=0)
    @example(x=1.005, digits=2)
    @example(x=0.125, digits=2)
    @example(x=99.995, digits=1)
    @example(x=9.96, digits=1)
    @example(x=5e-324, digits=30)
    def promise(x: float, digits: int) -> None:
        wanted = Decimal(x).copy_abs().quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, _context())
        sign = "-" if x < 0 else ""
        assert called(codec, x, digits) == f"{sign}{wanted:f}"

    promise()


def test_precision_is_rounded_as_the_language_says(js: JsCodecs) -> None:
    """Source: ECMAScript 2020, 20.1.3.5."""
    codec = calling(js, "function (x, digits) { return [x.toPrecision(digits), x.toExponential(digits - 1)]; }")

    @many
    @given(x=finite.filter(bool), digits=st.integers(1, 40))
    @example(x=2.5, digits=1)
    @example(x=9.5, digits=1)
    @example(x=1.7976931348623157e308, digits=40)
    @example(x=5e-324, digits=40)
    def promise(x: float, digits: int) -> None:
        exact = Decimal(x).copy_abs()
        wanted = exact.quantize(Decimal(1).scaleb(exact.adjusted() - digits + 1), ROUND_HALF_UP, _context())
        if wanted.adjusted() > exact.adjusted():
            wanted = exact.quantize(Decimal(1).scaleb(wanted.adjusted() - digits + 1), ROUND_HALF_UP, _context())
        precise, exponential = called(codec, x, digits)
        assert Decimal(precise).copy_abs() == Decimal(exponential).copy_abs() == wanted
        assert sum(map(str.isdigit, exponential.partition("e")[0])) == digits

    promise()


def test_text_of_a_number_is_the_shortest_that_reads_back(js: JsCodecs) -> None:
    codec = calling(js, "function (x) { return [String(x), Number(String(x)), parseFloat(x + 'abc')]; }")

    @many
    @given(x=finite)
    @example(x=5e-324)
    @example(x=1.7976931348623157e308)
    @example(x=1e21)
    @example(x=0.1 + 0.2)
    @example(x=9007199254740993.0)
    def promise(x: float) -> None:
        text, number, prefix = called(codec, x)
        assert float(text) == x == number == prefix
        assert _significant(text) == _significant(repr(x))

    promise()


def test_text_is_read_as_the_nearest_number(js: JsCodecs) -> None:
    codec = calling(js, "function (text) { return Number(text); }")

    @many
    @given(
        text=st.from_regex(r"[+-]?[0-9]{1,25}(\.[0-9]{0,25})?(e[+-]?[0-9]{1,3})?", fullmatch=True)
        | st.from_regex(r"\.[0-9]{1,30}", fullmatch=True)
    )
    @example(text="9007199254740993")
    @example(text="123456789012345e22")
    @example(text="2.2250738585072011e-308")
    @example(text="0.000000000000000000000000000001")
    @example(text="-0.0")
    @example(text="9223372036854775807")
    @example(text="20000000020100000000")
    @example(text="20000000020100000000.0")
    def promise(text: str) -> None:
        wanted = float(text)
        # The engine rounds twice where 20 digits and more have neither point nor exponent.
        off = math.ulp(wanted) if re.fullmatch(r"[+-]?0*[1-9][0-9]{19,}", text) else 0
        found = called(codec, text)
        assert found is None if math.isinf(wanted) else abs(found - wanted) <= off

    promise()


def test_big_integers_compute_exactly(js: JsCodecs) -> None:
    codec = calling(
        js,
        """function (a, b) {
            a = BigInt(a); b = BigInt(b);
            var all = [a + b, a * b, b && a / b, b && a % b, a & b, a ^ b, a >> 3n, a << 67n, BigInt.asUintN(64, a)];
            return all.map(String);
        }""",
    )

    @many
    @given(a=st.integers(-(2**200), 2**200), b=st.integers(-(2**70), 2**70))
    @example(a=2**63 + 2**24, b=2**32)
    @example(a=-(2**63), b=-1)
    def promise(a: int, b: int) -> None:
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else 0
        rest = a - quotient * b if b else 0
        wanted = [a + b, a * b, quotient, rest, a & b, a ^ b, a >> 3, a << 67, a % 2**64]
        assert called(codec, str(a), str(b)) == list(map(str, wanted))

    promise()


def _context() -> Context:
    """Wide enough for every digit of every double."""
    return Context(prec=1200)


def _significant(text: str) -> str:
    """The digits that matter of a number's text, without sign, point and exponent."""
    mantissa = text.lower().partition("e")[0].lstrip("-").replace(".", "")
    return mantissa.strip("0")


# -- Buffer and friends -----------------------------------------------------------------------------------------------

READS = {
    "readInt8": "b",
    "readUInt8": "B",
    "readInt16BE": ">h",
    "readUint16LE": "<H",
    "readInt32LE": "<i",
    "readUInt32BE": ">I",
    "readFloatBE": ">f",
    "readDoubleLE": "<d",
    "readBigInt64BE": ">q",
    "readBigUInt64LE": "<Q",
}


def test_a_buffer_reads_and_writes_numbers_where_they_are(js: JsCodecs) -> None:
    codec = calling(
        js,
        """function (bytes, read, offset) {
            var source = Buffer.from(bytes), target = Buffer.alloc(bytes.length);
            var number = source[read](offset), end = target[read.replace("read", "write")](number, offset);
            return [number, end, Array.from(target)];
        }""",
    )

    @many
    @given(data=st.binary(min_size=10, max_size=10), name=st.sampled_from(sorted(READS)), offset=st.integers(0, 2))
    def promise(data: bytes, name: str, offset: int) -> None:
        [wanted] = struct.unpack_from(READS[name], data, offset)
        number, end, written = called(codec, list(data), name, offset)
        assert number == (wanted if math.isfinite(wanted) else None)
        size = struct.calcsize(READS[name])
        assert end == offset + size
        if not isinstance(wanted, float) or not math.isnan(wanted):
            assert bytes(written) == bytes(offset) + data[offset : offset + size] + bytes(10 - offset - size)

    promise()


def test_a_buffer_reads_numbers_of_up_to_six_bytes(js: JsCodecs) -> None:
    codec = calling(
        js,
        """function (bytes, size) {
            var b = Buffer.from(bytes), back = Buffer.alloc(8);
            back.writeIntBE(b.readIntBE(1, size), 1, size);
            return [b.readUIntBE(1, size), b.readUIntLE(1, size), b.readIntBE(1, size), b.readIntLE(1, size), back];
        }""",
    )

    @many
    @given(data=st.binary(min_size=8, max_size=8), size=st.integers(1, 6))
    def promise(data: bytes, size: int) -> None:
        part = data[1 : 1 + size]
        wanted = [int.from_bytes(part, order, signed=signed) for signed in (False, True) for order in ("big", "little")]  # type: ignore[arg-type]
        assert called(codec, list(data), size) == [*wanted, [0, *part, *bytes(7 - size)]]

    promise()


def test_bytes_past_the_end_of_a_buffer_are_a_range_error(js: JsCodecs) -> None:
    for expression in ("readUInt16BE(1)", "readInt8(-1)", "readUIntBE(0, 3)", "writeInt32LE(1, 0)"):
        caught = (
            f"(function () {{ try {{ return Buffer.from([1, 2]).{expression}; }} catch (e) {{ return e.name; }} }})()"
        )
        assert js_value(js, caught) == "RangeError"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Buffer.from('00ff10', 'hex').toString('hex')", "00ff10"),
        ("Buffer.from('00fg', 'hex').toString('hex')", "00"),
        ("Buffer.from([1, 2, 3, 4]).slice(1, 3).toString('hex')", "0203"),
        ("Buffer.from([1, 2, 3, 4]).toString('hex', 1, 3)", "0203"),
        ("Buffer.concat([Buffer.from('ab'), Buffer.from([99])]).toString()", "abc"),
        ("Buffer.from('gruen', 'latin1').equals(Buffer.from('gruen'))", True),
        ("Buffer.from([0xe9, 0x41]).toString('latin1')", "\xe9A"),
        ("Buffer.from([0xe9, 0x41]).toString('ascii')", "iA"),
        ("Buffer.byteLength('\\u20ac')", 3),
        ("Buffer.isBuffer(Buffer.alloc(1)) && !Buffer.isBuffer(new Uint8Array(1))", True),
        ("Buffer.alloc(3, 7)", [7, 7, 7]),
        ("(function () { var b = Buffer.alloc(4); b.write('hi', 1); return b; })()", [0, 104, 105, 0]),
        ("(function () { var b = Buffer.alloc(2); Buffer.from([1, 2, 3]).copy(b, 0, 1); return b; })()", [2, 3]),
        ("JSON.stringify(Buffer.from([1]))", '{"type":"Buffer","data":[1]}'),
        ("Buffer.from(new Uint8Array([1, 2]).buffer, 1)", [2]),
        ("[1, 2, 3].at(-1)", 3),
        ("'abc'.at(-3)", "a"),
        ("[1, 2, 3].findLast(function (n) { return n < 3; })", 2),
        ("[1, 2, 3].findLastIndex(function (n) { return n > 5; })", -1),
        ("Object.hasOwn({a: 1}, 'a') && !Object.hasOwn({}, 'toString')", True),
        ("new TextEncoder().encode('\\ud800')", [0xEF, 0xBF, 0xBD]),
        ("atob('aGk=') + btoa('hi')", "hiaGk="),
        ("(function () { try { atob('a*'); } catch (e) { return e.name; } })()", "RangeError"),
        ("(function () { try { btoa('\\u20ac'); } catch (e) { return e.name; } })()", "RangeError"),
        ("(function () { try { new TextDecoder('utf-16'); } catch (e) { return e.name; } })()", "RangeError"),
        ("new TextDecoder().decode(Uint8Array.of(104, 105, 200))", "hi\ufffd"),
        ("new TextDecoder('utf-8', {}).fatal === false && new TextDecoder('utf-8', {fatal: true}).fatal", True),
        ("new TextDecoder('utf-8', {fatal: true}).decode(Uint8Array.of(226, 130, 172))", "\u20ac"),
        ("(function () { try { Buffer.from('a', 'ebcdic'); } catch (e) { return e.name; } })()", "TypeError"),
    ],
)
def test_what_codecs_lean_on_is_there(js: JsCodecs, expression: str, expected: Any) -> None:
    assert js_value(js, expression) == expected


@pytest.mark.parametrize("bad", ["ff", "68c8", "e282", "eda080", "f4908080", "c0af", "80", "f09f98", "e0808041"])
@pytest.mark.parametrize("source", ["bytes", "bytes.buffer", "new DataView(bytes.buffer)"])
def test_a_fatal_decoder_throws_where_the_bytes_are_no_text(js: JsCodecs, bad: str, source: str) -> None:
    bytes_of = ", ".join(map(str, bytes.fromhex(bad)))
    decoding = f"new TextDecoder('utf-8', {{fatal: true}}).decode({source})"
    caught = f"try {{ return {decoding}; }} catch (e) {{ return e.name; }}"
    assert js_value(js, f"(function () {{ var bytes = Uint8Array.of({bytes_of}); {caught} }})()") == "TypeError"


def test_bytes_and_text_convert_as_elsewhere(js: JsCodecs) -> None:
    codec = js(
        """function decodeUplink(i) {
            var b = Buffer.from(i.bytes);
            return {data: {utf8: b.toString(), base64: b.toString("base64"), ascii: btoa(b.toString("latin1")),
                           back: Buffer.from(b.toString("base64"), "base64"), text: Buffer.from(b.toString())}};
        }"""
    )

    @many
    @given(data=st.binary(max_size=64) | st.text(max_size=32).map(str.encode))
    @example(data=b"\xed\xa0\x80\xf0\x9f\x98\xf4\x90\x80\x80\xc0\xaf\xe2\x82")
    def promise(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        coded = base64.b64encode(data).decode()
        assert values_of(decoded(codec, data)) == {
            "utf8": text,
            "base64": coded,
            "ascii": coded,
            "back": list(data),
            "text": list(text.encode()),
        }

    promise()
