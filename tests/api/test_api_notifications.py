"""Notifications over the API: queued durably, shown with how they ended, and no secret anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.api_fakes import ApiBench
from fakes.notify_fakes import RecordingOutbound, ScriptedPlugins
from fakes.rules_fakes import until

from gateway.core.errors import StorageFailed
from gateway.notify.channel import Channel
from gateway.notify.config import PluginChannelConfig
from gateway.notify.model import Undelivered
from gateway.notify.pace import Pace
from gateway.notify.plugin import PluginNotifier


async def told(api: ApiBench, **body: Any) -> dict[str, Any]:
    answer = await api.call("POST", "/notifications", json={"channel": "ops", "title": "Too hot"} | body, expect=201)
    return dict(answer["data"])


async def test_what_is_told_is_queued_and_then_shows_how_it_ended(api: ApiBench) -> None:
    await api.with_device()
    link = "https://example.com/a"
    queued = await told(api, text="81 Cel", severity="major", device="d1", link=link)
    assert (queued["status"], queued["attempts"], queued["sent_at"], queued["ended_at"]) == ("queued", 0, None, None)
    assert (queued["device_id"], queued["link"], queued["requested_by"]) == ("d1", link, "root")
    async with api.notify:
        await until(lambda: api.notify.channel.waiting == 0)
    shown = (await api.call("GET", f"/notifications/{queued['id']}", expect=200))["data"]
    assert (shown["status"], shown["attempts"]) == ("sent", 1)
    assert shown["sent_at"] == shown["ended_at"] != None  # noqa: E711 - both are there
    entry = (await api.call("GET", "/audit?entity=notification", expect=200))["data"]["items"][0]
    assert (entry["action"], entry["entity_id"]) == ("notification.send", queued["id"])


async def test_the_list_filters_by_status_and_channel(api: ApiBench) -> None:
    api.notify.notifier.outcomes = [Undelivered("errcode 310000", again=False)]
    first = await told(api, title="a")
    await told(api, title="b")
    async with api.notify:
        await until(lambda: api.notify.channel.waiting == 0)
    third = await told(api, title="c")

    async def titles(query: str) -> list[str]:
        data = (await api.call("GET", f"/notifications{query}", expect=200))["data"]
        assert data["total"] == len(data["items"])
        return [item["title"] for item in data["items"]]

    assert sorted(await titles("")) == ["a", "b", "c"]
    assert await titles("?status=failed") == ["a"]
    assert await titles("?status=queued&channel=ops") == ["c"]
    assert await titles("?channel=none") == []
    assert (await api.call("GET", f"/notifications/{first['id']}"))["data"]["last_error"] == "errcode 310000"
    assert third["status"] == "queued"
    await api.call("GET", "/notifications?status=lost", expect=422)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"channel": "nobody", "title": "t"}, 404, "nobody"),
        ({"title": "t"}, 422, "channel"),
        ({"channel": "ops"}, 422, "title"),
        ({"channel": "ops", "title": ""}, 422, "title"),
        ({"channel": "ops", "title": " "}, 422, "title"),
        ({"channel": "ops", "title": "x" * 201}, 422, "title"),
        ({"channel": "ops", "title": "t", "text": "x" * 4001}, 422, "text"),
        ({"channel": "ops", "title": "t", "severity": "loud"}, 422, "severity"),
        ({"channel": "ops", "title": "t", "link": "javascript:x"}, 422, "link"),
        ({"channel": "ops", "title": "t", "device": "nothing"}, 404, "nothing"),
        ({"channel": "ops", "title": "t", "url": "https://evil.example"}, 422, "url"),
    ],
)
async def test_what_cannot_be_told_says_why(api: ApiBench, body: dict[str, Any], status: int, words: str) -> None:
    answer = await api.call("POST", "/notifications", json=body, expect=status)
    assert words in answer["error"]
    assert (await api.call("GET", "/notifications", expect=200))["data"]["total"] == 0


async def test_a_full_queue_is_a_conflict_and_a_refusing_database_is_503(api: ApiBench) -> None:
    api.notify.rows.failures = [StorageFailed("disk full")]
    await api.call("POST", "/notifications", json={"channel": "ops", "title": "t"}, expect=503)
    api.notify.channel.waiting = 500
    answer = await api.call("POST", "/notifications", json={"channel": "ops", "title": "t"}, expect=409)
    assert "queue" in answer["error"]


async def test_channels_show_their_state_and_no_secret(api: ApiBench) -> None:
    canary = "canary-0123456789"
    plugins = ScriptedPlugins(chat=lambda _: {"actions": []})
    config = PluginChannelConfig(plugin="chat", secrets={"url": f"https://h.example/{canary}", "key": canary})
    notifier = PluginNotifier(
        "ops", config, outbound=RecordingOutbound(), plugins=plugins, grants=plugins, clock=api.identity.clock
    )
    room = api.notify
    room.service._channels["chat"] = Channel("chat", "plugin", config, notifier, room.rows, room.clock, Pace(20))
    plugins.grants["chat"] = frozenset()
    shown = (await api.call("GET", "/notifications/channels", expect=200))["data"]["items"]
    assert [one["name"] for one in shown] == ["chat", "ops"]
    assert (shown[0]["type"], shown[0]["state"]) == ("plugin", "blocked")
    assert "[wasm.grants] chat" in shown[0]["detail"]
    assert canary not in str(shown)
    assert shown[1] == {
        "name": "ops",
        "type": "fake",
        "state": "ready",
        "detail": "",
        **dict.fromkeys(["waiting", "sent", "failed", "expired", "retries", "refused"], 0),
    }
    answer = await api.call("POST", "/notifications", json={"channel": "chat", "title": "t"}, expect=201)
    assert canary not in str(answer)


async def test_another_tenants_user_reaches_neither_channels_nor_notifications(api: ApiBench) -> None:
    mine = await told(api)
    await api.identity.add_user("stranger", "*", tenant_id="other")
    token = await api.identity.token_of("stranger")
    await api.call("GET", "/notifications/channels", token=token, expect=404)
    await api.call("GET", f"/notifications/{mine['id']}", token=token, expect=404)
    assert (await api.call("GET", "/notifications", token=token, expect=200))["data"]["total"] == 0
    await api.call("POST", "/notifications", token=token, json={"channel": "ops", "title": "t"}, expect=404)
