import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog
from fakes.traffic import FakeClock

from gateway.core.tasks import Backoff, PartState, Supervisor

SOON = Backoff(first_s=0.001, most_s=0.004, calm_s=60.0)


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def supervisor(clock: FakeClock) -> AsyncIterator[Supervisor]:
    with structlog.testing.capture_logs():
        supervisor = Supervisor(clock, SOON)
        yield supervisor
        await supervisor.stop()


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_part_that_fails_is_restarted_and_its_failure_shows(supervisor: Supervisor) -> None:
    healthy, starts = asyncio.Event(), 0

    async def part() -> None:
        nonlocal starts
        starts += 1
        if starts < 4:
            raise OSError("no link")
        healthy.set()
        await for_ever()

    supervisor.start("link", part)
    await asyncio.wait_for(healthy.wait(), 10)
    health = supervisor.parts["link"]
    assert (health.state, health.restarts, health.detail) == (PartState.RUNNING, 3, "OSError: no link")


async def test_a_failed_part_says_that_it_waits_for_its_restart(clock: FakeClock) -> None:
    supervisor = Supervisor(clock, Backoff(first_s=60.0))

    async def part() -> None:
        raise ValueError("broken")

    with structlog.testing.capture_logs() as lines:
        supervisor.start("part", part)
        await asyncio.sleep(0.01)
        health = supervisor.parts["part"]
        assert (health.state, health.detail) == (PartState.RESTARTING, "ValueError: broken")
        await supervisor.stop()
    assert [(line["event"], line["part"], line["log_level"]) for line in lines] == [("part failed", "part", "error")]


async def test_a_part_that_returns_is_stopped_and_not_restarted(supervisor: Supervisor) -> None:
    runs = 0

    async def part() -> None:
        nonlocal runs
        runs += 1

    supervisor.start("once", part)
    await asyncio.sleep(0.02)
    assert (supervisor.parts["once"].state, runs) == (PartState.STOPPED, 1)


def test_delays_double_up_to_their_bound_whatever_the_number_of_failures() -> None:
    backoff = Backoff(first_s=0.2, most_s=30.0)
    assert [backoff.delay_s(failures) for failures in (1, 2, 3, 8, 9)] == [0.2, 0.4, 0.8, 25.6, 30.0]
    assert backoff.delay_s(10**9) == 30.0


async def test_failures_after_a_calm_time_count_from_the_start_again(clock: FakeClock) -> None:
    delays: list[int] = []

    class Noting(Backoff):
        def delay_s(self, failures: int) -> float:
            delays.append(failures)
            return 0.0

    supervisor = Supervisor(clock, Noting(calm_s=60.0))
    runs = 0

    async def part() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            clock.advance(61)
        if runs == 5:
            return
        raise ValueError

    with structlog.testing.capture_logs():
        supervisor.start("part", part)
        while supervisor.parts["part"].state is not PartState.STOPPED:  # noqa: ASYNC110 - a part has no end to await
            await asyncio.sleep(0)
    assert delays == [1, 2, 1, 2]


async def test_two_parts_cannot_have_one_name(supervisor: Supervisor) -> None:
    supervisor.start("part", for_ever)
    with pytest.raises(ValueError, match="part part already runs"):
        supervisor.start("part", for_ever)


async def test_a_stopped_part_is_cancelled_and_may_start_again(supervisor: Supervisor) -> None:
    ended = asyncio.Event()

    async def part() -> None:
        try:
            await for_ever()
        finally:
            ended.set()

    supervisor.start("part", part)
    await asyncio.sleep(0)
    await supervisor.stop_part("part")
    assert ended.is_set()
    assert supervisor.parts == {}
    supervisor.start("part", part)
    assert supervisor.parts["part"].state is PartState.RUNNING


async def test_stopping_what_never_started_does_nothing(supervisor: Supervisor) -> None:
    await supervisor.stop_part("unknown")


async def test_stop_ends_parts_newest_first_and_then_jobs(clock: FakeClock) -> None:
    supervisor, ends = Supervisor(clock), list[str]()

    async def ending(name: str) -> None:
        try:
            await for_ever()
        finally:
            ends.append(name)

    supervisor.start("first", lambda: ending("first"))
    supervisor.start("second", lambda: ending("second"))
    supervisor.spawn("job", ending("job"))
    await asyncio.sleep(0)
    await supervisor.stop()
    assert ends == ["second", "first", "job"]


async def test_a_failed_job_is_counted_and_logged_and_nothing_else(clock: FakeClock) -> None:
    supervisor = Supervisor(clock)

    async def job() -> None:
        raise ValueError("bad job")

    with structlog.testing.capture_logs() as lines:
        supervisor.spawn("job", job())
        await asyncio.sleep(0.01)
    assert supervisor.job_failures == 1
    assert [(line["event"], line["job"]) for line in lines] == [("job failed", "job")]
    await supervisor.stop()


async def cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def test_a_part_that_awaits_what_was_cancelled_has_failed_and_is_restarted(supervisor: Supervisor) -> None:
    healthy, starts = asyncio.Event(), 0

    async def part() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            await asyncio.gather(cancelled_future(), for_ever())
        healthy.set()
        await for_ever()

    supervisor.start("link", part)
    await asyncio.wait_for(healthy.wait(), 10)
    health = supervisor.parts["link"]
    assert (health.state, health.restarts, health.detail) == (PartState.RUNNING, 1, "CancelledError: ")
