"""`rules`, `scenes` and `schedules`. Rule and scene files belong to the first tenant."""

from __future__ import annotations

from typing import Annotated

import msgspec
from pydantic import Field

from gateway.api.bodies import Arguments, Body
from gateway.api.shapes import RuleShape, SceneRunShape, ScheduleShape, rule_shape, run_shape, schedule_shape
from gateway.api.views import Listing, Paging, Resource, cut, listed, request_of, requires, sorted_by
from gateway.core.errors import NotFound
from gateway.core.ids import new_id
from gateway.identity.permissions import Permission
from gateway.rules.model import RuleStatus, SceneRun, SceneStatus, Schedule

_SORT_RUNS = {"started_at": "started_at_ms", "status": "status"}
_SORT_SCHEDULES = {"id": "id", "scene": "scene", "created_at": "created_at_ms"}
_Cron = Annotated[str, Field(min_length=1, max_length=200)]
_Zone = Annotated[str, Field(min_length=1, max_length=64)]
_Scene = Annotated[str, Field(min_length=1, max_length=128)]


class RunBody(Body):
    """Arguments of a scene run."""

    args: Arguments = Field(default_factory=dict)


class NewScheduleBody(Body):
    """A schedule to make."""

    scene: _Scene
    cron: _Cron
    timezone: _Zone = "UTC"
    args: Arguments = Field(default_factory=dict)
    enabled: bool = True


class ScheduleBody(Body):
    """What to change of a schedule; what is absent stays."""

    scene: _Scene | None = None
    cron: _Cron | None = None
    timezone: _Zone | None = None
    args: Arguments | None = None
    enabled: bool | None = None


class RulesView(Resource):
    """`/rules`."""

    @requires(Permission.RULE_LIST)
    async def get(self, paging: Paging) -> Listing[RuleShape]:
        """List rule files with their state and counters."""
        _ = self.operator_scope
        found = sorted_by(self.parts.rules.statuses(), paging, {"name": "name", "state": "state"})
        return listed(cut(found, paging), rule_shape)


class RuleView(Resource):
    """`/rules/{name}`."""

    @requires(Permission.RULE_LIST)
    async def get(self, name: str, /) -> RuleShape:
        """Show a rule."""
        return rule_shape(_rule(self, name))


class RuleRestartView(Resource):
    """`/rules/{name}/restart`."""

    @requires(Permission.RULE_MANAGE)
    async def post(self, name: str, /) -> RuleShape:
        """Load a rule afresh; a stopped one runs again."""
        _rule(self, name)
        restarted = await self.parts.rules.restart_rule(name)
        await self.parts.audit.record(self.scope, "rule.restart", "rule", name)
        return rule_shape(restarted)


class ScenesView(Resource):
    """`/scenes`."""

    @requires(Permission.SCENE_LIST)
    async def get(self, paging: Paging) -> Listing[SceneStatus]:
        """List scene files."""
        _ = self.operator_scope
        found = sorted_by(self.parts.scenes.scenes(), paging, {"name": "name", "state": "state"})
        return listed(cut(found, paging), lambda status: status)


class SceneView(Resource):
    """`/scenes/{scene}`."""

    @requires(Permission.SCENE_LIST)
    async def get(self, scene: str, /) -> SceneStatus:
        """Show a scene."""
        return _scene(self, scene)


class SceneRunsView(Resource):
    """`/scenes/{scene}/runs`."""

    @requires(Permission.SCENE_LIST)
    async def get(self, scene: str, /, paging: Paging) -> Listing[SceneRunShape]:
        """List a scene's runs, newest first; those of a scene whose file is gone stay."""
        page = await self.parts.scene_runs.list_runs(self.scope, scene, request_of(paging, _SORT_RUNS))
        if page.total == 0:
            _scene(self, scene)
        return listed(page, run_shape)

    @requires(Permission.SCENE_MANAGE, status=201)
    async def post(self, scene: str, /, body: RunBody) -> SceneRunShape:
        """Start a scene; answers at once, the run goes on."""
        _scene(self, scene)
        run = await self.parts.scenes.run(self.scope, scene, body.args)
        await self.parts.audit.record(self.scope, "scene.run", "scene_run", run.id, {"scene": scene, "args": body.args})
        return run_shape(run)


class SceneRunView(Resource):
    """`/scenes/{scene}/runs/{run_id}`."""

    @requires(Permission.SCENE_LIST)
    async def get(self, scene: str, run_id: str, /) -> SceneRunShape:
        """Show a run with its log."""
        return run_shape(await _run(self, scene, run_id))


class SceneRunCancelView(Resource):
    """`/scenes/{scene}/runs/{run_id}/cancel`."""

    @requires(Permission.SCENE_MANAGE)
    async def post(self, scene: str, run_id: str, /) -> SceneRunShape:
        """Stop a run where it stands."""
        await _run(self, scene, run_id)
        run = await self.parts.scenes.cancel(self.scope, run_id)
        await self.parts.audit.record(self.scope, "scene.cancel", "scene_run", run_id, {"scene": scene})
        return run_shape(run)


class SchedulesView(Resource):
    """`/schedules`."""

    @requires(Permission.SCHEDULE_LIST)
    async def get(self, paging: Paging) -> Listing[ScheduleShape]:
        """List schedules with their next runs."""
        found = sorted_by(await self.parts.schedules.list(self.scope), paging, _SORT_SCHEDULES)
        return listed(cut(found, paging), schedule_shape)

    @requires(Permission.SCHEDULE_MANAGE, status=201)
    async def post(self, body: NewScheduleBody) -> ScheduleShape:
        """Make a schedule."""
        schedule = Schedule(
            id=new_id(self.parts.clock),
            tenant_id=self.scope.tenant_id,
            scene=body.scene,
            cron=body.cron,
            timezone=body.timezone,
            args=body.args,
            enabled=body.enabled,
            created_at_ms=self.parts.clock.now_ms(),
        )
        return schedule_shape(await self.parts.schedules.create(self.scope, schedule))


class ScheduleView(Resource):
    """`/schedules/{schedule_id}`."""

    @requires(Permission.SCHEDULE_LIST)
    async def get(self, schedule_id: str, /) -> ScheduleShape:
        """Show a schedule."""
        return schedule_shape(await _schedule(self, schedule_id))

    @requires(Permission.SCHEDULE_MANAGE)
    async def patch(self, schedule_id: str, /, body: ScheduleBody) -> ScheduleShape:
        """Change a schedule."""
        changes = body.model_dump(exclude_none=True)
        schedule = msgspec.structs.replace(await _schedule(self, schedule_id), **changes)
        return schedule_shape(await self.parts.schedules.update(self.scope, schedule))

    @requires(Permission.SCHEDULE_MANAGE)
    async def delete(self, schedule_id: str, /) -> None:
        """Delete a schedule; runs it started go on."""
        await self.parts.schedules.delete(self.scope, schedule_id)


def _rule(view: Resource, name: str) -> RuleStatus:
    _ = view.operator_scope
    for status in view.parts.rules.statuses():
        if status.name == name:
            return status
    raise NotFound(f"there is no rule {name}")


def _scene(view: Resource, name: str) -> SceneStatus:
    _ = view.operator_scope
    for status in view.parts.scenes.scenes():
        if status.name == name:
            return status
    raise NotFound(f"there is no scene {name}")


async def _run(view: Resource, scene: str, run_id: str) -> SceneRun:
    run = await view.parts.scene_runs.get_run(view.scope, run_id)
    if run.scene != scene:
        raise NotFound(f"the scene has no run {run_id}")
    return run


async def _schedule(view: Resource, schedule_id: str) -> Schedule:
    for schedule in await view.parts.schedules.list(view.scope):
        if schedule.id == schedule_id:
            return schedule
    raise NotFound(f"there is no schedule {schedule_id}")
