"""Schedules: scenes started by cron expressions in time zones. The clock port is the only time it knows.

A schedule that was missed because the clock jumped forward runs once; one that ran does not run again because the clock
jumped back. Daylight saving follows cronsim: a time that does not exist runs when the gap ends, one that exists twice
runs once unless the expression names every hour.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import msgspec
import structlog
from cronsim import CronSim, CronSimError

from gateway.core.clock import Clock
from gateway.core.errors import Conflict, GatewayError, NotFound, Rejected
from gateway.core.log import safe_text
from gateway.core.scope import Scope, system_scope
from gateway.core.tasks import Supervisor
from gateway.rules.model import SceneRepository, Schedule
from gateway.rules.scenes import SceneHost

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
"""Longest sleep between two looks at the clock, so that a clock that was set is noticed."""
_DAY_MS = 86_400_000
_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def next_run_ms(cron: str, timezone: str, after_ms: int) -> int:
    """First time of a cron expression after an instant, both in epoch milliseconds. Raises Rejected."""
    try:
        zone = ZoneInfo(timezone) if timezone in _zones() else None
    except (KeyError, ValueError, OSError):  # gone since the zones were listed
        zone = None
    if zone is None:
        raise Rejected(f"timezone: {safe_text(timezone)} is no IANA time zone, such as Asia/Shanghai")
    try:
        due = next(CronSim(cron, datetime.fromtimestamp(after_ms // 1000, zone)))
    except CronSimError as failure:
        raise Rejected(_advice(cron, str(failure))) from failure
    except (StopIteration, OverflowError, ValueError) as failure:
        raise Rejected(f"cron: '{safe_text(cron)}' never comes") from failure
    return round(due.timestamp() * 1000)


@cache
def _zones() -> frozenset[str]:
    """IANA time zones of the machine, without what its database holds beside them."""
    return frozenset(available_timezones() - {"localtime", "posixrules", "Factory"})


def _advice(cron: str, problem: str) -> str:
    """What is wrong with an expression that cronsim refuses, and what to write."""
    shown = safe_text(cron)
    if cron.startswith("@"):
        instead = _SHORTHANDS.get(cron.lower())
        return f"cron: '{shown}' is a shorthand, which is not taken" + (f"; write {instead}" if instead else "")
    fields = cron.split()
    if len(fields) not in {5, 6}:
        return f"cron: '{shown}' has not five fields, as 30 8 * * 1-5"
    if _is_cron([*fields[:-2], "*", fields[-1]]) and _is_cron([*fields[:-3], "*", *fields[-2:]]):
        return f"cron: '{shown}' never comes: its months have no such day"
    return f"cron: {problem[:1].lower()}{problem[1:]} in '{shown}'"


def _is_cron(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), datetime.fromtimestamp(0, UTC))
    except CronSimError:
        return False
    return True


class Scheduler:
    """Starts scenes when their schedules are due."""

    def __init__(
        self, scene_host: SceneHost, repository: SceneRepository, clock: Clock, supervisor: Supervisor
    ) -> None:
        """Hold no schedule yet."""
        self._scenes = scene_host
        self._repository = repository
        self._clock = clock
        self._supervisor = supervisor
        self._schedules: dict[tuple[str, str], Schedule] = {}
        self._change = asyncio.Lock()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Load the schedules; one missed while the gateway was down runs if that is not long ago."""
        now_ms = self._clock.now_ms()
        earliest = now_ms - round(self._scenes.config.catch_up_s * 1000)
        for schedule in await self._repository.all_schedules():
            self._schedules[schedule.tenant_id, schedule.id] = schedule
            since = max(schedule.created_at_ms, schedule.last_run_at_ms or 0, earliest)
            self._plan(schedule, since if since < now_ms + _DAY_MS else now_ms)
        self._supervisor.start("schedules", self._run)

    async def stop(self) -> None:
        """Start no more scenes."""
        await self._supervisor.stop_part("schedules")

    async def list(self, scope: Scope) -> list[Schedule]:
        """Schedules of the tenant, each with its next run."""
        return [_copy(each) for (tenant_id, _), each in self._schedules.items() if tenant_id == scope.tenant_id]

    async def create(self, scope: Scope, schedule: Schedule) -> Schedule:
        """Add a schedule; raises Rejected, also for an unknown scene, Conflict for a taken id or too many schedules."""
        async with self._change:
            if (scope.tenant_id, schedule.id) in self._schedules:
                raise Conflict(f"a schedule {safe_text(schedule.id)} exists")
            if sum(tenant_id == scope.tenant_id for tenant_id, _ in self._schedules) >= self._scenes.config.schedules:
                raise Conflict(f"there are {self._scenes.config.schedules} schedules; delete one first")
            created_at_ms = schedule.created_at_ms or self._clock.now_ms()
            return await self._keep(scope, msgspec.structs.replace(schedule, created_at_ms=created_at_ms))

    async def update(self, scope: Scope, schedule: Schedule) -> Schedule:
        """Replace a schedule; raises NotFound, Rejected."""
        async with self._change:
            before = self._schedules.get((scope.tenant_id, schedule.id))
            if before is None:
                raise NotFound(f"no schedule {safe_text(schedule.id)}")
            kept = msgspec.structs.replace(
                schedule, created_at_ms=before.created_at_ms, last_run_at_ms=before.last_run_at_ms
            )
            return await self._keep(scope, kept)

    async def delete(self, scope: Scope, schedule_id: str) -> None:
        """Remove a schedule; raises NotFound."""
        async with self._change:
            if (scope.tenant_id, schedule_id) not in self._schedules:
                raise NotFound(f"no schedule {safe_text(schedule_id)}")
            await self._repository.delete_schedule(scope, schedule_id)
            del self._schedules[scope.tenant_id, schedule_id]

    async def _keep(self, scope: Scope, schedule: Schedule) -> Schedule:
        try:
            self._scenes.require(scope, schedule.scene)
        except NotFound as failure:  # the schedule is there; what it names is wrong
            raise Rejected(f"scene: {failure}") from failure
        next_at_ms = next_run_ms(schedule.cron, schedule.timezone, self._clock.now_ms())
        kept = msgspec.structs.replace(
            schedule, tenant_id=scope.tenant_id, next_run_at_ms=next_at_ms if schedule.enabled else None
        )
        await self._repository.save_schedule(scope, kept)
        self._schedules[scope.tenant_id, schedule.id] = kept
        self._changed.set()
        return _copy(kept)

    async def _run(self) -> None:
        while True:
            await self.look()
            self._changed.clear()
            if any(schedule.enabled for schedule in self._schedules.values()):
                try:
                    await asyncio.wait_for(self._changed.wait(), self._sleep_s())
                except TimeoutError:
                    continue
            else:
                await self._changed.wait()

    def _sleep_s(self) -> float:
        due_ms = min((each.next_run_at_ms for each in self._schedules.values() if each.next_run_at_ms), default=0)
        return min(_LOOK_S, max(0.0, (due_ms - self._clock.now_ms()) / 1000)) if due_ms else _LOOK_S

    async def look(self) -> None:
        """Start what is due by now."""
        async with self._change:
            now_ms = self._clock.now_ms()
            for schedule in list(self._schedules.values()):
                if not schedule.enabled or schedule.next_run_at_ms is None:
                    continue
                if schedule.next_run_at_ms <= now_ms:
                    await self._fire(schedule, now_ms)
                elif (schedule.last_run_at_ms or 0) > now_ms + _DAY_MS:
                    # The clock was wrong by more than a day when it ran last; waiting for that time again helps nobody.
                    schedule.last_run_at_ms = None
                    self._plan(schedule, now_ms)

    async def _fire(self, schedule: Schedule, now_ms: int) -> None:
        schedule.last_run_at_ms = now_ms
        self._plan(schedule, now_ms)
        scope = system_scope(f"schedule:{schedule.id}", schedule.tenant_id)
        try:
            await self._repository.note_schedule_run(schedule)
            await self._scenes.run(scope, schedule.scene, schedule.args)
        except GatewayError as failure:
            log.error("schedule could not start its scene", schedule=schedule.id, error=str(failure))

    def _plan(self, schedule: Schedule, after_ms: int) -> None:
        try:
            due = next_run_ms(schedule.cron, schedule.timezone, after_ms) if schedule.enabled else None
        except Rejected as failure:  # a zone that left the machine's database
            due = None
            log.error("schedule stands still", schedule=schedule.id, error=str(failure))
        schedule.next_run_at_ms = due


def _copy(schedule: Schedule) -> Schedule:
    return msgspec.structs.replace(schedule, args=dict(schedule.args))
