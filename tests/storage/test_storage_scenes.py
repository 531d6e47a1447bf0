"""The contract of SceneRepository, on the database and in memory."""

from __future__ import annotations

import msgspec
import pytest
from fakes.rooms import OTHER, SCOPE, Rooms

from gateway.core.errors import Forbidden, NotFound, Rejected
from gateway.rules.model import SceneRun, Schedule
from gateway.things.ports import PageRequest

RUN = SceneRun(id="r1", tenant_id="default", scene="s", args={"a": [1]}, started_by="ann", started_at_ms=5, log=["x"])
NIGHTLY = Schedule(id="n", tenant_id="default", scene="s", cron="0 3 * * *", timezone="Asia/Shanghai", args={"k": 1})


async def test_a_run_comes_back_as_it_was_saved_and_changes_by_saving_again(rooms: Rooms) -> None:
    await rooms.scenes.save_run(RUN)
    assert await rooms.scenes.get_run(SCOPE, "r1") == RUN
    ended = msgspec.structs.replace(RUN, status="failed", error="boom", ended_at_ms=9, wakes_at_ms=7, log=["x", "y"])
    await rooms.scenes.save_run(ended)
    assert await rooms.scenes.get_run(SCOPE, "r1") == ended


async def test_a_start_after_a_crash_fails_what_was_open_and_nothing_else(rooms: Rooms) -> None:
    for status in ("running", "sleeping", "succeeded", "cancelled"):
        await rooms.scenes.save_run(msgspec.structs.replace(RUN, id=status, status=status, wakes_at_ms=99))
    await rooms.scenes.save_run(msgspec.structs.replace(RUN, tenant_id="other"))
    assert await rooms.scenes.fail_open_runs("gateway restarted", 42) == 3
    assert await rooms.scenes.fail_open_runs("gateway restarted", 43) == 0
    run = await rooms.scenes.get_run(SCOPE, "sleeping")
    assert (run.status, run.error, run.ended_at_ms, run.wakes_at_ms) == ("failed", "gateway restarted", 42, None)
    assert (await rooms.scenes.get_run(SCOPE, "succeeded")).status == "succeeded"
    assert (await rooms.scenes.get_run(OTHER, "r1")).status == "failed"


async def test_runs_are_listed_newest_first_by_scene_and_tenant(rooms: Rooms) -> None:
    for number, scene in enumerate(("s", "t", "s")):
        await rooms.scenes.save_run(msgspec.structs.replace(RUN, id=f"r{number}", scene=scene, started_at_ms=number))
    page = await rooms.scenes.list_runs(SCOPE, "s", PageRequest())
    assert ([run.id for run in page.items], page.total) == (["r2", "r0"], 2)
    assert (await rooms.scenes.list_runs(SCOPE, None, PageRequest())).total == 3
    assert (await rooms.scenes.list_runs(OTHER, None, PageRequest())).total == 0
    with pytest.raises(NotFound):
        await rooms.scenes.get_run(OTHER, "r1")
    with pytest.raises(Rejected):
        await rooms.scenes.list_runs(SCOPE, None, PageRequest(sort="log"))


async def test_schedules_are_saved_replaced_and_deleted_with_audit(rooms: Rooms) -> None:
    await rooms.scenes.save_schedule(SCOPE, NIGHTLY)
    changed = msgspec.structs.replace(NIGHTLY, enabled=False, last_run_at_ms=1, next_run_at_ms=2)
    await rooms.scenes.save_schedule(SCOPE, changed)
    assert await rooms.scenes.all_schedules() == [changed]
    await rooms.scenes.delete_schedule(SCOPE, "n")
    assert await rooms.scenes.all_schedules() == []
    entries = (await rooms.audit.list_audit(SCOPE, PageRequest(sort="seq"), entity="schedule")).items
    assert [entry.action for entry in entries] == ["create", "update", "delete"]


async def test_a_run_of_a_schedule_changes_its_times_only_and_is_no_entry_of_the_audit_log(rooms: Rooms) -> None:
    await rooms.scenes.save_schedule(SCOPE, NIGHTLY)
    await rooms.scenes.save_schedule(OTHER, msgspec.structs.replace(NIGHTLY, tenant_id="other"))
    ran = msgspec.structs.replace(NIGHTLY, scene="not this", last_run_at_ms=1, next_run_at_ms=2)
    await rooms.scenes.note_schedule_run(ran)
    await rooms.scenes.note_schedule_run(msgspec.structs.replace(ran, id="gone"))
    expected = [
        msgspec.structs.replace(NIGHTLY, last_run_at_ms=1, next_run_at_ms=2),
        msgspec.structs.replace(NIGHTLY, tenant_id="other"),
    ]
    assert await rooms.scenes.all_schedules() == expected
    entries = (await rooms.audit.list_audit(SCOPE, PageRequest(sort="seq"))).items
    assert [entry.action for entry in entries] == ["create"]


async def test_another_tenants_schedule_is_out_of_reach(rooms: Rooms) -> None:
    await rooms.scenes.save_schedule(SCOPE, NIGHTLY)
    with pytest.raises(NotFound):
        await rooms.scenes.delete_schedule(OTHER, "n")
    with pytest.raises(Forbidden):
        await rooms.scenes.save_schedule(OTHER, NIGHTLY)
    assert await rooms.scenes.all_schedules() == [NIGHTLY]
