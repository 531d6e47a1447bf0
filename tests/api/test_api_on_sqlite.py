"""The API on the real database: what memory cannot show."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fakes.api_fakes import ApiBench, api_bench
from fakes.identity_fakes import PASSWORD, ManualClock

from gateway.core.errors import StorageFailed
from gateway.core.flow import Commit, Event, Message
from gateway.core.scope import system_scope
from gateway.storage.database import Database
from gateway.storage.writer import JournalWriter

AT = 1_790_000_000_000


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "gateway.db", ManualClock())
    await opened.open()
    yield opened
    await opened.close()


async def stored(database: Database, commit: Commit) -> None:
    """Put a commit through the journal, as the pipeline does."""
    writer = JournalWriter(database)
    await writer.start()
    done: asyncio.Future[StorageFailed | None] = asyncio.get_running_loop().create_future()
    writer.submit(commit, done.set_result)
    assert await done is None
    await writer.close()


def message(key: int, at_ms: int, value: Any) -> Message:
    return Message("default", "meter", "d1", key, at_ms, at_ms, {"temperature": value})


async def measured(api: ApiBench, database: Database, *values: Any) -> None:
    await api.with_device()
    key = api.catalog.device(system_scope(), "d1").key
    messages = [message(key, AT + at * 1000, value) for at, value in enumerate(values)]
    await stored(database, Commit(messages=messages))


async def test_a_logout_survives_a_restart(database: Database) -> None:
    async with api_bench(database) as api:
        body = {"username": "root", "password": PASSWORD}
        token = (await api.call("POST", "/auth/login", token=None, json=body, expect=200))["data"]["token"]
        await api.call("POST", "/auth/logout", token=token, expect=200)
    async with api_bench(database) as api:
        await api.call("GET", "/auth/me", token=token, expect=401)
        await api.call("GET", "/auth/me", expect=200)


async def test_history_and_properties_come_back_as_they_were_stored(database: Database) -> None:
    async with api_bench(database) as api:
        await measured(api, database, 20.5, 21, 22.5)
        (shown,) = (await api.call("GET", "/devices/d1/properties", expect=200))["data"]["items"]
        assert (shown["value"], shown["unit"], shown["quality"]) == (22.5, "Cel", "good")
        data = (await api.call("GET", "/devices/d1/history?property=temperature&limit=2&sort=-observed_at"))["data"]
        assert (data["total"], [item["value"] for item in data["items"]]) == (3, [22.5, 21])
        query = "property=temperature&from=2026-09-21T14:13:21Z&agg=sum&interval=1m"
        assert (await api.call("GET", f"/devices/d1/history?{query}", expect=200))["data"]["items"] == [
            {"from": "2026-09-21T14:13:00.000Z", "value": 43.5}
        ]
        assert (await api.call("GET", "/devices/d1/history?property=other", expect=200))["data"]["total"] == 0


@pytest.mark.parametrize("text", ["' OR '1'='1", "'; DROP TABLE device; --", 'a"b', "%", "_", "\x00", "$.a", "]"])
async def test_sql_in_any_string_is_only_a_string(database: Database, text: str) -> None:
    async with api_bench(database) as api:
        await measured(api, database, 1)
        for path, name in (
            ("/devices", "tag"),
            ("/devices", "search"),
            ("/devices", "product_id"),
            ("/alarms", "rule"),
            ("/alarms", "device_id"),
            ("/audit", "actor"),
            ("/audit", "entity"),
            ("/notifications", "channel"),
            ("/devices/d1/history", "property"),
            ("/devices/d1/events", "types"),
        ):
            status, _, answer = await api.call_raw("GET", f"/api/v1{path}", params={name: text})
            if "\x00" in text:
                assert (status, answer["code"]) == (422, "invalid"), (path, name)
            else:
                assert status == 200, (path, name, answer)
                assert answer["data"]["items"] == [], (path, name)
        body = {"username": text[:64], "password": text}
        assert (await api.call("POST", "/auth/login", token=None, json=body))["code"] in {
            "auth.failed",
            "auth.throttled",
        }
        await api.call("PATCH", "/devices/d1", json={"name": text, "tags": {"k": text}})
        assert (await api.call("GET", "/devices", expect=200))["data"]["total"] == 1
        assert (await api.call("GET", "/audit/verify", expect=200))["data"]["whole"] is True


async def test_every_list_sorts_by_what_it_says_it_sorts_by(database: Database) -> None:
    async with api_bench(database) as api:
        await measured(api, database, 1)
        for path, names in {
            "/users": ("username", "created_at"),
            "/roles": ("id",),
            "/products": ("id", "name", "created_at", "updated_at"),
            "/devices": ("id", "name", "product_id", "last_seen_at", "created_at"),
            "/devices/d1/commands": ("created_at", "name", "status"),
            "/devices/d1/events": ("seq",),
            "/alarms": ("raised_at", "last_raised_at", "severity", "state"),
            "/audit": ("seq", "at"),
            "/rules": ("name", "state"),
            "/scenes": ("name", "state"),
            "/scenes/locate/runs": ("started_at", "status"),
            "/schedules": ("id", "scene", "created_at"),
            "/listeners": ("name", "type"),
            "/notifications": ("created_at", "channel", "status"),
            "/notifications/channels": ("name", "state"),
            "/plugins": ("id", "state"),
        }.items():
            for name in names:
                await api.call("GET", f"{path}?sort={name}", expect=200)
                await api.call("GET", f"{path}?sort=-{name}", expect=200)
            refusal = (await api.call("GET", f"{path}?sort=x", expect=422))["error"]
            assert all(name in refusal for name in names)


async def test_a_stream_resumes_from_the_table_and_goes_on_with_the_journal(database: Database) -> None:
    async with api_bench(database) as api:
        await stored(database, Commit(events=[Event("default", "device.online", AT, "d1") for _ in range(3)]))
        headers = {"Authorization": f"Bearer {api.token}", "Last-Event-ID": "1"}
        async with api.http.get(f"{api.url}/api/v1/stream", headers=headers) as stream:
            lines = [await asyncio.wait_for(stream.content.readline(), 10) for _ in range(8)]
            assert [line for line in lines if line.startswith(b"id")] == [b"id: 2\n", b"id: 3\n"]
            later = Event("default", "device.offline", AT, "d1")
            await stored(database, Commit(events=[later]))
            api.bus.events.publish([later])
            assert await asyncio.wait_for(stream.content.readline(), 10) == b"id: 4\n"


async def test_the_audit_log_holds_changes_logins_and_failures_in_one_chain(database: Database) -> None:
    async with api_bench(database) as api:
        body = {"username": "root", "password": PASSWORD}
        await api.call("POST", "/auth/login", token=None, json=body, expect=200)
        await api.call("POST", "/auth/login", token=None, json=body | {"password": "canary"}, expect=401)
        user = {"username": "ann", "password": "canary password"}
        made = (await api.call("POST", "/users", json=user, expect=201))["data"]
        await api.call("PATCH", f"/users/{made['id']}", json={"password": "canary again"}, expect=200)
        entries = (await api.call("GET", "/audit?limit=1000", expect=200))["data"]["items"]
        assert {"auth.login", "auth.login_failed", "create", "update"} <= {entry["action"] for entry in entries}
        assert "canary" not in str(entries)
        assert "$argon2" not in str(entries)
        assert (await api.call("GET", "/audit/verify", expect=200))["data"] == {"whole": True, "first_broken_seq": None}
