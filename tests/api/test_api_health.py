import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from gateway.api.health import HealthSampler
from gateway.core.clock import SystemClock
from gateway.core.tasks import PartHealth, PartState


def sampler(
    data_dir: Path,
    parts: dict[str, PartHealth] | None = None,
    database: str = "ok",
    workers: dict[str, int] | None = None,
) -> HealthSampler:
    async def ask() -> str:
        return database

    return HealthSampler(
        clock=SystemClock(),
        version="0.1.0",
        data_dir=data_dir,
        parts=lambda: parts or {},
        database=ask,
        processes=lambda: workers or {},
        wasm_path="fast",
    )


async def test_the_report_measures_this_process(tmp_path: Path) -> None:
    report = await sampler(tmp_path).report()
    assert report.processes[0].pid == os.getpid()
    assert report.memory_rss_bytes > 10_000_000
    assert report.disk_free_bytes > 0
    assert report.uptime_s >= 0
    assert (report.version, report.wasm) == ("0.1.0", {"path": "fast"})


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (PartState.RUNNING, "ok"),
        (PartState.STOPPED, "ok"),
        (PartState.RESTARTING, "degraded"),
        (PartState.FAILED, "degraded"),
    ],
)
async def test_a_part_that_is_ill_degrades_the_whole(tmp_path: Path, state: PartState, status: str) -> None:
    parts = {"rules": PartHealth(state, restarts=2, detail="OSError: no", since="now")}
    report = await sampler(tmp_path, parts).report()
    assert report.status == status
    assert (report.parts["rules"].state, report.parts["rules"].restarts) == (state, 2)


async def test_an_ill_database_or_a_missing_disk_degrades_the_whole(tmp_path: Path) -> None:
    assert (await sampler(tmp_path, database="read-only").report()).status == "degraded"
    gone = await sampler(tmp_path / "gone").report()
    assert (gone.status, gone.disk_free_bytes) == ("degraded", 0)


async def test_workers_are_measured_and_a_dead_one_is_left_out(tmp_path: Path) -> None:
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    pulse = sampler(tmp_path, workers={"rules": worker.pid})
    report = await pulse.report()
    assert [process.name for process in report.processes] == ["gateway", "rules"]
    assert report.memory_rss_bytes == sum(process.rss_bytes for process in report.processes)
    await worker.communicate(b"\n")
    assert [process.name for process in (await pulse.report()).processes] == ["gateway"]
    names = {(sample.name, *sample.labels.values()) for sample in pulse.samples()}
    assert ("gateway_process_memory_bytes", "gateway") in names


async def test_a_stall_of_the_loop_shows_as_lag(tmp_path: Path) -> None:
    pulse = sampler(tmp_path)
    probe = asyncio.get_running_loop().create_task(pulse.probe())
    await asyncio.sleep(0.1)
    time.sleep(0.5)  # noqa: ASYNC251  # the stall that is measured
    await asyncio.sleep(0)
    assert (await pulse.report()).loop_lag_ms > 100
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
