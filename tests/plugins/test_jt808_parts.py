from __future__ import annotations

from itertools import count

import msgspec
import pytest
from fakes.jt808_frames import batch_body, frame, location_body, parted
from fakes.plugin_codecs import decode_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.flow import Decoded
from gateway.wasm.codec import DecodeResult
from gateway.wasm.host import WasmCodec

SLOTS, BLOCKS, MOST_PARTS, MOST_BODY = 256, 2048, 128, 1023
SLOTS_EACH, BLOCKS_EACH = 8, 256

numbers = count(1)


def a_phone() -> str:
    """A terminal that no other test has used."""
    return f"{next(numbers):012d}"


def ack_of(result: DecodeResult) -> dict[str, object] | None:
    assert isinstance(result, Decoded)
    return msgspec.msgpack.decode(result.ack)["args"] if bytes(result.ack) else None


def body_of(result: DecodeResult) -> bytes:
    assert isinstance(result, Decoded)
    assert result.event is not None
    return bytes.fromhex(result.event.data["body"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), body=st.binary(min_size=2, max_size=200), serial=st.integers(0, 0xFFFF))
def test_parts_give_the_whole_in_whatever_order_and_however_often_they_come(
    jt808: WasmCodec, data: st.DataObject, body: bytes, serial: int
) -> None:
    size = data.draw(st.integers(1, len(body) - 1))
    if len(body) / size > MOST_PARTS:
        size = -(-len(body) // MOST_PARTS)
    frames = parted(0x0801, body, size, phone=a_phone(), serial=serial)
    order = data.draw(st.permutations(frames))
    repeats = data.draw(st.lists(st.sampled_from(order[:-1]), max_size=5)) if len(order) > 1 else []

    held = jt808.decode_batch([*order[:-1], *repeats]) if len(order) > 1 else []
    [whole] = jt808.decode_batch(order[-1:])

    assert all(ack_of(result) is None and not result.points for result in held if isinstance(result, Decoded))
    assert body_of(whole) == body
    args = ack_of(whole)
    assert args is not None
    assert args["serials"] == [(serial + index) % 0x10000 for index in range(len(frames))]


def test_an_acknowledgement_of_parts_is_one_frame_for_each(jt808: WasmCodec) -> None:
    *_, whole = jt808.decode_batch(parted(0x0801, b"abc", 1, phone=a_phone(), serial=7))
    assert isinstance(whole, Decoded)

    replies = jt808.encode(bytes(whole.ack)).split(b"\x7e\x7e")

    assert len(replies) == 3
    assert [int.from_bytes(reply.strip(b"\x7e")[12:14], "big") for reply in replies] == [7, 8, 9]


def test_two_terminals_and_two_messages_of_one_do_not_mix(jt808: WasmCodec) -> None:
    first, second = a_phone(), a_phone()
    streams = [
        parted(0x0801, b"aaaa", 2, phone=first, serial=1),
        parted(0x0801, b"bbbb", 2, phone=second, serial=1),
        parted(0x0801, b"cccc", 2, phone=first, serial=50),
        parted(0x0900, b"dddd", 2, phone=first, serial=1),
    ]

    jt808.decode_batch([stream[0] for stream in streams])
    wholes = jt808.decode_batch([stream[1] for stream in streams])

    assert [body_of(whole) for whole in wholes] == [b"aaaa", b"bbbb", b"cccc", b"dddd"]


def test_over_the_bound_the_message_that_waits_longest_is_forgotten(jt808: WasmCodec) -> None:
    streams = [parted(0x0801, b"xy", 1, phone=a_phone()) for _ in range(SLOTS + 1)]
    connections = [next(numbers) for _ in streams]

    jt808.decode_batch([stream[0] for stream in streams], connections)
    second, last = jt808.decode_batch([streams[1][1], streams[-1][1]], [connections[1], connections[-1]])
    [forgotten] = jt808.decode_batch([streams[0][1]], connections[:1])

    assert body_of(second) == body_of(last) == b"xy"
    assert ack_of(forgotten) is None
    [again] = jt808.decode_batch([streams[0][0]], connections[:1])
    assert body_of(again) == b"xy"


def test_a_stranger_can_neither_complete_nor_spoil_the_message_of_another_connection(jt808: WasmCodec) -> None:
    terminal, stranger, phone = next(numbers), next(numbers), a_phone()
    first, second = parted(0x0801, b"good", 2, phone=phone)
    _, false_second = parted(0x0801, b"evil", 2, phone=phone)

    jt808.decode_batch([first], [terminal])
    [held] = jt808.decode_batch([false_second], [stranger])
    [whole] = jt808.decode_batch([second], [terminal])

    assert ack_of(held) is None
    assert body_of(whole) == b"good"


@pytest.mark.parametrize("parts", [2, MOST_PARTS])
def test_a_connection_that_claims_many_phones_forgets_only_its_own_parts(jt808: WasmCodec, parts: int) -> None:
    terminal, stranger = next(numbers), next(numbers)
    first, second = parted(0x0801, b"good", 2, phone=a_phone())
    flood = [parted(0x0801, bytes(parts), 1, phone=a_phone()) for _ in range(SLOTS + 1)]

    jt808.decode_batch([first], [terminal])
    for stream in flood:
        jt808.decode_batch(stream[:-1], [stranger] * (parts - 1))
    [whole] = jt808.decode_batch([second], [terminal])
    kept = min(SLOTS_EACH, BLOCKS_EACH // (parts - 1))
    wholes = jt808.decode_batch([stream[-1] for stream in flood[-kept:]], [stranger] * kept)
    [forgotten] = jt808.decode_batch([flood[-kept - 1][-1]], [stranger])

    assert body_of(whole) == b"good"
    assert [body_of(one) for one in wholes] == [bytes(parts)] * kept
    assert ack_of(forgotten) is None


def test_when_the_room_for_parts_is_full_the_oldest_message_makes_room(jt808: WasmCodec) -> None:
    streams = [parted(0x0801, bytes(MOST_PARTS), 1, phone=a_phone()) for _ in range(BLOCKS // (MOST_PARTS - 1) + 2)]
    connections = [next(numbers) for _ in streams]

    for stream, connection in zip(streams, connections, strict=True):
        jt808.decode_batch(stream[:-1], [connection] * (MOST_PARTS - 1))
    [last] = jt808.decode_batch(streams[-1][-1:], connections[-1:])
    [first] = jt808.decode_batch(streams[0][-1:], connections[:1])

    assert body_of(last) == bytes(MOST_PARTS)
    assert ack_of(first) is None
    assert jt808.stats.traps == 0


def test_the_longest_message_of_locations_is_decoded_whole(jt808: WasmCodec) -> None:
    most = (MOST_PARTS * MOST_BODY - 3) // (2 + 28)
    body = batch_body([location_body(altitude=number) for number in range(most)])

    *_, whole = decode_all(jt808, parted(0x0704, body, MOST_BODY, phone=a_phone()))

    assert isinstance(whole, Decoded)
    assert [point.values["altitude_m"] for point in whole.points] == list(range(most))


def test_the_longest_message_of_another_kind_is_kept_whole(jt808: WasmCodec) -> None:
    body = bytes(range(256)) * (MOST_PARTS * MOST_BODY // 256)

    *_, whole = jt808.decode_batch(parted(0x0801, body, MOST_BODY, phone=a_phone()))

    assert body_of(whole) == body


def test_messages_that_together_exceed_the_output_are_all_decoded(jt808: WasmCodec) -> None:
    most = (MOST_PARTS * MOST_BODY - 3) // (2 + 28)
    body = batch_body([location_body() for _ in range(most)])
    streams = [parted(0x0704, body, MOST_BODY, phone=a_phone()) for _ in range(4)]
    connections = [next(numbers) for _ in streams]
    for stream, connection in zip(streams, connections, strict=True):
        jt808.decode_batch(stream[:-1], [connection] * (len(stream) - 1))

    wholes = decode_all(jt808, [stream[-1] for stream in streams], connections)

    assert [len(whole.points) for whole in wholes if isinstance(whole, Decoded)] == [most] * 4
    assert jt808.stats.traps == jt808.stats.kills == 0


def test_a_message_of_more_parts_than_are_put_together_is_kept_part_by_part(jt808: WasmCodec) -> None:
    [part] = jt808.decode_batch([frame(0x0801, b"\xab", phone=a_phone(), serial=9, parts=(MOST_PARTS + 1, 2))])

    assert body_of(part) == b"\xab"
    assert isinstance(part, Decoded)
    assert part.event is not None
    assert part.event.data["parts"] == {"total": MOST_PARTS + 1, "index": 2}
    args = ack_of(part)
    assert args is not None
    assert args["serial"] == 9


def test_a_part_over_the_length_of_the_standard_is_kept_raw(jt808: WasmCodec) -> None:
    [part] = jt808.decode_batch([frame(0x0801, bytes(MOST_BODY + 1), phone=a_phone(), parts=(2, 1))])

    assert body_of(part) == bytes(MOST_BODY + 1)
