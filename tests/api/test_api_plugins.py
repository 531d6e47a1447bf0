"""Plugins over the API: the routes against a port of memory; the real host stands behind them in test_api_desk."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from fakes.api_fakes import ApiBench, api_bench
from msgspec.structs import replace

from gateway.api.plugin_port import FrameOutcome, TriedInput
from gateway.core.errors import NotReady, StorageFailed
from gateway.core.scope import system_scope
from gateway.identity.permissions import Permission

ZIP = {"Content-Type": "application/zip"}


async def upload(api: ApiBench, package: bytes, query: str = "", *, expect: int, **headers: str) -> Any:
    kind = {"Content-Type": headers.pop("kind", ZIP["Content-Type"]), **headers}
    return await api.call("POST", f"/plugins{query}", data=package, headers=kind, expect=expect)


async def actions(api: ApiBench) -> list[tuple[str, str, Any]]:
    items = (await api.call("GET", "/audit?entity=plugin&sort=seq", expect=200))["data"]["items"]
    return [(item["action"], item["entity_id"], item["after"]) for item in items]


@pytest.mark.parametrize("kind", ["application/zip", "application/octet-stream"])
async def test_a_package_that_runs_is_answered_with_201_and_the_plugin(api: ApiBench, kind: str) -> None:
    data = (await upload(api, b"meter 1.2.0", expect=201, kind=kind))["data"]
    assert (data["id"], data["version"], data["state"], data["waiting"]) == ("meter", "1.2.0", "running", None)
    ((action, plugin_id, after),) = await actions(api)
    assert (action, plugin_id) == ("plugin.install", "meter")
    assert after.items() >= {"version": "1.2.0", "sha256": "00", "activate": True}.items()


async def test_a_package_that_waits_for_a_grant_is_answered_with_202(api: ApiBench) -> None:
    data = (await upload(api, b"meter 1.2.0 waiting", expect=202))["data"]
    assert data["waiting"] == {"version": "1.2.0", "missing": ["wasi"]}


async def test_a_package_may_be_kept_without_running(api: ApiBench) -> None:
    await upload(api, b"meter 1.2.0 waiting", "?activate=false", expect=201)
    assert api.plugins.activated == [False]
    await upload(api, b"meter 1.2.0", "?activate=perhaps", expect=422)
    await upload(api, b"meter 1.2.0", "?activte=false", expect=422)


@pytest.mark.parametrize(
    ("package", "status", "code", "why"),
    [
        (b"meter 1.2.0 refused", 422, "invalid", "2 test vectors fail"),
        (b"meter 1.2.0 conflict", 409, "conflict", "other content"),
    ],
)
async def test_a_package_that_is_not_taken_says_why_and_is_not_noted(
    api: ApiBench, package: bytes, status: int, code: str, why: str
) -> None:
    answer = await upload(api, package, expect=status)
    assert answer["code"] == code
    assert why in answer["error"]
    assert await actions(api) == []


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "text/plain", "application/x-tar"])
async def test_a_body_that_is_no_package_is_answered_with_415(api: ApiBench, kind: str) -> None:
    answer = await upload(api, b"{}", expect=415, kind=kind)
    assert answer["code"] == "body.unsupported_type"
    assert "application/zip" in answer["error"]


async def test_a_package_over_the_bound_is_answered_with_413_whether_its_length_is_told_or_not(api: ApiBench) -> None:
    async def pieces() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    for data in (io.BytesIO(b" " * (api.plugins.max_package_bytes + 1)), pieces()):
        answer = await api.call("POST", "/plugins", data=data, headers=ZIP, expect=413)
        assert answer["code"] == "body.too_large"


async def test_a_package_may_be_larger_than_any_other_body() -> None:
    async with api_bench(max_body_bytes=1024) as api:
        await upload(api, b"meter 1.2.0" + b" " * 500_000, expect=201)
        await api.call("POST", "/plugins/bytes/decode", json={"hex": ["00" * 2000]}, expect=413)


async def test_a_package_that_does_not_come_is_given_up_and_others_get_through() -> None:
    async with api_bench(body_s=0.2) as api:
        slow = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(
                b"POST /api/v1/plugins HTTP/1.1\r\nHost: x\r\nContent-Type: application/zip\r\n"
                b"Authorization: Bearer " + api.token.encode() + b"\r\nContent-Length: 100\r\n\r\nm"
            )
            slow.append((reader, writer))
        await upload(api, b"meter 1.2.0", expect=201)
        for reader, writer in slow:
            assert b" 408 " in await reader.readuntil(b"\r\n\r\n")
            writer.close()


@pytest.mark.parametrize(("failure", "status"), [(StorageFailed("no space left"), 503), (NotReady("stopping"), 503)])
async def test_a_full_disk_or_a_stopping_gateway_is_answered_with_503(
    api: ApiBench, failure: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(package: bytes, *, activate: bool) -> None:
        raise failure

    monkeypatch.setattr(api.plugins, "install", fails)
    await upload(api, b"meter 1.2.0", expect=status)


async def test_changes_show_in_the_plugin_and_in_the_audit_log(api: ApiBench) -> None:
    await upload(api, b"meter 1.2.0", expect=201)
    for path, body, field, value in (
        ("activate", {"version": "1.1.0"}, "version", "1.1.0"),
        ("disable", None, "state", "disabled"),
        ("enable", None, "state", "running"),
        ("grants", {"caps": ["wasi", "emit"]}, "id", "meter"),
    ):
        options = {} if body is None else {"json": body}
        data = (await api.call("POST", f"/plugins/meter/{path}", expect=200, **options))["data"]
        assert data[field] == value, path
    assert api.plugins.granted == ["wasi", "emit"]
    await api.call("DELETE", "/plugins/meter/grants", expect=200)
    assert api.plugins.granted == []
    await api.call("DELETE", "/plugins/meter/versions/1.0.0", expect=200)
    await api.call("DELETE", "/plugins/meter", expect=200)
    await api.call("GET", "/plugins/meter", expect=404)
    assert [action for action, _, _ in await actions(api)] == [
        "plugin.install",
        "plugin.activate",
        "plugin.disable",
        "plugin.enable",
        "plugin.grant",
        "plugin.revoke",
        "plugin.remove_version",
        "plugin.remove",
    ]


async def test_what_does_not_fit_the_present_state_is_a_conflict(api: ApiBench) -> None:
    await api.call("POST", "/plugins/bytes/rollback", expect=409)
    await api.call("DELETE", "/plugins/bytes", expect=409)
    await api.call("DELETE", "/plugins/bytes/versions/1.0.0", expect=409)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/activate", {"version": "1"}),
        ("POST", "/rollback", None),
        ("POST", "/disable", None),
        ("POST", "/enable", None),
        ("GET", "/shadow", None),
        ("POST", "/shadow", {"version": "1"}),
        ("DELETE", "/shadow", None),
        ("POST", "/promote", None),
        ("POST", "/try", {"hex": ["00"]}),
        ("POST", "/call", {}),
        ("DELETE", "/versions/1.0.0", None),
    ],
)
async def test_a_plugin_that_is_not_there_is_not_found(api: ApiBench, method: str, path: str, body: Any) -> None:
    options = {} if body is None else {"json": body}
    answer = await api.call(method, f"/plugins/ghost{path}", expect=404, **options)
    assert answer["code"] == "not_found"
    assert await actions(api) == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("activate", {}, "version"),
        ("activate", {"version": ""}, "version"),
        ("activate", {"version": "x" * 65}, "version"),
        ("grants", {"caps": []}, "caps"),
        ("grants", {"caps": ["root"]}, "caps"),
        ("shadow", {"version": "1", "minutes": 0}, "minutes"),
        ("shadow", {"version": "1", "minutes": 1e9}, "minutes"),
        ("try", {"hex": []}, "hex"),
        ("try", {"hex": ["0"]}, "hex"),
        ("try", {"hex": ["00"], "aux": -1}, "aux"),
        ("try", {"hex": ["00"], "product": "ghost"}, "product"),
        ("call", {"args": []}, "args"),
        ("call", {"args": {"data": {"$hex": "0"}}}, "args"),
        ("call", {"args": {"n": 2**70}}, "args"),
        ("call", {"timeout_s": 61}, "timeout_s"),
    ],
)
async def test_a_wrong_field_is_named(api: ApiBench, path: str, body: dict[str, Any], field: str) -> None:
    answer = await api.call("POST", f"/plugins/bytes/{path}", json=body, expect=422)
    assert answer["error"].startswith(field)


async def test_a_shadow_is_started_looked_at_stopped_and_promoted(api: ApiBench) -> None:
    await api.call("GET", "/plugins/bytes/shadow", expect=404)
    data = (await api.call("POST", "/plugins/bytes/shadow", json={"version": "2", "minutes": 5}, expect=200))["data"]
    assert (data["shadow"]["version"], data["shadow"]["running"]) == ("2", True)
    report = (await api.call("GET", "/plugins/bytes/shadow", expect=200))["data"]
    (difference,) = report["differences"]
    assert (difference["frame"], difference["live"], difference["candidate"]) == ("01", {"a": 1}, 3)
    data = (await api.call("DELETE", "/plugins/bytes/shadow", expect=200))["data"]
    assert data["shadow"]["running"] is False
    assert (await api.call("POST", "/plugins/bytes/promote", expect=200))["data"]["version"] == "2"
    assert [action for action, _, _ in await actions(api)] == ["plugin.shadow", "plugin.stop_shadow", "plugin.promote"]


async def test_frames_of_a_shadow_are_for_those_who_may_see_dead_letters(api: ApiBench) -> None:
    await api.plugins.shadow("bytes", "2", 1)
    await api.identity.add_user("viewer", Permission.PLUGIN_LIST)
    token = await api.identity.token_of("viewer")
    await api.call("GET", "/plugins/bytes/shadow", token=token, expect=403)


async def test_trying_a_payload_shows_its_whole_way(api: ApiBench) -> None:
    await api.with_device()
    body = {"hex": ["01", "02"], "aux": 7, "product": "meter"}
    items = (await api.call("POST", "/plugins/bytes/try", json=body, expect=200))["data"]["items"]
    assert items[0] == {
        "frames": [
            {
                "frame": "01",
                "ok": True,
                "item": {"kind": "report"},
                "normalised": [{"at": None, "values": {"aux": 7}, "quality": {}, "shed": 0}],
            }
        ],
        "timings": {"framing_us": 1.0, "decode_us": 2.0, "normalise_us": 3.0},
    }
    (plain,) = (await api.call("POST", "/plugins/bytes/try", json={"hex": ["01"]}, expect=200))["data"]["items"]
    assert "normalised" not in plain["frames"][0]


async def test_a_call_takes_and_gives_bytes_as_hex(api: ApiBench) -> None:
    body = {"args": {"op": "hash", "data": {"$hex": "00ff"}}}
    result = (await api.call("POST", "/plugins/bytes/call", json=body, expect=200))["data"]["result"]
    assert result == {"args": body["args"], "bytes": {"$hex": "ab"}}


async def test_an_answer_that_is_nested_without_end_is_the_plugins_fault(
    api: ApiBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]

    async def answers(*_: Any) -> Any:
        return deep

    monkeypatch.setattr(api.plugins, "call", answers)
    answer = await api.call("POST", "/plugins/bytes/call", json={}, expect=422)
    assert answer["code"] == "codec.failed"


async def test_a_frame_that_is_nested_without_end_is_malformed_and_its_neighbours_live(
    api: ApiBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]

    async def answers(*_: Any) -> list[TriedInput]:
        return [TriedInput([FrameOutcome(value=deep), FrameOutcome(value=1)])]

    monkeypatch.setattr(api.plugins, "try_decode", answers)
    answer = await api.call("POST", "/plugins/bytes/decode", json={"hex": ["00"]}, expect=200)
    first, second = answer["data"]["items"][0]["frames"]
    assert (first["ok"], first["code"]) == (False, -2)
    assert second == {"ok": True, "value": 1}


async def test_another_tenants_users_install_nothing(api: ApiBench) -> None:
    await api.identity.add_user("stranger", "*", tenant_id="other")
    token = await api.identity.token_of("stranger")
    await api.call("POST", "/plugins", token=token, data=b"meter 1.2.0", headers=ZIP, expect=404)
    assert "meter" not in api.plugins.known


async def test_the_document_says_what_an_upload_takes_and_gives(api: ApiBench) -> None:
    _, _, spec = await api.call_raw("GET", "/openapi.json", token=None)
    upload = spec["paths"]["/api/v1/plugins"]["post"]
    assert set(upload["requestBody"]["content"]) == {"application/zip", "application/octet-stream"}
    assert {"201", "202", "default"} == set(upload["responses"])
    schema = upload["responses"]["201"]["content"]["application/json"]["schema"]["properties"]["data"]
    assert schema["$ref"].endswith("PluginDetail")
    (query,) = upload["parameters"]
    assert (query["name"], query["in"], query["schema"]["type"]) == ("activate", "query", "boolean")


async def test_a_plugin_in_use_keeps_its_product(api: ApiBench) -> None:
    """The catalog names who uses a plugin, whatever the tenant."""
    await api.with_device(tenant_id="other")
    product = api.catalog.product(system_scope(tenant_id="other"), "meter")
    await api.catalog.replace_product(system_scope(tenant_id="other"), replace(product, plugin_id="bytes"))
    assert [one.id for one in api.catalog.products_of_plugin("bytes")] == ["meter"]
    assert api.catalog.products_of_plugin("ghost") == []
