from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from fakes.jt808_platform import Answer, Platform

from gateway.core.errors import NotReady
from gateway.simulate import jt808_wire as wire
from gateway.simulate.jt808 import Options, Progress, run
from gateway.simulate.jt808_terminal import Acknowledged
from gateway.simulate.jt808_wire import Id, Received


def quick(platform: Platform, **changes: object) -> Options:
    """A run of a second, with short waits."""
    settings: dict[str, object] = {
        "port": platform.port,
        "devices": 3,
        "rate": 40.0,
        "seconds": 0.5,
        "heartbeat_s": 0.2,
        "connect_s": 5.0,
        "ack_wait_s": 2.0,
        "retry_s": 0.01,
        "retry_most_s": 0.05,
        "edition": platform.edition,
    }
    return Options(**{**settings, **changes})  # type: ignore[arg-type]


def locations(platform: Platform) -> dict[str, list[tuple[int, ...]]]:
    """Unpacked 0x0200 bodies by phone number."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for message in platform.received:
        if message.message_id == Id.LOCATION:
            found.setdefault(message.phone.hex(), []).append(wire.LOCATION.unpack(message.body))
    return found


SPEED, MILEAGE = 5, 10


async def test_every_location_is_sent_acknowledged_and_counted_once() -> None:
    async with Platform() as platform:
        result = await run(quick(platform))

    assert result.clean
    assert result.sent == result.acknowledged == platform.counts[Id.LOCATION] == 3 * 20
    assert result.registered == platform.counts[Id.REGISTER] == platform.counts[Id.AUTHENTICATE] == 3
    assert result.heartbeats == result.heartbeats_acknowledged == platform.counts[Id.HEARTBEAT] >= 3
    assert result.reconnects == result.errors == result.refused == result.unacknowledged == 0
    assert result.latency_p50_ms is not None
    assert result.latency_max_ms is not None
    assert 0 <= result.latency_p50_ms <= result.latency_max_ms


async def test_phone_numbers_follow_from_the_first_one() -> None:
    async with Platform() as platform:
        await run(quick(platform, first_phone=77))

    assert sorted(locations(platform)) == ["000000000077", "000000000078", "000000000079"]


async def test_a_terminal_of_2019_speaks_with_20_digits_and_its_code_behind_a_length() -> None:
    async with Platform("2019") as platform:
        result = await run(quick(platform, devices=1))

    assert result.clean
    assert list(locations(platform)) == [f"{13_800_000_000:020d}"]
    [body] = platform.bodies(Id.AUTHENTICATE)
    assert body.startswith(b"\x06code-1")


async def test_every_terminal_is_too_fast_once_and_calms_down() -> None:
    async with Platform() as platform:
        await run(quick(platform, devices=20, rate=50.0, seconds=1.0))

    for fixes in locations(platform).values():
        raised = cleared = 0
        active = False
        for fix in fixes:
            if fix[SPEED] > 800 and not active:
                active, raised = True, raised + 1
            elif fix[SPEED] < 750 and active:
                active, cleared = False, cleared + 1
        assert (raised, cleared) == (1, 1)


async def test_mileage_grows_by_a_tenth_with_every_location_and_names_it_in_the_journal() -> None:
    journal: list[Acknowledged] = []
    async with Platform() as platform:
        result = await run(quick(platform), journal=journal)

    for phone, fixes in locations(platform).items():
        mileages = [fix[MILEAGE] for fix in fixes]
        assert mileages == list(range(1, len(fixes) + 1))
        assert [entry.mileage_km for entry in journal if entry.phone == phone] == [tenths / 10 for tenths in mileages]
    assert len(journal) == result.acknowledged
    assert all(entry.at_ms % 1000 == 0 for entry in journal)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda platform: platform.general_reply(0, shift=1000),
        lambda platform: platform.general_reply(0, message_id=Id.HEARTBEAT),
        lambda platform: lambda asked: platform.message(asked, Id.GENERAL_REPLY, b"\0\0"),
        lambda _: lambda _: wire.Header("000000000001", "2013").message(Id.GENERAL_REPLY, 1, bytes(5)),
        lambda _: lambda _: b"\x7e" + bytes(20) + b"\x01\x7e",
    ],
    ids=["serial", "message id", "length", "phone", "checksum"],
)
async def test_an_acknowledgement_that_is_wrong_is_an_error_and_acknowledges_nothing(
    wrong: Callable[[Platform], Answer],
) -> None:
    async with Platform() as platform:
        platform.replies[Id.LOCATION] = wrong(platform)
        result = await run(quick(platform, ack_wait_s=0.1))

    assert result.acknowledged == 0
    assert result.errors == result.sent == 60
    assert result.first_error
    assert not result.clean


async def test_a_location_without_an_answer_is_unacknowledged() -> None:
    async with Platform() as platform:
        del platform.replies[Id.LOCATION]
        result = await run(quick(platform, ack_wait_s=0.1))

    assert (result.acknowledged, result.unacknowledged, result.sent) == (0, 60, 60)
    assert result.latency_p50_ms is None


async def test_a_location_answered_with_a_failure_is_refused() -> None:
    async with Platform() as platform:
        platform.replies[Id.LOCATION] = platform.general_reply(1)
        result = await run(quick(platform))

    assert (result.acknowledged, result.refused, result.unacknowledged) == (0, 60, 0)


@pytest.mark.parametrize("message_id", [Id.REGISTER, Id.AUTHENTICATE])
async def test_a_terminal_that_is_refused_stays_out_and_is_named(message_id: Id) -> None:
    async with Platform() as platform:
        refusal = platform.register_reply(4) if message_id is Id.REGISTER else platform.general_reply(1)
        platform.replies[message_id] = refusal
        result = await run(quick(platform, devices=1, connect_s=0.2))

    assert result.never_online == 1
    assert result.sent == 0
    assert result.held_back == 20
    assert result.refused >= 1
    assert "013800000000" in result.first_error


async def test_a_lost_connection_is_made_again_with_the_code_from_before() -> None:
    async with Platform() as platform:
        answer = platform.general_reply(0)

        def cut_at_the_tenth(asked: Received) -> bytes | None:
            if platform.counts[Id.LOCATION] == 10:
                platform.lines[-1].close()
                return None
            return answer(asked)

        platform.replies[Id.LOCATION] = cut_at_the_tenth
        result = await run(quick(platform, devices=1))

    assert result.reconnects == 1
    assert result.registered == 1
    assert platform.bodies(Id.AUTHENTICATE) == [b"code-1", b"code-1"]
    assert result.unacknowledged >= 1
    assert result.sent == result.acknowledged + result.unacknowledged
    assert result.sent + result.held_back == 20


async def test_a_platform_that_says_nothing_is_left_and_tried_again() -> None:
    async with Platform() as platform:
        del platform.replies[Id.REGISTER]
        result = await run(quick(platform, devices=1, connect_s=0.3, reply_s=0.05))

    assert result.never_online == 1
    assert platform.counts[Id.REGISTER] >= 2


async def test_without_a_listener_the_run_ends_at_once_and_says_so() -> None:
    async with Platform() as platform:
        port = platform.port

    with pytest.raises(NotReady, match=f"cannot connect to 127.0.0.1:{port}"):
        await asyncio.wait_for(run(Options(port=port, devices=5)), 5)


async def test_a_burst_is_one_segment_and_keeps_the_rate() -> None:
    async with Platform() as platform:
        result = await run(quick(platform, devices=1, burst=5))

    assert result.clean
    assert result.sent == 20


async def test_progress_is_told_up_to_the_end() -> None:
    told: list[Progress] = []
    async with Platform() as platform:
        result = await run(quick(platform), told.append)

    assert [one.sent for one in told] == sorted(one.sent for one in told)
    assert (told[-1].sent, told[-1].acknowledged) == (result.sent, result.acknowledged)
    assert told[-1].online == 3


# Commands.


async def answers_to(message_id: int, body: bytes, answered_with: int) -> list[bytes]:
    """Send a command with the first acknowledgement, and return the bodies of the terminal's answers."""
    async with Platform() as platform:
        acknowledge = platform.general_reply(0)

        def first_with_command(asked: Received) -> bytes:
            command = platform.message(asked, message_id, body) if platform.counts[Id.LOCATION] == 1 else b""
            return command + (acknowledge(asked) or b"")

        platform.replies[Id.LOCATION] = first_with_command
        result = await run(quick(platform, devices=1, heartbeat_s=60.0))
        assert result.commands == 1
        assert result.clean
        # The replies to registration and authentication were the platform's messages 1 and 2, the command was 3.
        answers = platform.bodies(answered_with)
        assert all(answer.startswith(b"\x00\x03") for answer in answers)
        return [answer[2:] for answer in answers]


PARAMETERS = bytes.fromhex("0000000104" + "0000003c" + "0000005504" + "00000064")


async def test_a_query_is_answered_with_all_parameters() -> None:
    assert await answers_to(Id.QUERY_PARAMETERS, b"", Id.PARAMETERS) == [b"\x02" + PARAMETERS]


async def test_a_query_of_some_is_answered_with_those_that_exist() -> None:
    ids = struct.pack(">BII", 2, 0x55, 0xF001)

    assert await answers_to(Id.QUERY_SOME_PARAMETERS, ids, Id.PARAMETERS) == [b"\x01" + PARAMETERS[9:]]


async def test_locate_is_answered_with_a_location() -> None:
    [body] = await answers_to(Id.LOCATE, b"", Id.LOCATION_REPLY)

    fix = wire.LOCATION.unpack(body)
    assert 22_000_000 < fix[2] < 23_000_000


@pytest.mark.parametrize(
    ("message_id", "body", "result"),
    [
        (Id.SET_PARAMETERS, b"\x01" + PARAMETERS[:9], 0),
        (Id.SET_PARAMETERS, b"\x05" + PARAMETERS, 2),
        (0x8300, b"text", 3),
    ],
    ids=["well-formed", "malformed", "unknown"],
)
async def test_a_command_is_answered_with_its_result(message_id: int, body: bytes, result: int) -> None:
    [answer] = await answers_to(message_id, body, Id.GENERAL_REPLY_UP)

    assert answer == message_id.to_bytes(2, "big") + bytes((result,))
