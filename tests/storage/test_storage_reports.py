"""The contract of ReportRepository on the database and in memory, and the series that reports are made from."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes.commits import a_commit, a_message, outcome
from fakes.report_fakes import MemoryReports
from fakes.rooms import OTHER, SCOPE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import Forbidden, NotFound, Rejected
from gateway.core.flow import Message, Quality
from gateway.reports.model import Report, ReportFilter, ReportRepository, SeriesPoint
from gateway.storage.audit import SqlAuditRepository
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.reports import SqlReportRepository
from gateway.storage.writer import JournalWriter
from gateway.things.ports import PageRequest, TimeRange

ONE = Report(
    id="r1",
    tenant_id="default",
    plugin_id="shift-report",
    plugin_version="1.0.0",
    device_id="d1",
    property_id="p",
    from_ms=-5,
    to_ms=200,
    args={"shifts": [{"name": "早"}]},
    points=3,
    columns=["shift", "mean"],
    rows=[["早", 1.5], [True, None], [2, "=x"]],
    row_count=3,
    summary={"count": 3, "inner": {"a": [1]}},
    requested_by="ann",
    created_at_ms=1,
)


@pytest.fixture(params=["memory", "sqlite"])
def reports(request: pytest.FixtureRequest) -> ReportRepository:
    if request.param == "sqlite":
        return SqlReportRepository(request.getfixturevalue("database"))
    return MemoryReports()


async def test_a_report_comes_back_as_it_was_added(reports: ReportRepository) -> None:
    await reports.add_report(SCOPE, ONE)
    assert await reports.get_report(SCOPE, "r1") == ONE


async def test_a_list_is_newest_first_filtered_and_without_rows(reports: ReportRepository) -> None:
    for number, device in ((1, "d1"), (2, "d2"), (3, "d1")):
        await reports.add_report(
            SCOPE, msgspec.structs.replace(ONE, id=f"r{number}", device_id=device, created_at_ms=number)
        )
    page = await reports.list_reports(SCOPE, ReportFilter(), PageRequest(limit=2))
    assert ([report.id for report in page.items], page.total) == (["r3", "r2"], 3)
    assert {report.rows for report in page.items} == {None}
    assert page.items[0].row_count == 3
    page = await reports.list_reports(SCOPE, ReportFilter(device_id="d1", plugin_id="shift-report"), PageRequest())
    assert [report.id for report in page.items] == ["r3", "r1"]
    page = await reports.list_reports(SCOPE, ReportFilter(), PageRequest(sort="device_id"))
    assert [report.device_id for report in page.items] == ["d1", "d1", "d2"]
    with pytest.raises(Rejected):
        await reports.list_reports(SCOPE, ReportFilter(), PageRequest(sort="rows"))


async def test_another_tenants_report_is_not_there(reports: ReportRepository) -> None:
    await reports.add_report(SCOPE, ONE)
    with pytest.raises(NotFound):
        await reports.get_report(OTHER, "r1")
    with pytest.raises(NotFound):
        await reports.delete_report(OTHER, "r1")
    assert (await reports.list_reports(OTHER, ReportFilter(), PageRequest())).total == 0
    with pytest.raises(Forbidden):
        await reports.add_report(OTHER, ONE)


async def test_a_deleted_report_is_gone(reports: ReportRepository) -> None:
    await reports.add_report(SCOPE, ONE)
    await reports.delete_report(SCOPE, "r1")
    with pytest.raises(NotFound):
        await reports.delete_report(SCOPE, "r1")


async def test_the_audit_log_tells_who_made_a_report_of_what_and_not_its_figures(database: Database) -> None:
    reports = SqlReportRepository(database)
    await reports.add_report(SCOPE, ONE)
    await reports.delete_report(SCOPE, "r1")
    audit = SqlAuditRepository(database)
    entries = (await audit.list_audit(SCOPE, PageRequest())).items
    kept = [(entry.action, entry.before or entry.after) for entry in entries if entry.entity == "report"]
    assert {action for action, _ in kept} == {"create", "delete"}
    for _, row in kept:
        assert row is not None
        assert row["device_id"] == "d1"
        assert not {"rows", "columns", "summary"} & row.keys()


# The series


@pytest.fixture
async def keep(journal: JournalWriter, stored_device: object) -> Any:
    async def keep(*messages: Message) -> None:
        assert await outcome(journal, a_commit(*messages)) is None

    return keep


async def read(database: Database, span: TimeRange, limit: int) -> list[SeriesPoint]:
    """All of a series, in pages of `limit`."""
    history = SqlHistoryRepository(database)
    found: list[SeriesPoint] = []
    while True:
        page = await history.series(SCOPE, "d1", "v", span, limit, found[-1] if found else None)
        found += page
        if len(page) < limit:
            return found


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 7))
async def test_a_series_is_whole_and_in_order_however_it_is_paged(database: Database, keep: Any, limit: int) -> None:
    await keep(*(a_message(at, v=number) for number, at in enumerate([5, 5, 5, 1, 9, 7, 7])))
    found = await read(database, TimeRange(), limit)
    assert [point[:2] for point in found] == sorted(point[:2] for point in found)
    assert len({point.seq for point in found}) == len(found)
    assert len(found) % 7 == 0
    assert [point.value for point in found if point.at_ms == 9] == [4] * (len(found) // 7)


async def test_a_series_has_the_span_the_values_and_the_order_that_were_asked_for(
    database: Database, keep: Any
) -> None:
    doubtful = a_message(3, v=99)
    doubtful.quality = {"v": Quality.BAD_TYPE}
    await keep(a_message(1, v=1), a_message(2, v=None), doubtful, a_message(4, other=1), a_message(5, v="x"))
    assert [point.value for point in await read(database, TimeRange(), 10)] == [1, "x"]
    assert [point.value for point in await read(database, TimeRange(1, 5), 10)] == [1]
    history = SqlHistoryRepository(database)
    last = await history.series(SCOPE, "d1", "v", TimeRange(None, 5), 1, newest_first=True)
    assert [point.value for point in last] == [1]
    assert await history.series(SCOPE, "d1", 'v"]', TimeRange(), 1) == []
    with pytest.raises(NotFound):
        await history.series(OTHER, "d1", "v", TimeRange(), 1)
