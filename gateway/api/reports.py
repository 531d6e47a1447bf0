"""`reports`: tables that report plugins make of the history of one property."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from pydantic import Field

from gateway.api.bodies import Arguments, Body
from gateway.api.telemetry import moment
from gateway.api.views import Listing, Paging, Resource, listed, request_of, requires
from gateway.core.clock import rfc3339
from gateway.core.errors import Rejected
from gateway.identity.permissions import Permission
from gateway.reports.csv_text import csv_of
from gateway.reports.model import Report, ReportFilter, ReportRequest

_SORT: Final = {"created_at": "created_at_ms", "plugin_id": "plugin_id", "device_id": "device_id"}
_Id = Annotated[str, Field(min_length=1, max_length=64)]
_Time = Annotated[str, Field(max_length=64, description="RFC 3339; without a zone, UTC.")]


class ReportBody(Body):
    """A report to make, of the points from `from` (inclusive) to `to` (exclusive); `args` are the plugin's own."""

    plugin: _Id
    device: _Id
    property: _Id
    from_: Annotated[_Time, Field(alias="from")]
    to: _Time
    args: Arguments = Field(default_factory=dict)


class ReportHeadShape(msgspec.Struct, frozen=True):
    """A report without its rows. points: how many of history it was made from."""

    id: str
    plugin_id: str
    plugin_version: str
    device_id: str
    property: str
    from_: str = msgspec.field(name="from")
    to: str
    args: dict[str, Any]
    points: int
    columns: list[str]
    row_count: int
    summary: dict[str, Any]
    requested_by: str
    created_at: str


class ReportShape(ReportHeadShape, frozen=True):
    """A report. Each row has a cell for each column: text, a number, a boolean or null."""

    rows: list[list[Any]]


class ReportsView(Resource):
    """`/reports`."""

    @requires(Permission.REPORT_LIST)
    async def get(
        self, paging: Paging, plugin: str | None = None, device: str | None = None
    ) -> Listing[ReportHeadShape]:
        """List reports without their rows, newest first."""
        which = ReportFilter(plugin_id=plugin, device_id=device)
        page = await self.parts.reports.list_reports(self.scope, which, request_of(paging, _SORT))
        return listed(page, lambda report: ReportHeadShape(**_head(report)))

    @requires(Permission.REPORT_MANAGE, status=201)
    async def post(self, body: ReportBody) -> ReportShape:
        """Make a report and keep it; answers when it is made."""
        from_ms, to_ms = moment("from", body.from_), moment("to", body.to)
        if from_ms is None or to_ms is None:
            raise Rejected("from, to: both are needed")
        request = ReportRequest(
            plugin_id=body.plugin,
            device_id=body.device,
            property_id=body.property,
            from_ms=from_ms,
            to_ms=to_ms,
            args=body.args,
        )
        return _shape(await self.parts.reports.run(self.scope, request))


class ReportView(Resource):
    """`/reports/{report_id}`."""

    @requires(Permission.REPORT_LIST)
    async def get(self, report_id: str, /) -> ReportShape:
        """Show a report with its rows."""
        return _shape(await self.parts.reports.get_report(self.scope, report_id))

    @requires(Permission.REPORT_MANAGE)
    async def delete(self, report_id: str, /) -> None:
        """Delete a report."""
        await self.parts.reports.delete_report(self.scope, report_id)


class ReportCsvView(Resource):
    """`/reports/{report_id}/csv`."""

    @requires(Permission.REPORT_LIST)
    async def get(self, report_id: str, /) -> web.Response:
        """Show a report's rows as CSV (RFC 4180); a text that a spreadsheet would run has an apostrophe before it."""
        report = await self.parts.reports.get_report(self.scope, report_id)
        text = await asyncio.to_thread(csv_of, report.columns, report.rows or ())
        name = f'attachment; filename="report-{report.id}.csv"'
        return web.Response(
            body=text.encode(),
            headers={"Content-Type": "text/csv; charset=utf-8; header=present", "Content-Disposition": name},
        )


def _shape(report: Report) -> ReportShape:
    return ReportShape(**_head(report), rows=report.rows or [])


def _head(report: Report) -> dict[str, Any]:
    return {
        "id": report.id,
        "plugin_id": report.plugin_id,
        "plugin_version": report.plugin_version,
        "device_id": report.device_id,
        "property": report.property_id,
        "from_": rfc3339(report.from_ms),
        "to": rfc3339(report.to_ms),
        "args": report.args,
        "points": report.points,
        "columns": report.columns,
        "row_count": report.row_count,
        "summary": report.summary,
        "requested_by": report.requested_by,
        "created_at": rfc3339(report.created_at_ms),
    }
