from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import perf_counter, sleep

import pytest

from gateway.wasm.watchdog import Watchdog


class Ticks:
    """Counts ticks and lets a test wait for one."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self._more = threading.Event()

    def __call__(self) -> None:
        self.at.append(perf_counter())
        self._more.set()

    def wait(self) -> None:
        assert self._more.wait(10)
        self._more.clear()


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def watchdog(ticks: Ticks) -> Iterator[Watchdog]:
    made = Watchdog(ticks)
    made.watch(0.005)
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread will do."""
    end = perf_counter() + 10
    while not condition():
        assert perf_counter() < end
        sleep(0.001)


def test_an_overdue_call_gets_exactly_one_tick_and_never_early(watchdog: Watchdog, ticks: Ticks) -> None:
    deadline = perf_counter() + 0.02
    watchdog.begin(deadline)
    ticks.wait()
    assert ticks.at[0] >= deadline
    sleep(0.02)
    assert len(ticks.at) == 1
    assert watchdog.epoch == 1
    watchdog.running = False


def test_calls_within_their_deadline_get_none(watchdog: Watchdog, ticks: Ticks) -> None:
    for _ in range(200):
        watchdog.begin(perf_counter() + 1)
        watchdog.running = False
    assert ticks.at == []
    assert watchdog.epoch == 0


def test_a_short_deadline_after_a_long_one_is_kept(watchdog: Watchdog, ticks: Ticks) -> None:
    watchdog.begin(perf_counter() + 3600)
    until(lambda: not watchdog.asleep)
    sleep(0.01)  # the watchdog waits for the long one
    watchdog.begin(perf_counter() + 0.01)
    ticks.wait()
    watchdog.running = False


def test_the_second_overdue_call_gets_its_own_tick(watchdog: Watchdog, ticks: Ticks) -> None:
    for number in range(1, 4):
        watchdog.begin(perf_counter() + 0.01)
        ticks.wait()
        watchdog.running = False
        assert watchdog.epoch == number


def test_it_sleeps_when_no_calls_run_and_wakes_for_the_next(watchdog: Watchdog, ticks: Ticks) -> None:
    watchdog.begin(perf_counter() + 1)
    watchdog.running = False
    until(lambda: watchdog.asleep)
    watchdog.begin(perf_counter() + 0.01)
    ticks.wait()
    watchdog.running = False
    until(lambda: watchdog.asleep)


def test_closing_ends_its_thread() -> None:
    made = Watchdog(lambda: None)
    made.begin(perf_counter() + 1)
    made.running = False
    thread = made._thread
    made.close()
    assert thread is not None
    assert not thread.is_alive()


def test_without_a_call_there_is_no_thread() -> None:
    made = Watchdog(lambda: None)
    made.close()
    assert made._thread is None


def test_a_call_whose_thread_gets_no_cpu_is_given_time_and_one_that_spins_is_not(
    watchdog: Watchdog, ticks: Ticks
) -> None:
    watchdog.begin(perf_counter())  # overdue at once, and this thread sleeps: it has had no chance
    sleep(0.05)
    assert ticks.at == []
    began = perf_counter()
    while not ticks.at and perf_counter() < began + 10:
        pass
    assert len(ticks.at) == 1
    watchdog.running = False


def test_a_call_that_never_gets_cpu_is_ended_in_the_end(
    watchdog: Watchdog, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.wasm.watchdog._STARVED_S", 0.02)
    watchdog.begin(perf_counter())
    ticks.wait()
    watchdog.running = False
