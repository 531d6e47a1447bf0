"""Rows of scene runs and schedules. Knows no Lua and no cron."""

from __future__ import annotations

import sqlalchemy as sa
from typing_extensions import override

from gateway.core.errors import NotFound
from gateway.core.scope import Scope, system_scope
from gateway.rules.model import SceneRepository, SceneRun, Schedule
from gateway.storage.database import Database
from gateway.storage.rows import Sorts, from_row, owned_row, page_of, to_row, upsert
from gateway.storage.tables import scene_run, schedule
from gateway.things.ports import Page, PageRequest

_SORTS = Sorts("-started_at_ms", scene_run.c.id, scene_run.c.started_at_ms, scene_run.c.scene, scene_run.c.status)
_OPEN = ("running", "sleeping")


class SqlSceneRepository(SceneRepository):
    """Scene runs and schedules in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def save_run(self, run: SceneRun) -> None:
        async with self._database.write(system_scope(tenant_id=run.tenant_id)) as transaction:
            await transaction.execute(upsert(scene_run, to_row(run)))

    @override
    async def fail_open_runs(self, error: str, at_ms: int) -> int:
        ended = {"status": "failed", "error": error, "ended_at_ms": at_ms, "wakes_at_ms": None}
        async with self._database.write(system_scope()) as transaction:
            failed = await transaction.execute(sa.update(scene_run).where(scene_run.c.status.in_(_OPEN)).values(ended))
            return failed.rowcount

    @override
    async def get_run(self, scope: Scope, run_id: str) -> SceneRun:
        query = sa.select(scene_run).where(scene_run.c.tenant_id == scope.tenant_id, scene_run.c.id == run_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        if row is None:
            raise NotFound(f"no scene run {run_id}")
        return from_row(row, SceneRun)

    @override
    async def list_runs(self, scope: Scope, scene: str | None, page: PageRequest) -> Page[SceneRun]:
        query = sa.select(scene_run).where(scene_run.c.tenant_id == scope.tenant_id)
        if scene is not None:
            query = query.where(scene_run.c.scene == scene)
        order = _SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, SceneRun))

    @override
    async def all_schedules(self) -> list[Schedule]:
        query = sa.select(schedule).order_by(schedule.c.tenant_id, schedule.c.id)
        async with self._database.read() as connection:
            return [from_row(row, Schedule) for row in (await connection.execute(query)).mappings()]

    @override
    async def save_schedule(self, scope: Scope, schedule: Schedule) -> None:
        row = owned_row(scope, schedule)
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one_schedule(scope, schedule.id))
            await transaction.execute(upsert(_schedules, row))
            verb = "create" if before is None else "update"
            await transaction.audit(verb, "schedule", schedule.id, before, row)

    @override
    async def note_schedule_run(self, schedule: Schedule) -> None:
        times = {"last_run_at_ms": schedule.last_run_at_ms, "next_run_at_ms": schedule.next_run_at_ms}
        one = (_schedules.c.tenant_id == schedule.tenant_id, _schedules.c.id == schedule.id)
        async with self._database.write(system_scope(tenant_id=schedule.tenant_id)) as transaction:
            await transaction.execute(sa.update(_schedules).where(*one).values(times))

    @override
    async def delete_schedule(self, scope: Scope, schedule_id: str) -> None:
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one_schedule(scope, schedule_id))
            if before is None:
                raise NotFound(f"no schedule {schedule_id}")
            await transaction.execute(
                sa.delete(_schedules).where(_schedules.c.tenant_id == scope.tenant_id, _schedules.c.id == schedule_id)
            )
            await transaction.audit("delete", "schedule", schedule_id, before, None)


_schedules = schedule


def _one_schedule(scope: Scope, schedule_id: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(_schedules).where(_schedules.c.tenant_id == scope.tenant_id, _schedules.c.id == schedule_id)
