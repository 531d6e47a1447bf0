"""`/reports`: made, listed, shown as JSON and CSV, deleted; every refusal in the envelope."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.api_fakes import ApiBench

WANTED = {
    "plugin": "sum",
    "device": "d1",
    "property": "p",
    "from": "1970-01-01T00:00:00Z",
    "to": "1970-01-01T08:00:00+08:00",
}
SPAN = {"from": "1970-01-01T00:00:01Z", "to": "1970-01-01T00:00:03Z"}


@pytest.fixture
async def bench(api: ApiBench) -> ApiBench:
    await api.with_device()
    return api


async def made(bench: ApiBench, **changes: Any) -> dict[str, Any]:
    return (await bench.call("POST", "/reports", json=WANTED | SPAN | changes, expect=201))["data"]


async def test_a_report_is_made_shown_listed_and_deleted(bench: ApiBench) -> None:
    report = await made(bench, args={"how": "so"})
    assert (report["columns"], report["rows"], report["points"]) == (["count", "sum"], [[2, 4.0]], 2)
    assert (report["from"], report["to"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:03.000Z")
    assert (report["plugin_id"], report["plugin_version"], report["args"]) == ("sum", "1.2.3", {"how": "so"})
    assert report["requested_by"] == "root"
    assert (await bench.call("GET", f"/reports/{report['id']}", expect=200))["data"] == report
    listed = (await bench.call("GET", "/reports?plugin=sum&device=d1", expect=200))["data"]
    assert listed["total"] == 1
    assert listed["items"][0] == {name: value for name, value in report.items() if name != "rows"}
    assert (await bench.call("GET", "/reports?plugin=other", expect=200))["data"]["total"] == 0
    await bench.call("DELETE", f"/reports/{report['id']}", expect=200)
    await bench.call("GET", f"/reports/{report['id']}", expect=404)


async def test_a_report_as_csv_is_a_file_that_runs_nothing(bench: ApiBench) -> None:
    table = {"columns": ["shift", "=sum"], "rows": [["=HYPERLINK(1)", -1.5], ["夜班", None]]}
    bench.reports.plugins.work = lambda _args: table
    report = await made(bench)
    headers = {"Authorization": f"Bearer {bench.token}"}
    async with bench.http.get(f"{bench.url}/api/v1/reports/{report['id']}/csv", headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="report-{report["id"]}.csv"'
        assert (await answer.read()).decode() == '"shift","\'=sum"\r\n"\'=HYPERLINK(1)",-1.5\r\n"夜班",""\r\n'
    await bench.call("GET", "/reports/unknown/csv", expect=404)


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"from": "yesterday"}, 422, "from: write the time as RFC 3339"),
        ({"to": "1970-01-01T00:00:01Z"}, 422, "from: must be before"),
        ({"device": "d9"}, 404, "d9"),
        ({"plugin": "gone"}, 404, "gone"),
        ({"plugin": "fft"}, 422, "of kind algo"),
        ({"args": {"rows": []}}, 422, "args.rows"),
        ({"args": {"n": 2**70}}, 422, "64 bits"),
        ({"from": None}, 422, "from"),
        ({"what": 1}, 422, "what"),
    ],
)
async def test_a_wrong_request_says_what_is_wrong(bench: ApiBench, changes: Any, status: int, text: str) -> None:
    answer = await bench.call("POST", "/reports", json=WANTED | SPAN | changes, expect=status)
    assert text in answer["error"]
    assert (await bench.call("GET", "/reports", expect=200))["data"]["total"] == 0


async def test_a_plugin_that_makes_no_report_is_an_error_of_the_plugin(bench: ApiBench) -> None:
    bench.reports.plugins.work = lambda _args: {"rows": []}
    answer = await bench.call("POST", "/reports", json=WANTED | SPAN, expect=422)
    assert answer["code"] == "codec.failed"
    assert "its answer is no report" in answer["error"]
