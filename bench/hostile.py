"""Two plugins in one host, one of them hostile: what the other's frames feel of it, at the rate of a busy site.

The neighbour gets a frame every millisecond for some seconds, alone and then beside a plugin that is given, as often, a
frame on which it loops (each another one, so that no memory of poison helps). A frame's latency runs from the moment at
which it was due to its decoded message.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep

import structlog
import wasmtime

from bench.wasm import HOSTILE, telemetry_frame
from gateway.core.errors import NotReady
from gateway.wasm.config import WasmConfig
from gateway.wasm.plugins import PluginHost
from gateway.workbench.build import build_plugin

PLUGINS = Path(__file__).parent / "plugins"
SECONDS = 15.0
PERIOD_S = 0.001


def rows() -> Iterable[tuple[str, str, str]]:
    """Give (what, figure, note)."""
    build_plugin(PLUGINS / "telemetry5")
    with structlog.testing.capture_logs(), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "hostile"
        folder.mkdir()
        (folder / "plugin.toml").write_text('id = "hostile"\nversion = "1"\nlicense = "MIT"\n')
        (folder / "hostile.wasm").write_bytes(wasmtime.wat2wasm(HOSTILE))
        host = PluginHost(WasmConfig(), [Path(scratch), PLUGINS], None)
        try:
            host.load_all()
            alone = _latencies(host, lambda _: None)
            beside = _latencies(host, lambda number: _attack(host, number))
            kills = host.status("hostile").stats
        finally:
            host.close()
    for share, name in ((0.5, "median"), (0.99, "p99"), (0.999, "p99.9")):
        quiet, loud = (sorted(all_)[int(len(all_) * share)] * 1e6 for all_ in (alone, beside))
        goal = "; goal 2x" if share == 0.99 else ""
        yield (
            f"neighbour's {name} beside a hostile plugin",
            f"{loud / quiet:.2f}x",
            f"{quiet:.0f} -> {loud:.0f} us{goal}",
        )
    yield "worst", f"{max(beside) * 1000:.1f} ms", f"{kills.kills if kills else 0} kills in {SECONDS:.0f} s"


def _latencies(host: PluginHost, between: Callable[[int], None]) -> list[float]:
    """Seconds from due to decoded, of each frame of the neighbour."""
    codec = host.codec("telemetry5")
    taken = []
    began = perf_counter()
    for number in range(int(SECONDS / PERIOD_S)):
        due = began + number * PERIOD_S
        left = due - perf_counter()
        if left > 0:
            sleep(left)
            due = perf_counter()  # how late the system woke us is no plugin's doing
        codec.decode_batch([telemetry_frame(number)])
        taken.append(perf_counter() - due)
        between(number)
    return taken


def _attack(host: PluginHost, number: int) -> None:
    with suppress(NotReady):  # in quarantine, or down
        host.codec("hostile").decode_batch([b"\0%d" % number])
