"""A reload storm under traffic: versions come and go while frames flow, and no frame is lost, refused or doubled."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fakes.nursery import Nursery, counting
from fakes.traffic import FakeConnection, FakeCredentials, FakeDirectory, HeldJournal

from gateway.core.bus import Bus
from gateway.core.errors import ConfigError, NotFound, NotReady
from gateway.listeners.backlog import Backlog, BacklogConfig
from gateway.pipeline import Pipeline, PipelineConfig
from gateway.things.admission import Admission
from gateway.things.model import Product
from gateway.things.sessions import SessionRegistry
from gateway.wasm.codec import Codec
from gateway.wasm.plugins import PluginHost

SWAPS = 1000
_LEAK_BYTES = 24 << 20
"""Far below what keeping the versions would cost: 1,000 of half a MiB."""


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


class Traffic:
    """A pipeline over a plugin host, with a fleet that never stops sending."""

    def __init__(self, host: PluginHost, nursery: Nursery) -> None:
        self.host = host
        product = Product(tenant_id="default", id="p", plugin_id="meter", registration="auto")
        self.journal = HeldJournal()
        directory = FakeDirectory(product)
        sessions = SessionRegistry(nursery.clock)
        admission = Admission(directory, sessions, FakeCredentials(), nursery.clock)
        self.pipeline = Pipeline(
            PipelineConfig(),
            Backlog(BacklogConfig()),
            directory,
            sessions,
            admission,
            self._codec,
            self.journal,
            Bus(),
            nursery.clock,
        )
        self.connections = [FakeConnection() for _ in range(5)]
        for connection in self.connections:
            self.pipeline.opened(connection)
        self.sent = 0

    def _codec(self, product: object) -> Codec:
        try:
            return self.host.codec("meter")
        except (NotFound, ConfigError) as failure:
            raise NotReady(str(failure)) from failure

    async def send(self) -> None:
        for connection in self.connections:
            self.pipeline.received(connection, [b"a", b"bb", b"ccc"])
            self.sent += 3
        await asyncio.sleep(0.001)  # a loop that never waits would leave the loader's thread no time
        if self.sent % 7 == 0:  # commits come late, so that acknowledgements outlive their version
            self.journal.commit_all()

    def settle(self) -> None:
        self.journal.commit_all()


def with_ack(mark: str) -> bytes:
    """Versions whose frames are acknowledged: the acknowledgement is the version's mark."""
    return counting(mark, ack=True)


async def test_a_thousand_swaps_under_traffic_lose_no_frame_and_no_memory(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", with_ack("a"))
    nursery.install("meter", "2.0", with_ack("b"))
    host = nursery.host()
    traffic = Traffic(host, nursery)
    process = psutil.Process()

    async def storm(swaps: int) -> None:
        for number in range(swaps):
            change = asyncio.ensure_future(host.activate("meter", "12"[number % 2] + ".0"))  # noqa: TID251 - a test's own
            while not change.done():
                await traffic.send()
            assert change.result().state == "running"

    await storm(100)  # what a first time costs
    gc.collect()
    before = process.memory_info().rss
    await storm(SWAPS - 100)
    await asyncio.sleep(0)
    while traffic.pipeline.in_flight:
        await asyncio.sleep(0)
        traffic.settle()
    gc.collect()
    grown = process.memory_info().rss - before
    pipeline = traffic.pipeline
    assert host.status("meter").life.swaps == SWAPS
    assert pipeline.accepted == traffic.sent
    assert pipeline.stored == traffic.sent
    assert pipeline.shed.total() == 0
    assert pipeline.counts["acks_failed"] == 0
    acknowledged = b"".join(part for connection in traffic.connections for part in connection.sent)
    assert len(acknowledged) == traffic.sent
    assert set(acknowledged) == set(b"ab")
    assert grown < _LEAK_BYTES


async def test_frames_of_one_connection_keep_their_order_over_swaps(nursery: Nursery) -> None:
    toml = "[state]\ncarry = true\n"
    nursery.install("meter", "1.0", counting("a"), toml)
    nursery.install("meter", "2.0", counting("b"), toml)
    host = nursery.host()
    counts = []
    for number in range(60):
        counts += [result.reply_to for result in host.codec("meter").decode_batch([b"x", b"y"])]
        await host.activate("meter", "21"[number % 2] + ".0")
    assert counts == list(range(1, 121))  # state and all: as if there had been one version


async def test_a_storm_of_bad_versions_touches_nothing(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"), '[[test]]\nframe = "54"\nitem = {}\n')
    nursery.area.decide("meter", nursery.area.decisions("meter").__class__(active="1.0"))
    host = nursery.host()
    traffic = Traffic(host, nursery)
    codec = host.codec("meter")
    for _ in range(50):
        with pytest.raises(ConfigError, match="test vectors fail"):
            await host.activate("meter", "2.0")
        await traffic.send()
    while traffic.pipeline.in_flight:
        await asyncio.sleep(0)
        traffic.settle()
    assert traffic.pipeline.stored == traffic.sent
    assert host.codec("meter") is codec


async def test_a_plugin_that_is_held_sheds_its_frames_and_counts_them(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3, quarantine_s=10)
    traffic = Traffic(host, nursery)
    for number in range(3):  # of one connection alone they would not count
        poison = FakeConnection()
        traffic.pipeline.opened(poison)
        traffic.pipeline.received(poison, [b"T%d" % number])
    await asyncio.sleep(0)
    await traffic.send()
    traffic.settle()
    shed = traffic.pipeline.shed
    assert (shed["trapped"], shed["plugin_unavailable"]) == (3, traffic.sent)
    nursery.clock.advance(10)
    before = traffic.sent
    await traffic.send()
    traffic.settle()
    assert traffic.pipeline.stored == traffic.sent - before
    assert traffic.pipeline.accepted == traffic.pipeline.stored + shed.total()


async def test_one_connection_that_makes_a_plugin_trap_again_and_again_is_closed_and_the_plugin_goes_on(
    nursery: Nursery,
) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3, quarantine_s=10)
    traffic = Traffic(host, nursery)
    poison = FakeConnection()
    traffic.pipeline.opened(poison)
    traffic.pipeline.received(poison, [b"T%d" % number for number in range(12)])
    await asyncio.sleep(0)
    await traffic.send()
    traffic.settle()
    assert (traffic.pipeline.shed["trapped"], traffic.pipeline.shed["plugin_unavailable"]) == (12, 0)
    assert poison.close_reasons[0] == "poison_frames"
    assert (host.status("meter").state, host.status("meter").strikes) == ("running", 1)
    assert traffic.pipeline.stored == traffic.sent
