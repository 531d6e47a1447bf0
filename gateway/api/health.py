"""The gateway's pulse: parts, processes, memory, disk and the lag of the loop. Knows no HTTP."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]  # its stubs are not among our dependencies
from typing_extensions import override

from gateway.api.parts import Health, HealthReport, PartReport, ProcessReport
from gateway.core.clock import Clock
from gateway.core.metrics import Sample
from gateway.core.tasks import PartHealth, PartState

_PROBE_S: Final = 0.25
"""How often the loop's lag is measured; four wake-ups a second are invisible in an idle process."""
_KEPT: Final = 0.8
"""Share of the last worst lag that is kept per probe: a stall shows for a few seconds."""
_LOW_DISK_BYTES: Final = 200 * 1024 * 1024
"""Less room than this is reported as degraded before the journal has to refuse messages."""


class HealthSampler(Health):
    """Takes the pulse when asked; `probe` runs beside it as a supervised part."""

    def __init__(
        self,
        *,
        clock: Clock,
        version: str,
        data_dir: Path,
        parts: Callable[[], Mapping[str, PartHealth]],
        database: Callable[[], Awaitable[str]],
        processes: Callable[[], Mapping[str, int]],
        wasm_path: str,
    ) -> None:
        """`database` gives `ok` or what is wrong; `processes` the ids of the worker processes by name."""
        self._clock = clock
        self._version = version
        self._data_dir = data_dir
        self._parts = parts
        self._database = database
        self._workers = processes
        self._wasm_path = wasm_path
        self._started_s = clock.monotonic_s()
        self._lag_ms = 0.0
        self._known: dict[int, psutil.Process] = {}
        self._read_processes()

    async def probe(self) -> None:
        """Measure the loop's lag for ever."""
        while True:
            due_s = self._clock.monotonic_s() + _PROBE_S
            await asyncio.sleep(_PROBE_S)
            late_ms = max(0.0, (self._clock.monotonic_s() - due_s) * 1000)
            self._lag_ms = max(late_ms, self._lag_ms * _KEPT)

    @override
    async def report(self) -> HealthReport:
        database = await self._database()
        parts = {
            name: PartReport(state=part.state, restarts=part.restarts, detail=part.detail, since=part.since)
            for name, part in self._parts().items()
        }
        ill = any(part.state in (PartState.RESTARTING, PartState.FAILED) for part in parts.values())
        processes = self._read_processes()
        disk_free = await asyncio.to_thread(self._disk_free)
        return HealthReport(
            status="degraded" if ill or database != "ok" or disk_free < _LOW_DISK_BYTES else "ok",
            version=self._version,
            uptime_s=round(self._clock.monotonic_s() - self._started_s, 3),
            parts=parts,
            database=database,
            disk_free_bytes=disk_free,
            cpu_percent=round(sum(process.cpu_percent for process in processes), 1),
            memory_rss_bytes=sum(process.rss_bytes for process in processes),
            loop_lag_ms=round(self._lag_ms, 3),
            processes=processes,
            wasm={"path": self._wasm_path},
        )

    def samples(self) -> list[Sample]:
        """Memory and processor time by process, the loop's lag, restarts by part."""
        found = [Sample("gateway_loop_lag_ms", "Worst recent lag of the event loop.", "gauge", {}, self._lag_ms)]
        for process in self._read_processes():
            labels = {"process": process.name}
            found.append(Sample("gateway_process_memory_bytes", "Resident memory.", "gauge", labels, process.rss_bytes))
        for name, part in self._parts().items():
            found.append(
                Sample("gateway_part_restarts_total", "Restarts of a part.", "counter", {"part": name}, part.restarts)
            )
        return found

    def _disk_free(self) -> int:
        try:
            return shutil.disk_usage(self._data_dir).free
        except OSError:
            return 0

    def _read_processes(self) -> list[ProcessReport]:
        wanted = {"gateway": os.getpid(), **self._workers()}
        self._known = {pid: process for pid, process in self._known.items() if pid in wanted.values()}
        found = [self._read_process(name, pid) for name, pid in wanted.items()]
        return [report for report in found if report is not None]

    def _read_process(self, name: str, pid: int) -> ProcessReport | None:
        try:
            process = self._known.setdefault(pid, psutil.Process(pid))
            with process.oneshot():
                return ProcessReport(
                    name=name,
                    pid=pid,
                    rss_bytes=process.memory_info().rss,
                    cpu_percent=round(process.cpu_percent(None), 1),
                )
        except psutil.Error:
            # A worker that just died is not there; its part says so.
            self._known.pop(pid, None)
            return None
