from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from fakes.plugin_codecs import PLUGINS, decode_safely, decoded, plugin_alone, running, shown, values_of
from fakes.senml_packs import Raw, cbor, head, pack
from fakes.traffic import FakeClock
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from gateway.core.flow import Decoded
from gateway.wasm.host import WasmCodec
from gateway.wasm.plugins import PluginHost

FOLDER = PLUGINS / "cbor-senml"
NOW_MS = 1_767_225_600_000
TRUNCATED, NOT_CBOR, WRONG_TYPE, MUST_UNDERSTAND, TOO_MUCH = 1, 256, 257, 258, 264
CODES = {TRUNCATED, *range(256, 265)}
RECORDS = 2048

hostile = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100)
names = st.text("abcXYZ019-:._", min_size=1, max_size=8).filter(lambda name: name[0].isalnum())


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    with plugin_alone("cbor-senml", clock=FakeClock(NOW_MS)) as alone:
        yield alone


@pytest.fixture
def codec(host: PluginHost) -> WasmCodec:
    return running(host, "cbor-senml")


def value_of(codec: WasmCodec, number: bytes) -> Any:
    """What a number in CBOR becomes as a value."""
    return values_of(decoded(codec, pack({"n": "a", "v": Raw(number)})))["value"]


def test_every_vector_holds(host: PluginHost) -> None:
    results = host.run_vectors("cbor-senml")

    assert [result for result in results if not result.ok] == []
    assert len(results) > 110


def test_the_sources_of_the_packs_are_named() -> None:
    assert any("RFC 8428" in source for source in json.loads((FOLDER / "vectors.json").read_text())["source"])


def test_the_readme_names_every_code_and_bound() -> None:
    readme = (FOLDER / "README.md").read_text()

    assert [code for code in CODES if f"| {code} |" not in readme] == []
    for bound in ("2,048 records", "128 characters", "64 of a device", "16 levels", "128 bytes"):
        assert bound in readme


@pytest.mark.parametrize(
    ("seconds", "at"),
    [
        (-5, NOW_MS - 5_000),
        (-0.25, NOW_MS - 250),
        (60, NOW_MS + 60_000),
        (2**28 - 1, NOW_MS + (2**28 - 1) * 1000),
        (2**28, 2**28 * 1000),
        (1276020076.001, 1276020076001),
    ],
)
def test_times_below_two_to_the_28_count_from_now(codec: WasmCodec, seconds: float, at: int) -> None:
    item = decoded(codec, pack({"n": "a", "v": 1, "t": seconds}))

    assert [point.at for point in item.points] == [at]


def test_a_base_time_may_make_a_relative_time_absolute(codec: WasmCodec) -> None:
    item = decoded(codec, pack({"bn": "d:", "bt": 1_600_000_000, "n": "a", "v": 1, "t": -5}))

    assert [point.at for point in item.points] == [1_599_999_995_000]


def test_a_codec_without_the_clock_is_refused_by_name() -> None:
    with plugin_alone("cbor-senml", granted=("log",)) as alone:
        status = alone.status("cbor-senml")

    assert "clock" in status.reason
    assert status.state != "running"


@hostile
@given(number=st.integers(-(2**64), 2**64 - 1))
@example(number=-(2**63))
@example(number=-(2**63) - 1)
@example(number=-(2**64))
def test_an_integer_of_64_bits_stays_exact_or_becomes_the_nearest_float(codec: WasmCodec, number: int) -> None:
    value = value_of(codec, cbor(number))

    assert value == (number if number >= -(2**63) else float(number))
    assert isinstance(value, int) == (number >= -(2**63))


@hostile
@given(bits=st.integers(0, 0xFFFF))
def test_every_half_is_what_the_machine_says(codec: WasmCodec, bits: int) -> None:
    packed = bits.to_bytes(2, "big")
    [expected] = struct.unpack(">e", packed)
    if math.isfinite(expected):
        assert value_of(codec, b"\xf9" + packed) == expected
    else:
        assert decode_safely(codec, pack({"n": "a", "v": Raw(b"\xf9" + packed)})) == WRONG_TYPE


@hostile
@given(bits=st.integers(0, 2**32 - 1))
def test_every_single_is_what_the_machine_says(codec: WasmCodec, bits: int) -> None:
    packed = bits.to_bytes(4, "big")
    [expected] = struct.unpack(">f", packed)
    assume(math.isfinite(expected))

    assert value_of(codec, b"\xfa" + packed) == expected


@hostile
@given(mantissa=st.integers(-(2**53), 2**53), exponent=st.integers(-22, 22))
def test_a_decimal_fraction_of_a_measurement_is_the_nearest_float(
    codec: WasmCodec, mantissa: int, exponent: int
) -> None:
    value = value_of(codec, b"\xc4" + cbor([exponent, mantissa]))

    assert value == float(Fraction(mantissa) * Fraction(10) ** exponent)


@hostile
@given(mantissa=st.integers(-(2**64), 2**64 - 1), exponent=st.integers(-400, 400))
def test_any_decimal_fraction_is_near_or_refused(codec: WasmCodec, mantissa: int, exponent: int) -> None:
    outcome = decode_safely(codec, pack({"n": "a", "v": Raw(b"\xc4" + cbor([exponent, mantissa]))}))

    exact = Fraction(mantissa) * Fraction(10) ** exponent
    if isinstance(outcome, Decoded):
        assert values_of(outcome)["value"] == pytest.approx(float(exact), rel=1e-13, abs=1e-300)
    else:
        assert outcome == WRONG_TYPE
        assert abs(exact) > 1.7e308


@hostile
@given(data=st.binary(max_size=128), negative=st.booleans())
def test_a_bignum_is_its_bytes(codec: WasmCodec, data: bytes, *, negative: bool) -> None:
    value = value_of(codec, (b"\xc3" if negative else b"\xc2") + cbor(data))

    number = int.from_bytes(data, "big")
    assert value == pytest.approx(float(-1 - number if negative else number), rel=1e-13)


records = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "bt": st.integers(0, 2_000_000_000),
            "bu": st.sampled_from(["Cel", "V"]),
            "bv": finite,
            "bs": finite,
            "n": names,
            "u": st.sampled_from(["A", "W"]),
            "v": finite | st.integers(-(2**53), 2**53),
            "s": finite,
            "t": st.integers(-1000, 1000),
            "ut": st.integers(0, 60),
        },
    ).filter(bool),
    min_size=1,
    max_size=8,
)


def resolved(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a pack by the words of RFC 8428, 4.5: an oracle written apart from the C code."""
    base: dict[str, Any] = {}
    result = []
    for entry in entries:
        base |= {key: value for key, value in entry.items() if key.startswith("b")}
        value, total = entry.get("v"), entry.get("s")
        if value is None and total is None and "n" in entry and "bv" in base:
            value = base["bv"]
        elif value is not None and "bv" in base:
            value = value + base["bv"]
        if "bs" in base and (value is not None or total is not None):
            total = (total or 0) + base["bs"]
        if value is None and total is None:
            continue
        record = {"n": base["bn"] + entry.get("n", ""), "t": entry.get("t", 0) + base.get("bt", 0)}
        unit = entry.get("u", base.get("bu"))
        optional = {"u": unit, "v": value, "s": total, "ut": entry.get("ut")}
        result.append(record | {key: value for key, value in optional.items() if value is not None})
    return result


@hostile
@given(entries=records)
def test_records_are_resolved_as_the_standard_says(codec: WasmCodec, entries: list[dict[str, Any]]) -> None:
    entries[0]["bn"] = "dev:"
    expected = resolved(entries)
    outcome = decode_safely(codec, pack(*entries))

    measured = [{"v", "s", "bt", "bu", "bv", "bs", "bn"} & set(entry) for entry in entries]
    if not all(measured) and not isinstance(outcome, Decoded):
        return  # a record that says nothing: refused
    if not expected:
        assert not isinstance(outcome, Decoded)
        return
    assert isinstance(outcome, Decoded)
    assert outcome.device == "dev"
    assert shown(outcome)["records"] == expected
    stored = sum(len(point.values) for point in outcome.points)
    assert stored == sum(("v" in record) + ("s" in record) for record in expected)


def test_neighbouring_records_of_one_time_are_one_point_of_at_most_32_values(codec: WasmCodec) -> None:
    entries = [{"bn": "d:", "n": f"a{number}", "v": number} for number in range(70)]

    item = decoded(codec, pack(*entries))

    assert [len(point.values) for point in item.points] == [32, 32, 6]
    assert dict(itertools.chain(*(point.values.items() for point in item.points))) == {
        f"a{number}": number for number in range(70)
    }


def test_the_most_records_of_a_pack_are_decoded_and_one_more_is_refused(codec: WasmCodec) -> None:
    entry = {"n": "a", "v": 1}

    assert len(decoded(codec, pack(*[entry] * RECORDS)).points) == RECORDS
    assert decode_safely(codec, pack(*[entry] * (RECORDS + 1))) == TOO_MUCH


def test_one_fault_in_a_batch_leaves_its_neighbours(codec: WasmCodec) -> None:
    good = pack({"n": "a", "v": 1})

    outcomes = codec.decode_batch([good, pack({"n": "a", "v_": 1}), good])

    assert [type(outcome) for outcome in outcomes] == [Decoded, int, Decoded]
    assert outcomes[1] == MUST_UNDERSTAND


# Hostile input.


@hostile
@given(content=st.binary(max_size=300))
@example(content=b"\x9f" * 300)
@example(content=b"\x81\xa1\x61\x78" + b"\x81" * 300)
@example(content=b"\x81\xa1\x61\x78" + b"\xbf" * 300)
@example(content=b"\x81\xa1\x61\x78" + b"\xc1" * 300)
@example(content=b"\x9b" + b"\xff" * 8)
def test_any_bytes_give_a_value_or_a_code(codec: WasmCodec, content: bytes) -> None:
    outcome = decode_safely(codec, content)

    assert isinstance(outcome, Decoded) or outcome in CODES


@hostile
@given(data=st.data())
def test_damaged_packs_give_a_value_or_a_code(codec: WasmCodec, data: st.DataObject) -> None:
    entries = json.loads((FOLDER / "vectors.json").read_text())["vectors"]
    content = bytearray.fromhex(
        data.draw(st.sampled_from([entry["frame"] for entry in entries if len(entry["frame"]) > 8]))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    outcome = decode_safely(codec, bytes(content[: data.draw(st.integers(0, len(content)))]))

    assert isinstance(outcome, Decoded) or outcome in CODES


any_cbor = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-8, 10) | st.text(max_size=3), inner, max_size=4)
        | st.lists(inner, max_size=3).map(lambda items: Raw(b"\x9f" + b"".join(map(cbor, items)) + b"\xff"))
        | inner.map(lambda item: Raw(head(6, 4) + cbor(item)))
    ),
    max_leaves=10,
)


@hostile
@given(entries=st.lists(st.dictionaries(st.integers(-8, 10) | st.text(max_size=3), any_cbor, max_size=6), max_size=5))
def test_any_records_give_a_value_or_a_code(codec: WasmCodec, entries: list[dict[Any, Any]]) -> None:
    outcome = decode_safely(codec, cbor(entries))

    assert isinstance(outcome, Decoded) or outcome in CODES


@hostile
@given(unknown=any_cbor)
def test_what_an_unknown_field_holds_is_passed_over_whole(codec: WasmCodec, unknown: Any) -> None:
    item = decoded(codec, pack({"new": unknown, "n": "a", "v": 1}))

    assert values_of(item) == {"value": 1}


def test_packs_cut_at_every_length_are_truncated(codec: WasmCodec) -> None:
    whole = pack({"bn": "d:", "n": "a", "v": 1.5, "new": [1, {"x": b"12"}]}, {"n": "b", "vs": "text"})
    for end in range(len(whole)):
        assert decode_safely(codec, whole[:end]) == TRUNCATED
    assert decode_safely(codec, whole + b"\x00") == NOT_CBOR
