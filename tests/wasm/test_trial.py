"""Trying payloads beside the running plugin: one after the other, on a thread of its own, and only so many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.nursery import Nursery, counting, marks

from gateway.core.errors import NotReady
from gateway.wasm.codec import NOT_TRIED, TRAPPED
from gateway.wasm.trial import MOST_WAITING, Trial


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


async def test_trials_that_wait_are_bounded_and_leave_room_again(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    may_end = threading.Event()
    asked = [
        asyncio.ensure_future(host.on_trial("meter", lambda _trial: may_end.wait(60)))  # noqa: TID251 - a test's own
        for _ in range(1 + MOST_WAITING)
    ]
    await asyncio.sleep(0)
    try:
        with pytest.raises(NotReady, match=f"{MOST_WAITING} payloads wait"):
            await host.on_trial("meter", lambda _trial: True)
        asked[-1].cancel()
        await asyncio.wait(asked[-1:])
        asked[-1] = asyncio.ensure_future(host.on_trial("meter", lambda _trial: True))  # noqa: TID251 - a test's own
        await asyncio.sleep(0)
    finally:
        may_end.set()
    assert await asyncio.gather(*asked) == [True] * len(asked)


async def test_a_trial_leaves_no_trace_and_ends_once_it_is_given_up(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    given_up = iter([False, True, True])

    def work(trial: Trial) -> list[object]:
        trial._given_up = lambda: next(given_up)
        return [getattr(result, "device", result) for result in trial.results([b"x", b"T", *[b"y"] * 40])]

    results = await host.on_trial("meter", work)
    assert results[:3] == ["a", TRAPPED, "a"]
    assert results[32:] == [NOT_TRIED] * 10
    status = host.status("meter")
    assert status.stats is not None
    assert (status.stats.frames, status.stats.traps, status.strikes) == (0, 0, 0)
    assert marks(host, "meter") == ["a"]
