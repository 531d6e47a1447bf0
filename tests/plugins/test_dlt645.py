from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from fakes.meter_frames import dlt645, identifier
from fakes.plugin_codecs import (
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

from gateway.core.flow import Decoded
from gateway.wasm.host import WasmCodec
from gateway.wasm.plugins import PluginHost

METER = "000000000161"
TRUNCATED, UNKNOWN, CHECKSUM = 1, 2, 3
CHINA = timezone(timedelta(hours=8))
OPEN_QUESTIONS = 512

hostile = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
any_di = st.one_of(
    st.integers(0, 0xFFFFFFFF).map(lambda di: f"{di:08x}"),
    st.tuples(st.sampled_from(["00", "01"]), st.integers(0, 0xFF), st.integers(0, 0x41), st.integers(0, 14)).map(
        lambda di: f"{di[0]}{di[1]:02x}{di[2]:02x}{di[3]:02x}"
    ),
    st.sampled_from(
        ["0001ff00", "0101ff00", "0201ff00", "0203ff00", "020a01ff", "040005ff", "04000404", "04000101", "0400010c"]
    ),
)


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    with plugin_alone("dlt645") as alone:
        yield alone


@pytest.fixture
def meter(host: PluginHost) -> WasmCodec:
    return running(host, "dlt645")


def read(di: str, data: str, address: str = METER) -> bytes:
    return dlt645(0x91, identifier(di) + bytes.fromhex(data), address)


def ask(command: str, serial: int, device: str = METER, **args: Any) -> dict[str, Any]:
    return {"command": command, "args": args, "device": device, "serial": serial}


def test_every_command_of_the_thing_model_can_be_encoded(meter: WasmCodec) -> None:
    rights = {"password": "000000", "level": 2, "operator": "00000000"}
    calls: dict[str, dict[str, Any]] = {
        "read": {"di": "00010000"},
        "read_next": {"di": "00010000", "sequence": 1},
        "read_address": {},
        "broadcast_time": {"time": "2026-03-01T00:00:00Z"},
        "write": {"di": "04000102", "data": "000000", **rights},
        "relay": {"action": "open", "until": "2026-03-01T00:00:00Z", **rights},
    }
    model = thing_model("dlt645")

    assert set(model.functions) == set(calls)
    for name, args in calls.items():
        assert set(args) <= set(model.functions[name].inputs)
        assert encode_safely(meter, ask(name, 1, **args)) is not None


@hostile
@given(digits=st.integers(0, 99_999_999), settlement=st.integers(0, 12), tariff=st.integers(0, 63))
def test_an_energy_is_its_digits_over_a_hundred(meter: WasmCodec, digits: int, settlement: int, tariff: int) -> None:
    suffix = (f"_t{tariff}" if tariff else "") + (f"_settlement_{settlement}" if settlement else "")
    data = bytes.fromhex(f"{digits:08d}")[::-1].hex()

    item = decoded(meter, read(f"0002{tariff:02x}{settlement:02x}", data))

    assert values_of(item) == {f"reverse_active_energy{suffix}": digits / 100}


@hostile
@given(digits=st.integers(0, 799_999), negative=st.booleans())
def test_a_current_has_its_sign_in_the_highest_bit(meter: WasmCodec, digits: int, *, negative: bool) -> None:
    data = bytearray(bytes.fromhex(f"{digits:06d}")[::-1])
    data[2] |= 0x80 if negative else 0

    item = decoded(meter, read("02020100", bytes(data).hex()))

    assert values_of(item) == {"phase_a_current": (-digits if negative else digits) / 1000}


@hostile
@given(moment=st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(CHINA)))  # noqa: DTZ001
def test_the_clock_comes_back_as_it_was_broadcast(meter: WasmCodec, moment: datetime) -> None:
    wire = encode_safely(meter, ask("broadcast_time", 1, time=moment.isoformat()))

    assert wire is not None
    sent = bytes((byte - 0x33) & 0xFF for byte in wire[14:20])
    item = decoded(meter, read("0400010c", (sent[:3] + b"\x01" + sent[3:]).hex()))
    shown_clock = datetime.fromisoformat(values_of(item)["meter_clock"])
    assert shown_clock == moment.replace(microsecond=0)


def test_the_longest_block_of_tariffs_is_decoded(meter: WasmCodec) -> None:
    frame = dlt645(0x91, identifier("0001ff00") + bytes(4 * 62))

    values = values_of(decoded(meter, frame))

    assert len(values) == 62
    assert values["forward_active_energy_t61"] == 0


@pytest.mark.parametrize(
    ("di", "largest"),
    [
        ("00000000", "99999979"),
        ("00010000", "99999999"),
        ("02010100", "9999"),
        ("02020100", "999979"),
        ("02030000", "999979"),
        ("02800001", "999979"),
        ("02800002", "9999"),
        ("02800004", "999979"),
        ("02800007", "9979"),
        ("02800008", "9999"),
    ],
)
def test_the_largest_number_of_a_format_is_in_the_range_of_the_thing_model(
    meter: WasmCodec, di: str, largest: str
) -> None:
    model = thing_model("dlt645")

    [(name, value)] = values_of(decoded(meter, read(di, largest))).items()

    assert model.properties[name].maximum == value


def test_every_property_that_can_come_is_a_property_id(meter: WasmCodec) -> None:
    data = bytes(8)
    for high in (0, 1):
        for kind in range(256):
            item = decoded(meter, read(f"{high:02x}{kind:02x}3f0c", data[: 8 if high else 4].hex()))
            for name in values_of(item):
                assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}", name)


def test_a_newer_question_takes_the_place_of_one_that_was_never_answered(meter: WasmCodec) -> None:
    encode_safely(meter, ask("read", 500, di="00010000"))
    encode_safely(meter, ask("read", 501, di="00010000"))

    first, second = (decoded(meter, read("00010000", "00000000")) for _ in range(2))

    assert (first.kind, first.reply_to, first.ok) == ("reply", 501, True)
    assert (second.kind, second.reply_to) == ("report", None)


def test_questions_to_many_meters_wait_side_by_side_and_the_oldest_is_forgotten_first(meter: WasmCodec) -> None:
    meters = [f"{number:012d}" for number in range(OPEN_QUESTIONS + 1)]
    for serial, device in enumerate(meters, 1):
        encode_safely(meter, ask("read", serial, device, di="00010000"))

    kinds = [decoded(meter, read("00010000", "00000000", device)).kind for device in meters]

    assert kinds == ["report"] + ["reply"] * OPEN_QUESTIONS


def test_the_offset_of_the_meters_clock_is_a_setting_that_breaks_no_promise() -> None:
    with plugin_alone("dlt645", {"utc_offset_min": -90}) as alone:
        item = decoded(running(alone, "dlt645"), read("0400010c", "55532101110116"))

    assert values_of(item) == {"meter_clock": "2016-01-11T23:23:55Z"}


@pytest.mark.parametrize("offset", [841, -841, "480", 1.5, None])
def test_an_offset_that_is_none_is_refused_with_what_to_write(offset: Any) -> None:
    with plugin_alone("dlt645", {"utc_offset_min": offset}) as alone:
        status = alone.status("dlt645")

    assert status.state == "refused"
    assert "utc_offset_min must be a whole number from -840 to 840" in status.reason


# Hostile input.


@hostile
@given(control=st.integers(0, 255), data=st.binary(max_size=255))
def test_any_content_of_a_sound_frame_gives_a_value_or_too_short(meter: WasmCodec, control: int, data: bytes) -> None:
    outcome = decode_safely(meter, dlt645(control, data))

    if control & 0x80:
        assert isinstance(outcome, Decoded) or outcome == TRUNCATED
    else:
        assert outcome is None


@hostile
@given(di=any_di, data=st.binary(max_size=251), follow_up=st.booleans())
def test_any_data_of_any_identifier_is_stored_under_some_name(
    meter: WasmCodec, di: str, data: bytes, *, follow_up: bool
) -> None:
    item = decoded(meter, dlt645(0xB1 if follow_up else 0x91, identifier(di) + data))

    assert (item.kind, len(item.points)) == (("report", 1) if data else ("heartbeat", 0))
    assert shown(item)["values"] == (values_of(item) if data else {})


def test_every_flipped_bit_is_found_or_breaks_the_frame(meter: WasmCodec) -> None:
    content = dlt645(0x91, identifier("00010000") + bytes(4))
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode_safely(meter, bytes(flipped)) in {TRUNCATED, UNKNOWN, CHECKSUM}


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@hostile
@given(
    command=st.sampled_from(["read", "read_next", "read_address", "broadcast_time", "write", "relay"]),
    args=st.dictionaries(
        st.sampled_from(["di", "blocks", "sequence", "time", "data", "password", "level", "operator", "until"]),
        json_like | st.sampled_from(["00010000", "000000", "2026-03-01T00:00:00Z", 1, "00" * 38]),
    ),
    device=st.sampled_from([METER, "aaaaaaaaaaaa", "1", ""]) | json_like,
)
def test_any_arguments_are_encoded_or_refused(
    meter: WasmCodec, command: str, args: dict[str, Any], device: Any
) -> None:
    wire = encode_safely(meter, {"command": command, "args": args, "device": device, "serial": 9})

    if wire is not None:
        assert wire[:5] == b"\xfe\xfe\xfe\xfe\x68"
        assert wire[-2] == sum(wire[4:-2]) & 0xFF
        assert len(wire) == 4 + 12 + wire[13]
