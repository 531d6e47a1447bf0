"""What retention deletes, and what it leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from fakes.commits import a_commit, a_message, outcome
from fakes.rooms import OTHER, SCOPE, Rooms, over_database
from fakes.traffic import FakeClock

from gateway.alarms.model import AlarmFilter
from gateway.core.flow import AlarmChange, Commit, DeadLetter, Event, Message, NewDevice
from gateway.notify.model import Notification, NotificationFilter
from gateway.reports.model import Report, ReportFilter
from gateway.rules.model import SceneRun
from gateway.storage.config import RetentionConfig
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.reports import SqlReportRepository
from gateway.storage.retention import Retention
from gateway.storage.writer import JournalWriter
from gateway.things.model import Command, Device, Product
from gateway.things.ports import PageRequest, TimeRange

pytestmark = pytest.mark.usefixtures("stored_device")

DAY_MS = 86_400_000
BRISK = RetentionConfig(slice_rows=10, pause_s=0)


@pytest.fixture
def repositories(database: Database, clock: FakeClock) -> Rooms:
    return over_database(database, clock)


@pytest.fixture
def retention(database: Database) -> Retention:
    return Retention(database, BRISK)


async def keep(rooms: Rooms, product_id: str, days: float | None) -> None:
    await rooms.products.save_product(SCOPE, Product(tenant_id="default", id=product_id, retention_days=days))


async def values(database: Database, device_id: str = "d1") -> list[Any]:
    page = await SqlHistoryRepository(database).points(SCOPE, device_id, "v", TimeRange(), PageRequest(limit=1000))
    return [point.value for point in page.items]


def received(clock: FakeClock, days_ago: float, value: int, device_key: int = 1) -> Message:
    """A message that came some days ago and claims to be from 1970."""
    message = a_message(0, device_key, v=value)
    message.received_at_ms = round(clock.ms - days_ago * DAY_MS)
    return message


async def test_history_goes_by_the_time_it_was_received_and_the_products_days(
    repositories: Rooms, retention: Retention, journal: JournalWriter, database: Database, clock: FakeClock
) -> None:
    await keep(repositories, "p", 2.0)
    await keep(repositories, "q", 0.5)
    await keep(repositories, "r", None)
    devices = [NewDevice(2, "default", "q", "q1", 1), NewDevice(3, "default", "r", "r1", 1)]
    messages = [received(clock, days, n, key) for n, days in enumerate((9, 2.1, 1.9, 1, 0.4, 0)) for key in (1, 2, 3)]
    assert await outcome(journal, a_commit(*messages, devices=devices)) is None
    assert (await retention.sweep())["messages"] == 2 + 4
    assert await values(database) == [2, 3, 4, 5]
    assert await values(database, "q1") == [4, 5]
    assert await values(database, "r1") == [0, 1, 2, 3, 4, 5]
    assert (await SqlHistoryRepository(database).latest(SCOPE, "d1"))[0].value == 5
    assert (await retention.sweep())["messages"] == 0
    clock.ms += DAY_MS
    assert (await retention.sweep())["messages"] == 1 + 2
    assert retention.deleted["messages"] == 9


async def test_many_rows_go_in_slices_with_the_journal_in_between(
    repositories: Rooms, retention: Retention, journal: JournalWriter, database: Database, clock: FakeClock
) -> None:
    await keep(repositories, "p", 1.0)
    old = [received(clock, 2, n) for n in range(95)]
    assert await outcome(journal, a_commit(*old, received(clock, 0, 1000))) is None
    sweep = asyncio.get_running_loop().create_task(retention.sweep())
    between = 0
    while not sweep.done():
        assert await outcome(journal, a_commit(received(clock, 0, 2000 + between))) is None
        between += 1
    assert (await sweep)["messages"] == 95
    assert between > 1
    assert await values(database) == [1000, *range(2000, 2000 + between)]


async def test_a_clock_that_was_ahead_for_a_while_does_not_bar_the_way(
    repositories: Rooms, retention: Retention, journal: JournalWriter, database: Database, clock: FakeClock
) -> None:
    await keep(repositories, "p", 1.0)
    messages = [received(clock, -3650, n) for n in range(25)] + [received(clock, 3, 100 + n) for n in range(25)]
    assert await outcome(journal, a_commit(*messages)) is None
    assert (await retention.sweep())["messages"] == 25
    assert await values(database) == list(range(25))


async def test_a_product_whose_days_are_shortened_is_swept_from_the_beginning(
    repositories: Rooms, retention: Retention, journal: JournalWriter, database: Database, clock: FakeClock
) -> None:
    await keep(repositories, "q", 1.0)
    devices = [NewDevice(2, "default", "q", "q1", 1)]
    messages = [received(clock, 5, n, key) for n in range(20) for key in (1, 2)]
    assert await outcome(journal, a_commit(*messages, devices=devices)) is None
    assert (await retention.sweep())["messages"] == 20
    await keep(repositories, "p", 1.0)
    assert (await retention.sweep())["messages"] == 20
    assert await values(database) == []


async def test_the_same_product_id_of_another_tenant_keeps_its_own_days(
    repositories: Rooms, retention: Retention, journal: JournalWriter, database: Database, clock: FakeClock
) -> None:
    await keep(repositories, "p", 1.0)
    await repositories.products.save_product(OTHER, Product(tenant_id="other", id="p"))
    await repositories.devices.add_device(OTHER, Device(key=2, tenant_id="other", id="d1", product_id="p"))
    assert await outcome(journal, a_commit(received(clock, 5, 1, 1), received(clock, 5, 2, 2))) is None
    assert (await retention.sweep())["messages"] == 1
    page = await SqlHistoryRepository(database).points(OTHER, "d1", "v", TimeRange(), PageRequest())
    assert [point.value for point in page.items] == [2]


async def test_everything_else_goes_by_its_own_days_and_what_is_open_stays(
    repositories: Rooms, database: Database, journal: JournalWriter, clock: FakeClock
) -> None:
    old, young = clock.ms - 11 * DAY_MS, clock.ms - 9 * DAY_MS
    commit = Commit(
        events=[Event("default", "t", at) for _ in range(15) for at in (old, young)],
        dead_letters=[DeadLetter("default", "p", "x", "why", b"", at) for at in (old, young)],
    )
    assert await outcome(journal, commit) is None
    command = Command(id="open", tenant_id="default", device_id="d1", name="n", created_at_ms=old)
    run = SceneRun(id="open", tenant_id="default", scene="s", started_at_ms=old)
    await repositories.commands.save_command(SCOPE, command)
    await repositories.scenes.save_run(run)
    notice = Notification(id="open", tenant_id="default", channel="ops", title="t", text="", created_at_ms=old)
    await repositories.notifications.add_notifications(SCOPE, [notice])
    reports = SqlReportRepository(database)
    report = Report(
        id="r",
        tenant_id="default",
        plugin_id="x",
        plugin_version="1",
        device_id="d1",
        property_id="p",
        from_ms=0,
        to_ms=1,
        rows=[],
    )
    for at in (old, young):
        await reports.add_report(SCOPE, msgspec.structs.replace(report, id=str(at), created_at_ms=at))
        ended = {"id": str(at), "ended_at_ms": at}
        await repositories.commands.save_command(SCOPE, msgspec.structs.replace(command, status="failed", **ended))
        await repositories.scenes.save_run(msgspec.structs.replace(run, status="failed", **ended))
        sent = msgspec.structs.replace(notice, status="sent", **ended)
        await repositories.notifications.add_notifications(SCOPE, [sent])
        raised = AlarmChange("raise", "default", f"d{at}", "r", at)
        await repositories.alarms.apply([raised, msgspec.structs.replace(raised, what="clear")], [])
    await repositories.alarms.apply([AlarmChange("raise", "default", "d1", "r", old)], [])
    config = RetentionConfig(
        slice_rows=4,
        pause_s=0,
        events_days=10,
        dead_letters_days=10,
        commands_days=10,
        scene_runs_days=10,
        cleared_alarms_days=10,
        notifications_days=10,
        reports_days=10,
    )
    gone = await Retention(database, config).sweep()
    assert gone == {
        "messages": 0,
        "events": 15 + 3,
        "dead_letters": 1,
        "commands": 1,
        "scene_runs": 1,
        "notifications": 1,
        "reports": 1,
        "alarms": 1,
    }
    page = PageRequest()
    kept = (await repositories.commands.list_commands(SCOPE, "d1", page)).items
    assert {command.id for command in kept} == {"open", str(young)}
    assert (await repositories.scenes.list_runs(SCOPE, None, PageRequest())).total == 2
    assert (await repositories.alarms.list_alarms(SCOPE, AlarmFilter(), PageRequest())).total == 2
    left = await repositories.notifications.list_notifications(SCOPE, NotificationFilter(), page)
    assert {item.id for item in left.items} == {"open", str(young)}
    assert (await reports.list_reports(SCOPE, ReportFilter(), page)).total == 1
    forever = RetentionConfig(
        events_days=None,
        dead_letters_days=None,
        commands_days=None,
        scene_runs_days=None,
        cleared_alarms_days=None,
        notifications_days=None,
        reports_days=None,
    )
    clock.ms += 3650 * DAY_MS
    assert set((await Retention(database, forever).sweep()).values()) == {0}


async def test_run_sweeps_again_and_again(
    repositories: Rooms, journal: JournalWriter, database: Database, clock: FakeClock
) -> None:
    await keep(repositories, "p", 1.0)
    retention = Retention(database, RetentionConfig(interval_s=0.001, pause_s=0))
    running = asyncio.get_running_loop().create_task(retention.run())
    for value in range(2):
        assert await outcome(journal, a_commit(received(clock, 2, value))) is None
        for _ in range(2000):
            await asyncio.sleep(0.005)
            if retention.deleted.get("messages") == value + 1:
                break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert retention.deleted["messages"] == 2
