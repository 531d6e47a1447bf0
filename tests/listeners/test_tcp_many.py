"""Scale: how many mostly idle devices one listener holds, and what each costs."""

import asyncio
import resource
import subprocess
import sys
import time

import psutil
import pytest
from fakes.listening import Listening

CLIENTS = """
import selectors, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
peers = []
for at in range(count):
    peer = socket.create_connection(("127.0.0.1", port))
    peer.sendall(b"\\x7ehello\\x7e")
    peers.append(peer)
print("connected", flush=True)
sys.stdin.readline()
for peer in peers:
    peer.sendall(b"\\x7eagain\\x7e")
print("sent", flush=True)
sys.stdin.readline()
"""
MANY = 10_000


@pytest.mark.soak
async def test_ten_thousand_mostly_idle_connections_cost_little_and_all_answer(listening: Listening) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY + 200:
        pytest.skip(f"needs {MANY + 200} open files: ulimit -n {MANY + 200}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, MANY + 200)), hard))
    listener = await listening.start(max_connections_per_peer=MANY, sweep_s=1.0)
    process = psutil.Process()
    before = process.memory_info().rss
    with subprocess.Popen(  # noqa: ASYNC220 - starting it takes a moment, once
        [sys.executable, "-c", CLIENTS, str(listening.port), str(MANY)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as clients:  # fmt: skip
        assert clients.stdin is not None
        await listening.until(lambda: listener.stats.frames == MANY, within_s=50)
        per_connection = (process.memory_info().rss - before) / MANY
        used, started = sum(process.cpu_times()[:2]), time.monotonic()
        await asyncio.sleep(10)
        busy = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - started)
        print(  # noqa: T201 - a soak shows its figures
            f"{per_connection:.0f} bytes RSS per idle connection (recording sink included), {busy:.2%} CPU idle"
        )
        clients.stdin.write(b"\n")
        clients.stdin.flush()
        await listening.until(lambda: listener.stats.frames == 2 * MANY)
        clients.stdin.write(b"\n")
        clients.stdin.close()
        await listening.until(lambda: listener.connections == 0)
    assert listening.sink.reasons == ["peer_closed"] * MANY
    assert per_connection < 10_000
    assert busy < 0.05
