"""The whole spine: TCP -> framing -> Wasm -> thing model -> Lua rule -> committed in SQLite, as a real process.

Frames of five values come from a process of its own as fast as the gateway lets them; the figure is messages per
CPU-second of all gateway processes together, from the first frame to the last commit and rule. Latency is measured with
JT/T 808 terminals, which are acknowledged after the commit, at a thousand messages a second.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import struct
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import uvloop
from fakes.process import REPOSITORY, GatewayProcess

from gateway.simulate import jt808
from gateway.workbench.build import build_plugin

PER_RUN = 400_000
RULE = """
on.message{product = "bench", property = "temperature"}(function(msg, state)
  if msg.values.temperature > 90 then
    state.hot = (state.hot or 0) + 1
  end
end)
"""
"""Is asked for every message and acts on one in ten, as the frames below make it."""


def rows() -> Iterable[tuple[str, str, str]]:
    """The table's rows."""
    for connections, burst in ((100, 16), (100, 1), (1, 16), (1000, 1)):
        yield _throughput(connections, burst)
    yield from _terminals()


def _throughput(connections: int, burst: int) -> tuple[str, str, str]:
    with tempfile.TemporaryDirectory() as folder, _bench_gateway(Path(folder)) as gateway:
        port = gateway.ports["bench"]["port"]
        frames = PER_RUN if burst > 1 else PER_RUN // 4
        _send(port, connections, burst, frames // 10)
        _settle(gateway, frames // 10)
        before, cpu, wall = _stored(gateway), _cpu_s(gateway), time.perf_counter()
        sent = _send(port, connections, burst, frames)
        _settle(gateway, before + sent)
        wall, cpu = time.perf_counter() - wall, _cpu_s(gateway) - cpu
        memory = sum(process.memory_info().rss for process in _processes(gateway)) / 1e6
        evaluated = sum(v for k, v in gateway.metrics().items() if k.startswith("gateway_rule_calls_total"))
    what = f"{connections} connections, {burst} frames a segment"
    note = f"{sent / wall:,.0f}/s wall, RSS {memory:.0f} MB, {sent} sent and stored, {evaluated:.0f} rule calls"
    return what, f"{sent / cpu:,.0f} msg/CPU-s", note


def _terminals() -> Iterable[tuple[str, str, str]]:
    for devices, rate in ((10, 100.0), (1000, 1.0)):
        with tempfile.TemporaryDirectory() as folder, GatewayProcess(Path(folder) / "data") as gateway:
            port = gateway.ports["jt808"]["port"]
            options = jt808.Options(port=port, devices=devices, rate=rate, seconds=10)
            cpu = _cpu_s(gateway)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(jt808.run(options))
            cpu = _cpu_s(gateway) - cpu
            memory = sum(process.memory_info().rss for process in _processes(gateway)) / 1e6
        what = f"JT/T 808, {devices} terminals, {devices * rate:.0f} msg/s, acknowledged"
        note = (
            f"p99 {result.latency_p99_ms:.1f} ms, {result.unacknowledged} unacknowledged, "
            f"{cpu / 10:.0%} of a core, RSS {memory:.0f} MB"
        )
        yield what, f"p50 {result.latency_p50_ms:.1f} ms", note


def _bench_gateway(folder: Path) -> GatewayProcess:
    """A gateway with the benchmark's codec, product, listener and rule."""
    build_plugin(REPOSITORY / "bench" / "plugins" / "telemetry5")
    (folder / "rules").mkdir()
    (folder / "rules" / "hot.lua").write_text(RULE)
    fields = {"temperature": "Cel", "humidity": "%", "pressure": "kPa", "voltage": "V", "current": "A"}
    properties = {
        name: {"type": "float", "unit": unit, "minimum": -1e6, "maximum": 1e6} for name, unit in fields.items()
    }
    (folder / "model.json").write_text(json.dumps({"properties": properties}))
    config = folder / "config.toml"
    config.write_text(
        f"""
        [server]
        log_level = "warning"
        [plugins]
        dirs = ["{REPOSITORY / "bench" / "plugins"}"]
        [products.bench]
        plugin = "telemetry5"
        model = "model.json"
        registration = "auto"
        [listeners.bench]
        type = "tcp"
        port = 0
        product = "bench"
        limits = {{ max_frames_per_s = 1000000, burst_frames = 1000000 }}
        [rules]
        directory = "rules"
        queue_messages = 1000000
        [scenes]
        directory = "scenes"
        """
    )
    return GatewayProcess(folder / "data", config)


def _send(port: int, connections: int, burst: int, frames: int) -> int:
    """Send from a process of its own; returns how many frames it sent."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return int(pool.apply(send_frames, (port, connections, burst, frames)))


def send_frames(port: int, connections: int, burst: int, frames: int) -> int:
    """Send `frames` frames over `connections` sockets, `burst` in one segment, as fast as they are read."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    segments = [[_segment(number, burst, step) for step in range(10)] for number in range(connections)]
    for one in sockets:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rounds = max(1, frames // (connections * burst))
    for step in range(rounds):
        for number, one in enumerate(sockets):
            one.sendall(segments[number][step % 10])
    for one in sockets:
        one.shutdown(socket.SHUT_WR)
    for one in sockets:
        while one.recv(4096):
            pass
        one.close()
    return rounds * connections * burst


def _segment(number: int, burst: int, step: int) -> bytes:
    frames = []
    for index in range(burst):
        temperature = 95.0 if (index + step) % 10 == 0 else 20.0 + index
        body = b"%08d" % number + struct.pack(
            ">Q5dI", 1_700_000_000_000 + 1000 * (step * burst + index), temperature, 40.5, 101.3, 3.3, 0.25, index
        )
        frames.append(struct.pack(">H", len(body) + 2) + body + _fletcher16(body))
    return b"".join(frames)


def _fletcher16(data: bytes) -> bytes:
    a = b = 0
    for byte in data:
        a += byte
        b += a
    return struct.pack(">H", (b % 255) << 8 | a % 255)


def _stored(gateway: GatewayProcess) -> int:
    return int(gateway.metrics()["gateway_messages_stored_total"])


def _settle(gateway: GatewayProcess, stored: int) -> None:
    """Wait until everything sent is committed and the rules have seen it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        metrics = gateway.metrics()
        waiting = sum(value for name, value in metrics.items() if name.startswith("gateway_bus_waiting"))
        if metrics["gateway_messages_stored_total"] >= stored and not waiting:
            return
        time.sleep(0.1)
    raise AssertionError(f"not everything was stored: {gateway.metrics()}")


def _processes(gateway: GatewayProcess) -> list[psutil.Process]:
    assert gateway.process is not None
    main = psutil.Process(gateway.process.pid)
    return [main, *main.children(recursive=True)]


def _cpu_s(gateway: GatewayProcess) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _processes(gateway))
