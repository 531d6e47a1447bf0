"""How often a plugin may fail, and how long it waits then."""

from __future__ import annotations

import pytest
from fakes.traffic import FakeClock

from gateway.wasm.config import WasmConfig
from gateway.wasm.strikes import FORGIVEN_AFTER_S, LONGEST_QUARANTINE_S, Quarantine, Strikes


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_strikes_count_within_their_window_only(clock: FakeClock) -> None:
    strikes = Strikes(clock)
    assert strikes.note("trapped") == 1
    clock.advance(40)
    assert strikes.note("timed out") == 2
    clock.advance(30)
    assert strikes.within(60) == 1
    assert strikes.within(5) == 0
    assert (strikes.total, strikes.last, strikes.fresh) == (2, "timed out", True)


def test_strikes_kept_are_bounded(clock: FakeClock) -> None:
    strikes = Strikes(clock)
    for _ in range(5000):
        strikes.note("trapped")
    assert strikes.within(60) == 1000
    assert strikes.total == 5000


def test_the_back_off_doubles_up_to_an_hour(clock: FakeClock) -> None:
    quarantine = Quarantine(WasmConfig(quarantine_s=10), clock)
    waits = []
    for _ in range(12):
        waits.append(quarantine.enter("3 strikes"))
        assert not quarantine.over
        clock.advance(waits[-1] - 0.001)
        assert not quarantine.over
        clock.advance(0.001)
        assert quarantine.over
        quarantine.leave()
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == LONGEST_QUARANTINE_S


def test_a_quiet_hour_forgives_and_a_shorter_one_does_not(clock: FakeClock) -> None:
    quarantine = Quarantine(WasmConfig(quarantine_s=10), clock)
    clock.advance(quarantine.enter("once"))
    quarantine.leave()
    clock.advance(FORGIVEN_AFTER_S - 1)
    wait_s = quarantine.enter("twice")
    assert wait_s == 20
    clock.advance(wait_s)
    quarantine.leave()
    clock.advance(FORGIVEN_AFTER_S + 1)
    assert quarantine.enter("long after") == 10


def test_the_status_says_until_when_and_why(clock: FakeClock) -> None:
    quarantine = Quarantine(WasmConfig(quarantine_s=10), clock)
    quarantine.enter("3 strikes within 60 s")
    status = quarantine.status
    assert status is not None
    assert status.until_ms == clock.now_ms() + 10_000
    assert (status.times, status.reason) == (1, "3 strikes within 60 s")
    quarantine.leave()
    assert quarantine.status is None
    assert quarantine.over


def test_another_version_begins_anew(clock: FakeClock) -> None:
    quarantine = Quarantine(WasmConfig(quarantine_s=10), clock)
    quarantine.enter("bad")
    quarantine.forget()
    assert quarantine.over
    assert quarantine.enter("again") == 10


def test_the_connections_that_are_kept_are_bounded(clock: FakeClock) -> None:
    strikes = Strikes(clock)
    for party in range(3000):
        strikes.note("trapped", party)
        strikes.note("trapped", party)
    assert strikes.within() == 1000
    assert strikes.own == 0
