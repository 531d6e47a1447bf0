"""`alarms` and `audit`: what wants attention, and who did what."""

from __future__ import annotations

from typing import Literal

from gateway.alarms.model import AlarmFilter
from gateway.api.shapes import AlarmShape, AuditShape, ChainShape, alarm_shape, audit_shape
from gateway.api.views import Listing, Paging, Resource, listed, request_of, requires
from gateway.core.flow import Severity
from gateway.identity.permissions import Permission

_SORT = {
    "raised_at": "raised_at_ms",
    "last_raised_at": "last_raised_at_ms",
    "severity": "severity",
    "state": "state",
}
_SORT_AUDIT = {"seq": "seq", "at": "at_ms"}


class AlarmsView(Resource):
    """`/alarms`."""

    @requires(Permission.ALARM_LIST)
    async def get(
        self,
        paging: Paging,
        device_id: str | None = None,
        rule: str | None = None,
        state: Literal["active", "cleared"] | None = None,
        acknowledged: bool | None = None,  # noqa: FBT001  # aiohttp-pydantic takes query parameters by position
        severity: Severity | None = None,
    ) -> Listing[AlarmShape]:
        """List alarms, newest first."""
        which = AlarmFilter(device_id=device_id, rule=rule, state=state, acknowledged=acknowledged, severity=severity)
        return listed(await self.parts.alarms.list_alarms(self.scope, which, request_of(paging, _SORT)), alarm_shape)


class AlarmView(Resource):
    """`/alarms/{alarm_id}`."""

    @requires(Permission.ALARM_LIST)
    async def get(self, alarm_id: str, /) -> AlarmShape:
        """Show an alarm."""
        return alarm_shape(await self.parts.alarms.get_alarm(self.scope, alarm_id))


class AlarmAckView(Resource):
    """`/alarms/{alarm_id}/ack`."""

    @requires(Permission.ALARM_MANAGE)
    async def post(self, alarm_id: str, /) -> AlarmShape:
        """Acknowledge an alarm: somebody has seen it. Twice is the same as once."""
        return alarm_shape(await self.parts.alarms.acknowledge(self.scope, alarm_id))


class AlarmClearView(Resource):
    """`/alarms/{alarm_id}/clear`."""

    @requires(Permission.ALARM_MANAGE)
    async def post(self, alarm_id: str, /) -> AlarmShape:
        """Clear an alarm by hand."""
        return alarm_shape(await self.parts.alarms.clear(self.scope, alarm_id))


class AuditView(Resource):
    """`/audit`."""

    @requires(Permission.AUDIT_LIST)
    async def get(self, paging: Paging, actor: str | None = None, entity: str | None = None) -> Listing[AuditShape]:
        """List the audit log, newest first."""
        page = await self.parts.audit.list_audit(self.scope, request_of(paging, _SORT_AUDIT), actor, entity)
        return listed(page, audit_shape)


class AuditVerifyView(Resource):
    """`/audit/verify`."""

    @requires(Permission.AUDIT_LIST)
    async def get(self) -> ChainShape:
        """Walk the hash chain of the whole log: whether anything was altered or removed."""
        broken = await self.parts.audit.verify()
        return ChainShape(broken is None, broken)
