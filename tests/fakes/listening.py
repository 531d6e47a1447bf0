"""A TCP listener over loopback with a sink that remembers, and clients to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from fakes.traffic import FakeClock

from gateway.core.tasks import Supervisor
from gateway.framing.spec import FlagEscapeSpec, FramingSpec
from gateway.listeners.connection import Connection, FrameSink
from gateway.listeners.limits import TcpLimits
from gateway.listeners.tcp import TcpListener, TcpListenerConfig


class RecordingSink(FrameSink):
    """Keeps what a listener tells, in order; `greet` and `react` may answer."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.frames: dict[Connection, list[bytes]] = {}
        self.ends: dict[Connection, list[str]] = {}
        self.greet: Callable[[Connection], None] = lambda _connection: None
        self.react: Callable[[Connection, list[bytes]], None] = lambda _connection, _frames: None

    def opened(self, connection: Connection) -> None:
        assert connection not in self.frames
        self.connections.append(connection)
        self.frames[connection] = []
        self.greet(connection)

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        assert frames
        assert connection not in self.ends
        self.frames[connection] += frames
        self.react(connection, frames)

    def closed(self, connection: Connection, reason: str) -> None:
        assert connection in self.frames
        self.ends.setdefault(connection, []).append(reason)

    @property
    def all_frames(self) -> list[bytes]:
        return [frame for frames in self.frames.values() for frame in frames]

    @property
    def reasons(self) -> list[str]:
        return [reason for reasons in self.ends.values() for reason in reasons]


class Client:
    """A device: a socket with nothing clever about it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Everything until the gateway closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Listening:
    """Builds listeners that share a sink and a clock which stands still until told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sink = RecordingSink()
        self.supervisor = Supervisor(self.clock)
        self.listeners: list[TcpListener] = []
        self.clients: list[Client] = []
        self.port = 0

    async def start(self, framing: FramingSpec | None = None, tls: Any = None, **limits: Any) -> TcpListener:
        config = TcpListenerConfig(
            port=0, product="p", tls=tls, limits=TcpLimits(**({"linger_s": 0.2, "sweep_s": 0.01} | limits))
        )
        listener = TcpListener(
            f"l{len(self.listeners)}",
            config,
            tenant_id="default",
            framing=framing or FlagEscapeSpec(),
            sink=self.sink,
            supervisor=self.supervisor,
            clock=self.clock,
        )
        _, self.port = await listener.start("127.0.0.1")
        self.listeners.append(listener)
        return listener

    async def connect(self, **tls: Any) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, **tls))
        self.clients.append(client)
        return client

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        for listener in self.listeners:
            await listener.stop()
        await self.supervisor.stop()

    @staticmethod
    async def until(holds: Callable[[], object], within_s: float = 10.0) -> None:
        """Let the loop run until `holds()`."""
        for _ in range(round(within_s / 0.005)):
            if holds():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"it did not come to that within {within_s} s")
