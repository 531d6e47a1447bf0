"""kill -9 of every process at any moment: what was acknowledged is there after the restart."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import uvloop
from fakes.eventually import eventually
from fakes.process import GatewayProcess

from gateway.core.errors import NotReady
from gateway.simulate import jt808
from gateway.simulate.jt808_terminal import Acknowledged


@pytest.mark.parametrize("seed", range(3))
def test_every_acknowledged_message_is_in_the_history_after_kill_9(tmp_path: Path, seed: int) -> None:
    """20 terminals at 200 messages a second each; killed at a random moment, restarted, killed again."""
    moments = random.Random(seed)
    acknowledged: list[Acknowledged] = []
    gateway = GatewayProcess(tmp_path / "data")
    for _ in range(2):
        gateway.start()
        traffic = _Traffic(gateway.ports["jt808"]["port"], acknowledged)
        eventually(lambda: acknowledged, 30)
        time.sleep(moments.uniform(0.2, 2.0))
        gateway.kill()
        traffic.join()
    assert len(acknowledged) > 100
    with gateway:
        wanted: dict[str, list[float]] = {}
        for message in acknowledged:
            wanted.setdefault(message.phone, []).append(message.mileage_km)
        for phone, mileages in wanted.items():
            stored = {point["value"] for point in gateway.items(f"/api/v1/devices/{phone}/history?property=mileage_km")}
            lost = [mileage for mileage in mileages if mileage not in stored]
            assert not lost, f"{len(lost)} of {len(mileages)} acknowledged messages of {phone} are lost"
        metrics = gateway.metrics()
        shed = sum(value for name, value in metrics.items() if name.startswith("gateway_messages_shed_total"))
        assert metrics["gateway_messages_accepted_total"] == metrics["gateway_messages_stored_total"] + shed
        assert metrics["gateway_messages_stored_total"] >= len(acknowledged)
        online = gateway.items("/api/v1/devices?online=true")
        assert online == [], "a crash must not leave devices online"


def test_a_killed_rules_worker_is_respawned_and_keeps_what_rules_remember(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        pids = {process["name"]: process["pid"] for process in gateway.get("/health")["processes"]}
        os.kill(pids["rules"], signal.SIGKILL)

        def fresh() -> bool:
            now = {process["name"]: process["pid"] for process in gateway.get("/health")["processes"]}
            return now.get("rules") not in {None, pids["rules"]}

        eventually(fresh)
        options = jt808.Options(port=gateway.ports["jt808"]["port"], devices=2, rate=4, seconds=20)
        result = uvloop.run(jt808.run(options))
        assert result.clean, result
        eventually(lambda: len(gateway.items("/api/v1/alarms?state=cleared")) == 2)


class _Traffic:
    """The simulated fleet, in a thread of its own, until it is told to stop or its gateway is gone."""

    def __init__(self, port: int, acknowledged: list[Acknowledged]) -> None:
        self._options = jt808.Options(port=port, devices=20, rate=200, seconds=60, ack_wait_s=0.1)
        self._acknowledged = acknowledged
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self._loop = runner.get_loop()
            try:
                runner.run(self._drive())
            except (NotReady, asyncio.CancelledError):
                return

    async def _drive(self) -> None:
        self._task = asyncio.get_running_loop().create_task(jt808.run(self._options, journal=self._acknowledged))
        await self._task
