import asyncio
import random
import socket

import pytest
from fakes.listening import Client, Listening

from gateway.core.errors import ConfigError
from gateway.core.plain import typed
from gateway.framing.spec import GapSpec, LengthFieldSpec, NoneSpec
from gateway.listeners.connection import Connection
from gateway.listeners.tcp import TcpListenerConfig


def framed(*bodies: bytes) -> bytes:
    return b"".join(b"\x7e" + body + b"\x7e" for body in bodies)


async def test_frames_arrive_whole_and_in_order_however_tcp_splits_and_glues_them(listening: Listening) -> None:
    """JetLinks #462 and #97, ThingsBoard gateway #1182: sticky and split TCP."""
    await listening.start()
    client = await listening.connect()
    bodies = [b"%04d" % at for at in range(2_000)]
    wire, cut = framed(*bodies), random.Random(7)
    while wire:
        size = cut.choice((1, 2, 5, 6, 7, 100, 3_000))
        await client.send(wire[:size])
        wire = wire[size:]
        if cut.random() < 0.2:
            await asyncio.sleep(0)
    await listening.until(lambda: len(listening.sink.all_frames) == len(bodies))
    assert listening.sink.all_frames == bodies


async def test_a_connection_says_where_it_belongs(listening: Listening) -> None:
    await listening.start()
    client = await listening.connect()
    await listening.until(lambda: listening.sink.connections)
    connection = listening.sink.connections[0]
    host, port = client.writer.get_extra_info("sockname")
    assert (connection.listener, connection.product_id, connection.tenant_id) == ("l0", "p", "default")
    assert connection.peer == f"{host}:{port}"


async def test_what_is_sent_reaches_the_peer_in_order(listening: Listening) -> None:
    await listening.start()
    listening.sink.react = lambda connection, frames: [connection.send(b"<" + frame + b">") for frame in frames]
    client = await listening.connect()
    await client.send(framed(b"a", b"b", b"c"))
    assert await client.reader.readexactly(9) == b"<a><b><c>"


async def test_the_end_of_a_connection_is_told_once_with_its_reason(listening: Listening) -> None:
    listener = await listening.start()
    client = await listening.connect()
    await client.send(framed(b"a"))
    await client.close()
    await listening.until(lambda: not listener.connections)
    assert listening.sink.reasons == ["peer_closed"]
    assert listener.stats.closed == {"peer_closed": 1}


async def test_a_reset_connection_is_counted_as_lost(listening: Listening) -> None:
    await listening.start()
    client = await listening.connect()
    await client.send(framed(b"a"))
    await listening.until(lambda: listening.sink.all_frames)
    client.writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
    )
    client.writer.transport.abort()
    await listening.until(lambda: listening.sink.reasons)
    assert listening.sink.reasons == ["connection_lost"]


async def test_a_peer_that_half_closes_still_gets_its_last_acknowledgement(listening: Listening) -> None:
    await listening.start(linger_s=5.0)
    acknowledged: list[Connection] = []
    listening.sink.react = lambda connection, _frames: acknowledged.append(connection)
    client = await listening.connect()
    await client.send(framed(b"a"))
    client.writer.write_eof()
    await listening.until(lambda: acknowledged)
    await asyncio.sleep(0.05)
    acknowledged[0].send(b"ack")
    assert await client.reader.readexactly(3) == b"ack"


async def test_a_last_reply_is_not_lost_when_the_peer_is_closed_while_it_still_sends(listening: Listening) -> None:
    await listening.start(linger_s=5.0)

    def refuse(connection: Connection, frames: list[bytes]) -> None:
        connection.send(b"refused")
        connection.close("auth_failed")

    listening.sink.react = refuse
    client = await listening.connect()
    await client.send(framed(b"a"))
    await listening.until(lambda: listening.sink.all_frames)
    for _ in range(5):
        await client.send(framed(b"more") * 1_000)
    assert await client.rest() == b"refused"
    await client.close()
    await listening.until(lambda: listening.sink.reasons)
    assert listening.sink.reasons == ["auth_failed"]
    assert listening.sink.all_frames == [b"a"]


async def test_sending_and_closing_after_the_end_do_nothing(listening: Listening) -> None:
    await listening.start()
    client = await listening.connect()
    await client.close()
    await listening.until(lambda: listening.sink.reasons)
    connection = listening.sink.connections[0]
    connection.send(b"late")
    connection.hold("late")
    connection.release("late")
    connection.close("late")
    await asyncio.sleep(0.02)
    assert listening.sink.reasons == ["peer_closed"]


async def test_stopping_closes_every_peer_and_frees_the_port(listening: Listening) -> None:
    listener = await listening.start()
    clients = [await listening.connect() for _ in range(5)]
    await listening.until(lambda: len(listening.sink.connections) == 5)
    listening.sink.connections[0].hold("pipeline")
    await listener.stop()
    assert [await client.rest() for client in clients] == [b""] * 5
    assert listening.sink.reasons == ["shutdown"] * 5
    assert listener.connections == 0
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", listening.port))


async def test_stopping_twice_or_before_the_start_is_no_fault(listening: Listening) -> None:
    listener = await listening.start()
    await listener.stop()
    await listener.stop()
    assert listening.supervisor.parts == {}


async def test_a_taken_port_is_an_error_that_names_listener_address_and_remedy(listening: Listening) -> None:
    await listening.start()
    config = typed({"type": "tcp", "port": listening.port, "product": "p"}, TcpListenerConfig, "config.toml")
    second = await listening.start()
    second._config = config
    await second.stop()
    with pytest.raises(ConfigError, match=rf"listeners\.l1: cannot listen on 127\.0\.0\.1:{config.port}: .*port"):
        await second.start("127.0.0.1")


async def test_an_address_that_is_not_ours_is_an_error(listening: Listening) -> None:
    listener = await listening.start()
    await listener.stop()
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1:0"):
        await listener.start("203.0.113.1")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"type": "tcp", "port": 70000, "product": "p"}, "`port`"),
        ({"type": "tcp", "port": 1}, "`product`"),
        ({"type": "tcp", "port": 1, "product": "p", "prot": 2}, "unknown key `prot`; did you mean `port`"),
        (
            {"type": "tcp", "port": 1, "product": "p", "limits": {"max_connection": 2}},
            r"`limits\.max_connection`; did you mean `max_connections`",
        ),
        ({"type": "tcp", "port": 1, "product": "p", "limits": {"idle_timeout_s": 0}}, r"`limits\.idle_timeout_s`"),
        ({"type": "tcp", "port": 1, "product": "p", "tls": {"certificate": "c"}}, "`key`"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_key(table: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        typed(table, TcpListenerConfig, "listeners.l0")


async def test_the_address_of_the_configuration_wins_over_the_servers(listening: Listening) -> None:
    listener = await listening.start()
    await listener.stop()
    listener._config = typed({"port": 0, "product": "p", "bind": "127.0.0.2"}, TcpListenerConfig, "l")
    host, port = await listener.start("127.0.0.1")
    assert (host, port > 0) == ("127.0.0.2", True)


async def test_silence_ends_a_frame_where_the_framing_says_so(listening: Listening) -> None:
    await listening.start(framing=GapSpec(gap_ms=30))
    client = await listening.connect()
    for piece in (b"\x01\x03", b"\x02", b"\x00\x2a"):
        await client.send(piece)
    await listening.until(lambda: listening.sink.all_frames)
    await client.send(b"\x01\x04")
    client.writer.write_eof()
    await listening.until(lambda: len(listening.sink.all_frames) > 1)
    assert listening.sink.all_frames == [b"\x01\x03\x02\x00\x2a", b"\x01\x04"]


async def test_without_framing_a_read_is_a_frame(listening: Listening) -> None:
    await listening.start(framing=NoneSpec())
    client = await listening.connect()
    await client.send(b"anything")
    await listening.until(lambda: listening.sink.all_frames)
    assert listening.sink.all_frames == [b"anything"]


async def test_a_sink_that_fails_costs_one_connection_and_is_not_told_success(listening: Listening) -> None:
    listener = await listening.start()

    def fail(connection: Connection, frames: list[bytes]) -> None:
        if frames == [b"poison"]:
            raise ValueError("a bug in the pipeline")

    listening.sink.react = fail
    poisoned, neighbour = await listening.connect(), await listening.connect()
    await poisoned.send(framed(b"poison"))
    await poisoned.rest()
    await listening.until(lambda: listening.sink.reasons)
    assert listening.sink.reasons == ["failed"]
    await neighbour.send(framed(b"fine"))
    await listening.until(lambda: b"fine" in listening.sink.all_frames)
    assert listener.connections == 1


async def test_counters_show_what_went_over_the_wire(listening: Listening) -> None:
    listener = await listening.start()
    listening.sink.react = lambda connection, _frames: connection.send(b"12345")
    client = await listening.connect()
    await client.send(b"noise" + framed(b"a\x7d", b"b") + b"half")
    await client.reader.readexactly(5)
    client.writer.write_eof()
    await client.rest()
    await listening.until(lambda: listening.sink.reasons)
    stats = listener.stats
    assert (stats.opened, stats.frames, stats.bytes_in, stats.bytes_out) == (1, 2, 16, 5)
    assert (stats.framing_faults, stats.half_frames) == (6, 1)
    shown = {(sample.name, sample.labels.get("reason")): sample.value for sample in listener.samples()}
    assert shown["gateway_listener_frames_total", None] == 2
    assert shown["gateway_listener_closed_total", "peer_closed"] == 1
    assert shown["gateway_listener_connections", None] == 0


async def test_hundreds_of_connections_each_keep_their_own_frames(listening: Listening) -> None:
    listener = await listening.start(framing=LengthFieldSpec(width=1, strip=1))
    listening.sink.react = lambda connection, frames: [connection.send(frame) for frame in frames]
    clients = [await listening.connect() for _ in range(300)]

    async def talk(at: int, client: Client) -> bytes:
        wire = b"".join(bytes((3,)) + b"%03d" % at for _ in range(20))
        for offset in range(0, len(wire), 7):
            await client.send(wire[offset : offset + 7])
        return await client.reader.readexactly(60)

    answers = await asyncio.gather(*(talk(at, client) for at, client in enumerate(clients)))
    assert answers == [b"%03d" % at * 20 for at in range(300)]
    assert listener.connections == 300
