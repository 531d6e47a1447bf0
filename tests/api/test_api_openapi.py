import re
from typing import Any

from fakes.api_fakes import ApiBench
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.openapi import to_openapi_30
from gateway.api.routes import PREFIX, ROUTES
from gateway.api.views import Resource

METHODS = ("get", "post", "put", "patch", "delete")


async def spec_of(api: ApiBench) -> dict[str, Any]:
    status, _, spec = await api.call_raw("GET", "/openapi.json", token=None)
    assert status == 200
    return dict(spec)


async def test_the_document_has_exactly_the_routes(api: ApiBench) -> None:
    spec = await spec_of(api)
    assert spec["openapi"].startswith("3.0")
    documented = {(path, method) for path, methods in spec["paths"].items() for method in methods}
    assert documented == {
        (path, method) for path, view in ROUTES.items() for method in METHODS if hasattr(view, method)
    }


async def test_every_registered_resource_is_in_the_table_of_routes(api: ApiBench) -> None:
    registered = {
        route.resource.canonical
        for route in api.app.router.routes()
        if route.resource is not None and isinstance(route.handler, type) and issubclass(route.handler, Resource)
    }
    assert registered == set(ROUTES)
    others = {route.resource.canonical for route in api.app.router.routes() if route.resource is not None} - registered
    assert others == {"/openapi.json", "/docs", "/docs/start.js", "/docs/{name}"}
    assert not any(path.startswith(PREFIX) for path in others)


async def test_every_operation_says_permission_answer_and_parameters(api: ApiBench) -> None:
    for path, methods in (await spec_of(api))["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["x-permission"], where
            assert "default" in operation["responses"], where
            in_path = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path)), where
            assert not any(one["name"].endswith("_") for one in operation.get("parameters", [])), where
            assert "security" in operation or path in {"/health", "/metrics", f"{PREFIX}/auth/login"}, where


async def test_every_reference_leads_somewhere_and_nothing_is_beyond_openapi_3_0(api: ApiBench) -> None:
    spec = await spec_of(api)
    known = {f"#/components/schemas/{name}" for name in spec["components"]["schemas"]}
    seen: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                seen.add(node["$ref"])
            assert node.get("type") != "null"
            assert "const" not in node or isinstance(node["const"], dict)
            assert "$defs" not in node
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(child)

    walk(spec)
    assert seen <= known
    assert "#/components/schemas/NewDeviceBody" in seen
    assert any("DeviceShape" in name for name in seen)


async def test_limits_and_choices_are_in_the_document(api: ApiBench) -> None:
    history = (await spec_of(api))["paths"][f"{PREFIX}/devices/{{device_id}}/history"]["get"]
    by_name = {one["name"]: one for one in history["parameters"]}
    assert by_name["property"]["required"] is True
    assert by_name["limit"]["schema"]["maximum"] == 1000
    assert by_name["agg"]["schema"]["enum"] == ["avg", "min", "max", "sum", "count", "first", "last"]
    assert by_name["agg"]["schema"]["nullable"] is True


async def test_the_page_of_documents_loads_nothing_from_elsewhere(api: ApiBench) -> None:
    status, headers, page = await api.call_raw("GET", "/docs", token=None)
    assert status == 200
    assert "http" not in page
    assert "//" not in page.replace("<!DOCTYPE html>", "")
    assert "script-src 'self';" in headers["Content-Security-Policy"]
    assert "http" not in headers["Content-Security-Policy"]
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) == 4
    for address in addresses:
        async with api.http.get(api.url + address) as response:
            assert response.status == 200, address
    start = (await api.call_raw("GET", "/docs/start.js", token=None))[2]
    assert "validatorUrl: null" in start


async def test_only_the_pages_own_assets_are_served(api: ApiBench) -> None:
    for name in ("swagger-initializer.js", "index.html", "..%2f__init__.py", "nothing"):
        status, _, answer = await api.call_raw("GET", f"/docs/{name}", token=None)
        assert (status, answer["code"]) == (404, "not_found"), name
    async with api.http.get(f"{api.url}/docs/favicon-32x32.png") as response:
        assert (response.status, response.content_type) == (200, "image/png")


@given(
    st.recursive(
        st.sampled_from(["type null", "type integer", "const 1", "$ref #/x"]).map(lambda text: dict([text.split()])),
        lambda inner: (
            st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3))
            | st.builds(lambda one: {"properties": {"a": one}}, inner)
        ),
        max_leaves=8,
    )
)
def test_any_schema_loses_null_and_const_on_the_way_to_3_0(schema: dict[str, Any]) -> None:
    to_openapi_30(schema)
    assert "const" not in str(schema)
    assert {"type": "null"} not in schema.get("anyOf", [])
