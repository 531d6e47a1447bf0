"""`report.run` in scenes, and the shipped scene that makes a day's shift reports."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes.memory import MemoryScenes
from fakes.rules_fakes import QUICK, RecordingEffects, SetClock, until

from gateway.core.scope import system_scope
from gateway.core.tasks import Supervisor
from gateway.rules.config import ScenesConfig
from gateway.rules.model import SceneRun, WantedReport
from gateway.rules.scenes import SceneHost

SHIPPED = Path(__file__).parents[2] / "scripts" / "scenes" / "shift_report.lua"
NOON = int(datetime(2026, 11, 22, 4, 5, tzinfo=UTC).timestamp() * 1000)
"""12:05 in Beijing."""
DAY_MS = 86_400_000
SCOPE = system_scope("ann")


async def ran(folder: Path, source: str, effects: RecordingEffects, **args: Any) -> SceneRun:
    """A scene from its start to its end."""
    (folder / "s.lua").write_text(source)
    clock, rows = SetClock(NOON), MemoryScenes()
    supervisor = Supervisor(clock)
    host = SceneHost(ScenesConfig(directory=str(folder), limits=QUICK), supervisor, clock, effects, rows)
    await host.start()
    try:
        run = await host.run(SCOPE, "s", args)
        await until(lambda: not any(scene.running for scene in host.scenes()))
        return await rows.get_run(SCOPE, run.id)
    finally:
        await host.stop()
        await supervisor.stop()


def body(text: str) -> str:
    return f"function run(args)\n{text}\nend"


async def test_a_scene_makes_a_report_and_goes_on_with_its_summary(tmp_path: Path) -> None:
    effects = RecordingEffects()
    call = "report.run{plugin = 'p', device = 'd', property = 'x', from = 1, to = 2.0, args = {n = 1}}"
    run = await ran(tmp_path, body(f"local r = {call} log(r.id, r.points, r.row_count, r.summary.mean)"), effects)
    assert (run.status, run.log) == ("succeeded", ["r1 2 1 1.5"])
    assert effects.reports == [(WantedReport("p", "d", "x", 1, 2, {"n": 1}), "scene:s")]


async def test_a_report_that_cannot_be_made_is_nil_and_a_text(tmp_path: Path) -> None:
    call = "report.run{plugin = 'missing', device = 'd', property = 'x', from = 1, to = 2}"
    run = await ran(tmp_path, body(f"local r, why = {call} log(r, why)"), RecordingEffects())
    assert (run.status, run.log) == ("succeeded", ["nil no plugin 'missing'"])


async def test_a_summary_too_large_for_a_scene_is_left_out(tmp_path: Path) -> None:
    effects = RecordingEffects()
    effects.summary = {"text": "x" * 70_000}
    call = "report.run{plugin = 'p', device = 'd', property = 'x', from = 1, to = 2}"
    run = await ran(tmp_path, body(f"local r = {call} log(r.id, r.summary)"), effects)
    assert (run.status, run.log) == ("succeeded", ["r1 nil"])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("report.run()", "takes a table"),
        ("report.run{plugin = 'p', device = 'd', property = 'x', from = 1}", "from and to are epoch milliseconds"),
        ("report.run{plugin = 'p', device = 'd', property = 'x', from = 1.5, to = 2}", "epoch milliseconds"),
        ("report.run{plugin = 'p', device = 1, property = 'x', from = 1, to = 2}", "device must be text"),
        ("report.run{plugin = 'p', what = 1}", "unknown field 'what'"),
        ("report.run{plugin = 'p', device = 'd', property = 'x', from = 1, to = 2, args = 1}", "must be a table"),
    ],
)
async def test_misuse_fails_the_run_with_its_line(tmp_path: Path, call: str, error: str) -> None:
    effects = RecordingEffects()
    run = await ran(tmp_path, body(call), effects)
    assert run.status == "failed"
    assert error in run.error
    assert not effects.reports


async def test_the_shipped_scene_reports_on_the_last_whole_day_of_shifts(tmp_path: Path) -> None:
    effects = RecordingEffects()
    run = await ran(
        tmp_path,
        SHIPPED.read_text(),
        effects,
        devices=["press-1", "press-2"],
        property="energy",
        timezone_offset_min=480,
        threshold=5,
    )
    assert run.status == "succeeded", run.error
    assert [wanted.device_id for wanted, _ in effects.reports] == ["press-1", "press-2"]
    wanted = effects.reports[0][0]
    to = int(datetime(2026, 11, 21, 22, 0, tzinfo=UTC).timestamp() * 1000)
    assert (wanted.plugin_id, wanted.property_id, wanted.from_ms, wanted.to_ms) == (
        "shift-report",
        "energy",
        to - DAY_MS,
        to,
    ), "06:00 to 06:00 in Beijing"
    assert wanted.args.keys() == {"timezone_offset_min", "shifts", "threshold"}
    assert wanted.args["shifts"][2] == {"name": "night", "start": "22:00", "end": "06:00"}


async def test_the_shipped_scene_goes_on_after_a_failure_and_says_so(tmp_path: Path) -> None:
    effects = RecordingEffects()
    source = SHIPPED.read_text().replace('"shift-report"', 'device == "bad" and "missing" or "shift-report"')
    run = await ran(tmp_path, source, effects, devices=["bad", "good"], property="p")
    assert (run.status, run.error) == ("failed", "1 of 2 reports failed")
    assert len(effects.reports) == 2


async def test_the_shipped_scene_says_which_argument_is_missing(tmp_path: Path) -> None:
    run = await ran(tmp_path, SHIPPED.read_text(), RecordingEffects(), devices=["d"])
    assert (run.status, run.error) == ("failed", "args.property names what is reported")
