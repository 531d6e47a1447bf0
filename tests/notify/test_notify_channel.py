"""A channel delivers what waits, in order, at its pace, again and again, and loses nothing over a restart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from fakes.notify_fakes import MemoryNotifications, NotifyRoom, RecordingOutbound
from fakes.rules_fakes import SetClock, until
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import Clock
from gateway.core.errors import (
    CodecError,
    ConfigError,
    Conflict,
    NotFound,
    NotReady,
    PluginTrapped,
    Rejected,
    StorageFailed,
)
from gateway.core.scope import Scope, system_scope
from gateway.notify.model import Draft, Notification, NotificationFilter, Undelivered, check_draft
from gateway.notify.pace import Pace, PacedOutbound
from gateway.notify.service import NotificationService
from gateway.things.ports import PageRequest

SCOPE = system_scope("ann")


def draft(title: str = "t", channel: str = "ops", **fields: Any) -> Draft:
    return Draft(channel=channel, title=title, **fields)


def row(rows: MemoryNotifications, notification: Notification) -> Notification:
    return rows.rows["default", notification.id]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def test_what_is_sent_is_durable_first_and_then_delivered_in_order() -> None:
    room = NotifyRoom()
    queued = await room.service.send(SCOPE, draft("first", text="body", severity="major", device_id="d1"))
    assert queued.status == "queued"
    assert row(room.rows, queued).requested_by == "ann"
    assert room.notifier.sent == []
    async with room:
        for title in ("second", "third"):
            await room.service.send(SCOPE, draft(title))
        await until(lambda: room.figure("gateway_notifications_ended_total", status="sent") == 3)
    assert room.notifier.titles == ["first", "second", "third"]
    first = row(room.rows, queued)
    assert (first.status, first.attempts, first.last_error) == ("sent", 1, "")
    assert first.ended_at_ms is not None
    assert room.channel.waiting == 0


async def test_a_failure_that_may_pass_is_tried_again_and_keeps_the_order() -> None:
    async with NotifyRoom() as room:
        room.notifier.outcomes = [Undelivered("503", again=True), NotReady("no link"), RuntimeError("a bug"), None]
        one = await room.service.send(SCOPE, draft("one"))
        await room.service.send(SCOPE, draft("two"))
        await until(lambda: len(room.notifier.sent) == 2)
        await until(lambda: row(room.rows, one).status == "sent")
    assert room.notifier.titles == ["one", "two"]
    assert row(room.rows, one).attempts == 4
    assert room.figure("gateway_notification_retries_total") == 3


async def test_a_cancellation_that_nobody_asked_for_is_an_attempt_that_failed_and_ends_no_channel() -> None:
    async with NotifyRoom() as room:
        room.notifier.outcomes = [asyncio.CancelledError(), None]
        one = await room.service.send(SCOPE, draft("one"))
        await until(lambda: row(room.rows, one).status == "sent")
    assert row(room.rows, one).attempts == 2


@pytest.mark.parametrize(
    "failure",
    [
        Undelivered("errcode 310000", again=False),
        Rejected("no URL"),
        CodecError(7, "bad arguments"),
    ],
)
async def test_a_failure_that_will_not_pass_is_final_kept_and_lets_the_next_through(failure: Exception) -> None:
    async with NotifyRoom() as room:
        room.notifier.outcomes = [failure]
        bad = await room.service.send(SCOPE, draft("bad"))
        await room.service.send(SCOPE, draft("good"))
        await until(lambda: room.notifier.titles == ["good"])
        await until(lambda: room.channel.waiting == 0)
    kept = row(room.rows, bad)
    assert (kept.status, kept.attempts, kept.last_error) == ("failed", 1, str(failure))
    assert kept.ended_at_ms is not None


@pytest.mark.parametrize(
    "failure",
    [ConfigError("not on the list"), NotFound("no plugin"), PluginTrapped(0, "trap"), NotReady("it starts")],
)
async def test_a_failure_that_an_operator_can_mend_is_not_final(failure: Exception) -> None:
    async with NotifyRoom() as room:
        room.notifier.outcomes = [failure]
        one = await room.service.send(SCOPE, draft("one"))
        await until(lambda: row(room.rows, one).status == "sent")
    assert row(room.rows, one).attempts == 2


async def test_a_blocked_channel_holds_what_waits_costs_no_attempt_and_delivers_once_it_is_not(quiet: Any) -> None:
    room = NotifyRoom(attempts=1)
    looked = iter(range(1000))
    room.notifier.problem = lambda: "grant it" if next(looked) < 20 else ""  # type: ignore[method-assign]
    async with room:
        one = await room.service.send(SCOPE, draft("one"))
        two = await room.service.send(SCOPE, draft("two"))
        await until(lambda: row(room.rows, two).status == "sent")
    assert room.notifier.titles == ["one", "two"]
    assert row(room.rows, one).attempts == 1
    assert [line["event"] for line in quiet] == ["a channel holds what waits", "a channel delivers again"]


async def test_what_a_blocked_channel_held_too_long_expires_with_the_reason() -> None:
    clock = SetClock()
    room = NotifyRoom(clock=clock, expire_s=60.0)
    room.notifier.blocked = "grant it"
    async with room:
        old = await room.service.send(SCOPE, draft("old"))
        clock.at_ms += 60_001
        await until(lambda: row(room.rows, old).status == "expired")
    assert (row(room.rows, old).attempts, row(room.rows, old).last_error) == (0, "grant it")
    assert room.notifier.attempts == 0


async def test_a_problem_that_cannot_be_told_blocks_the_channel_and_breaks_nothing() -> None:
    def broken() -> str:
        raise ZeroDivisionError("a canary")

    async with NotifyRoom() as room:
        room.notifier.problem = broken  # type: ignore[method-assign]
        status = room.service.channels()[0]
        assert (status.state, status.detail) == (
            "blocked",
            "the channel's code failed: ZeroDivisionError; see its extension",
        )
        assert room.figure("gateway_notifications_blocked") == 1
        one = await room.service.send(SCOPE, draft("one"))
        room.notifier.problem = lambda: None  # type: ignore[method-assign, assignment, return-value]
        await until(lambda: row(room.rows, one).status == "sent")
        assert room.figure("gateway_notifications_blocked") == 0


async def test_an_attempt_that_hangs_is_ended_and_made_again_whatever_kind_it_is() -> None:
    async with NotifyRoom(timeout_s=0.02) as room:
        room.notifier.hold.clear()
        one = await room.service.send(SCOPE, draft("one"))
        await until(lambda: row(room.rows, one).attempts)
        assert row(room.rows, one).last_error == "not delivered within 0.02 s; see `timeout_s`"
        room.notifier.hold.set()
        await until(lambda: row(room.rows, one).status == "sent")


async def test_a_remark_on_what_was_sent_is_kept() -> None:
    async with NotifyRoom() as room:
        room.notifier.outcomes = ["verdict unknown"]
        one = await room.service.send(SCOPE, draft("one"))
        await until(lambda: row(room.rows, one).status == "sent")
    assert row(room.rows, one).last_error == "verdict unknown"


async def test_a_stop_ends_all_channels_at_once_and_none_begins_meanwhile() -> None:
    rooms = [NotifyRoom(), NotifyRoom()]
    first, second = rooms[0].channel, rooms[1].channel
    second.name = "other"
    service = NotificationService([first, second], rooms[0].rows, rooms[0].supervisor, rooms[0].clock)
    second._repository = rooms[0].rows
    for room in rooms:
        room.notifier.hold.clear()
    await service.start()
    for name in ("ops", "other"):
        for title in ("one", "two"):
            await service.send(SCOPE, draft(title, channel=name))
    await until(lambda: all(room.notifier.attempts == 1 for room in rooms))

    async def let_end() -> None:
        await until(lambda: second._stopping)
        assert first._stopping
        # The second ends first: were they stopped one after the other, it would begin its next meanwhile.
        rooms[1].notifier.hold.set()
        await until(lambda: rooms[1].notifier.titles == ["one"])
        rooms[0].notifier.hold.set()

    await asyncio.gather(service.stop(), let_end())
    await rooms[0].supervisor.stop()
    assert [room.notifier.titles for room in rooms] == [["one"], ["one"]]


async def test_a_notification_is_given_up_after_so_many_attempts_with_its_last_error() -> None:
    async with NotifyRoom(attempts=3) as room:
        room.notifier.outcomes = [Undelivered(f"no {n}", again=True) for n in range(3)]
        bad = await room.service.send(SCOPE, draft("bad"))
        await room.service.send(SCOPE, draft("good"))
        await until(lambda: room.notifier.titles == ["good"])
    assert (row(room.rows, bad).status, row(room.rows, bad).attempts) == ("failed", 3)
    assert row(room.rows, bad).last_error == "no 2"


async def test_what_waited_too_long_expires_unsent() -> None:
    clock = SetClock()
    room = NotifyRoom(clock=clock, expire_s=60.0)
    old = await room.service.send(SCOPE, draft("old"))
    clock.at_ms += 60_001
    fresh = await room.service.send(SCOPE, draft("fresh"))
    async with room:
        await until(lambda: row(room.rows, fresh).status == "sent")
    assert room.notifier.titles == ["fresh"]
    assert (row(room.rows, old).status, row(room.rows, old).attempts) == ("expired", 0)
    assert row(room.rows, old).last_error == "it waited too long"


async def test_a_full_queue_refuses_counts_and_takes_again_once_there_is_room() -> None:
    room = NotifyRoom(queue=2)
    for title in ("a", "b"):
        await room.service.send(SCOPE, draft(title))
    for _ in range(3):
        with pytest.raises(Conflict, match=r"2 notifications wait in channel ops; see its `queue`"):
            await room.service.send(SCOPE, draft("c"))
    assert room.figure("gateway_notifications_refused_total") == 3
    assert len(room.rows.rows) == 2
    async with room:
        await until(lambda: room.channel.waiting == 0)
        await room.service.send(SCOPE, draft("d"))
        await until(lambda: room.notifier.titles == ["a", "b", "d"])


async def test_a_batch_takes_what_fits_and_says_why_the_rest_does_not() -> None:
    room = NotifyRoom(queue=2)
    outcomes = await room.service.send_all(
        SCOPE, [draft("a"), draft(""), draft("b", channel="none"), draft("c"), draft("d")]
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Notification, Rejected, NotFound, Notification, Conflict]
    assert room.channel.waiting == 2


async def test_a_refused_write_queues_nothing_and_gives_the_room_back() -> None:
    room = NotifyRoom(queue=1)
    room.rows.failures = [StorageFailed("disk full")]
    with pytest.raises(StorageFailed):
        await room.service.send(SCOPE, draft("a"))
    assert (room.channel.waiting, room.rows.rows) == (0, {})
    await room.service.send(SCOPE, draft("b"))


async def test_an_outcome_that_cannot_be_written_is_written_later_and_not_sent_twice() -> None:
    async with NotifyRoom() as room:
        sent = await room.service.send(SCOPE, draft("once"))
        await until(lambda: row(room.rows, sent).status == "sent")
        room.notifier.hold.clear()
        again = await room.service.send(SCOPE, draft("twice?"))
        await until(lambda: room.notifier.attempts == 2)
        room.rows.failures = [StorageFailed("disk full"), NotReady("locked")]
        room.notifier.hold.set()
        await until(lambda: row(room.rows, again).status == "sent")
    assert room.notifier.titles == ["once", "twice?"]
    assert room.notifier.attempts == 2


async def test_what_a_killed_run_left_is_sent_by_the_next_and_counted_as_waiting() -> None:
    rows = MemoryNotifications()
    dead = NotifyRoom(rows)
    for title in ("a", "b"):
        await dead.service.send(SCOPE, draft(title))
    room = NotifyRoom(rows, queue=2)
    room.notifier.hold.clear()
    async with room:
        await until(lambda: room.notifier.attempts == 1)
        assert room.channel.status().waiting == 2
        with pytest.raises(Conflict):
            await room.service.send(SCOPE, draft("c"))
        room.notifier.hold.set()
        await until(lambda: room.notifier.titles == ["a", "b"])


async def test_what_waited_for_a_channel_that_is_gone_fails_with_its_name() -> None:
    rows = MemoryNotifications()
    lost = Notification(id="n1", tenant_id="default", channel="pager", title="t", text="", created_at_ms=1)
    await rows.add_notifications(SCOPE, [lost])
    async with NotifyRoom(rows) as room:
        assert row(rows, lost).status == "failed"
        assert "pager" in row(rows, lost).last_error
        assert room.service.channels()[0].waiting == 0


async def test_a_stop_lets_the_attempt_under_way_end_so_that_it_is_not_made_twice() -> None:
    room = NotifyRoom()
    room.notifier.hold.clear()
    async with room:
        one = await room.service.send(SCOPE, draft("one"))
        await room.service.send(SCOPE, draft("two"))
        await until(lambda: room.notifier.attempts == 1)
        asyncio.get_running_loop().call_later(0.05, room.notifier.hold.set)
    assert room.notifier.titles == ["one"]
    assert row(room.rows, one).status == "sent"
    assert room.notifier.attempts == 1


async def test_a_channel_says_what_is_wrong_and_that_it_is_well_again() -> None:
    async with NotifyRoom(first_retry_s=0.02, most_retry_s=0.02) as room:
        assert room.channel.status().state == "ready"
        room.notifier.outcomes = [Undelivered("the service answered 503", again=True)] * 3
        await room.service.send(SCOPE, draft("one"))
        retrying = await until(lambda: next((one for one in room.service.channels() if one.state == "retrying"), None))
        assert retrying.detail == "the service answered 503"
        await until(lambda: room.channel.status().state == "ready")
        room.notifier.blocked = "grant it"
        assert (room.channel.status().state, room.channel.status().detail) == ("blocked", "grant it")


async def test_an_error_is_one_line_of_bounded_length() -> None:
    async with NotifyRoom() as room:
        room.notifier.outcomes = [Undelivered("x\n\x1b[31m" + "y" * 1000, again=False)]
        bad = await room.service.send(SCOPE, draft("bad"))
        await until(lambda: row(room.rows, bad).status == "failed")
    assert row(room.rows, bad).last_error.isprintable()
    assert len(row(room.rows, bad).last_error) < 520


async def test_channels_serve_the_first_tenant_only() -> None:
    room = NotifyRoom()
    with pytest.raises(NotFound, match="no channel ops"):
        await room.service.send(Scope("other", "oscar", frozenset({"*"})), draft())
    with pytest.raises(NotFound, match=r"\[notify.NAME\]"):
        await room.service.send(SCOPE, draft(channel="nobody"))
    mine = await room.service.send(SCOPE, draft())
    assert (await room.service.get(SCOPE, mine.id)).title == "t"
    page = await room.service.list(SCOPE, NotificationFilter(status="queued"), PageRequest())
    assert [item.id for item in page.items] == [mine.id]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"title": " "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"text": "x" * 4001}, "text"),
        ({"link": "javascript:alert(1)"}, "link"),
        ({"link": "https://" + "x" * 2000}, "link"),
    ],
)
def test_a_draft_that_is_wrong_names_its_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejected, match=f"^{field}: "):
        check_draft(Draft(**({"channel": "ops", "title": "t"} | wrong)))


async def test_a_service_that_asks_to_wait_is_obeyed_within_reason() -> None:
    room = NotifyRoom(first_retry_s=1.0, most_retry_s=8.0)
    room.channel._failures = 1
    assert room.channel._delay_s(0.0) == 1.0
    assert room.channel._delay_s(30.0) == 30.0
    assert room.channel._delay_s(10.0**9) == 3600.0
    assert room.channel._delay_s(float("inf")) == 3600.0
    assert room.channel._delay_s(float("nan")) == room.channel._delay_s(-5.0) == 1.0
    room.channel._failures = 3
    assert room.channel._delay_s(0.0) == 4.0
    room.channel._failures = 10_000
    assert room.channel._delay_s(0.0) == 8.0


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 5))
def test_no_minute_has_more_than_the_pace_allows(gaps: list[float], most: int) -> None:
    pace, now, times = Pace(most), 0.0, []
    for gap in gaps:
        now += gap
        now += pace.wait_s(now)
        pace.note(now)
        times.append(now)
    for at, begin in enumerate(times[:-most] if len(times) > most else []):
        assert times[at + most] - begin >= 60 - 1e-6


def test_a_pace_does_not_wait_before_it_must() -> None:
    pace = Pace(2)
    for now in (0.0, 1.0):
        assert pace.wait_s(now) == 0.0
        pace.note(now)
    assert pace.wait_s(2.0) == 58.0
    assert pace.wait_s(60.0) == 0.0


async def test_the_pace_holds_the_next_attempt_back() -> None:
    class Jumping(Clock):
        s = 0.0

        def now_ms(self) -> int:
            return 0

        def monotonic_s(self) -> float:
            return self.s

    clock = Jumping()
    async with NotifyRoom(clock=clock, rate_per_min=2) as room:
        clock.s = 1.0
        for title in ("a", "b", "c"):
            await room.service.send(SCOPE, draft(title))
        await until(lambda: len(room.notifier.sent) == 2)
        await asyncio.sleep(0.05)
        assert room.notifier.titles == ["a", "b"]
        assert room.channel.waiting == 1


class Sleepless(Clock):
    """Time that stands still until somebody sets it."""

    s = 0.0

    def now_ms(self) -> int:
        return 0

    def monotonic_s(self) -> float:
        return self.s


async def test_the_pace_counts_requests_and_not_attempts() -> None:
    clock, pace, inner = Sleepless(), Pace(3), RecordingOutbound()
    outbound = PacedOutbound(inner, pace, clock)
    for _ in range(3):
        assert pace.wait_s(clock.s) == 0
        await outbound.request("GET", "https://h.example/")
    assert len(inner.requests) == 3
    assert pace.wait_s(clock.s) == 60


async def test_an_attempt_without_a_request_costs_no_pace_once_requests_are_counted() -> None:
    async with NotifyRoom(rate_per_min=2) as room:
        room.pace.by_request = True
        for title in ("a", "b", "c"):
            await room.service.send(SCOPE, draft(title))
        await until(lambda: room.notifier.titles == ["a", "b", "c"])


async def test_what_the_pace_holds_back_is_not_the_attempts_time() -> None:
    clock, pace, inner = Sleepless(), Pace(1), RecordingOutbound()
    pace.note(clock.s - 59.95)

    async def pass_on(ends_at: float) -> None:
        await until(lambda: (limit.when() or 0.0) > ends_at)
        clock.s += 1.0

    async with asyncio.timeout(30) as limit:
        pace.limit, ends_at = limit, limit.when() or 0.0
        await asyncio.gather(PacedOutbound(inner, pace, clock).request("GET", "https://h.example/"), pass_on(ends_at))
    assert len(inner.requests) == 1
    assert limit.when() == pytest.approx(ends_at + 0.05)
