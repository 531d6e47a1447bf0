"""Reports wired: history and tables from storage, things from the catalog, figures from plugins."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from gateway.app.traffic import Traffic
from gateway.core.clock import Clock
from gateway.core.errors import Rejected
from gateway.reports.config import ReportsConfig
from gateway.reports.model import ReportPlugins
from gateway.reports.service import ReportService
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.reports import SqlReportRepository
from gateway.wasm.plugins import PluginHost


def report_service(config: ReportsConfig, database: Database, traffic: Traffic, clock: Clock) -> ReportService:
    """The service of reports over the gateway's history and plugins."""
    return ReportService(
        config,
        clock,
        SqlHistoryRepository(database),
        traffic.catalog,
        _Plugins(traffic.plugins),
        SqlReportRepository(database),
    )


class _Plugins(ReportPlugins):
    def __init__(self, host: PluginHost) -> None:
        self._host = host

    @override
    def report_version(self, plugin_id: str) -> str:
        manifest = self._host.running(plugin_id).manifest
        if manifest.kind != "report":
            raise Rejected(f"plugin: {plugin_id} is of kind {manifest.kind}; name one of kind report")
        return manifest.version

    @override
    async def call(self, plugin_id: str, args: dict[str, Any], *, timeout_s: float, most_bytes: int | None) -> Any:
        return await self._host.call(plugin_id, args, timeout_s=timeout_s, most_bytes=most_bytes)
