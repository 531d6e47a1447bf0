from __future__ import annotations

from typing import Any

import pytest
from fakes.api_fakes import ApiBench


async def test_extensions_are_listed_with_their_routes_and_failures(api: ApiBench) -> None:
    listed = (await api.call("GET", "/extensions", expect=200))["data"]["items"]
    example, gone = listed
    assert (example["name"], example["failure"]) == ("example", "")
    assert "GET things/{id}" in example["routes"]
    assert (gone["name"], gone["failure"], gone["routes"]) == ("gone", "ModuleNotFoundError: gone", [])


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_route_gets_path_query_body_and_who_asks(api: ApiBench, method: str) -> None:
    body: dict[str, Any] | None = None if method in {"GET", "DELETE"} else {"on": True}
    answer = await api.call(
        method, "/extensions/example/things/a%20b?x=1", expect=200, **({} if body is None else {"json": body})
    )
    assert answer["data"] == {"id": "a b", "query": {"x": "1"}, "body": body, "tenant": "default"}


@pytest.mark.parametrize("path", ["example/other", "example/things/1/2", "nobody/things/1", "example/things"])
async def test_what_no_extension_serves_is_404(api: ApiBench, path: str) -> None:
    assert (await api.call("GET", f"/extensions/{path}", expect=404))["code"] == "not_found"


async def test_an_extension_that_fails_answers_500_without_its_words(api: ApiBench) -> None:
    answer = await api.call("GET", "/extensions/example/things/broken", expect=500)
    assert "canary" not in str(answer)


async def test_a_body_that_is_no_json_object_is_refused_before_the_extension_sees_it(api: ApiBench) -> None:
    status, _, answer = await api.call_raw("POST", "/api/v1/extensions/example/things/1", data=b"[1]")
    assert (status, answer["code"]) == (415, "body.unsupported_type")
