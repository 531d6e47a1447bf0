"""A JT/T 808 platform for tests of the simulator: answers as told, remembers what it received."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Self, cast

from typing_extensions import override

from gateway.framing.flag_escape import FlagEscapeFramer
from gateway.simulate import jt808_wire as wire
from gateway.simulate.jt808_wire import Edition, Header, Id, Received

Answer = Callable[[Received], "bytes | None"]


class Platform:
    """Listens on a free port of 127.0.0.1 while entered.

    replies: how each message id is answered, replaceable by a test; ids without an entry get no answer.
    """

    def __init__(self, edition: Edition = "2013") -> None:
        self.edition = edition
        self.received: list[Received] = []
        self.counts: Counter[int] = Counter()
        self.lines: list[Line] = []
        self.port = 0
        self.serial = 0
        self.replies: dict[int, Answer] = {
            Id.REGISTER: self.register_reply(0, b"code-1"),
            Id.AUTHENTICATE: self.general_reply(0),
            Id.HEARTBEAT: self.general_reply(0),
            Id.LOCATION: self.general_reply(0),
        }
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: Line(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for line in self.lines:
            line.close()
        await self._server.wait_closed()

    def message(self, to: Received, message_id: int, body: bytes) -> bytes:
        self.serial = (self.serial + 1) % 0x10000
        return Header(to.phone.hex(), self.edition).message(message_id, self.serial, body)

    def general_reply(self, result: int, *, shift: int = 0, message_id: int | None = None) -> Answer:
        def answer(asked: Received) -> bytes:
            answered = asked.message_id if message_id is None else message_id
            serial = (asked.serial + shift) % 0x10000
            body = serial.to_bytes(2, "big") + answered.to_bytes(2, "big") + bytes((result,))
            return self.message(asked, Id.GENERAL_REPLY, body)

        return answer

    def register_reply(self, result: int, code: bytes = b"") -> Answer:
        def answer(asked: Received) -> bytes:
            return self.message(asked, Id.REGISTER_REPLY, asked.serial.to_bytes(2, "big") + bytes((result,)) + code)

        return answer

    def bodies(self, message_id: int) -> list[bytes]:
        return [message.body for message in self.received if message.message_id == message_id]


class Line(asyncio.Protocol):
    """One terminal's connection."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._framer = FlagEscapeFramer(0x7E, 0x7D, {1: 0x7D, 2: 0x7E}, 4096)
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._platform.lines.append(self)

    @override
    def data_received(self, data: bytes) -> None:
        for frame in self._framer.feed(data):
            message = wire.read(frame)
            self._platform.received.append(message)
            self._platform.counts[message.message_id] += 1
            answer = self._platform.replies.get(message.message_id)
            if answer is not None:
                self.send(answer(message))

    def send(self, data: bytes | None) -> None:
        if data is not None and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
