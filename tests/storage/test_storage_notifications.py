"""The contract of NotificationRepository, on the database and in memory."""

from __future__ import annotations

import msgspec
import pytest
from fakes.rooms import OTHER, SCOPE, Rooms

from gateway.core.errors import Conflict, Forbidden, NotFound, Rejected
from gateway.notify.model import Notification, NotificationFilter
from gateway.things.ports import PageRequest

ONE = Notification(
    id="n1",
    tenant_id="default",
    channel="ops",
    title="Too hot",
    text="81 Cel\n热",
    severity="major",
    device_id="d1",
    link="https://example.com/a",
    requested_by="ann",
    created_at_ms=5,
)


def another(number: int, **changes: object) -> Notification:
    return msgspec.structs.replace(ONE, id=f"n{number}", created_at_ms=number, **changes)


async def test_a_notification_comes_back_as_it_was_added_with_how_far_it_came(rooms: Rooms) -> None:
    await rooms.notifications.add_notifications(SCOPE, [ONE])
    assert await rooms.notifications.get_notification(SCOPE, "n1") == ONE
    ended = msgspec.structs.replace(ONE, status="failed", attempts=3, last_error="no", ended_at_ms=9)
    await rooms.notifications.save_notification(msgspec.structs.replace(ended, title="is not changed"))
    assert await rooms.notifications.get_notification(SCOPE, "n1") == ended


async def test_a_batch_is_added_whole_or_not_at_all(rooms: Rooms) -> None:
    await rooms.notifications.add_notifications(SCOPE, [ONE])
    with pytest.raises(Conflict):
        await rooms.notifications.add_notifications(SCOPE, [another(2), ONE])
    with pytest.raises(Forbidden):
        await rooms.notifications.add_notifications(SCOPE, [another(3), another(4, tenant_id="other")])
    page = await rooms.notifications.list_notifications(SCOPE, NotificationFilter(), PageRequest())
    assert [item.id for item in page.items] == ["n1"]


async def test_the_oldest_queued_of_a_channel_is_next(rooms: Rooms) -> None:
    for item in (another(3), another(2), another(1, channel="other"), another(4, status="sent", ended_at_ms=1)):
        await rooms.notifications.add_notifications(SCOPE, [item])
    assert await rooms.notifications.waiting() == {"ops": 2, "other": 1}
    first = await rooms.notifications.next_queued("ops")
    assert first is not None
    assert first.id == "n2"
    first.status, first.ended_at_ms = "sent", 7
    await rooms.notifications.save_notification(first)
    second = await rooms.notifications.next_queued("ops")
    assert second is not None
    assert second.id == "n3"
    assert await rooms.notifications.next_queued("none") is None


async def test_a_channel_that_is_gone_takes_what_waits_with_it_and_nothing_else(rooms: Rooms) -> None:
    for item in (another(1), another(2), another(3, channel="other"), another(4, status="sent", ended_at_ms=1)):
        await rooms.notifications.add_notifications(SCOPE, [item])
    assert await rooms.notifications.fail_queued("ops", "no channel", 42) == 2
    assert await rooms.notifications.fail_queued("ops", "no channel", 43) == 0
    failed = await rooms.notifications.get_notification(SCOPE, "n1")
    assert (failed.status, failed.last_error, failed.ended_at_ms) == ("failed", "no channel", 42)
    assert (await rooms.notifications.get_notification(SCOPE, "n4")).status == "sent"
    assert await rooms.notifications.waiting() == {"other": 1}


async def test_notifications_are_listed_newest_first_by_status_channel_and_tenant(rooms: Rooms) -> None:
    for item in (another(1), another(3), another(2, channel="other", status="failed", ended_at_ms=1)):
        await rooms.notifications.add_notifications(SCOPE, [item])

    async def ids(which: NotificationFilter, sort: str = "") -> list[str]:
        page = await rooms.notifications.list_notifications(SCOPE, which, PageRequest(sort=sort))
        assert page.total == len(page.items)
        return [item.id for item in page.items]

    assert await ids(NotificationFilter()) == ["n3", "n2", "n1"]
    assert await ids(NotificationFilter(channel="ops")) == ["n3", "n1"]
    assert await ids(NotificationFilter(status="failed")) == ["n2"]
    assert await ids(NotificationFilter(status="failed", channel="ops")) == []
    assert await ids(NotificationFilter(), "created_at") == ["n1", "n2", "n3"]
    with pytest.raises(Rejected):
        await ids(NotificationFilter(), "text")
    assert (await rooms.notifications.list_notifications(OTHER, NotificationFilter(), PageRequest())).total == 0
    with pytest.raises(NotFound):
        await rooms.notifications.get_notification(OTHER, "n1")


async def test_who_sent_is_in_the_audit_log_with_what_was_sent_or_neither_is(rooms: Rooms) -> None:
    await rooms.notifications.add_notifications(SCOPE, [ONE], audited=True)
    with pytest.raises(Conflict):
        await rooms.notifications.add_notifications(SCOPE, [another(2), ONE], audited=True)
    await rooms.notifications.add_notifications(SCOPE, [another(3)])
    page = await rooms.audit.list_audit(SCOPE, PageRequest(), None, "notification")
    (entry,) = page.items
    assert (entry.action, entry.entity_id) == ("notification.send", "n1")
    assert entry.after == {"channel": "ops", "title": "Too hot"}
