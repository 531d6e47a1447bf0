"""The plugins as the API shows and tries them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from typing_extensions import override

from gateway.api.plugin_port import FrameOutcome, Plugins, PluginStatus, TriedInput
from gateway.core.metrics import Sample
from gateway.wasm.plugins import FrameOutcome as HostOutcome
from gateway.wasm.plugins import PluginHost
from gateway.wasm.plugins import PluginStatus as HostStatus

_SLICE_FRAMES: Final = 256
"""Frames decoded before the loop serves others: some 3 ms, results included."""


class PluginDesk(Plugins):
    """Adapts the plugin host to the API's port."""

    def __init__(self, host: PluginHost) -> None:
        """Wire the host."""
        self._host = host
        self._trying = asyncio.Lock()

    @override
    def plugins(self) -> list[PluginStatus]:
        return [
            PluginStatus(
                id=status.id,
                version=status.version,
                kind=status.kind,
                state=status.state,
                detail=status.reason,
                counters=_counters(status),
            )
            for status in self._host.plugins()
        ]

    @override
    async def try_decode(self, plugin_id: str, inputs: list[bytes]) -> list[TriedInput]:
        async with self._trying:  # instances cost memory: one for all who try
            return await self._try(plugin_id, inputs)

    async def _try(self, plugin_id: str, inputs: list[bytes]) -> list[TriedInput]:
        tried: list[TriedInput] = []
        with self._host.trial(plugin_id) as trial:
            for data in inputs:
                frames: list[FrameOutcome] = []
                for outcomes in trial.decode(data, _SLICE_FRAMES):
                    frames += map(_shown, outcomes)
                    await asyncio.sleep(0)
                tried.append(TriedInput(frames, trial.skipped))
        return tried

    @override
    def try_encode(self, plugin_id: str, request: dict[str, Any]) -> bytes:
        return self._host.try_encode(plugin_id, request)

    def samples(self) -> Iterator[Sample]:
        """Figures of every running plugin for `/metrics`."""
        for status in self._host.plugins():
            labels = {"plugin": status.id}
            yield Sample("gateway_plugin_up", "1 where the plugin runs.", "gauge", labels, status.state == "running")
            if status.stats is None:
                continue
            stats = status.stats
            for name, text, value in (
                ("calls", "Calls into the plugin.", stats.calls),
                ("frames", "Frames handed to the plugin.", stats.frames),
                ("traps", "Instances lost to a fault.", stats.traps),
                ("kills", "Instances lost to a deadline.", stats.kills),
                ("respawns", "Fresh instances.", stats.respawns),
                ("busy_seconds", "Seconds inside the plugin.", stats.busy_s),
            ):
                yield Sample(f"gateway_plugin_{name}_total", text, "counter", labels, value)
            for code, count in stats.errors.items():
                by_code = labels | {"code": str(code)}
                yield Sample("gateway_plugin_errors_total", "Frames refused, by code.", "counter", by_code, count)
            yield Sample("gateway_plugin_memory_bytes", "Linear memory.", "gauge", labels, status.memory_bytes)


def _shown(outcome: HostOutcome) -> FrameOutcome:
    if outcome.ok:
        return FrameOutcome(value=outcome.value)
    return FrameOutcome(code=_given(outcome.code, 0), error=_given(outcome.error, ""))


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is msgspec.UNSET else value


def _counters(status: HostStatus) -> dict[str, float]:
    counters: dict[str, float] = {
        "vectors_passed": status.vectors_passed,
        "vectors_failed": status.vectors_failed,
        "memory_bytes": status.memory_bytes,
        "strikes": status.strikes,
    }
    if status.stats is not None:
        stats = status.stats
        counters |= {
            "calls": stats.calls,
            "frames": stats.frames,
            "decoded": stats.decoded,
            "traps": stats.traps,
            "kills": stats.kills,
            "respawns": stats.respawns,
            "busy_s": stats.busy_s,
        }
    return counters
