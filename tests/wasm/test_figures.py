"""What `/metrics` shows of every plugin: work, errors by code, losses, time, memory, call path and compiled modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.nursery import Nursery, echoing
from guests_gw1 import well_behaved

from gateway.core.errors import CodecError
from gateway.core.metrics import Sample
from gateway.wasm.plugins import PluginHost
from gateway.wasm.stats import LATENCY_BOUNDS_S


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


def samples(host: PluginHost, plugin_id: str) -> dict[str, Sample]:
    """The samples of one plugin, by name and further labels."""
    found = {}
    for sample in host.samples():
        labels = dict(sample.labels)
        if labels.pop("plugin") == plugin_id:
            name = sample.name.removeprefix("gateway_plugin_")
            found[" ".join([name, *(f"{key}={value}" for key, value in sorted(labels.items()))])] = sample
    return found


def test_what_a_codec_did_is_shown_figure_by_figure(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", well_behaved())
    host = nursery.host()
    codec = host.codec("meter")
    codec.decode_batch([b"a", b"N", b"3", b"3"])
    codec.decode_batch([b"T1"])
    codec.decode_batch([b"L1"])
    codec.encode(b"\x80")
    shown = samples(host, "meter")
    counted = {name.removesuffix("_total"): sample.value for name, sample in shown.items() if name.endswith("_total")}
    assert (
        counted.items()
        >= {
            "calls": 4,
            "frames": 6,
            "decoded": 1,
            "dropped": 1,
            "encodes": 1,
            "traps": 1,
            "kills": 1,
            "respawns": 2,
            "strikes": 2,
            "poison_refused": 0,
            "swaps": 0,
            "rollbacks": 0,
            "refusals": 0,
            "quarantines": 0,
        }.items()
    )
    assert 0 < counted["cpu_seconds"] <= counted["busy_seconds"]
    assert {name: sample.value for name, sample in shown.items() if name.startswith("errors_total")} == {
        "errors_total code=3": 2,
        "errors_total code=-1": 2,
    }
    assert (shown["up"].value, shown["quarantined"].value) == (1, 0)
    assert shown["memory_bytes"].value == 8 << 16


def test_the_latency_histogram_has_every_call_and_ends_at_infinity(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", well_behaved())
    host = nursery.host()
    before = samples(host, "meter")["call_seconds"].buckets[-1][1]
    for _ in range(7):
        host.codec("meter").decode_batch([b"a"])
    histogram = samples(host, "meter")["call_seconds"]
    bounds, counts = zip(*histogram.buckets, strict=True)
    assert (histogram.kind, bounds) == ("histogram", (*LATENCY_BOUNDS_S, float("inf")))
    assert list(counts) == sorted(counts)
    assert counts[-1] == before + 7
    assert histogram.value > 0


@pytest.mark.parametrize("path", ["fast", "public"])
async def test_the_path_of_calls_is_shown_as_that_of_codecs(nursery: Nursery, path: str) -> None:
    nursery.put("meter", "1.0", well_behaved())
    nursery.put("sum", "2.0", echoing(7), top='kind = "algo"')
    host = nursery.host(call_path="public" if path == "public" else "auto")
    assert f"info kind=codec path={path} version=1.0" in samples(host, "meter")
    assert f"info kind=algo path={path} version=2.0" in samples(host, "sum")
    with pytest.raises(CodecError):
        await host.call("sum", {"a": 1}, timeout_s=5)
    shown = samples(host, "sum")
    assert (shown["calls_total"].value, shown["traps_total"].value, shown["strikes_total"].value) == (1, 1, 1)


async def test_compiled_modules_are_counted_by_plugin_over_all_threads(nursery: Nursery) -> None:
    def loads(host: PluginHost, plugin_id: str) -> list[float]:
        shown = samples(host, plugin_id)
        return [shown[f"modules_total outcome={outcome}"].value for outcome in ("hit", "compiled", "refused")]

    nursery.put("meter", "1.0", well_behaved())
    nursery.put("sum", "1.0", echoing(7), top='kind = "algo"')
    first = nursery.host()
    assert (loads(first, "meter"), loads(first, "sum")) == ([0, 1, 0], [0, 1, 0])
    assert await first.call("sum", {}, timeout_s=5) == 7
    assert loads(first, "sum") == [1, 1, 0], "the calls' thread has a sandbox of its own"
    nursery.close()
    second = nursery.host()
    assert (loads(second, "meter"), loads(second, "sum")) == ([1, 0, 0], [1, 0, 0])
