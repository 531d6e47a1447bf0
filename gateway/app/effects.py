"""What rules and scenes may do to the outside, wired to alarms, commands, plugins, reports and notifications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from typing_extensions import override

from gateway.alarms.service import AlarmService
from gateway.core.errors import GatewayError, NotReady, Rejected
from gateway.core.flow import AlarmChange, StateDelta
from gateway.core.scope import Scope
from gateway.notify.model import Draft
from gateway.notify.service import NotificationService
from gateway.reports.model import ReportRequest
from gateway.reports.service import ReportService
from gateway.rules.model import Notice, RuleEffects, WantedReport
from gateway.rules.scenes import SceneHost
from gateway.things.commands import CommandService
from gateway.wasm.plugins import PluginHost

_CALLABLE: Final = frozenset({"algo", "crypto", "parser", "report"})
"""Kinds of plugins that scripts may call: a notify plugin speaks to its channel alone, a codec takes no calls."""


class Effects(RuleEffects):
    """Alarms, commands, calls and notifications, in the name of the rule or scene that asked."""

    def __init__(
        self,
        alarms: AlarmService,
        commands: CommandService,
        plugins: PluginHost,
        reports: ReportService,
        notifications: NotificationService,
    ) -> None:
        """Wire them; `scenes` is set once there are any, for they need these effects themselves."""
        self._alarms = alarms
        self._commands = commands
        self._plugins = plugins
        self._reports = reports
        self._notifications = notifications
        self.scenes: SceneHost | None = None

    @override
    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> None:
        await self._alarms.apply(changes, deltas)

    @override
    async def command(
        self, tenant_id: str, device_id: str, name: str, args: dict[str, Any], actor: str, timeout_s: float
    ) -> dict[str, Any]:
        scope = Scope(tenant_id, actor, frozenset({"*"}))
        try:
            command = await self._commands.send(scope, device_id, name, args, timeout_s)
        except GatewayError as refusal:
            return {"id": None, "status": "failed", "error": str(refusal)}
        ended = await self._commands.wait(command)
        return {"id": ended.id, "status": ended.status, "error": ended.error, "result": ended.result}

    @override
    async def call_plugin(self, plugin_id: str, args: dict[str, Any], timeout_s: float, most_bytes: int) -> Any:
        kind = self._plugins.manifest(plugin_id).kind
        if kind not in _CALLABLE:
            raise Rejected(f"plugin {plugin_id} is of kind {kind}; scripts call {', '.join(sorted(_CALLABLE))}")
        return await self._plugins.call(plugin_id, args, timeout_s=timeout_s, most_bytes=most_bytes)

    @override
    async def run_report(self, tenant_id: str, wanted: WantedReport, actor: str) -> dict[str, Any]:
        request = ReportRequest(**msgspec.structs.asdict(wanted))
        report = await self._reports.run(Scope(tenant_id, actor, frozenset({"*"})), request)
        figures = {"points": report.points, "row_count": report.row_count, "summary": report.summary}
        return {"id": report.id, **figures}

    @override
    async def notify(self, notices: Sequence[Notice]) -> list[str]:
        scope = Scope(notices[0].tenant_id, "rules", frozenset({"*"}))
        outcomes = await self._notifications.send_all(scope, [_draft(notice) for notice in notices])
        return [str(outcome) if isinstance(outcome, GatewayError) else "" for outcome in outcomes]

    @override
    async def run_scene(self, tenant_id: str, scene: str, args: dict[str, Any], actor: str) -> None:
        if self.scenes is None:
            raise NotReady("scenes are not up yet")
        await self.scenes.run(Scope(tenant_id, actor, frozenset({"*"})), scene, args)


def _draft(notice: Notice) -> Draft:
    return Draft(
        channel=notice.channel,
        title=notice.title,
        text=notice.text,
        severity=notice.severity,
        device_id=notice.device_id,
        requested_by=notice.actor,
    )
