"""The OpenAPI 3.0 document, made from the routes and their types, and the page that shows it.

Paths, parameters and bodies come from aiohttp-pydantic; answers are added from the handlers' return types. The page
is served from the installed Swagger UI: it loads nothing from elsewhere.
"""

from __future__ import annotations

import html
import types
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web
from aiohttp_pydantic.oas.pydantic_schema_to_oas import add_or_replace_translater
from aiohttp_pydantic.oas.view import generate_oas
from swagger_ui_bundle import swagger_ui_path

from gateway.api.errors import HTTP_CODES, STATUS
from gateway.api.routes import PREFIX, ROUTES
from gateway.api.views import Door, Resource

_REF: Final = "#/components/schemas/"
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_START: Final = """SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", validatorUrl: null, deepLinking: true});\n"""
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_FAILURE: Final = {
    "type": "object",
    "required": ["success", "error", "code", "request_id"],
    "properties": {
        "success": {"type": "boolean", "enum": [False]},
        "error": {"type": "string", "description": "What is wrong, for people."},
        "code": {"type": "string", "description": "What is wrong, for programs; stable."},
        "request_id": {"type": "string", "description": "Names the request in the gateway's log."},
    },
}


def document(app: web.Application, version: str) -> dict[str, Any]:
    """Build the document of an application whose routes are registered."""
    add_or_replace_translater("3.0.0", to_openapi_30)
    spec: dict[str, Any] = generate_oas([app], version, "Flux Gateway")
    answers = _Answers()
    for path, view in ROUTES.items():
        for method in _METHODS:
            if hasattr(view, method):
                _complete(spec["paths"][path][method], path, method, view, answers)
    components = spec.setdefault("components", {})
    components.setdefault("schemas", {}).update({**answers.schemas, "Failure": _FAILURE})
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    return spec


def add_pages(app: web.Application, version: str) -> None:
    """Serve `/openapi.json` and `/docs`."""
    body = msgspec.json.encode(document(app, version))
    page = _page(version)

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def docs(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})

    async def start(_: web.Request) -> web.Response:
        return web.Response(text=_START, content_type="text/javascript")

    async def asset(request: web.Request) -> web.FileResponse:
        name = request.match_info["name"]
        if name not in _ASSETS:
            raise web.HTTPNotFound
        return web.FileResponse(Path(str(swagger_ui_path)) / name, headers={"Content-Type": _ASSETS[name]})

    app.router.add_get("/openapi.json", openapi)
    app.router.add_get("/docs", docs)
    app.router.add_get("/docs/start.js", start)
    app.router.add_get("/docs/{name}", asset)


def to_openapi_30(schema: Any) -> None:
    """Rewrite a JSON Schema in place to what OpenAPI 3.0 knows: no `null` type, no `const`, no `$defs` path."""
    if isinstance(schema, list):
        for item in schema:
            to_openapi_30(item)
    if not isinstance(schema, dict):
        return
    while _fold_null(schema):
        pass
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    for item in schema.values():
        to_openapi_30(item)


def _fold_null(schema: dict[str, Any]) -> bool:
    """`X or null` becomes a nullable X; returns whether there was one."""
    choices = schema.get("anyOf")
    if not isinstance(choices, list) or {"type": "null"} not in choices:
        return False
    schema["anyOf"] = others = [choice for choice in choices if choice != {"type": "null"}]
    schema["nullable"] = True
    if schema.get("default", ...) is None:
        del schema["default"]
    if len(others) < 2:
        del schema["anyOf"]
        for only in others:
            # Beside a reference OpenAPI 3.0 ignores every other word.
            schema.update({"allOf": [only]} if "$ref" in only else only)
    return True


class _Answers:
    """Collects the schemas of everything that handlers return."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}

    def schema_of(self, returned: Any) -> dict[str, Any]:
        """The schema of an answer's `data`."""
        if returned is type(None):
            return {"nullable": True, "type": "object", "description": "Always null."}
        if get_origin(returned) in (Union, types.UnionType):
            shown = [one for one in get_args(returned) if one is not web.Response]
            if len(shown) == 1:
                return self.schema_of(shown[0])
            return {"oneOf": [self.schema_of(one) for one in shown]}
        (schema,), parts = msgspec.json.schema_components([returned], ref_template=_REF + "{name}")
        to_openapi_30(schema)
        to_openapi_30(parts)
        self.schemas.update(parts)
        return dict(schema)


def _complete(operation: dict[str, Any], path: str, method: str, view: type[Resource], answers: _Answers) -> None:
    handler = getattr(view, method)
    for parameter in operation.get("parameters", ()):
        parameter["name"] = parameter["name"].removesuffix("_")
        parameter["schema"].pop("title", None)
    operation["summary"] = operation["description"].partition("\n")[0]
    operation["operationId"] = f"{view.__name__.removesuffix('View')}.{method}"
    operation["tags"] = [path.removeprefix(PREFIX).strip("/").partition("/")[0]]
    if handler.permission is not Door.OPEN:
        operation["security"] = [{"bearer": []}]
    operation["x-permission"] = str(handler.permission)
    if hasattr(handler, "content_types"):
        schema = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": True, "content": dict.fromkeys(handler.content_types, schema)}
    answer = _success(get_type_hints(handler).get("return"), answers)
    operation["responses"] = {
        **{str(status): answer for status in (handler.status, *handler.also)},
        "default": {"description": _failures(), "content": {"application/json": {"schema": _ref("Failure")}}},
    }


def _success(returned: Any, answers: _Answers) -> dict[str, Any]:
    if isinstance(returned, type) and issubclass(returned, web.StreamResponse):
        return {"description": "Success; not in the envelope."}
    schema = {
        "type": "object",
        "required": ["success", "data"],
        "properties": {"success": {"type": "boolean", "enum": [True]}, "data": answers.schema_of(returned)},
    }
    return {"description": "Success.", "content": {"application/json": {"schema": schema}}}


def _failures() -> str:
    codes = {(status, kind.code) for kind, status in STATUS.items()}
    codes |= {(status, code) for status, (code, _) in HTTP_CODES.items()} | {(500, "internal")}
    return "Failure: " + ", ".join(f"{status} `{code}`" for status, code in sorted(codes))


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF + name}


def _page(version: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Flux Gateway {html.escape(version)}</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
