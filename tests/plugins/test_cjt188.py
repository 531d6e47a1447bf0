from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from fakes.meter_frames import cjt188
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

METER = "78330011223344"
TRUNCATED, UNKNOWN, CHECKSUM = 1, 2, 3
CHINA = timezone(timedelta(hours=8))
WATER, HEAT = 0x10, 0x20

hostile = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
digits_of = st.integers(0, 99_999_999)


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    with plugin_alone("cjt188") as alone:
        yield alone


@pytest.fixture
def meter(host: PluginHost) -> WasmCodec:
    return running(host, "cjt188")


def low_first(digits: int, count: int = 4) -> bytes:
    return bytes.fromhex(f"{digits:0{2 * count}d}")[::-1]


def quantity(digits: int, unit: int, *, unit_first: bool = False) -> bytes:
    number, code = low_first(digits), bytes((unit,))
    return code + number if unit_first else number + code


def ask(command: str, serial: int, **args: Any) -> dict[str, Any]:
    return {"command": command, "args": args, "device": METER, "serial": serial}


def test_every_command_of_the_thing_model_can_be_encoded(meter: WasmCodec) -> None:
    calls: dict[str, dict[str, Any]] = {
        "read": {"di": "901F"},
        "read_address": {},
        "valve": {"position": "open"},
        "set_time": {"time": "2026-03-01T00:00:00Z"},
    }
    model = thing_model("cjt188")

    assert set(model.functions) == set(calls)
    for name, args in calls.items():
        everything = args | {"meter_type": "20", "di_order": "low"}
        assert set(everything) == set(model.functions[name].inputs)
        wire = encode_safely(meter, ask(name, 1, **everything))
        assert wire is not None
        assert wire[4] == HEAT


@hostile
@given(now=digits_of, settled=digits_of, unit_first=st.booleans(), low_di=st.booleans())
def test_a_water_reading_is_its_digits_over_a_hundred(
    meter: WasmCodec, now: int, settled: int, *, unit_first: bool, low_di: bool
) -> None:
    di = b"\x1f\x90" if low_di else b"\x90\x1f"
    flows = quantity(now, 0x2C, unit_first=unit_first) + quantity(settled, 0x2C, unit_first=unit_first)

    item = decoded(meter, cjt188(0x81, di + b"\x07" + flows + bytes(9)))

    values = values_of(item)
    assert (values["cumulative_flow"], values["settlement_flow"]) == (now / 100, settled / 100)
    assert shown(item)["di"] == "901f"


@hostile
@given(
    heat=digits_of, unit=st.sampled_from([(0x02, 1e-3), (0x05, 1.0), (0x08, 1e3), (0x0E, 1 / 3.6), (0x11, 1e3 / 3.6)])
)
def test_heat_becomes_kilowatt_hours(meter: WasmCodec, heat: int, unit: tuple[int, float]) -> None:
    code, factor = unit
    fields = quantity(0, code) + quantity(heat, code) + quantity(0, 0x17) + quantity(0, 0x35) + quantity(0, 0x2C)

    item = decoded(meter, cjt188(0x81, b"\x90\x1f\x00" + fields + bytes(18), kind=HEAT))

    assert values_of(item)["cumulative_heat"] == pytest.approx(heat / 100 * factor, rel=1e-12)


@hostile
@given(moment=st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(CHINA)))  # noqa: DTZ001
def test_the_clock_comes_back_as_it_was_set(meter: WasmCodec, moment: datetime) -> None:
    wire = encode_safely(meter, ask("set_time", 1, time=moment.isoformat()))

    assert wire is not None
    flows = quantity(0, 0x2C) * 2
    item = decoded(meter, cjt188(0x81, b"\x90\x1f\x00" + flows + wire[17:24] + b"\x00\x00"))
    assert datetime.fromisoformat(values_of(item)["meter_clock"]) == moment.replace(microsecond=0)


def test_settings_change_what_commands_send_and_break_no_promise() -> None:
    with plugin_alone("cjt188", {"meter_type": "30", "di_order": "low", "utc_offset_min": 0}) as alone:
        codec = running(alone, "cjt188")
        wire = encode_safely(codec, ask("read", 5, di="901F"))
        item = decoded(
            codec, cjt188(0x81, b"\x90\x1f\x00" + quantity(0, 0x2C) * 2 + low_first(20260301000000, 7) + b"\0\0")
        )

    assert wire is not None
    assert wire[3:] == cjt188(0x01, b"\x1f\x90\x05", kind=0x30)
    assert values_of(item)["meter_clock"] == "2026-03-01T00:00:00Z"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"meter_type": 16}, "meter_type must be two hex digits"),
        ({"meter_type": "1"}, "meter_type must be two hex digits"),
        ({"di_order": "up"}, "di_order must be"),
        ({"utc_offset_min": 900}, "utc_offset_min must be a whole number"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_write(setting: dict[str, Any], says: str) -> None:
    with plugin_alone("cjt188", setting) as alone:
        status = alone.status("cjt188")

    assert status.state == "refused"
    assert says in status.reason


def test_a_newer_question_takes_the_place_of_one_that_was_never_answered(meter: WasmCodec) -> None:
    for serial in (500, 501):
        encode_safely(meter, ask("read", serial, di="D120"))
    answer = cjt188(0x81, b"\xd1\x20\xff" + quantity(1, 0x2C))

    first, second = (decoded(meter, answer) for _ in range(2))

    assert (first.kind, first.reply_to, first.ok) == ("reply", 501, True)
    assert (second.kind, second.reply_to) == ("report", None)


# Hostile input.


@hostile
@given(control=st.integers(0, 255), data=st.binary(max_size=255), kind=st.integers(0, 255))
def test_any_content_of_a_sound_frame_gives_a_value_or_too_short(
    meter: WasmCodec, control: int, data: bytes, kind: int
) -> None:
    outcome = decode_safely(meter, cjt188(control, data, kind=kind))

    if control & 0x80:
        assert isinstance(outcome, Decoded) or outcome == TRUNCATED
    else:
        assert outcome is None


@hostile
@given(
    di=st.sampled_from([b"\x90\x1f", b"\x1f\x90", b"\xd1\x22", b"\xa0\x17"]) | st.binary(min_size=2, max_size=2),
    fields=st.lists(
        st.builds(quantity, digits_of, st.sampled_from([0x05, 0x17, 0x35, 0x2C, 0xFF]), unit_first=st.booleans())
        | st.binary(min_size=5, max_size=5),
        max_size=5,
    ),
    rest=st.binary(max_size=18),
    kind=st.sampled_from([0x10, 0x20, 0x21, 0x30, 0x40]),
)
def test_any_data_of_any_identifier_is_stored_under_some_name(
    meter: WasmCodec, di: bytes, fields: list[bytes], rest: bytes, kind: int
) -> None:
    data = b"".join(fields) + rest

    item = decoded(meter, cjt188(0x81, di + b"\x00" + data, kind=kind))

    assert (item.kind, len(item.points)) == (("report", 1) if data else ("heartbeat", 0))
    assert shown(item)["values"] == (values_of(item) if data else {})


def test_every_flipped_bit_is_found_or_breaks_the_frame(meter: WasmCodec) -> None:
    content = cjt188(0x81, b"\x90\x1f\x00" + quantity(1234, 0x2C) * 2 + bytes(9))
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode_safely(meter, bytes(flipped)) in {TRUNCATED, UNKNOWN, CHECKSUM}


@hostile
@given(
    command=st.sampled_from(["read", "read_address", "valve", "set_time"]),
    args=st.dictionaries(
        st.sampled_from(["di", "meter_type", "di_order", "position", "time"]),
        st.none()
        | st.integers(-(2**63), 2**64 - 1)
        | st.text(max_size=30)
        | st.sampled_from(["901F", "20", "low", "open", "2026-03-01T00:00:00Z"]),
    ),
    device=st.sampled_from([METER, "a" * 14, "1", ""]) | st.text(max_size=16),
)
def test_any_arguments_are_encoded_or_refused(
    meter: WasmCodec, command: str, args: dict[str, Any], device: str
) -> None:
    wire = encode_safely(meter, {"command": command, "args": args, "device": device, "serial": 9})

    if wire is not None:
        assert wire[:4] == b"\xfe\xfe\xfe\x68"
        assert wire[-2] == sum(wire[3:-2]) & 0xFF
