import asyncio
import logging
from typing import Any

import pytest
import structlog
from fakes.listening import Listening

from gateway.framing.spec import LengthFieldSpec


def framed(*bodies: bytes) -> bytes:
    return b"".join(b"\x7e" + body + b"\x7e" for body in bodies)


async def test_a_connection_over_the_listeners_maximum_is_refused_and_the_others_stay(listening: Listening) -> None:
    listener = await listening.start(max_connections=2)
    first, second, third = [await listening.connect() for _ in range(3)]
    assert await third.rest() == b""
    assert listener.stats.refused == {"max_connections": 1}
    await first.send(framed(b"1"))
    await second.send(framed(b"2"))
    await listening.until(lambda: len(listening.sink.all_frames) == 2)
    await first.close()
    await listening.until(lambda: listener.connections == 1)
    await (await listening.connect()).send(framed(b"4"))
    await listening.until(lambda: len(listening.sink.all_frames) == 3)
    assert len(listening.sink.connections) == 3


async def test_one_address_cannot_take_all_connections(listening: Listening) -> None:
    listener = await listening.start(max_connections_per_peer=1)
    first = await listening.connect()
    second = await listening.connect()
    assert await second.rest() == b""
    assert listener.stats.refused == {"max_connections_per_peer": 1}
    await first.close()
    await listening.until(lambda: listener.connections == 0)
    third = await listening.connect()
    await third.send(framed(b"3"))
    await listening.until(lambda: listening.sink.all_frames)


async def test_a_silent_peer_is_closed_after_the_idle_timeout_and_a_talking_one_is_not(listening: Listening) -> None:
    await listening.start(idle_timeout_s=100.0)
    silent, talking = await listening.connect(), await listening.connect()
    await silent.send(framed(b"s"))
    for _ in range(12):
        await talking.send(framed(b"t"))
        count = len(listening.sink.all_frames)
        await listening.until(lambda count=count: len(listening.sink.all_frames) > count)
        listening.clock.advance(10)
        await asyncio.sleep(0.03)
    assert await silent.rest() == b""
    await silent.close()
    await listening.until(lambda: listening.sink.reasons)
    assert listening.sink.reasons == ["idle"]


async def test_a_peer_that_never_says_anything_whole_is_closed(listening: Listening) -> None:
    await listening.start(first_frame_timeout_s=20.0)
    mute, noisy = await listening.connect(), await listening.connect()
    await noisy.send(b"no flag in this")
    await listening.until(lambda: listening.listeners[0].stats.bytes_in)
    listening.clock.advance(21)
    assert [await mute.rest(), await noisy.rest()] == [b"", b""]
    await listening.until(lambda: len(listening.sink.reasons) == 2)
    assert listening.sink.reasons == ["no_first_frame"] * 2


async def test_a_slow_loris_is_closed_by_the_deadline_of_its_unfinished_frame(listening: Listening) -> None:
    await listening.start(frame_timeout_s=30.0)
    loris, neighbour = await listening.connect(), await listening.connect()
    await neighbour.send(framed(b"n"))
    await loris.send(framed(b"a") + b"\x7e")
    await listening.until(lambda: len(listening.sink.all_frames) == 2)
    for _ in range(31):
        seen = listening.listeners[0].stats.bytes_in
        await loris.send(b"x")
        await listening.until(lambda seen=seen: listening.listeners[0].stats.bytes_in > seen or listening.sink.reasons)
        listening.clock.advance(1)
        await asyncio.sleep(0.012)
    assert await loris.rest() == b""
    await loris.close()
    await listening.until(lambda: listening.sink.reasons)
    assert listening.sink.reasons == ["unfinished_frame"]
    await neighbour.send(framed(b"still here"))
    await listening.until(lambda: b"still here" in listening.sink.all_frames)


async def test_a_stream_of_whole_frames_that_never_ends_on_a_boundary_is_not_late(listening: Listening) -> None:
    await listening.start(framing=LengthFieldSpec(width=1, strip=1), frame_timeout_s=30.0)
    client = await listening.connect()
    await client.send(b"\x02a")
    for at in range(20):
        await client.send(b"b\x02a")
        await listening.until(lambda at=at: len(listening.sink.all_frames) > at)
        listening.clock.advance(20)
        await asyncio.sleep(0.012)
    assert listening.sink.reasons == []


async def test_the_time_during_which_we_do_not_read_is_not_held_against_the_peer(listening: Listening) -> None:
    await listening.start(frame_timeout_s=30.0, idle_timeout_s=60.0)
    client = await listening.connect()
    await client.send(framed(b"a") + b"\x7ehalf")
    await listening.until(lambda: listening.sink.all_frames)
    connection = listening.sink.connections[0]
    connection.hold("pipeline")
    for _ in range(10):
        listening.clock.advance(100)
        await asyncio.sleep(0.02)
    connection.release("pipeline")
    await client.send(b"\x7e")
    await listening.until(lambda: listening.sink.all_frames == [b"a", b"half"])
    assert listening.sink.reasons == []


async def test_a_held_connection_is_not_read_until_every_holder_released(listening: Listening) -> None:
    listener = await listening.start()
    client = await listening.connect()
    await listening.until(lambda: listening.sink.connections)
    connection = listening.sink.connections[0]
    connection.hold("journal")
    connection.hold("codec")
    await client.send(framed(b"a"))
    connection.release("journal")
    connection.release("never held")
    await asyncio.sleep(0.05)
    assert listener.stats.bytes_in == 0
    connection.release("codec")
    await listening.until(lambda: listening.sink.all_frames == [b"a"])


async def test_a_connection_may_be_held_from_its_first_moment(listening: Listening) -> None:
    await listening.start()
    listening.sink.greet = lambda connection: connection.hold("full")
    client = await listening.connect()
    await client.send(framed(b"a"))
    await asyncio.sleep(0.02)
    await client.send(framed(b"b"))
    await asyncio.sleep(0.05)
    assert b"b" not in listening.sink.all_frames
    listening.sink.connections[0].release("full")
    await listening.until(lambda: listening.sink.all_frames == [b"a", b"b"])


async def test_a_peer_over_its_rate_is_paused_and_loses_nothing(listening: Listening) -> None:
    listener = await listening.start(max_frames_per_s=100.0, burst_frames=50)
    client = await listening.connect()
    bodies = [b"%05d" % at for at in range(2_000)]
    for at in range(0, 2_000, 50):
        await client.send(framed(*bodies[at : at + 50]))
        await asyncio.sleep(0)
    await listening.until(lambda: listener.stats.rate_pauses)
    await asyncio.sleep(0.05)
    while len(listening.sink.all_frames) < len(bodies):
        seen = len(listening.sink.all_frames)
        listening.clock.advance(30)
        await listening.until(lambda seen=seen: len(listening.sink.all_frames) > seen)
    assert listening.sink.all_frames == bodies
    assert listening.sink.reasons == []


async def test_a_steady_peer_at_its_rate_is_never_paused(listening: Listening) -> None:
    listener = await listening.start(max_frames_per_s=1_000.0, burst_frames=1_000)
    client = await listening.connect()
    for second in range(5):
        await client.send(framed(*[b"x"] * 1_000))
        await listening.until(lambda second=second: len(listening.sink.all_frames) == 1_000 * (second + 1))
        listening.clock.advance(1)
    assert listener.stats.rate_pauses == 0


async def test_a_rate_pause_is_over_when_the_connection_closes(listening: Listening) -> None:
    await listening.start(max_frames_per_s=1.0, burst_frames=1)
    client = await listening.connect()
    await client.send(framed(b"a", b"b"))
    await listening.until(lambda: listening.listeners[0].stats.rate_pauses)
    listening.sink.connections[0].close("operator")
    assert await client.rest() == b""
    await client.close()
    await listening.until(lambda: listening.sink.reasons)
    assert listening.sink.reasons == ["operator"]


async def test_a_peer_that_never_reads_is_closed_and_its_neighbour_is_served(listening: Listening) -> None:
    listener = await listening.start(write_buffer_bytes=10_000)
    deaf, neighbour = await listening.connect(), await listening.connect()
    deaf.writer.transport.pause_reading()
    listening.sink.react = lambda connection, frames: connection.send(frames[0])
    await neighbour.send(framed(b"hello"))
    assert await neighbour.reader.readexactly(5) == b"hello"
    for _ in range(1_000):
        listening.sink.connections[0].send(bytes(100_000))
        await asyncio.sleep(0)
        if listening.sink.reasons:
            break
    assert listening.sink.reasons == ["slow_reader"]
    assert listener.stats.closed == {"slow_reader": 1}
    await neighbour.send(framed(b"again"))
    assert await neighbour.reader.readexactly(5) == b"again"


async def test_a_frame_over_its_limit_closes_the_peer_after_the_frames_before_it(listening: Listening) -> None:
    listener = await listening.start()
    client = await listening.connect()
    await client.send(framed(b"a", b"b") + b"\x7e" + bytes(5_000))
    assert await client.rest() == b""
    await client.close()
    await listening.until(lambda: listening.sink.reasons)
    assert listening.sink.all_frames == [b"a", b"b"]
    assert listening.sink.reasons == ["frame_too_long"]
    assert listener.stats.closed == {"frame_too_long": 1}


async def test_a_gigabyte_in_the_length_field_closes_only_who_sent_it(listening: Listening) -> None:
    await listening.start(framing=LengthFieldSpec(width=4, strip=4))
    liar, neighbour = await listening.connect(), await listening.connect()
    await liar.send((1 << 30).to_bytes(4, "big") + b"x" * 1_000)
    assert await liar.rest() == b""
    await neighbour.send(b"\x00\x00\x00\x02ok")
    await listening.until(lambda: listening.sink.all_frames == [b"ok"])


async def test_garbage_of_any_kind_ends_in_frames_or_a_closed_peer(listening: Listening) -> None:
    listener = await listening.start(first_frame_timeout_s=10.0)
    for seed in (
        b"\x7e" * 10_000,
        b"\x7d" * 10_000,
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 40,
        b"\x16\x03\x01",
    ):
        client = await listening.connect()
        await client.send(seed)
        client.writer.write_eof()
        await client.rest()
    await listening.until(lambda: len(listening.sink.reasons) == 5)
    assert listener.connections == 0


async def test_half_a_frame_and_then_the_end_is_counted(listening: Listening) -> None:
    """ThingsBoard gateway #1631: a frame that never ended vanished without a trace."""
    listener = await listening.start()
    client = await listening.connect()
    await client.send(framed(b"a") + b"\x7ehalf")
    await client.close()
    await listening.until(lambda: listening.sink.reasons)
    assert (listening.sink.all_frames, listener.stats.half_frames) == ([b"a"], 1)


async def test_a_peer_that_reconnects_for_ever_does_not_flood_the_log_nor_write_into_it(listening: Listening) -> None:
    await listening.start()
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            client = await listening.connect()
            await client.send(b"\x7e" + b"\x1b[31mevil\nline" * 1_000)
            await client.rest()
            await client.close()
        assert len(lines) == 1
        listening.clock.advance(11)
        client = await listening.connect()
        await client.send(b"\x7e" + bytes(5_000))
        await client.rest()
    assert [line["left_out"] for line in lines] == [0, 19]
    assert "evil" not in repr(lines)


async def test_an_idle_listener_has_no_timer(listening: Listening) -> None:
    """ThingsBoard gateway #1684: idle must cost nothing."""
    listener = await listening.start()
    sweeps: list[Any] = []
    original = listener._table.sweep
    listener._table.sweep = lambda: (sweeps.append(None), original())  # type: ignore[method-assign]
    await asyncio.sleep(0.05)
    assert sweeps == []
    client = await listening.connect()
    await listening.until(lambda: sweeps)
    await client.close()
    await listening.until(lambda: listener.connections == 0)
    await asyncio.sleep(0.03)
    count = len(sweeps)
    await asyncio.sleep(0.05)
    assert len(sweeps) == count


@pytest.fixture(autouse=True)
def no_loop_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    """The loop logs what escapes a callback; nothing may."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
