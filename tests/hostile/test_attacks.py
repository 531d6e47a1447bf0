"""Every attack, in one process with a good neighbour: what it costs the attacker, and that it costs nobody else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import structlog
from attacks import AT_LOAD, IN_TRAFFIC, good
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import NotReady
from gateway.core.flow import Decoded
from gateway.wasm.codec import TRAPPED, DecodeResult
from gateway.wasm.config import WasmConfig
from gateway.wasm.plugins import PluginHost

LIMITS = """[limits]
memory_mib = 4
deadline_ms = 10
batch_deadline_ms = 20
start_deadline_ms = 40
max_input = 65536
max_output = 65536
"""
MIB = 1 << 20


class Arena:
    """A folder of plugins, always with a good one, and the host that runs them."""

    def __init__(self, root: Path) -> None:
        self.root = root / "plugins"
        self.hosts: list[PluginHost] = []
        self.put("good", good())

    def put(self, name: str, wasm: bytes, toml: str = "") -> Path:
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / "plugin.toml").write_text(f'id = "{name}"\nversion = "1.0.0"\nlicense = "MIT"\n{LIMITS}{toml}')
        path = folder / f"{name}.wasm"
        path.write_bytes(wasm)
        return path

    def host(self) -> PluginHost:
        host = PluginHost(WasmConfig(), [self.root], None)
        self.hosts.append(host)
        with structlog.testing.capture_logs():
            host.load_all()
        return host


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    made = Arena(tmp_path)
    yield made
    for host in made.hosts:
        host.close()


def the_neighbour_is_well(host: PluginHost) -> None:
    results = host.codec("good").decode_batch([b"a", b"X", b"c"])
    assert all(isinstance(result, Decoded) for result in results)
    assert host.status("good").strikes == 0


def decoded(host: PluginHost, frames: list[bytes]) -> list[DecodeResult]:
    """What becomes of frames, all of them, as the pipeline asks; NotReady counts as a trap, as nothing comes out."""
    results: list[DecodeResult] = []
    while len(results) < len(frames):
        try:
            results += host.codec("bad").decode_batch(frames[len(results) :])
        except NotReady:
            return results + [TRAPPED] * (len(frames) - len(results))
    return results


@pytest.mark.parametrize("name", AT_LOAD)
def test_an_attack_at_load_is_refused_with_a_reason(arena: Arena, name: str) -> None:
    make, toml, says = AT_LOAD[name]
    arena.put("bad", make(), toml)
    host = arena.host()
    status = host.status("bad")
    assert status.state != "running"
    assert says in status.reason
    assert status.reason.isprintable()
    the_neighbour_is_well(host)


@pytest.mark.parametrize("name", IN_TRAFFIC)
def test_an_attack_in_traffic_costs_its_own_frame_and_no_other(arena: Arena, name: str) -> None:
    make, toml, wanted = IN_TRAFFIC[name]
    arena.put("bad", make(), toml)
    host = arena.host()
    assert host.status("bad").state == "running"
    before = psutil.Process().memory_info().rss
    with structlog.testing.capture_logs() as lines:
        results = decoded(host, [b"a", b"X-attack", b"c"])
        the_neighbour_is_well(host)
        for number in range(20):
            decoded(host, [b"X-attack %d" % number])
            the_neighbour_is_well(host)
    assert results[1] in wanted
    assert isinstance(results[0], Decoded)
    assert isinstance(results[2], Decoded)
    assert len(lines) < 200
    assert psutil.Process().memory_info().rss - before < 64 * MIB


def test_a_module_of_100_mib_is_not_even_read(arena: Arena) -> None:
    os.truncate(arena.put("bad", good()), 100 * MIB)
    before = psutil.Process().memory_info().rss
    host = arena.host()
    assert "larger than [wasm] max_module_bytes" in host.status("bad").reason
    assert psutil.Process().memory_info().rss - before < 64 * MIB
    the_neighbour_is_well(host)


_WHOLE = good()


def _flipped(edits: list[tuple[int, int]]) -> bytes:
    data = bytearray(_WHOLE)
    for at, byte in edits:
        data[at % len(data)] = byte
    return bytes(data)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400).map(lambda tail: b"\0asm\x01\0\0\0" + tail),
        st.integers(0, len(_WHOLE)).map(lambda end: _WHOLE[:end]),
        st.lists(st.tuples(st.integers(8, len(_WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4).map(_flipped),
    )
)
def test_a_damaged_module_is_refused_or_contained(fresh: Callable[[bytes], PluginHost], wasm: bytes) -> None:
    host = fresh(wasm)
    if host.status("bad").state == "running":
        with structlog.testing.capture_logs():
            decoded(host, [b"a", b"X"])
    the_neighbour_is_well(host)


@pytest.fixture
def fresh(arena: Arena) -> Callable[[bytes], PluginHost]:
    path = arena.put("bad", b"")

    def host(wasm: bytes) -> PluginHost:
        while arena.hosts:
            arena.hosts.pop().close()
        path.write_bytes(wasm)
        return arena.host()

    return host


def test_the_guarantee_names_every_attack_that_proves_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plugin-guarantee.md").read_text()
    assert [name for name in (*AT_LOAD, *IN_TRAFFIC) if f"| {name} |" not in page] == []
