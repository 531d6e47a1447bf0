"""Schedules on a clock that the tests own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fakes.memory import MemoryScenes
from fakes.rules_fakes import RecordingEffects, SetClock, until

from gateway.core.errors import Conflict, NotFound, Rejected
from gateway.core.scope import Scope, system_scope
from gateway.core.tasks import Supervisor
from gateway.rules.config import ScenesConfig
from gateway.rules.model import SceneRun, Schedule
from gateway.rules.scenes import SceneHost
from gateway.rules.schedule import Scheduler, next_run_ms

SCOPE = system_scope("ann")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def ms(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


class StartedScenes(SceneHost):
    """Knows the scenes `lights` and `blinds`, and only notes what is started."""

    def __init__(self, clock: SetClock, rows: MemoryScenes, **settings: Any) -> None:
        super().__init__(
            ScenesConfig(directory="/nowhere", **settings), Supervisor(clock), clock, RecordingEffects(), rows
        )
        self.begun: list[tuple[str, int]] = []
        self.clock = clock

    def require(self, scope: Scope, scene: str) -> None:
        if scene not in {"lights", "blinds"}:
            raise NotFound(f"no scene {scene}")

    async def run(self, scope: Scope, scene: str, args: dict[str, Any]) -> SceneRun:
        self.require(scope, scene)
        self.begun.append((f"{scene} by {scope.actor}", self.clock.at_ms))
        return SceneRun(id="r", tenant_id=scope.tenant_id, scene=scene)


class Room:
    def __init__(self, now: str, **settings: Any) -> None:
        self.clock = SetClock(ms(now))
        self.rows = MemoryScenes()
        self.scenes = StartedScenes(self.clock, self.rows, **settings)
        self.supervisor = Supervisor(self.clock)
        self.scheduler = Scheduler(self.scenes, self.rows, self.clock, self.supervisor)

    async def add(self, cron: str, **fields: Any) -> Schedule:
        given = {"id": "s1", "tenant_id": "default", "scene": "lights", "cron": cron} | fields
        return await self.scheduler.create(SCOPE, Schedule(**given))

    async def at(self, now: str) -> int:
        """Set the clock, look, and tell how many scenes were started so far."""
        self.clock.at_ms = ms(now)
        await self.scheduler.look()
        return len(self.scenes.begun)

    async def restarted(self) -> None:
        self.scheduler = Scheduler(self.scenes, self.rows, self.clock, self.supervisor)
        await self.scheduler.start()
        await self.scheduler.stop()


async def test_a_schedule_starts_its_scene_when_due_and_shows_the_next_time() -> None:
    room = Room("2026-11-21T08:00")
    made = await room.add("30 8 * * *")
    assert made.next_run_at_ms == ms("2026-11-21T08:30")
    assert await room.at("2026-11-21T08:29:59") == 0
    assert await room.at("2026-11-21T08:30") == 1
    assert await room.at("2026-11-21T08:30:01") == 1
    assert room.scenes.begun[0][0] == "lights by schedule:s1"
    shown = (await room.scheduler.list(SCOPE))[0]
    assert (shown.last_run_at_ms, shown.next_run_at_ms) == (ms("2026-11-21T08:30"), ms("2026-11-22T08:30"))
    assert (await room.rows.all_schedules())[0].last_run_at_ms == ms("2026-11-21T08:30")
    assert [(entry.action, entry.entity) for entry in room.rows.store.audit] == [("create", "schedule")]


async def test_a_jump_forward_runs_a_missed_schedule_once() -> None:
    room = Room("2026-11-21T08:00")
    await room.add("*/5 * * * *")
    assert await room.at("2026-11-21T20:02") == 1
    assert await room.at("2026-11-21T20:04") == 1
    assert await room.at("2026-11-21T20:05") == 2


async def test_a_jump_back_runs_nothing_twice() -> None:
    room = Room("2026-11-21T08:00")
    await room.add("0 * * * *")
    assert await room.at("2026-11-21T09:00") == 1
    assert await room.at("2026-11-21T08:30") == 1
    assert await room.at("2026-11-21T09:00") == 1
    assert await room.at("2026-11-21T09:59") == 1
    assert await room.at("2026-11-21T10:00") == 2


async def test_a_clock_that_was_years_ahead_does_not_stop_a_schedule_for_years() -> None:
    room = Room("2026-11-21T08:00")
    await room.add("0 * * * *")
    assert await room.at("2040-01-01T00:00") == 1
    assert await room.at("2026-11-21T08:10") == 1
    assert await room.at("2026-11-21T09:00") == 2


async def test_a_schedule_missed_during_a_short_stop_runs_at_the_start_and_one_missed_long_ago_does_not() -> None:
    room = Room("2026-11-21T08:00", catch_up_s=300.0)
    await room.add("30 8 * * *")
    room.clock.at_ms = ms("2026-11-21T08:31")
    await room.restarted()
    assert await room.at("2026-11-21T08:31") == 1
    room.clock.at_ms = ms("2026-11-22T09:00")
    await room.restarted()
    assert await room.at("2026-11-22T09:00") == 1
    assert await room.at("2026-11-23T08:30") == 2


async def test_a_restart_in_the_minute_of_a_run_does_not_run_it_twice() -> None:
    room = Room("2026-11-21T08:00")
    await room.add("30 8 * * *")
    assert await room.at("2026-11-21T08:30:05") == 1
    await room.restarted()
    assert await room.at("2026-11-21T08:30:10") == 1


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("30 8 * * *", "Asia/Shanghai", "2026-11-21T00:00", "2026-11-21T00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00"),  # 02:30 does not exist: the gap's end
        ("0 8 * * 1-5", "UTC", "2026-11-21T00:00", "2026-11-23T08:00"),
        ("0 0 29 2 *", "UTC", "2026-11-21T00:00", "2028-02-29T00:00"),
    ],
)
def test_the_next_run_is_in_the_schedules_own_time_zone(cron: str, zone: str, after: str, expected: str) -> None:
    assert next_run_ms(cron, zone, ms(after)) == ms(expected)


def test_a_time_that_comes_twice_in_autumn_runs_once() -> None:
    first = next_run_ms("30 2 * * *", "Europe/Berlin", ms("2026-10-24T12:00"))
    second = next_run_ms("30 2 * * *", "Europe/Berlin", first)
    assert second - first >= 23 * HOUR_MS
    assert datetime.fromtimestamp(second / 1000, UTC).date().day == 26


@pytest.mark.parametrize(
    "cron", ["", "x", "* * * *", "61 * * * *", "0 0 30 2 *", "@daily", "* * * * * * *", "\x00", "9" * 999]
)
async def test_a_wrong_cron_expression_is_refused_with_the_reason(cron: str) -> None:
    with pytest.raises(Rejected, match=r"^cron: "):
        await Room("2026-11-21T08:00").add(cron)


@pytest.mark.parametrize(
    ("cron", "advice"),
    [
        ("0 0 30 2 *", "cron: '0 0 30 2 *' never comes: its months have no such day"),
        ("0 0 0 31 2,4 *", "cron: '0 0 0 31 2,4 *' never comes: its months have no such day"),
        ("0 0 32 2 *", "cron: bad day-of-month in '0 0 32 2 *'"),
        ("0 0 1 13 *", "cron: bad month in '0 0 1 13 *'"),
        ("61 * * * *", "cron: bad minute in '61 * * * *'"),
        ("@daily", "cron: '@daily' is a shorthand, which is not taken; write 0 0 * * *"),
        ("@reboot", "cron: '@reboot' is a shorthand, which is not taken"),
        ("* * * *", "cron: '* * * *' has not five fields, as 30 8 * * 1-5"),
    ],
)
def test_a_wrong_cron_expression_is_answered_with_what_is_wrong_with_it(cron: str, advice: str) -> None:
    with pytest.raises(Rejected) as refused:
        next_run_ms(cron, "UTC", 0)
    assert str(refused.value) == advice


@pytest.mark.parametrize(
    "zone",
    [
        "localtime",
        "posixrules",
        "Factory",
        "right/UTC",
        "posix/UTC",
        "Mars/Olympus",
        "",
        "../../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "x" * 5000,
    ],
)
async def test_a_wrong_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(Rejected, match=r"^timezone: "):
        await Room("2026-11-21T08:00").add("* * * * *", timezone=zone)


async def test_schedules_are_changed_and_deleted() -> None:
    room = Room("2026-11-21T08:00", schedules=2)
    made = await room.add("0 * * * *")
    with pytest.raises(Conflict):
        await room.add("0 * * * *")
    await room.add("0 * * * *", id="s2")
    with pytest.raises(Conflict, match="delete one first"):
        await room.add("0 * * * *", id="s3")
    await room.scheduler.delete(SCOPE, "s2")
    with pytest.raises(Rejected, match=r"^scene: "):
        await room.add("0 * * * *", id="s3", scene="unknown")
    made.enabled = False
    changed = await room.scheduler.update(SCOPE, made)
    assert changed.next_run_at_ms is None
    assert await room.at("2026-11-21T09:00") == 0
    made.enabled, made.cron, made.scene = True, "30 * * * *", "blinds"
    assert (await room.scheduler.update(SCOPE, made)).next_run_at_ms == ms("2026-11-21T09:30")
    assert await room.at("2026-11-21T09:30") == 1
    assert room.scenes.begun[0][0] == "blinds by schedule:s1"
    await room.scheduler.delete(SCOPE, "s1")
    assert await room.scheduler.list(SCOPE) == []
    assert await room.rows.all_schedules() == []
    for change in (room.scheduler.update(SCOPE, made), room.scheduler.delete(SCOPE, "s1")):
        with pytest.raises(NotFound):
            await change


async def test_another_tenant_neither_sees_nor_changes_a_schedule() -> None:
    room = Room("2026-11-21T08:00")
    made = await room.add("0 * * * *")
    stranger = Scope("other", "eve", frozenset({"*"}))
    assert await room.scheduler.list(stranger) == []
    for change in (room.scheduler.update(stranger, made), room.scheduler.delete(stranger, "s1")):
        with pytest.raises(NotFound):
            await change


async def test_a_schedule_whose_scene_is_gone_goes_on_and_harms_no_other() -> None:
    room = Room("2026-11-21T08:00")
    await room.add("0 * * * *")
    room.rows.schedules[("default", "s1")].scene = "lights"
    gone = await room.add("0 * * * *", id="s0", scene="blinds")
    room.scheduler._schedules["default", gone.id].scene = "gone"
    assert await room.at("2026-11-21T09:00") == 1


async def test_the_running_scheduler_follows_the_clock_port(tmp_path: Path) -> None:
    room = Room("2026-11-21T08:00")
    await room.scheduler.start()
    await room.add("0 9 * * *")
    room.clock.at_ms = ms("2026-11-21T09:00:00")
    await until(lambda: room.scenes.begun)
    await room.scheduler.stop()
    await room.supervisor.stop()
