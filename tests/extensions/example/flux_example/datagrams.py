"""A listener of its own: UDP, each datagram framed by itself. The gateway's `FrameSink` takes the frames from here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.core.errors import FramingError
from gateway.core.metrics import Sample
from gateway.framing.spec import FramingSpec, framer_for
from gateway.listeners.connection import FrameSink


class DatagramConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[listeners.NAME]` with `type = "datagram"`."""

    type: str
    port: int
    product: str
    framing: dict[str, Any] | None = None
    bind: str | None = None


MOST_PEERS = 1000
"""Senders remembered; the one that is longest known makes room, as anybody can forge a sender."""


class Peer:
    """One sender, as the gateway sees a connection: it can be written to, and told to go."""

    def __init__(self, listener: DatagramListener, address: tuple[str, int]) -> None:
        self._listener = listener
        self._address = address
        self.listener = listener.name
        self.product_id = listener.config.product
        self.tenant_id = listener.tenant_id
        self.peer = f"{address[0]}:{address[1]}"
        self._holds: set[str] = set()

    def send(self, data: bytes) -> None:
        self._listener.send(data, self._address)

    def close(self, reason: str) -> None:
        self._listener.forget(self._address, reason)

    def hold(self, why: str) -> None:
        self._holds.add(why)

    def release(self, why: str) -> None:
        self._holds.discard(why)

    @property
    def held(self) -> bool:
        """Whether the gateway has enough for now: UDP has no back-pressure, so what comes is dropped and counted."""
        return bool(self._holds)


class DatagramListener(asyncio.DatagramProtocol):
    """Takes datagrams; a sender is a peer until the listener stops or the gateway has enough of it."""

    def __init__(
        self,
        name: str,
        config: DatagramConfig,
        *,
        tenant_id: str,
        framing: FramingSpec,
        sink: FrameSink,
        supervisor: object,
        clock: object,
    ) -> None:
        self.name = name
        self.config = config
        self.tenant_id = tenant_id
        self._sink = sink
        self._framing = framing
        self._peers: dict[tuple[str, int], Peer] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._received = 0
        self._dropped = 0

    @property
    def connections(self) -> int:
        return len(self._peers)

    async def start(self, host: str) -> tuple[str, int]:
        address = (self.config.bind or host, self.config.port)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=address)
        bound: tuple[str, int] = self._transport.get_extra_info("sockname")[:2]
        return bound

    async def stop(self) -> None:
        for address in list(self._peers):
            self.forget(address, "stopped")
        if self._transport is not None:
            self._transport.close()

    def samples(self) -> Iterator[Sample]:
        labels = {"listener": self.name}
        yield Sample("gateway_listener_frames_total", "Frames received.", "counter", labels, self._received)
        yield Sample("gateway_listener_dropped_total", "Frames dropped.", "counter", labels, self._dropped)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received += 1
        peer = self._peers.get(addr)
        if peer is None:
            if len(self._peers) >= MOST_PEERS:
                self.forget(next(iter(self._peers)), "too_many")
            peer = self._peers[addr] = Peer(self, addr)
            self._sink.opened(peer)
        frames = self._frames(data)
        if peer.held or not frames:
            self._dropped += 1
        else:
            self._sink.received(peer, frames)

    def _frames(self, data: bytes) -> list[bytes]:
        framer = framer_for(self._framing)
        try:
            return framer.feed(data)
        except FramingError as broken:
            return list(broken.frames)

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(data, address)

    def forget(self, address: tuple[str, int], reason: str) -> None:
        peer = self._peers.pop(address, None)
        if peer is not None:
            self._sink.closed(peer, reason)
