"""Reports without a database or a sandbox: rows in memory, a series in a list, a plugin that is a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fakes.memory import page_of
from typing_extensions import override

from gateway.core.clock import Clock
from gateway.core.errors import Forbidden, NotFound, Rejected
from gateway.core.scope import Scope
from gateway.reports.config import ReportsConfig
from gateway.reports.model import (
    Report,
    ReportFilter,
    ReportPlugins,
    ReportRepository,
    Series,
    SeriesPoint,
    Things,
)
from gateway.reports.service import ReportService
from gateway.things.model import Device, Product, Property, ThingModel
from gateway.things.ports import Page, PageRequest, TimeRange


class MemoryReports(ReportRepository):
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Report] = {}

    @override
    async def add_report(self, scope: Scope, report: Report) -> None:
        if report.tenant_id != scope.tenant_id:
            raise Forbidden("the object belongs to another tenant")
        self.rows[scope.tenant_id, report.id] = msgspec.structs.replace(report)

    @override
    async def get_report(self, scope: Scope, report_id: str) -> Report:
        if (scope.tenant_id, report_id) not in self.rows:
            raise NotFound(f"no report {report_id}")
        return self.rows[scope.tenant_id, report_id]

    @override
    async def list_reports(self, scope: Scope, which: ReportFilter, page: PageRequest) -> Page[Report]:
        found = [
            msgspec.structs.replace(report, rows=None)
            for (tenant, _), report in self.rows.items()
            if tenant == scope.tenant_id
            and which.plugin_id in {None, report.plugin_id}
            and which.device_id in {None, report.device_id}
        ]
        return page_of(found, page, "-created_at_ms", ("created_at_ms", "plugin_id", "device_id"))

    @override
    async def delete_report(self, scope: Scope, report_id: str) -> None:
        await self.get_report(scope, report_id)
        del self.rows[scope.tenant_id, report_id]


class ListedSeries(Series, Things):
    """The history of device `d1`, property `p`, of tenant `default`."""

    def __init__(self, *points: tuple[int, Any]) -> None:
        self.points = [SeriesPoint(at_ms, seq, value) for seq, (at_ms, value) in enumerate(points)]
        self.reads = 0

    @override
    async def series(
        self,
        scope: Scope,
        device_id: str,
        property_id: str,
        span: TimeRange,
        limit: int,
        after: SeriesPoint | None = None,
        *,
        newest_first: bool = False,
    ) -> list[SeriesPoint]:
        self.device(scope, device_id)
        self.reads += 1
        found = sorted(self.points, reverse=newest_first)
        return [
            point
            for point in found
            if (span.from_ms is None or point.at_ms >= span.from_ms)
            and (span.to_ms is None or point.at_ms < span.to_ms)
            and (after is None or point[:2] > after[:2])
        ][:limit]

    @override
    def device(self, scope: Scope, device_id: str) -> Device:
        if scope.tenant_id != "default" or device_id != "d1":
            raise NotFound(f"no device {device_id}")
        return Device(key=1, tenant_id="default", id="d1", product_id="pump")

    @override
    def product(self, scope: Scope, product_id: str) -> Product:
        model = ThingModel(properties={"p": Property(type="float", unit="kWh")})
        return Product(tenant_id="default", id=product_id, model=model)


class FunctionReports(ReportPlugins):
    """Plugin `sum` is a report; plugin `fft` is not. `work` makes the answer."""

    def __init__(self, work: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.work = work or summed
        self.calls: list[dict[str, Any]] = []

    @override
    def report_version(self, plugin_id: str) -> str:
        if plugin_id == "fft":
            raise Rejected("plugin fft is of kind algo, not report")
        if plugin_id != "sum":
            raise NotFound(f"no plugin {plugin_id!r}")
        return "1.2.3"

    @override
    async def call(self, plugin_id: str, args: dict[str, Any], *, timeout_s: float, most_bytes: int | None) -> Any:
        self.calls.append(args)
        return self.work(args)


def summed(args: dict[str, Any]) -> dict[str, Any]:
    """One line: how many, and their sum."""
    values = [value for _, value in args["rows"]]
    return {"columns": ["count", "sum"], "rows": [[len(values), sum(values)]], "summary": {"unit": args.get("unit")}}


class ReportRoom:
    """The service over two points of device `d1`, for whichever devices there are."""

    def __init__(self, clock: Clock, things: Things) -> None:
        self.rows = MemoryReports()
        self.plugins = FunctionReports()
        series = ListedSeries((1_000, 1.5), (2_000, 2.5))
        self.service = ReportService(ReportsConfig(), clock, series, things, self.plugins, self.rows)
