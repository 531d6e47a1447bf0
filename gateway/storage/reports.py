"""Rows of reports. Knows no plugin: a report is a table here, and its rows one document."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from typing_extensions import override

from gateway.core.errors import NotFound
from gateway.core.scope import Scope
from gateway.reports.model import Report, ReportFilter, ReportRepository
from gateway.storage.database import Database
from gateway.storage.rows import Sorts, from_row, owned_row, page_of, without
from gateway.storage.tables import report as _table
from gateway.things.ports import Page, PageRequest

_SORTS = Sorts("-created_at_ms", _table.c.id, _table.c.created_at_ms, _table.c.plugin_id, _table.c.device_id)
_HEAD = [column for column in _table.c if column.name != "rows"]
_FIGURES = ("columns", "rows", "summary")
"""What a report tells: not for the audit log, which tells who made it and of what."""


class SqlReportRepository(ReportRepository):
    """Reports in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def add_report(self, scope: Scope, report: Report) -> None:
        row = owned_row(scope, report)
        async with self._database.write(scope) as transaction:
            await transaction.execute(sa.insert(_table).values(row))
            await transaction.audit("create", "report", report.id, None, without(row, *_FIGURES))

    @override
    async def get_report(self, scope: Scope, report_id: str) -> Report:
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(_table).where(*_one(scope, report_id)))).mappings().first()
        if row is None:
            raise NotFound(f"no report {report_id}")
        return from_row(row, Report)

    @override
    async def list_reports(self, scope: Scope, which: ReportFilter, page: PageRequest) -> Page[Report]:
        query = sa.select(*_HEAD).where(_table.c.tenant_id == scope.tenant_id)
        for name, wanted in msgspec.structs.asdict(which).items():
            if wanted is not None:
                query = query.where(_table.c[name] == wanted)
        order = _SORTS.order(page.sort)
        async with self._database.read() as connection:
            return await page_of(connection, query, order, page, lambda row: from_row(row, Report))

    @override
    async def delete_report(self, scope: Scope, report_id: str) -> None:
        async with self._database.write(scope) as transaction:
            before = await transaction.row(sa.select(*_HEAD).where(*_one(scope, report_id)))
            if before is None:
                raise NotFound(f"no report {report_id}")
            await transaction.execute(sa.delete(_table).where(*_one(scope, report_id)))
            await transaction.audit("delete", "report", report_id, without(before, *_FIGURES), None)


def _one(scope: Scope, report_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _table.c.tenant_id == scope.tenant_id, _table.c.id == report_id
