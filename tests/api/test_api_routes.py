from collections.abc import Iterator
from typing import Any

import pytest
from fakes.api_fakes import ApiBench
from fakes.identity_fakes import PASSWORD

from gateway.api.routes import LOGIN, PREFIX, ROUTES
from gateway.api.views import Door, Resource
from gateway.core.scope import system_scope
from gateway.identity.permissions import Permission
from gateway.notify.model import Notification
from gateway.reports.model import Report
from gateway.rules.model import Schedule

METHODS = ("get", "post", "put", "patch", "delete")
NAMES = {
    "user_id": "id-root",
    "role_id": "role-root",
    "product_id": "meter",
    "device_id": "d1",
    "command_id": "c0",
    "plugin_id": "bytes",
    "version": "0.9.0",
    "extension": "example",
    "path": "things/1",
    "name": "speeding",
    "scene": "locate",
    "run_id": "r0",
    "schedule_id": "s0",
    "notification_id": "n0",
    "report_id": "p0",
}
BODIES: dict[str, Any] = {
    "/auth/login": {"username": "nobody", "password": "x"},
    "/auth/me": {"password": "x", "new_password": "x"},
    "/users": {"username": "new", "password": "long enough"},
    "/roles": {"id": "new", "permissions": []},
    "/roles/{role_id}": {"permissions": []},
    "/products": {"id": "new"},
    "/devices": {"id": "new", "product_id": "meter"},
    "/devices/{device_id}/commands": {"name": "beep"},
    "/devices/{device_id}/credentials": {"credential": "canary-credential"},
    "/plugins/{plugin_id}/decode": {"hex": ["01"]},
    "/plugins/{plugin_id}/encode": {"command": "beep"},
    "/plugins/{plugin_id}/try": {"hex": ["01"]},
    "/plugins/{plugin_id}/grants": {"caps": ["wasi"]},
    "/plugins/{plugin_id}/activate": {"version": "1.0.0"},
    "/plugins/{plugin_id}/shadow": {"version": "1.0.0"},
    "/notifications": {"channel": "ops", "title": "t"},
    "/reports": {
        "plugin": "sum",
        "device": "d1",
        "property": "p",
        "from": "1970-01-01T00:00:00Z",
        "to": "1970-01-02T00:00:00Z",
    },
    "/schedules": {"scene": "locate", "cron": "* * * * *"},
}


def handlers() -> Iterator[tuple[str, str, type[Resource], Any]]:
    for path, view in ROUTES.items():
        for method in METHODS:
            if hasattr(view, method):
                yield path, method, view, getattr(view, method)


def body_of(path: str, method: str) -> dict[str, Any]:
    """A body that the route takes, as options of a call."""
    if (path, method) == (f"{PREFIX}/plugins", "post"):
        return {"data": b"meter 1.0.0", "headers": {"Content-Type": "application/zip"}}
    return {"json": BODIES.get(path.removeprefix(PREFIX), {})} if method in {"post", "put", "patch"} else {}


def filled(path: str, alarm_id: str = "a0") -> str:
    return path.format(**NAMES, alarm_id=alarm_id)


async def everything(api: ApiBench, tenant_id: str = "default") -> str:
    """One of each object; returns the alarm's id."""
    await api.with_device(tenant_id=tenant_id)
    scope = system_scope(tenant_id=tenant_id)
    await api.catalog.set_credential(scope, "d1", "canary-credential")
    await api.commands.send(scope, "d1", "beep", {}, 10.0)
    await api.parts.scenes.run(scope, "locate", {})
    await api.parts.schedules.create(scope, Schedule(id="s0", tenant_id=tenant_id, scene="locate", cron="* * * * *"))
    await api.plugins.shadow("bytes", "1.0.0", 1)
    note = Notification(id="n0", tenant_id=tenant_id, channel="ops", title="t", text="x")
    await api.notify.rows.add_notifications(scope, [note])
    report = Report(
        id="p0",
        tenant_id=tenant_id,
        plugin_id="sum",
        plugin_version="1",
        device_id="d1",
        property_id="p",
        from_ms=0,
        to_ms=1,
    )
    await api.reports.rows.add_report(scope, report)
    api.event(tenant_id=tenant_id)
    return await api.with_alarm(tenant_id)


def test_every_route_declares_one_permission_and_every_permission_is_used() -> None:
    declared = {f"{method} {path}": handler.permission for path, method, _, handler in handlers()}
    assert all(isinstance(permission, Permission | Door) for permission in declared.values())
    assert {permission for permission in declared.values() if isinstance(permission, Permission)} == set(Permission)


def test_reading_takes_a_list_permission_and_changing_a_manage_permission() -> None:
    for path, method, _, handler in handlers():
        if isinstance(handler.permission, Permission):
            verb = "list" if method == "get" else "manage"
            assert handler.permission.endswith(f".{verb}"), f"{method} {path}"


def test_only_probes_documents_and_the_login_are_open() -> None:
    open_routes = {path for path, _, _, handler in handlers() if handler.permission is Door.OPEN}
    assert open_routes == {LOGIN, "/health", "/metrics"}
    assert {path for path, _, _, handler in handlers() if handler.permission is Door.SIGNED_IN} == {
        f"{PREFIX}/auth/logout",
        f"{PREFIX}/auth/me",
    }


async def test_without_a_token_every_route_answers_401(api: ApiBench) -> None:
    for path, method, _, handler in handlers():
        if handler.permission is not Door.OPEN:
            status, headers, answer = await api.call_raw(method, filled(path), token=None)
            assert (status, answer["code"]) == (401, "auth.failed"), f"{method} {path}"
            assert headers["WWW-Authenticate"] == "Bearer"


async def test_without_its_permission_every_route_answers_403_and_names_it(api: ApiBench) -> None:
    for number, (path, method, _, handler) in enumerate(handlers()):
        if isinstance(handler.permission, Permission):
            others = set(Permission) - {handler.permission}
            await api.identity.add_user(f"u{number}", *others)
            token = await api.identity.token_of(f"u{number}")
            status, _, answer = await api.call_raw(method, filled(path), token=token)
            assert (status, answer["code"]) == (403, "auth.forbidden"), f"{method} {path}"
            assert handler.permission in answer["error"]


async def test_with_its_permission_alone_every_route_lets_through(api: ApiBench) -> None:
    alarm_id = await everything(api)
    for number, (path, method, view, handler) in enumerate(handlers()):
        if isinstance(handler.permission, Permission) and "stream" not in path:
            await api.identity.add_user(f"u{number}", handler.permission)
            token = await api.identity.token_of(f"u{number}")
            url = filled(path, alarm_id) + ("?property=temperature" if path.endswith("history") else "")
            status, _, answer = await api.call_raw(method, url, token=token, **body_of(path, method))
            # Objects vanish on the way (DELETE comes last on each path), and nobody edits somebody above him.
            allowed = {200, 201, 404, 409} | ({403} if view.__name__ in {"UserView", "RoleView"} else set())
            assert status in allowed, f"{method} {path}: {answer}"


async def test_another_tenants_objects_answer_404_everywhere(api: ApiBench) -> None:
    alarm_id = await everything(api)
    await api.identity.add_user("stranger", "*", tenant_id="other")
    token = await api.identity.token_of("stranger")
    for path, method, _, _ in handlers():
        if "{" not in path:
            continue
        url = filled(path, alarm_id) + ("?property=temperature" if path.endswith("history") else "")
        status, _, answer = await api.call_raw(method, url, token=token, **body_of(path, method))
        assert (status, answer["code"]) == (404, "not_found"), f"{method} {path}: {answer}"
    assert (await api.call("GET", "/devices/d1", expect=200))["data"]["id"] == "d1"


async def test_another_tenants_lists_are_empty_of_ours(api: ApiBench) -> None:
    await everything(api)
    await api.identity.add_user("stranger", "*", tenant_id="other")
    token = await api.identity.token_of("stranger")
    for path, method, _, _ in handlers():
        if (
            method != "get"
            or "{" in path
            or not path.startswith(PREFIX)
            or path.endswith(("/me", "/verify", "/stream"))
        ):
            continue
        status, _, answer = await api.call_raw("GET", path, token=token)
        if status == 404:
            continue
        assert status == 200, path
        shown = [item for item in answer["data"]["items"] if "stranger" not in str(item)]
        assert shown == [], path


async def test_no_answer_shows_a_secret(api: ApiBench) -> None:
    alarm_id = await everything(api)
    await api.call("POST", "/auth/login", token=None, json={"username": "root", "password": PASSWORD}, expect=200)
    digest = api.catalog.device(system_scope(), "d1").credential_digest
    assert digest
    for path, method, _, _ in handlers():
        if method == "get" and not path.endswith("/stream"):
            url = filled(path, alarm_id) + ("?property=temperature" if path.endswith("history") else "")
            status, _, answer = await api.call_raw("GET", url)
            assert status == 200, path
            for secret in ("canary-credential", "$argon2", digest, PASSWORD, "device_key", "password_hash"):
                assert secret not in str(answer), f"{secret} in GET {path}"


HOSTILE = ["' OR '1'='1", "'; DROP TABLE device; --", '"', "%", "\x00", "../../etc/passwd", "\u202e", "{{7*7}}", "$.a"]


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_in_every_query_parameter_is_text(api: ApiBench, text: str) -> None:
    await api.with_device()
    lists = {
        "/devices": ("product_id", "tag", "search", "sort"),
        "/products": ("search", "sort"),
        "/alarms": ("device_id", "rule", "state", "severity", "sort"),
        "/audit": ("actor", "entity", "sort"),
        "/devices/d1/events": ("types", "sort"),
        "/devices/d1/history": ("property", "from", "to", "agg", "interval", "sort"),
        "/users": ("sort",),
        "/notifications": ("status", "channel", "sort"),
        "/stream": ("device",),
    }
    for path, names in lists.items():
        for name in names:
            status, _, answer = await api.call_raw("GET", PREFIX + path, params={name: text})
            assert status in {200, 404, 422}, (path, name, answer)
            if status == 200 and name != "search":
                assert answer["data"]["items"] == [], (path, name)
    assert (await api.call("GET", "/devices", expect=200))["data"]["total"] == 1


@pytest.mark.parametrize("text", ["' OR '1'='1", "%27%3B--", "%00", "..%2f..", "%F0%9F%92%A9", "%ff%fe", "a" * 5000])
async def test_a_hostile_id_in_the_path_is_not_found(api: ApiBench, text: str) -> None:
    for kind in ("users", "roles", "products", "devices", "plugins", "rules", "scenes", "schedules", "alarms"):
        status, _, answer = await api.call_raw("GET", f"/api/v1/{kind}/{text}")
        assert (status, answer["code"]) == (404, "not_found"), (kind, answer)
