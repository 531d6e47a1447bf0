"""Makes reports: reads history page by page, lets the plugin work on it, checks and keeps what it answers.

Owns what a report may cost. Knows no database and no Wasm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import CodecError, NotReady, Rejected
from gateway.core.ids import new_id
from gateway.core.log import safe_text
from gateway.core.metrics import Sample
from gateway.core.scope import Scope
from gateway.reports.config import ReportsConfig
from gateway.reports.model import (
    Report,
    ReportFilter,
    ReportPlugins,
    ReportRepository,
    ReportRequest,
    Series,
    SeriesPoint,
    Table,
    Things,
)
from gateway.things.ports import Page, PageRequest, TimeRange

_GIVEN: Final = frozenset({"rows", "device", "property", "unit", "from", "to"})
"""Arguments that the gateway gives with every report."""
_MALFORMED: Final = -2
_ARGS_BYTES: Final = 64 * 1024
"""Arguments of one report, which are kept with it."""
_SUMMARY_BYTES: Final = 64 * 1024
"""A report's summary: lists show it of every report."""


class ReportService:
    """Reports of all tenants."""

    def __init__(
        self,
        config: ReportsConfig,
        clock: Clock,
        series: Series,
        things: Things,
        plugins: ReportPlugins,
        repository: ReportRepository,
    ) -> None:
        """Have made none."""
        self._config = config
        self._clock = clock
        self._series = series
        self._things = things
        self._plugins = plugins
        self._repository = repository
        self._turns = asyncio.Semaphore(config.running)
        self._open = 0
        self.made = 0
        self.failed = 0

    def samples(self) -> Iterator[Sample]:
        """Figures for `/metrics`."""
        yield Sample("gateway_reports_made_total", "Reports made.", "counter", {}, self.made)
        yield Sample("gateway_reports_failed_total", "Reports that came to nothing.", "counter", {}, self.failed)
        yield Sample("gateway_reports_open", "Reports that run or wait.", "gauge", {}, self._open)

    async def run(self, scope: Scope, request: ReportRequest) -> Report:
        """Make a report and keep it.

        Raises NotFound (device, plugin), Rejected (the span, the arguments, more points than one report may read),
        NotReady (the plugin, or too many reports wait), CodecError (the plugin refused), StorageFailed.
        """
        self._check(request)
        if self._open >= self._config.running + self._config.waiting:
            raise NotReady(f"{self._open} reports run and wait already; try again later")
        self._open += 1
        try:
            async with self._turns:
                report = await self._made(scope, request)
                await self._repository.add_report(scope, report)
        except BaseException:
            self.failed += 1
            raise
        finally:
            self._open -= 1
        self.made += 1
        return report

    async def get_report(self, scope: Scope, report_id: str) -> Report:
        """With its rows. Raises NotFound."""
        return await self._repository.get_report(scope, report_id)

    async def list_reports(self, scope: Scope, which: ReportFilter, page: PageRequest) -> Page[Report]:
        """Reports of the tenant without their rows, newest first."""
        return await self._repository.list_reports(scope, which, page)

    async def delete_report(self, scope: Scope, report_id: str) -> None:
        """Raises NotFound."""
        await self._repository.delete_report(scope, report_id)

    def _check(self, request: ReportRequest) -> None:
        if request.from_ms >= request.to_ms:
            raise Rejected("from: must be before `to`")
        clash = sorted(request.args.keys() & _GIVEN)
        if clash:
            raise Rejected(f"args.{clash[0]}: the gateway gives this one itself")
        try:
            size = len(msgspec.json.encode(request.args))
        except (TypeError, ValueError, RecursionError) as failure:
            raise Rejected(f"args: {failure}") from failure
        if size > _ARGS_BYTES:
            raise Rejected(f"args: larger than {_ARGS_BYTES} bytes")

    async def _made(self, scope: Scope, request: ReportRequest) -> Report:
        version = self._plugins.report_version(request.plugin_id)
        product = self._things.product(scope, self._things.device(scope, request.device_id).product_id)
        declared = product.model.properties.get(request.property_id)
        try:
            async with asyncio.timeout(self._config.timeout_s):
                rows = await self._rows(scope, request)
        except TimeoutError as late:
            raise NotReady(f"history was not read within {self._config.timeout_s:g} s; narrow from and to") from late
        given = {"device": request.device_id, "property": request.property_id, "rows": rows}
        span = {"from": request.from_ms, "to": request.to_ms}
        unit = {} if declared is None or declared.unit is None else {"unit": declared.unit}
        answer = await self._plugins.call(
            request.plugin_id,
            request.args | span | given | unit,
            timeout_s=self._config.timeout_s,
            most_bytes=self._config.result_bytes,
        )
        table = self._table(request.plugin_id, answer)
        return Report(
            id=new_id(self._clock),
            tenant_id=scope.tenant_id,
            plugin_id=request.plugin_id,
            plugin_version=version,
            device_id=request.device_id,
            property_id=request.property_id,
            from_ms=request.from_ms,
            to_ms=request.to_ms,
            args=request.args,
            points=len(rows),
            columns=table.columns,
            rows=table.rows,
            row_count=len(table.rows),
            summary=table.summary,
            requested_by=scope.actor,
            created_at_ms=self._clock.now_ms(),
        )

    async def _rows(self, scope: Scope, request: ReportRequest) -> list[tuple[int, Any]]:
        """(at, value) in the order of time, led by the point that held when the span began, if there is one.

        Tuples: of so many lists, the garbage collector would look at each again and again.
        """
        where = scope, request.device_id, request.property_id
        lead = TimeRange(request.from_ms - round(self._config.lead_s * 1000), request.from_ms)
        points = await self._series.series(*where, lead, 1, newest_first=True)
        rows = [(point.at_ms, point.value) for point in points]
        span = TimeRange(request.from_ms, request.to_ms)
        last: SeriesPoint | None = None
        while True:
            page = await self._series.series(*where, span, self._config.page_points, last)
            rows += [(point.at_ms, point.value) for point in page]
            if len(rows) > self._config.points:
                raise Rejected(f"from, to: more than {self._config.points} points lie between them; narrow the span")
            if len(page) < self._config.page_points:
                return rows
            last = page[-1]

    def _table(self, plugin_id: str, answer: Any) -> Table:
        """The plugin's answer, checked. Raises CodecError saying what is wrong with it."""
        try:
            table = msgspec.convert(answer, Table)
            # Keys that JSON does not have, and whatever else cannot be kept.
            kept = msgspec.json.encode(table.summary)
            summary = msgspec.json.decode(kept, type=dict[str, Any])
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as failure:
            raise CodecError(_MALFORMED, f"plugin {plugin_id}: its answer is no report: {_shown(failure)}") from failure
        if len(kept) > _SUMMARY_BYTES:
            text = f"plugin {plugin_id}: its report's summary is larger than {_SUMMARY_BYTES} bytes"
            raise CodecError(_MALFORMED, text)
        if len(table.rows) > self._config.rows:
            most = self._config.rows
            raise CodecError(_MALFORMED, f"plugin {plugin_id}: its report has {len(table.rows)} lines, at most {most}")
        if any(len(row) != len(table.columns) for row in table.rows):
            raise CodecError(_MALFORMED, f"plugin {plugin_id}: a line of its report has not as many cells as columns")
        return msgspec.structs.replace(table, summary=summary)


def _shown(failure: Exception) -> str:
    return safe_text(str(failure), 200)
