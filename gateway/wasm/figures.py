"""Figures of plugins for `/metrics`. Reads statuses; counts nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from gateway.core.metrics import Sample
from gateway.wasm.module_cache import ModuleCounts
from gateway.wasm.stats import LATENCY_BOUNDS_S, OTHER_CODES, PluginStats
from gateway.wasm.status import PluginStatus

_COUNTERS: Final = (
    ("calls", "Calls into the plugin.", "calls"),
    ("frames", "Frames handed to the plugin.", "frames"),
    ("decoded", "Frames that became messages.", "decoded"),
    ("dropped", "Frames that the plugin dropped on purpose.", "dropped"),
    ("encodes", "Requests encoded.", "encodes"),
    ("traps", "Instances lost to a fault.", "traps"),
    ("kills", "Instances lost to a deadline.", "kills"),
    ("respawns", "Fresh instances.", "respawns"),
    ("strikes", "Faults of the plugin.", "strikes"),
    ("poison_refused", "Frames not run, since they are proven to trap.", "poison_refused"),
    ("busy_seconds", "Seconds inside the plugin.", "busy_s"),
    ("cpu_seconds", "Processor seconds inside the plugin.", "cpu_s"),
)
_LIFE: Final = (
    ("swaps", "Versions taken into use after the first."),
    ("rollbacks", "Versions that were left by themselves for the one before."),
    ("refusals", "Versions that were not taken."),
    ("quarantines", "Times the plugin was held."),
)
_SHADOW: Final = (
    ("frames", "Frames that the version in shadow saw."),
    ("different", "Frames on which it differs."),
    ("dropped", "Frames that it was too slow for."),
)


def plugin_samples(statuses: Iterable[PluginStatus]) -> Iterator[Sample]:
    """Every figure of every plugin; those of one that does not run are missing, but for its life."""
    for status in statuses:
        labels = {"plugin": status.id}
        yield Sample("gateway_plugin_up", "1 where the plugin runs.", "gauge", labels, status.state == "running")
        held = status.state == "quarantined"
        yield Sample("gateway_plugin_quarantined", "1 where the plugin is held.", "gauge", labels, held)
        for name, text in _LIFE:
            yield Sample(f"gateway_plugin_{name}_total", text, "counter", labels, getattr(status.life, name))
        if status.stats is not None:
            yield from _running(status, status.stats, labels)
        if status.shadow is not None:
            for name, text in _SHADOW:
                value = getattr(status.shadow, name)
                yield Sample(f"gateway_plugin_shadow_{name}", text, "gauge", labels, value)


def module_samples(plugin_id: str, counts: ModuleCounts) -> Iterator[Sample]:
    """Where a plugin's compiled modules came from, over all threads; one that is in memory is not loaded again."""
    text = "Compiled modules taken from the cache, modules compiled, and entries of the cache that were not trusted."
    for outcome, count in (("hit", counts.hits), ("compiled", counts.compiled), ("refused", counts.refused)):
        labels = {"plugin": plugin_id, "outcome": outcome}
        yield Sample("gateway_plugin_modules_total", text, "counter", labels, count)


def _running(status: PluginStatus, stats: PluginStats, labels: dict[str, str]) -> Iterator[Sample]:
    for name, text, field in _COUNTERS:
        yield Sample(f"gateway_plugin_{name}_total", text, "counter", labels, getattr(stats, field))
    for code, count in stats.errors.items():
        by_code = labels | {"code": "other" if code == OTHER_CODES else str(code)}
        yield Sample("gateway_plugin_errors_total", "Frames refused, by code.", "counter", by_code, count)
    bounds = (*LATENCY_BOUNDS_S, float("inf"))
    buckets = tuple(zip(bounds, accumulate(stats.latency), strict=True))
    text = "Wall time of calls into the plugin."
    yield Sample("gateway_plugin_call_seconds", text, "histogram", labels, stats.busy_s, buckets)
    yield Sample("gateway_plugin_memory_bytes", "Linear memory.", "gauge", labels, status.memory_bytes)
    running = labels | {"version": status.version, "path": status.path or "", "kind": status.kind}
    yield Sample("gateway_plugin_info", "The version in use, and how it is called.", "gauge", running, 1)
