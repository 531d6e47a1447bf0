from typing import Any

import pytest
from fakes.api_fakes import ApiBench
from fakes.identity_fakes import PASSWORD

from gateway.core.flow import DeadLetter, Quality
from gateway.core.scope import system_scope
from gateway.things.ports import HistoryPoint, PropertyValue

AT = 1_790_000_000_000


async def test_login_me_and_logout(api: ApiBench) -> None:
    body = {"username": "root", "password": PASSWORD}
    login = (await api.call("POST", "/auth/login", token=None, json=body, expect=200))["data"]
    assert set(login) == {"token", "expires_at"}
    assert login["expires_at"].endswith("Z")
    me = (await api.call("GET", "/auth/me", token=login["token"], expect=200))["data"]
    assert (me["user"]["username"], me["permissions"], me["tenant_id"]) == ("root", ["*"], "default")
    assert me["token_expires_at"] == login["expires_at"]
    await api.call("POST", "/auth/logout", token=login["token"], expect=200)
    await api.call("GET", "/auth/me", token=login["token"], expect=401)
    await api.call("GET", "/auth/me", expect=200)


async def test_a_throttled_login_says_when_to_come_back(api: ApiBench) -> None:
    body = {"username": "root", "password": "wrong"}
    for _ in range(6):
        await api.call("POST", "/auth/login", token=None, json=body, expect=401)
    status, headers, answer = await api.call_raw("POST", "/api/v1/auth/login", token=None, json=body)
    assert (status, answer["code"], headers["Retry-After"]) == (429, "auth.throttled", "1")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic cm9vdDp4", "Bearer a b", "bearer\tx", "Token x"])
async def test_a_malformed_authorization_is_refused(api: ApiBench, header: str) -> None:
    status, _, answer = await api.call_raw("GET", "/api/v1/devices", headers={"Authorization": header})
    assert (status, answer["code"]) == (401, "auth.failed")


async def test_a_person_changes_his_own_password_with_the_present_one(api: ApiBench) -> None:
    wrong = {"password": "wrong", "new_password": "a new password"}
    await api.call("PATCH", "/auth/me", json=wrong, expect=401)
    await api.call("PATCH", "/auth/me", json=wrong | {"password": PASSWORD, "new_password": "short"}, expect=422)
    await api.call("PATCH", "/auth/me", json=wrong | {"password": PASSWORD}, expect=200)
    await api.call("GET", "/auth/me", expect=401)
    body = {"username": "root", "password": "a new password"}
    await api.call("POST", "/auth/login", token=None, json=body, expect=200)


async def test_users_and_roles_are_made_changed_and_deleted(api: ApiBench) -> None:
    role = {"id": "viewer", "permissions": ["things.device.list"]}
    assert (await api.call("POST", "/roles", json=role, expect=201))["data"] == role
    user = {"username": "ann", "password": "long enough", "roles": ["viewer"]}
    made = (await api.call("POST", "/users", json=user, expect=201))["data"]
    assert set(made) == {"id", "username", "roles", "enabled", "created_at", "updated_at"}
    assert (await api.call("GET", f"/users/{made['id']}", expect=200))["data"] == made
    listed = (await api.call("GET", "/users?sort=-username&limit=1", expect=200))["data"]
    assert (listed["items"][0]["username"], listed["total"], listed["limit"]) == ("root", 2, 1)
    await api.call("POST", "/users", json=user, expect=409)
    changed = await api.call("PATCH", f"/users/{made['id']}", json={"enabled": False}, expect=200)
    assert changed["data"]["enabled"] is False
    await api.call("DELETE", "/roles/viewer", expect=409)
    await api.call("DELETE", f"/users/{made['id']}", expect=200)
    await api.call("PUT", "/roles/viewer", json={"permissions": ["*"]}, expect=200)
    await api.call("PUT", "/roles/viewer", json={"permissions": ["no.such.code"]}, expect=422)
    await api.call("DELETE", "/roles/viewer", expect=200)
    await api.call("GET", "/roles/viewer", expect=404)


async def test_products_are_made_replaced_and_deleted(api: ApiBench) -> None:
    model = {"properties": {"speed": {"type": "float", "unit": "km/h", "minimum": 0}}}
    made = (await api.call("POST", "/products", json={"id": "van", "name": "Van", "model": model}, expect=201))["data"]
    assert made["model"]["properties"]["speed"]["unit"] == "km/h"
    assert made["source"] == "api"
    await api.call("POST", "/products", json={"id": "van"}, expect=409)
    await api.call("PUT", "/products/van", json={"name": "Truck", "retention_days": 30}, expect=200)
    shown = (await api.call("GET", "/products/van", expect=200))["data"]
    assert (shown["name"], shown["retention_days"], shown["model"]["properties"]) == ("Truck", 30.0, {})
    assert (await api.call("GET", "/products?search=TRU", expect=200))["data"]["total"] == 1
    assert (await api.call("GET", "/products?search=car", expect=200))["data"]["total"] == 0
    await api.call("DELETE", "/products/van", expect=200)
    await api.call("PUT", "/products/van", json={}, expect=404)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"id": "p", "model": {"properties": {"a": {"type": "quux"}}}}, "model"),
        ({"id": "p", "model": {"properties": {"a": {}}}}, "model"),
        ({"id": "p", "model": {"wings": {}}}, "model"),
        ({"id": "p", "mapping": [{"scale": 2}]}, "mapping"),
        ({"id": "p", "registration": "maybe"}, "registration"),
        ({"id": "p", "retention_days": -1}, "retention_days"),
        ({"id": "p", "model": []}, "model"),
        ({"id": "p", "source": "file"}, "source"),
    ],
)
async def test_a_wrong_product_is_refused_and_the_field_named(api: ApiBench, body: Any, field: str) -> None:
    assert field in (await api.call("POST", "/products", json=body, expect=422))["error"]


async def test_a_product_of_an_unknown_plugin_is_refused_and_the_known_named(api: ApiBench) -> None:
    refusal = await api.call("POST", "/products", json={"id": "p", "plugin_id": "byts"}, expect=422)
    assert "plugin_id" in refusal["error"]
    assert "known are: bytes" in refusal["error"]
    await api.call("POST", "/products", json={"id": "p", "plugin_id": "bytes"}, expect=201)
    await api.call("PUT", "/products/p", json={"plugin_id": "byts"}, expect=422)


async def test_devices_are_made_listed_changed_and_deleted(api: ApiBench) -> None:
    await api.with_device()
    body = {"id": "d2", "product_id": "meter", "name": "Two", "tags": {"site": "north"}}
    made = (await api.call("POST", "/devices", json=body, expect=201))["data"]
    assert (made["online"], made["last_seen_at"], made["credential"]) == (False, None, None)
    await api.call("POST", "/devices", json=body, expect=409)
    refusal = await api.call("POST", "/devices", json=body | {"id": "d3", "product_id": "ghost"}, expect=422)
    assert "product_id" in refusal["error"]
    found = (await api.call("GET", "/devices?tag=site=north&search=tw&product_id=meter&online=false", expect=200))[
        "data"
    ]
    assert [item["id"] for item in found["items"]] == ["d2"]
    listed = (await api.call("GET", "/devices?sort=-id&limit=1&page=2", expect=200))["data"]
    assert ([item["id"] for item in listed["items"]], listed["total"]) == (["d1"], 2)
    changed = (await api.call("PATCH", "/devices/d2", json={"enabled": False}, expect=200))["data"]
    assert (changed["enabled"], changed["name"]) == (False, "Two")
    await api.call("PUT", "/devices/d2/credentials", json={"credential": "0123456789abcdef"}, expect=200)
    assert (await api.call("GET", "/devices/d2", expect=200))["data"]["credential"] == "operator"
    await api.call("DELETE", "/devices/d2/credentials", expect=200)
    assert (await api.call("GET", "/devices/d2", expect=200))["data"]["credential"] is None
    await api.call("DELETE", "/devices/d2", expect=200)
    await api.call("GET", "/devices/d2", expect=404)


async def test_a_change_is_audited_under_the_callers_name(api: ApiBench) -> None:
    await api.with_device()
    await api.call("PATCH", "/devices/d1", json={"name": "new"}, expect=200)
    entry = (await api.call("GET", "/audit?entity=device&actor=root", expect=200))["data"]["items"][0]
    assert (entry["action"], entry["before"]["name"], entry["after"]["name"]) == ("update", "", "new")
    assert (await api.call("GET", "/audit/verify", expect=200))["data"] == {"whole": True, "first_broken_seq": None}


async def test_a_command_is_sent_and_shown(api: ApiBench) -> None:
    await api.with_device()
    body = {"name": "beep", "args": {"times": 3}, "timeout_s": 5}
    made = (await api.call("POST", "/devices/d1/commands", json=body, expect=201))["data"]
    assert (made["status"], made["requested_by"], made["timeout_s"], made["args"]) == (
        "queued",
        "root",
        5.0,
        {"times": 3},
    )
    assert (await api.call("GET", f"/devices/d1/commands/{made['id']}", expect=200))["data"] == made
    assert (await api.call("GET", "/devices/d1/commands", expect=200))["data"]["items"] == [made]
    await api.with_device("d2")
    await api.call("GET", f"/devices/d2/commands/{made['id']}", expect=404)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "beep", "timeout_s": 0},
        {"name": "beep", "timeout_s": 1e9},
        {"name": "beep", "timeout_s": "10"},
        {"name": "beep", "args": {"n": 2**70}},
        {"name": "beep", "args": {"deep": [{"n": -(2**70)}]}},
        {"name": "beep", "args": []},
        {"name": ""},
        {},
    ],
)
async def test_a_wrong_command_is_refused(api: ApiBench, body: Any) -> None:
    await api.with_device()
    await api.call("POST", "/devices/d1/commands", json=body, expect=422)
    assert api.commands.sent == []


async def test_properties_carry_unit_quality_and_times(api: ApiBench) -> None:
    await api.with_device()
    api.history.values = [
        PropertyValue("temperature", 21.5, Quality.GOOD, AT, AT + 5),
        PropertyValue("unheard", float("nan"), Quality.UNKNOWN_PROPERTY, AT, AT),
    ]
    items = (await api.call("GET", "/devices/d1/properties", expect=200))["data"]["items"]
    assert items[0] == {
        "property": "temperature",
        "value": 21.5,
        "unit": "Cel",
        "quality": "good",
        "observed_at": "2026-09-21T14:13:20.000Z",
        "received_at": "2026-09-21T14:13:20.005Z",
    }
    assert (items[1]["unit"], items[1]["value"]) == (None, None)


async def test_history_passes_span_and_page_and_shows_points(api: ApiBench) -> None:
    await api.with_device()
    api.history.history = [HistoryPoint(AT, AT, value, Quality.GOOD) for value in (1, 2, 3)]
    query = "property=temperature&from=2026-09-21T00:00:00Z&to=2026-09-22T02:00:00%2B02:00&page=2&limit=2"
    data = (await api.call("GET", f"/devices/d1/history?{query}", expect=200))["data"]
    assert (data["total"], data["page"], data["limit"]) == (3, 2, 2)
    assert data["items"] == [
        {
            "observed_at": "2026-09-21T14:13:20.000Z",
            "received_at": "2026-09-21T14:13:20.000Z",
            "value": 3,
            "quality": "good",
        }
    ]
    _, property_id, span, _ = api.history.asked[-1]
    assert property_id == "temperature"
    assert (span.to_ms - span.from_ms) == 24 * 3600 * 1000


async def test_an_unescaped_plus_in_a_time_zone_is_understood(api: ApiBench) -> None:
    await api.with_device()
    for zone in ("+02:00", "%2B02:00", " 02:00"):
        await api.call("GET", f"/devices/d1/history?property=t&from=2026-09-21T02:00:00{zone}", expect=200)
    assert len({asked[2].from_ms for asked in api.history.asked}) == 1


@pytest.mark.parametrize(
    ("interval", "ms"), [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000)]
)
async def test_an_aggregate_names_the_start_of_each_interval(api: ApiBench, interval: str, ms: int) -> None:
    await api.with_device()
    data = (await api.call("GET", f"/devices/d1/history?property=t&agg=avg&interval={interval}", expect=200))["data"]
    assert data["items"] == [{"from": "1970-01-01T00:00:00.000Z", "value": 1.5}]
    assert api.history.asked[-1][3:5] == ("avg", ms)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "property"),
        ("property=", "property"),
        ("property=t&from=yesterday", "from"),
        ("property=t&from=2026-13-01T00:00:00Z", "from"),
        ("property=t&to=2026-01-01", "to"),
        ("property=t&to=0000-01-01T00:00:00Z", "to"),
        ("property=t&agg=median&interval=1s", "agg"),
        ("property=t&agg=avg", "interval"),
        ("property=t&agg=avg&interval=0s", "interval"),
        ("property=t&agg=avg&interval=1y", "interval"),
        ("property=t&agg=avg&interval=-1s", "interval"),
        ("property=t&interval=1s", "interval"),
        ("property=t&agg=avg&interval=1s&sort=observed_at", "sort"),
    ],
)
async def test_a_wrong_history_query_is_refused_and_the_parameter_named(api: ApiBench, query: str, field: str) -> None:
    await api.with_device()
    assert (await api.call("GET", f"/devices/d1/history?{query}", expect=422))["error"].startswith(field)
    assert api.history.asked == []


async def test_a_devices_events_come_newest_first_and_by_type(api: ApiBench) -> None:
    await api.with_device()
    for kind in ("device.online", "alarm.raised", "device.offline"):
        api.event(kind)
    items = (await api.call("GET", "/devices/d1/events", expect=200))["data"]["items"]
    assert [item["type"] for item in items] == ["device.offline", "alarm.raised", "device.online"]
    data = (await api.call("GET", "/devices/d1/events?types=alarm.raised&sort=seq", expect=200))["data"]
    assert [item["seq"] for item in data["items"]] == [2]


async def test_trying_a_payload_gives_one_item_per_input(api: ApiBench) -> None:
    body = {"hex": ["01ff00", "", "AB cd", "7e7e"]}
    items = (await api.call("POST", "/plugins/bytes/decode", json=body, expect=200))["data"]["items"]
    assert items[0]["frames"] == [
        {"ok": True, "value": {"byte": 1, "raw": "aa", "nan": None, "7": ["bb"]}},
        {"ok": False, "code": 3, "error": "checksum"},
        {"ok": True, "value": None},
    ]
    assert items[1] == {"frames": []}
    assert items[3] == {"frames": [], "skipped": 2}
    assert len(items[2]["frames"]) == 2
    await api.call("POST", "/plugins/ghost/decode", json=body, expect=404)
    for wrong in (["0"], ["zz"], [1], [], "01"):
        assert "hex" in (await api.call("POST", "/plugins/bytes/decode", json={"hex": wrong}, expect=422))["error"]


async def test_trying_a_command_gives_its_bytes(api: ApiBench) -> None:
    data = (await api.call("POST", "/plugins/bytes/encode", json={"command": "beep"}, expect=200))["data"]
    assert data == {"hex": "0102"}
    answer = await api.call("POST", "/plugins/bytes/encode", json={"command": "sing"}, expect=422)
    assert answer["code"] == "codec.failed"


async def test_plugins_and_listeners_show_their_counters(api: ApiBench) -> None:
    (plugin,) = (await api.call("GET", "/plugins", expect=200))["data"]["items"]
    assert (plugin["id"], plugin["counters"]) == ("bytes", {"frames": 3.0})
    assert (await api.call("GET", "/plugins/bytes", expect=200))["data"].items() >= plugin.items()
    (listener,) = (await api.call("GET", "/listeners", expect=200))["data"]["items"]
    assert (listener["name"], listener["port"], listener["connections"]) == ("jt808", 8808, 2)


async def test_a_stopped_rule_is_restarted(api: ApiBench) -> None:
    assert (await api.call("GET", "/rules/speeding", expect=200))["data"]["state"] == "stopped"
    assert (await api.call("POST", "/rules/speeding/restart", expect=200))["data"]["state"] == "running"
    assert (await api.call("GET", "/rules", expect=200))["data"]["items"][0]["strikes"] == 0
    assert "rule.restart" in api.identity.actions()
    await api.call("POST", "/rules/ghost/restart", expect=404)


async def test_a_scene_runs_and_is_cancelled(api: ApiBench) -> None:
    run = (await api.call("POST", "/scenes/locate/runs", json={"args": {"device": "d1"}}, expect=201))["data"]
    assert (run["status"], run["started_by"], run["args"]) == ("running", "root", {"device": "d1"})
    assert (await api.call("GET", "/scenes/locate/runs", expect=200))["data"]["items"] == [run]
    assert (await api.call("GET", f"/scenes/locate/runs/{run['id']}", expect=200))["data"] == run
    ended = (await api.call("POST", f"/scenes/locate/runs/{run['id']}/cancel", expect=200))["data"]
    assert ended["status"] == "cancelled"
    await api.call("POST", f"/scenes/locate/runs/{run['id']}/cancel", expect=409)
    await api.call("GET", f"/scenes/other/runs/{run['id']}", expect=404)
    await api.call("GET", "/scenes/other/runs", expect=404)
    await api.call("POST", "/scenes/other/runs", json={}, expect=404)
    assert {"scene.run", "scene.cancel"} <= set(api.identity.actions())


async def test_schedules_are_made_changed_and_deleted(api: ApiBench) -> None:
    body = {"scene": "locate", "cron": "0 6 * * *", "timezone": "Asia/Shanghai"}
    made = (await api.call("POST", "/schedules", json=body, expect=201))["data"]
    changed = (await api.call("PATCH", f"/schedules/{made['id']}", json={"enabled": False}, expect=200))["data"]
    assert changed == made | {"enabled": False}
    assert (await api.call("GET", "/schedules", expect=200))["data"]["items"] == [changed]
    await api.call("DELETE", f"/schedules/{made['id']}", expect=200)
    await api.call("GET", f"/schedules/{made['id']}", expect=404)


async def test_an_alarm_is_acknowledged_and_cleared(api: ApiBench) -> None:
    alarm_id = await api.with_alarm()
    assert (await api.call("GET", "/alarms?state=active&acknowledged=false", expect=200))["data"]["total"] == 1
    acked = (await api.call("POST", f"/alarms/{alarm_id}/ack", expect=200))["data"]
    assert (acked["acknowledged"], acked["acknowledged_by"], acked["state"]) == (True, "root", "active")
    await api.call("POST", f"/alarms/{alarm_id}/ack", expect=200)
    assert (await api.call("POST", f"/alarms/{alarm_id}/clear", expect=200))["data"]["state"] == "cleared"
    await api.call("POST", f"/alarms/{alarm_id}/clear", expect=409)
    assert (await api.call("GET", f"/alarms/{alarm_id}", expect=200))["data"]["cleared_by"] == "root"


async def test_dead_letters_show_their_bytes(api: ApiBench) -> None:
    api.history.letters = [DeadLetter("default", "meter", "bytes", "checksum", b"\x7e\x00", AT, "d1")]
    (letter,) = (await api.call("GET", "/dead-letters", expect=200))["data"]["items"]
    assert (letter["frame_hex"], letter["reason"], letter["device_id"]) == ("7e00", "checksum", "d1")


async def test_a_device_of_a_product_in_another_tenant_cannot_be_made(api: ApiBench) -> None:
    await api.with_device(tenant_id="other")
    assert api.catalog.device(system_scope(tenant_id="other"), "d1").product_id == "meter"
    await api.call("POST", "/devices", json={"id": "d9", "product_id": "meter"}, expect=422)
