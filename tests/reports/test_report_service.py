"""Making reports: what the plugin is given, what of its answer is kept, and what one report may cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes.report_fakes import FunctionReports, ListedSeries, MemoryReports, summed
from fakes.rooms import OTHER, SCOPE
from fakes.traffic import FakeClock

from gateway.core.errors import CodecError, NotFound, NotReady, Rejected
from gateway.reports.config import ReportsConfig
from gateway.reports.model import ReportFilter, ReportRequest
from gateway.reports.service import ReportService
from gateway.things.ports import PageRequest


class Desk:
    def __init__(self, *points: tuple[int, Any], work: Any = None, **config: Any) -> None:
        self.series = ListedSeries(*points)
        self.plugins = FunctionReports(work)
        self.rows = MemoryReports()
        self.service = ReportService(
            ReportsConfig(**config), FakeClock(), self.series, self.series, self.plugins, self.rows
        )


def wanted(**changes: Any) -> ReportRequest:
    return ReportRequest(
        **({"plugin_id": "sum", "device_id": "d1", "property_id": "p", "from_ms": 100, "to_ms": 200} | changes)
    )


async def test_a_report_is_made_from_the_points_of_its_span_and_kept() -> None:
    desk = Desk((100, 1), (150, 2), (199, 3), (200, 100))
    report = await desk.service.run(SCOPE, wanted(args={"how": "so"}))
    assert (report.columns, report.rows, report.row_count, report.points) == (["count", "sum"], [[3, 6]], 1, 3)
    assert (report.plugin_version, report.summary, report.requested_by) == ("1.2.3", {"unit": "kWh"}, SCOPE.actor)
    (given,) = desk.plugins.calls
    assert given == {
        "how": "so",
        "device": "d1",
        "property": "p",
        "unit": "kWh",
        "from": 100,
        "to": 200,
        "rows": [(100, 1), (150, 2), (199, 3)],
    }
    assert await desk.service.get_report(SCOPE, report.id) == report
    listed = await desk.service.list_reports(SCOPE, ReportFilter(device_id="d1"), PageRequest())
    assert [item.rows for item in listed.items] == [None]


async def test_the_point_that_held_when_the_span_began_leads_the_rows() -> None:
    desk = Desk((10, 7), (90, 8), (120, 9))
    await desk.service.run(SCOPE, wanted())
    assert desk.plugins.calls[0]["rows"] == [(90, 8), (120, 9)]
    desk = Desk((10, 7), (120, 9), lead_s=0.05)
    await desk.service.run(SCOPE, wanted())
    assert desk.plugins.calls[0]["rows"] == [(120, 9)]


async def test_history_is_read_page_by_page_and_no_point_twice() -> None:
    desk = Desk(*((100 + number // 3, number) for number in range(20)), page_points=4)
    report = await desk.service.run(SCOPE, wanted())
    assert report.rows == [[20, sum(range(20))]]
    assert desk.series.reads == 1 + 6


async def test_more_points_than_one_report_may_read_are_refused_before_the_plugin_is_asked() -> None:
    desk = Desk(*((100 + number, 1) for number in range(20)), page_points=4, points=10)
    with pytest.raises(Rejected, match="more than 10 points"):
        await desk.service.run(SCOPE, wanted())
    assert desk.series.reads <= 4
    assert not desk.plugins.calls


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"from_ms": 200}, Rejected, "before `to`"),
        ({"args": {"rows": []}}, Rejected, r"args\.rows: the gateway gives"),
        ({"args": {"x": "y" * 70_000}}, Rejected, "larger than"),
        ({"args": {"x": object()}}, Rejected, "args"),
        ({"plugin_id": "fft"}, Rejected, "of kind algo"),
        ({"plugin_id": "gone"}, NotFound, "no plugin"),
        ({"device_id": "d2"}, NotFound, "no device"),
    ],
)
async def test_a_wrong_request_is_refused_with_what_is_wrong(changes: Any, error: type, text: str) -> None:
    desk = Desk()
    with pytest.raises(error, match=text):
        await desk.service.run(SCOPE, wanted(**changes))
    assert not desk.plugins.calls
    assert not desk.rows.rows


async def test_another_tenants_device_has_no_report() -> None:
    desk = Desk((100, 1))
    with pytest.raises(NotFound):
        await desk.service.run(OTHER, wanted())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (None, "no report"),
        ({"rows": []}, "no report"),
        ({"columns": [], "rows": []}, "no report"),
        ({"columns": ["a"], "rows": [[b"bytes"]]}, "no report"),
        ({"columns": ["a"], "rows": [[{}]]}, "no report"),
        ({"columns": ["a", "b"], "rows": [[1, 2], [1]]}, "not as many cells as columns"),
        ({"columns": ["a"], "rows": [[1]] * 11}, "11 lines, at most 10"),
        ({"columns": ["a"], "rows": [], "summary": {"x": {(1, 2): 3}}}, "no report"),
        ({"columns": ["a"], "rows": [], "summary": {"x": "x" * 65_536}}, "summary is larger than 65536 bytes"),
    ],
)
async def test_an_answer_that_is_no_report_is_the_plugins_failure_and_not_kept(answer: Any, text: str) -> None:
    desk = Desk(work=lambda _args: answer, rows=10)
    with pytest.raises(CodecError, match=text):
        await desk.service.run(SCOPE, wanted())
    assert not desk.rows.rows
    assert [sample.value for sample in desk.service.samples()] == [0, 1, 0]


async def test_cells_keep_their_types_and_the_summary_becomes_json() -> None:
    line = [True, 1, 1.5, "x", None]
    desk = Desk(
        work=lambda _args: {"columns": list("abcde"), "rows": [line], "summary": {"a": float("nan"), "b": {1: 2}}}
    )
    report = await desk.service.run(SCOPE, wanted())
    assert report.rows == [line]
    assert [type(cell) for cell in (report.rows or [[]])[0]] == [bool, int, float, str, type(None)]
    assert report.summary == {"a": None, "b": {"1": 2}}


async def test_so_many_run_at_once_so_many_wait_and_the_next_is_refused() -> None:
    desk = Desk((100, 1), running=1, waiting=1)
    go = asyncio.Event()
    running = 0
    most = 0

    async def held(*_given: Any, **_more: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        return summed({"rows": []})

    desk.plugins.call = held  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(desk.service.run(SCOPE, wanted())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NotReady, match="2 reports run and wait already"):
        await desk.service.run(SCOPE, wanted())
    go.set()
    await asyncio.gather(*tasks)
    assert most == 1
    await desk.service.run(SCOPE, wanted())


async def test_a_report_whose_asker_is_gone_frees_its_place() -> None:
    desk = Desk((100, 1), running=1, waiting=1)

    async def never(*_given: Any, **_more: Any) -> Any:
        await asyncio.Event().wait()

    call, desk.plugins.call = desk.plugins.call, never  # type: ignore[method-assign]
    task = asyncio.get_running_loop().create_task(desk.service.run(SCOPE, wanted()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    desk.plugins.call = call  # type: ignore[method-assign]
    assert (await desk.service.run(SCOPE, wanted())).rows == [[1, 1]]


async def test_history_that_is_not_read_in_time_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk((100, 1), timeout_s=0.01)

    async def slow(*_given: Any, **_more: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(desk.series, "series", slow)
    with pytest.raises(NotReady, match="narrow from and to"):
        await desk.service.run(SCOPE, wanted())
