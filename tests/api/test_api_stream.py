import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from fakes.api_fakes import ApiBench, api_bench

from gateway.api.stream import STREAMS
from gateway.core.errors import StorageFailed

Block = dict[str, Any]


class Reader:
    """Reads a stream's blocks as a browser would."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> Block | None:
        """The next block (comments too); None at the end."""
        block: Block = {}
        while True:
            line = (await asyncio.wait_for(self.response.content.readline(), 10)).decode()
            if not line:
                return None
            name, _, value = line.rstrip("\n").partition(":")
            if line == "\n":
                return block
            block[name] = json.loads(value) if name == "data" else value.strip()

    async def ids(self, count: int) -> list[int]:
        return [int(block["id"]) for _ in range(count) if (block := await self.next())]


@asynccontextmanager
async def streaming(
    api: ApiBench, query: str = "", *, token: str = "", last: str | None = None
) -> AsyncIterator[Reader]:
    headers = {"Authorization": f"Bearer {token or api.token}"} | ({"Last-Event-ID": last} if last is not None else {})
    async with api.http.get(f"{api.url}/api/v1/stream?{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Reader(response)


def open_streams(api: ApiBench) -> float:
    return next(sample.value for sample in api.app[STREAMS].samples() if sample.name == "gateway_streams_open")


def ended(api: ApiBench) -> dict[str, float]:
    samples = api.app[STREAMS].samples()
    return {sample.labels["reason"]: sample.value for sample in samples if sample.name == "gateway_streams_ended_total"}


async def until(seen: Any) -> None:
    async with asyncio.timeout(10):
        while not seen():  # noqa: ASYNC110  # counters have no event to wait for
            await asyncio.sleep(0.01)


async def test_a_stream_begins_now_and_carries_events_with_their_ids(api: ApiBench) -> None:
    await api.with_device()
    api.event("device.offline")
    async with streaming(api) as stream:
        api.bus.events.publish([api.event("device.online")])
        block = await stream.next()
    assert block == {
        "id": "2",
        "event": "device.online",
        "data": {
            "seq": 2,
            "type": "device.online",
            "at": "2026-09-21T14:13:20.000Z",
            "device_id": "d1",
            "data": {"n": 1},
        },
    }


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_client_that_comes_back_gets_what_it_missed_and_then_what_comes(api: ApiBench, by_header: bool) -> None:
    for _ in range(1200):
        api.event()
    resume: dict[str, Any] = {"last": "100"} if by_header else {"query": "last_event_id=100"}
    async with streaming(api, **resume) as stream:
        assert await stream.ids(1100) == list(range(101, 1201))
        api.bus.events.publish([api.event()])
        assert await stream.ids(1) == [1201]


async def test_events_stored_while_the_past_is_replayed_come_once_and_in_order(api: ApiBench) -> None:
    for _ in range(700):
        api.event()
    read = api.history.events

    async def read_while_more_comes(*given: Any, **named: Any) -> Any:
        page = await read(*given, **named)
        if len(api.store.events) < 1000:
            api.bus.events.publish([api.event() for _ in range(50)])
        return page

    api.history.events = read_while_more_comes  # type: ignore[method-assign]
    async with streaming(api, last="0") as stream:
        count = 900
        assert await stream.ids(count) == list(range(1, count + 1))


async def test_events_published_out_of_order_leave_in_the_order_of_their_ids(api: ApiBench) -> None:
    async with streaming(api, last="0") as stream:
        first, second = api.event(), api.event()
        api.bus.events.publish([second])
        api.bus.events.publish([first])
        api.bus.events.publish([api.event()])
        assert await stream.ids(3) == [1, 2, 3]


async def test_types_and_device_select(api: ApiBench) -> None:
    await api.with_device()
    for kind, device_id in (
        ("device.online", "d1"),
        ("alarm.raised", "d1"),
        ("alarm.raised", "d2"),
        ("alarm.cleared", "d1"),
        ("alarming", "d1"),
    ):
        api.event(kind, device_id)
    async with streaming(api, "types=alarm.,device.online&device=d1", last="0") as stream:
        assert await stream.ids(3) == [1, 2, 4]
    async with streaming(api, "types=alarm.raised", last="0") as stream:
        assert await stream.ids(2) == [2, 3]


async def test_another_tenants_events_and_messages_do_not_show(api: ApiBench) -> None:
    await api.identity.add_user("stranger", "*", tenant_id="other")
    async with streaming(api, "messages=true", token=await api.identity.token_of("stranger"), last="0") as stream:
        api.bus.messages.publish([api.message(1.0), api.message(2.0, tenant_id="other")])
        block = await stream.next()
        assert block is not None
        assert block["data"]["values"] == {"temperature": 2.0}
        api.bus.events.publish([api.event(), api.event(tenant_id="other")])
        assert await stream.ids(1) == [2]


async def test_messages_are_sent_when_asked_for_and_carry_no_id(api: ApiBench) -> None:
    await api.with_device()
    async with streaming(api, "messages=true&device=d1") as stream:
        api.bus.messages.publish([api.message(1.0, "d2"), api.message(float("nan"))])
        assert await stream.next() == {
            "event": "message",
            "data": {
                "product_id": "meter",
                "device_id": "d1",
                "observed_at": "2026-09-21T14:13:20.000Z",
                "received_at": "2026-09-21T14:13:20.001Z",
                "values": {"temperature": None},
                "quality": {"temperature": "out_of_range"},
            },
        }


async def test_messages_need_the_permission_to_read_history(api: ApiBench) -> None:
    await api.identity.add_user("ann", "things.event.list")
    token = await api.identity.token_of("ann")
    await api.call("GET", "/stream?messages=true", token=token, expect=403)
    async with streaming(api, token=token):
        pass


async def test_a_quiet_stream_is_kept_open_by_comments() -> None:
    async with api_bench(stream_heartbeat_s=0.0, stream_check_s=0.01) as api, streaming(api) as stream:
        assert await stream.next() == {"": "still here"}


@pytest.mark.parametrize("how", ["expired", "revoked", "disabled", "permission"])
async def test_a_stream_ends_with_its_token(how: str) -> None:
    async with api_bench(stream_heartbeat_s=0.01, stream_check_s=0.01) as api:
        user = await api.identity.add_user("ann", "things.event.list")
        token = await api.identity.token_of("ann")
        async with streaming(api, token=token) as stream:
            if how == "expired":
                api.identity.clock.advance(25 * 3600)
            elif how == "revoked":
                await api.call("POST", "/auth/logout", token=token, expect=200)
            elif how == "disabled":
                await api.call("PATCH", f"/users/{user.id}", json={"enabled": False}, expect=200)
            else:
                await api.call("PUT", "/roles/role-ann", json={"permissions": []}, expect=200)
            while (block := await stream.next()) is not None and "event" not in block:
                pass
            assert block == {"event": "end", "data": {"reason": "token_ended"}}
            assert await stream.next() is None
        assert ended(api) == {"token_ended": 1}


async def test_a_client_that_does_not_read_is_cut_and_counted() -> None:
    async with api_bench(stream_stall_s=0.2) as api, streaming(api, "messages=true") as _:
        for _ in range(400):
            big = api.message()
            big.values = {"text": "x" * 50_000}
            api.bus.messages.publish([big])
            await asyncio.sleep(0)
        await until(lambda: ended(api) == {"slow": 1})
        assert open_streams(api) == 0
        assert api.bus.messages.subscriptions == ()


async def test_a_client_that_cannot_keep_up_is_cut_and_counted() -> None:
    async with api_bench(stream_backlog=10) as api, streaming(api, "messages=true"):
        api.bus.messages.publish([api.message() for _ in range(11)])
        api.bus.messages.publish([api.message()])
        await until(lambda: ended(api) == {"slow": 1})


async def test_a_client_that_goes_away_leaves_nothing_behind() -> None:
    async with api_bench(stream_heartbeat_s=0.0, stream_check_s=0.01) as api:
        async with streaming(api, "messages=true"):
            assert open_streams(api) == 1
        await until(lambda: open_streams(api) == 0)
        assert ended(api) == {"gone": 1}
        assert api.bus.events.subscriptions == ()
        assert api.bus.messages.subscriptions == ()


async def test_streams_over_the_limit_are_told_to_come_back() -> None:
    async with api_bench(max_streams=1) as api, streaming(api):
        answer = await api.call("GET", "/stream", expect=503)
        assert answer["code"] == "not_ready"


async def test_a_failing_database_ends_the_stream_with_a_word(api: ApiBench) -> None:
    async with streaming(api) as stream:

        async def failing(*_: object, **__: object) -> None:
            raise StorageFailed("disk full")

        api.history.events = failing  # type: ignore[method-assign,assignment]
        api.bus.events.publish([api.event()])
        assert await stream.next() == {"event": "end", "data": {"reason": "failed"}}
    assert ended(api) == {"failed": 1}


async def test_a_stop_ends_streams_with_a_word() -> None:
    async with api_bench() as api, streaming(api) as stream:
        await asyncio.wait_for(api.server.stop(), 5)
        assert await stream.next() == {"event": "end", "data": {"reason": "shutdown"}}


async def test_a_position_beyond_the_newest_event_begins_at_the_newest_and_says_so(api: ApiBench) -> None:
    api.event()
    api.event()
    async with streaming(api, last="4711") as stream:
        assert await stream.next() == {"id": "2", "event": "reset", "data": {"last_event_id": 2}}
        api.bus.events.publish([api.event()])
        assert await stream.ids(1) == [3]
    async with streaming(api, last="3") as stream:
        api.bus.events.publish([api.event()])
        assert await stream.ids(1) == [4]


@pytest.mark.parametrize("last", ["x", "-1", "1e3", "9" * 30, "٣"])
async def test_a_wrong_position_is_refused(api: ApiBench, last: str) -> None:
    status, _, answer = await api.call_raw("GET", "/api/v1/stream", params={"last_event_id": last})
    assert (status, answer["code"]) == (422, "invalid")
    if last.isascii():
        status, _, answer = await api.call_raw("GET", "/api/v1/stream", headers={"Last-Event-ID": last})
        assert (status, answer["code"]) == (422, "invalid")


async def test_an_event_type_cannot_break_out_of_its_line(api: ApiBench) -> None:
    async with streaming(api) as stream:
        api.bus.events.publish([api.event("evil\nid: 99\r\n\ndata: 1")])
        block = await stream.next()
    assert block is not None
    assert block["id"] == "1"


async def test_a_stream_of_an_unknown_device_is_not_found(api: ApiBench) -> None:
    await api.call("GET", "/stream?device=ghost", expect=404)
