"""Messages through host and worker with the shipped overspeed rule, by batch size; then what hostile rules cost others.

CPU seconds are those of each process; the batch goes in by the bus, as in the gateway.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import psutil
import structlog
import uvloop

from gateway.core.bus import Bus
from gateway.core.clock import SystemClock
from gateway.core.flow import AlarmChange, Message, StateDelta
from gateway.core.tasks import Supervisor
from gateway.rules.config import RulesConfig, SandboxLimits
from gateway.rules.host import RulesHost
from gateway.rules.model import RuleEffects

RULES = Path(__file__).parent.parent / "scripts" / "rules"
MESSAGES = {1: 4_000, 8: 16_000, 64: 40_000, 512: 60_000}
DEVICES = 100


class _NoEffects(RuleEffects):
    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> None:
        return

    async def command(
        self, tenant_id: str, device_id: str, name: str, args: dict[str, Any], actor: str, timeout_s: float
    ) -> dict[str, Any]:
        return {"id": "", "status": "acknowledged", "error": ""}


class _Bench:
    def __init__(self, config: RulesConfig) -> None:
        self.clock = SystemClock()
        self.supervisor = Supervisor(self.clock)
        self.bus = Bus()
        self.host = RulesHost(config, self.supervisor, self.clock, self.bus, _NoEffects(), [])

    async def __aenter__(self) -> Self:
        await self.host.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.host.stop()
        await self.supervisor.stop()

    def cpu_s(self) -> tuple[float, float]:
        """Of this process and of the worker."""
        times = psutil.Process(self.host.processes()["rules"]).cpu_times()
        return time.process_time(), times.user + times.system

    async def evaluated(self, count: int) -> None:
        while self.host.evaluated < count:  # noqa: ASYNC110 - the host tells nobody
            await asyncio.sleep(0.0005)


def _batch(size: int, at_ms: int, product: str = "jt808-terminal") -> list[Message]:
    return [
        Message(
            "default",
            product,
            f"0139{number % DEVICES:08d}",
            number % DEVICES,
            at_ms + number,
            at_ms + number,
            {"latitude": 31.2, "longitude": 121.5, "speed_km_h": 60.5, "direction_deg": 90, "altitude_m": 4},
        )
        for number in range(size)
    ]


async def _throughput(size: int) -> tuple[str, str, str]:
    config = RulesConfig(directory=str(RULES), queue_messages=1_000_000)
    async with _Bench(config) as bench:
        total = MESSAGES[size]
        batches = [_batch(size, 1_000 * number) for number in range(total // size)]
        for batch in batches[:5]:
            bench.bus.messages.publish(batch)
        await bench.evaluated(5 * size)
        done = bench.host.evaluated
        began, (host_s, worker_s) = time.perf_counter(), bench.cpu_s()
        for batch in batches:
            await bench.host._evaluate(deque([(batch, frozenset())]))
        wall_s = time.perf_counter() - began
        host_us, worker_us = (
            (after - before) / total * 1e6 for before, after in zip((host_s, worker_s), bench.cpu_s(), strict=True)
        )
        assert bench.host.evaluated - done == len(batches) * size
        return (
            f"overspeed.lua, batch {size}",
            f"{total / wall_s:,.0f} messages/s",
            f"CPU a message: host {host_us:.1f} us, worker {worker_us:.1f} us",
        )


async def _unmatched() -> tuple[str, str, str]:
    async with _Bench(RulesConfig(directory=str(RULES))) as bench:
        batch = _batch(512, 0, "meter")
        began = time.process_time()
        for _ in range(200):
            bench.bus.messages.publish(batch)
        each_us = (time.process_time() - began) / (200 * 512) * 1e6
    return "message that no rule wants", f"{each_us:.2f} us", "looked up, never sent"


def _write(path: Path, source: str) -> None:
    path.write_text(source)


async def _hostile(body: str, limits: SandboxLimits, what: str) -> tuple[str, str, str]:
    """How long a neighbour of a hanging rule waits for its next message, and how long the loop stood at worst."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder, "bad.lua"), f"on.message{{product = 'bad'}}(function(msg, state) {body} end)")
        _write(Path(folder, "good.lua"), "on.message{}(function(msg, state) state.n = (state.n or 0) + 1 end)")
        async with _Bench(RulesConfig(directory=folder, limits=limits)) as bench:
            bench.bus.messages.publish(_batch(1, 0, "good"))
            await bench.evaluated(1)
            worst_s, began = 0.0, time.perf_counter()
            bench.bus.messages.publish([*_batch(1, 0, "bad"), *_batch(1, 0, "good")])
            while next(rule for rule in bench.host.statuses() if rule.name == "good").evaluated < 3:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                worst_s = max(worst_s, time.perf_counter() - before - 0.001)
            wait_ms = (time.perf_counter() - began) * 1000
    return what, f"{wait_ms:.0f} ms", f"until a neighbour is served; longest stall of the loop {worst_s * 1000:.1f} ms"


async def _all() -> list[tuple[str, str, str]]:
    found = [await _throughput(size) for size in MESSAGES]
    found.append(await _unmatched())
    found.append(await _hostile("while true do end", SandboxLimits(), "endless loop, ended by its budget"))
    unguarded = SandboxLimits(budget=10**12, cpu_ms=10**6)
    found.append(await _hostile("while true do end", unguarded, "endless loop past the budget, killed"))
    return found


def rows() -> Iterable[tuple[str, str, str]]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_all())
