from __future__ import annotations

import functools
import json
import operator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.framing.flag_escape import FlagEscapeFramer
from gateway.simulate import jt808_wire as wire
from gateway.simulate.jt808_wire import Edition, Header, Id

VECTORS = Path(__file__).parents[2] / "plugins" / "jt808" / "vectors.json"


def unframed(data: bytes) -> list[bytes]:
    return FlagEscapeFramer(0x7E, 0x7D, {1: 0x7D, 2: 0x7E}, 4096).feed(data)


@given(st.binary(max_size=300))
def test_the_checksum_is_the_xor_of_all_bytes(data: bytes) -> None:
    assert wire.checksum(data) == functools.reduce(operator.xor, data, 0)


@given(
    edition=st.sampled_from(["2013", "2019"]),
    digits=st.text("0123456789", min_size=20, max_size=20),
    message_id=st.integers(0, 0xFFFF),
    serial=st.integers(0, 0xFFFF),
    body=st.binary(max_size=1023),
)
def test_what_is_written_is_read_again(
    edition: Edition, digits: str, message_id: int, serial: int, body: bytes
) -> None:
    phone = digits if edition == "2019" else digits[:12]

    [frame] = unframed(Header(phone, edition).message(message_id, serial, body))

    assert wire.read(frame) == (message_id, bytes.fromhex(phone), serial, body)


def test_captured_frames_of_real_terminals_are_read() -> None:
    for vector in json.loads(VECTORS.read_text())["vectors"]:
        [frame] = unframed(bytes.fromhex(vector["frame_hex"]))
        received = wire.read(frame)
        expected = vector["expect"]
        assert received.message_id == expected["message_id"]
        assert received.phone.hex() == expected["terminal_phone"]
        assert received.serial == expected["serial"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda frame: frame[:5], "too short"),
        (lambda frame: frame[:-1] + bytes((frame[-1] ^ 1,)), "checksum"),
        (lambda frame: frame[:3] + bytes((frame[3] ^ 1,)) + frame[4:-1] + bytes((frame[-1] ^ 1,)), "body length"),
    ],
)
def test_a_damaged_frame_is_refused_with_the_reason(damage: object, reason: str) -> None:
    [frame] = unframed(Header("013800000000", "2013").message(Id.HEARTBEAT, 1, b"ab"))
    assert callable(damage)

    with pytest.raises(ValueError, match=reason):
        wire.read(damage(frame))


def test_a_number_of_another_edition_is_refused() -> None:
    with pytest.raises(ValueError, match="no phone number"):
        Header("013800000000", "2019")


@given(st.dictionaries(st.integers(0, 2**32 - 1), st.binary(max_size=20), max_size=10))
def test_parameters_are_read_as_they_are_listed(parameters: dict[int, bytes]) -> None:
    assert wire.read_parameters(wire.parameters_body(7, parameters)[2:]) == parameters


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x02" + bytes(5), b"\x01" + bytes(4) + b"\x09a"])
def test_a_parameter_list_that_does_not_fit_its_count_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="parameter list"):
        wire.read_parameters(body)


def test_a_list_of_ids_that_does_not_fit_its_count_is_refused() -> None:
    assert wire.read_ids(b"\x01\x00\x00\x00\x55") == [0x55]
    with pytest.raises(ValueError, match="list of ids"):
        wire.read_ids(b"\x02\x00\x00\x00\x55")


def test_the_time_of_a_fix_is_told_in_gmt_plus_8() -> None:
    assert wire.bcd_time(1_772_323_199_000).hex() == "260301075959"


def test_the_road_is_closed_and_its_spots_are_neighbours() -> None:
    road = wire.ring_road()

    for here, there in zip(road, road[1:] + road[:1], strict=True):
        metres = 0.11132 * ((here.latitude - there.latitude) ** 2 + (here.longitude - there.longitude) ** 2) ** 0.5
        assert 4 < metres < 6
        assert 0 <= here.direction < 360


def test_a_drive_is_too_fast_once_and_slow_afterwards() -> None:
    speeds = [wire.speed_km_h(share / 1000) for share in range(1001)]

    fast = [share for share, speed in enumerate(speeds) if speed > 80]
    assert fast == list(range(fast[0], fast[-1] + 1))
    assert len(fast) > 200
    calm = next(share for share in range(fast[-1], 1001) if speeds[share] < 75)
    assert max(speeds[calm:]) < 75
