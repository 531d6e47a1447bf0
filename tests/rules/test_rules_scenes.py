"""Scenes with their real worker: a run goes on after waits and commands, and never ends silently."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest
from fakes.memory import MemoryScenes
from fakes.rules_fakes import QUICK, RecordingEffects, until

from gateway.core.clock import SystemClock
from gateway.core.errors import Conflict, NotFound, NotReady, Rejected, StorageFailed
from gateway.core.scope import Scope, system_scope
from gateway.core.tasks import Supervisor
from gateway.rules.config import SandboxLimits, ScenesConfig
from gateway.rules.model import SceneRun
from gateway.rules.sandbox import SceneSandbox
from gateway.rules.scenes import SceneHost

SCOPE = system_scope("ann")
ENDLESS = SandboxLimits(budget=10**12, cpu_ms=10**6, kill_after_ms=200)


class SceneRoom:
    def __init__(self, folder: Path, rows: MemoryScenes | None = None, **settings: Any) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.supervisor = Supervisor(self.clock)
        self.effects = RecordingEffects()
        self.rows = rows or MemoryScenes()
        config = ScenesConfig(directory=str(folder), **({"poll_s": 0.05, "limits": QUICK} | settings))
        self.host = SceneHost(config, self.supervisor, self.clock, self.effects, self.rows)

    def write(self, name: str, body: str, top: str = "") -> Path:
        path = self.folder / f"{name}.lua"
        path.write_text(f"{top}\nfunction run(args)\n{body}\nend")
        return path

    async def __aenter__(self) -> Self:
        await self.host.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.host.stop()
        await self.supervisor.stop()

    async def run(self, scene: str, **args: Any) -> str:
        return (await self.host.run(SCOPE, scene, args)).id

    async def row(self, run: str) -> SceneRun:
        return await self.rows.get_run(SCOPE, run)

    async def ended(self, run: str) -> SceneRun:
        await until(lambda: self.rows.runs["default", run].status not in {"running", "sleeping"})
        return await self.row(run)

    def processes(self) -> int:
        return self.host.processes()["scenes"]


async def test_a_scene_waits_commands_and_logs(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.effects.answers["locate"] = {"id": "1", "status": "acknowledged", "error": "", "result": {"lat": 1.5}}
    room.write(
        "tour",
        """log("begin", args.device, args.list[2])
        local answer = command(args.device, "locate", {deep = {1, 2}}, 3)
        log(answer.status, answer.result.lat, answer.error == "")
        wait(0.01)
        log(now() > 1700000000000)""",
        top='scene{description = "a tour"}',
    )
    async with room:
        status = room.host.scenes()[0]
        assert (status.name, status.state, status.description) == ("tour", "ready", "a tour")
        run = await room.ended(await room.run("tour", device="d1", list=[1, 2]))
    assert (run.status, run.error) == ("succeeded", "")
    assert run.log == ["begin d1 2", "acknowledged 1.5 true", "true"]
    assert run.started_by == "ann"
    assert run.ended_at_ms is not None
    assert room.effects.commands == [("d1", "locate", {"deep": [1, 2]}, "scene:tour", 3.0)]


async def test_a_sleeping_run_shows_when_it_wakes_and_can_be_cancelled(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.write("nap", "wait(3600)")
    async with room:
        run = await room.run("nap")
        await until(lambda: room.rows.runs["default", run].status == "sleeping")
        row = await room.row(run)
        assert row.wakes_at_ms is not None
        assert row.wakes_at_ms > row.started_at_ms + 3_500_000
        assert room.host.scenes()[0].running == 1
        cancelled = await room.host.cancel(SCOPE, run)
        assert (cancelled.status, cancelled.error) == ("cancelled", "cancelled by ann")
        assert (await room.row(run)).status == "cancelled"
        with pytest.raises(Conflict):
            await room.host.cancel(SCOPE, run)
        with pytest.raises(NotFound):
            await room.host.cancel(SCOPE, "unknown")


async def test_another_tenant_sees_no_scene_and_no_run(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.write("nap", "wait(3600)")
    stranger = Scope("other", "eve", frozenset({"*"}))
    async with room:
        run = await room.run("nap")
        with pytest.raises(NotFound):
            await room.host.run(stranger, "nap", {})
        with pytest.raises(NotFound):
            await room.host.cancel(stranger, run)


FAILURES = {
    "an error": ("local x = nil + 1", "case.lua:3: attempt to perform arithmetic"),
    "an error that is a table": ("error({})", "error object is a table"),
    "an endless loop": ("while true do end", "case.lua:3: instruction budget spent"),
    "an endless loop after a wait": ("wait(0) while true do pcall(function() while true do end end) end", "spent"),
    "a memory bomb": ("local s = 'x' while true do s = s .. s end", "not enough memory"),
    "a yield of its own": ("coroutine.yield()", "cannot yield"),
    "a wait in a coroutine": ("coroutine.wrap(function() wait(1) end)()", "coroutine of your own"),
    "a wait that is too long": ("wait(1e9)", "wait takes seconds"),
    "a wait of nothing": ("wait(0/0)", "wait takes seconds"),
    "a command to nobody": ("command()", "command takes a device"),
    "a command with a function": ("command('d', 'n', {f = print})", "a function cannot be kept"),
    "a command that is too large": ("command('d', 'n', {s = ('x'):rep(100000)})", "too large"),
}


@pytest.mark.parametrize(("body", "expected"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_run_that_goes_wrong_fails_with_the_reason(tmp_path: Path, body: str, expected: str) -> None:
    room = SceneRoom(tmp_path)
    room.write("case", body)
    room.write("other", "wait(0) log('fine')")
    async with room:
        run = await room.ended(await room.run("case"))
        assert run.status == "failed"
        assert expected in run.error
        assert (await room.ended(await room.run("other"))).status == "succeeded"


async def test_a_scene_that_escapes_the_budget_is_killed_and_every_run_of_its_worker_says_so(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path, limits=ENDLESS)
    room.write("bad", "while true do end")
    room.write("nap", "wait(3600)")
    async with room:
        sleeping = await room.run("nap")
        await until(lambda: room.rows.runs["default", sleeping].status == "sleeping")
        guilty = await room.ended(await room.run("bad"))
        assert guilty.status == "failed"
        assert "did not yield" in guilty.error
        other = await room.ended(sleeping)
        assert (other.status, other.error) == ("failed", "worker restarted")
        again = await room.run("nap")
        await until(lambda: room.rows.runs["default", again].status == "sleeping")
    assert (await room.row(again)).error == "gateway restarted"


async def test_a_worker_killed_from_outside_fails_its_runs_and_new_ones_start(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.write("nap", "wait(args.s)")
    async with room:
        short, long = await room.run("nap", s=2), await room.run("nap", s=3600)
        await until(
            lambda: (
                room.rows.runs["default", short].status == "sleeping"
                and room.rows.runs["default", long].status == "sleeping"
            )
        )
        os.kill(room.processes(), signal.SIGKILL)
        for run in (short, long):
            row = await room.ended(run)
            assert (row.status, row.error) == ("failed", "worker restarted")
        assert (await room.ended(await room.run("nap", s=0))).status == "succeeded"


async def test_runs_that_a_crash_left_open_are_failed_at_the_start(tmp_path: Path) -> None:
    rows = MemoryScenes()
    await rows.save_run(SceneRun(id="old", tenant_id="default", scene="nap", status="sleeping"))
    async with SceneRoom(tmp_path, rows) as room:
        row = await room.row("old")
        assert (row.status, row.error) == ("failed", "gateway restarted")


async def test_a_run_keeps_the_version_it_started_with(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.write("s", "wait(0.3) log('old')")
    async with room:
        old = await room.run("s")
        room.write("s", "log('new')")
        await asyncio.sleep(0.15)
        new = await room.run("s")
        assert (await room.ended(new)).log == ["new"]
        assert (await room.ended(old)).log == ["old"]


async def test_a_broken_scene_says_why_and_its_old_version_goes_on(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.write("s", "log('old')")
    (tmp_path / "never.lua").write_text("local x = 1")
    async with room:
        states = {status.name: status for status in room.host.scenes()}
        assert states["never"].state == "broken"
        assert "no function run" in states["never"].last_error
        with pytest.raises(Conflict, match="no function run"):
            await room.run("never")
        room.write("s", "oops oops")
        await until(lambda: {status.name: status.state for status in room.host.scenes()}["s"] == "broken")
        assert (await room.ended(await room.run("s"))).log == ["old"]
        (tmp_path / "s.lua").unlink()
        await until(lambda: len(room.host.scenes()) == 1)
        with pytest.raises(NotFound):
            await room.run("s")


async def test_too_many_runs_and_wrong_arguments_are_refused(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path, runs=2, args_bytes=1000)
    room.write("nap", "wait(3600)")
    async with room:
        with pytest.raises(Rejected, match="larger than"):
            await room.run("nap", text="x" * 2000)
        with pytest.raises(Rejected):
            await room.run("nap", odd=object())
        await room.run("nap")
        await room.run("nap")
        with pytest.raises(NotReady):
            await room.run("nap")


async def test_a_run_that_cannot_be_saved_does_not_start(tmp_path: Path) -> None:
    class Full(MemoryScenes):
        async def save_run(self, run: SceneRun) -> None:
            raise StorageFailed("disk full")

    room = SceneRoom(tmp_path, Full())
    room.write("s", "command('d', 'n')")
    async with room:
        with pytest.raises(StorageFailed):
            await room.run("s")
        await asyncio.sleep(0.05)
    assert room.effects.commands == []


@pytest.mark.parametrize("refused", [True, False])
async def test_a_run_that_commands_without_end_and_never_pauses_is_ended(tmp_path: Path, refused: bool) -> None:
    room = SceneRoom(tmp_path)
    if refused:
        room.effects.answers["n"] = {"id": None, "status": "failed", "error": "no such function"}
    room.write("bad", "while true do command('d', 'n') end")
    room.write("nap", "wait(3600)")
    async with room:
        nap = await room.run("nap")
        run = await room.ended(await room.run("bad"))
        assert (run.status, "does not pause" in run.error) == ("failed", True), run.error
        assert (await room.row(nap)).status == "sleeping"
        assert room.host.processes(), "the worker lives, and so does every other run"


async def test_two_hundred_commands_in_a_row_are_no_loop(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.write("all", "for i = 1, 200 do command('d' .. i, 'n') end")
    async with room:
        assert (await room.ended(await room.run("all"))).status == "succeeded"
    assert len(room.effects.commands) == 200


async def test_short_waits_are_not_saved(tmp_path: Path) -> None:
    saved: list[str] = []

    class Counting(MemoryScenes):
        async def save_run(self, run: SceneRun) -> None:
            saved.append(run.status)
            await super().save_run(run)

    room = SceneRoom(tmp_path, Counting())
    room.write("s", "for i = 1, 5 do wait(0) end wait(1)")
    async with room:
        await room.ended(await room.run("s"))
    assert saved == ["running", "sleeping", "succeeded"]


@pytest.mark.parametrize(("asked", "expected"), [("0", 0.1), ("0.05", 0.1), ("0.1", 0.1), ("7", 7.0)])
def test_a_wait_is_never_shorter_than_a_tenth_of_a_second(asked: str, expected: float) -> None:
    sandbox = SceneSandbox(ScenesConfig(limits=QUICK))
    assert sandbox.load(f"function run() wait({asked}) end".encode(), "s.lua")[0] == ""
    assert sandbox.begin("r", 0, b"\x80").seconds == expected


async def test_a_cancelled_run_does_not_wait_for_its_command(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.effects.hold.clear()
    room.write("s", "command('d', 'n')")
    async with room:
        run = await room.run("s")
        await until(lambda: room.effects.commands)
        assert (await room.host.cancel(SCOPE, run)).status == "cancelled"
        room.effects.hold.set()


async def test_the_log_of_a_run_is_bounded(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path, run_log_lines=30)
    room.write("s", "for i = 1, 10 do for j = 1, 1000 do log(i, ('x'):rep(1000)) end wait(0) end")
    async with room:
        run = await room.ended(await room.run("s"))
    assert run.status == "succeeded"
    assert len(run.log) == 30
    assert all(len(line) <= QUICK.log_line_bytes + 3 for line in run.log)
    assert run.log[-1].startswith("10 ")


async def test_a_thousand_sleeping_runs_need_no_thread(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.write("s", "wait(args.s)")
    async with room:
        runs = [await room.run("s", s=0.2) for _ in range(500)]
        assert psutil.Process(room.processes()).num_threads() == 1
        for run in runs:
            assert (await room.ended(run)).status == "succeeded"


async def test_the_shipped_scene_makes_a_terminal_report_more_often_and_then_as_before(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "scripts" / "scenes" / "locate_then_report.lua"
    (tmp_path / source.name).write_text(source.read_text())
    room = SceneRoom(tmp_path)
    room.effects.answers["query_parameters"] = {
        "id": "2",
        "status": "acknowledged",
        "error": "",
        "result": {"parameters": {"0x0029": 45}},
    }
    async with room:
        run = await room.ended(await room.run("locate_then_report", device="013912345678", seconds=0.05, interval_s=5))
    assert (run.status, run.error) == ("succeeded", "")
    assert [(name, args) for _, name, args, _, _ in room.effects.commands] == [
        ("locate", {}),
        ("query_parameters", {"ids": ["0x0029"]}),
        ("set_parameters", {"parameters": {"0x0029": 5}}),
        ("set_parameters", {"parameters": {"0x0029": 45}}),
    ]


async def test_the_shipped_scene_fails_when_the_terminal_does_not_answer(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "scripts" / "scenes" / "locate_then_report.lua"
    (tmp_path / source.name).write_text(source.read_text())
    room = SceneRoom(tmp_path)
    room.effects.answers["locate"] = {"id": "1", "status": "timeout", "error": "no answer within 15 s"}
    async with room:
        run = await room.ended(await room.run("locate_then_report", device="d"))
    assert run.status == "failed"
    assert run.error == "locate: timeout no answer within 15 s"
