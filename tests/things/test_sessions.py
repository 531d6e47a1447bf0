"""Online means: a connection serves the device now."""

from __future__ import annotations

from fakes.traffic import FakeClock, FakeConnection

from gateway.core.flow import Commit
from gateway.things.model import Device
from gateway.things.sessions import SEEN_EVERY_MS, Session, SessionRegistry, left_online


def device(number: int = 1) -> Device:
    return Device(key=number, tenant_id="default", id=f"d{number}", product_id="p")


def test_the_first_binding_brings_a_device_online_and_says_by_what() -> None:
    registry, commit = SessionRegistry(FakeClock()), Commit()
    session = Session(device(), FakeConnection())
    assert registry.bind(session, commit) is None
    assert session.device.online
    assert commit.seen[1].online
    assert [(event.type, event.data["listener"]) for event in commit.events] == [("device.online", "l")]


def test_a_second_connection_takes_over_without_an_event() -> None:
    registry, commit = SessionRegistry(FakeClock()), Commit()
    thing = device()
    first, second = Session(thing, FakeConnection()), Session(thing, FakeConnection())
    registry.bind(first, commit)
    commit.events.clear()
    assert registry.bind(second, commit) is first
    assert not registry.release(first, "replaced", commit)
    assert thing.online
    assert commit.events == []


def test_the_end_of_the_serving_connection_takes_the_device_offline_and_says_why() -> None:
    registry, commit = SessionRegistry(FakeClock()), Commit()
    session = Session(device(), FakeConnection())
    registry.bind(session, commit)
    commit.events.clear()
    assert registry.release(session, "idle", commit)
    assert not session.device.online
    assert [(event.type, event.data) for event in commit.events] == [("device.offline", {"reason": "idle"})]
    assert len(registry) == 0


def test_last_seen_is_exact_in_memory_and_written_now_and_then() -> None:
    clock = FakeClock()
    registry = SessionRegistry(clock)
    session = Session(device(), FakeConnection())
    registry.bind(session, Commit())
    commit = Commit()
    registry.touch(session, clock.now_ms() + 1, commit)
    assert session.device.last_seen_ms == clock.now_ms() + 1
    assert commit.seen == {}
    registry.touch(session, clock.now_ms() + SEEN_EVERY_MS, commit)
    assert commit.seen[1].at_ms == clock.now_ms() + SEEN_EVERY_MS


def test_devices_that_a_crash_left_online_are_offline_after_the_start() -> None:
    one, other = device(1), device(2)
    one.online = True
    commit = left_online([one, other], FakeClock())
    assert [event.device_id for event in commit.events] == ["d1"]
    assert not one.online
    assert not commit.seen[1].online
