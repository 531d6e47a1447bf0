"""Calls on threads of their own: answers, bounds, and guests that do their worst, while the loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from fakes.guests_calls import put_caller
from fakes.rules_fakes import until
from guests_gw1 import well_behaved

from gateway.core.clock import SystemClock
from gateway.core.errors import CodecError, NotFound, NotReady, PluginTrapped
from gateway.wasm.config import WasmConfig
from gateway.wasm.lane import MOST_WAITING, CallLane
from gateway.wasm.plugins import PluginHost
from gateway.wasm.release import Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox

MakeLane = Callable[..., CallLane]


@pytest.fixture
def make_lane(tmp_path: Path) -> Iterator[MakeLane]:
    config, clock = WasmConfig(), SystemClock()
    starter = Starter(config, clock, lambda _id: frozenset())
    lanes: list[CallLane] = []

    def make(
        *, after: CallLane | None = None, idle_s: float = 30.0, sandbox: Callable[[], Sandbox] | None = None, **put: Any
    ) -> CallLane:
        release = read_release(put_caller(tmp_path / str(len(lanes)), **put), config, _no_runtime)
        made = sandbox or (lambda: Sandbox(config, tmp_path / "cache"))
        lanes.append(CallLane(release, starter, made, clock, after=after, idle_s=idle_s))
        return lanes[-1]

    yield make
    for lane in lanes:
        lane.close()
        assert lane.join(10)


async def begun(lane: CallLane, letter: str, timeout_s: float = 10) -> asyncio.Task[Any]:
    """A call that a thread has taken."""
    task = asyncio.get_running_loop().create_task(lane.call(letter, timeout_s=timeout_s))
    await asyncio.sleep(0)
    await until(lambda: not lane.waiting)
    return task


def _no_runtime(_plugin_id: str) -> Release:
    raise AssertionError


async def test_a_call_gives_the_plugins_answer_as_plain_data(make_lane: MakeLane) -> None:
    lane = make_lane()
    args = {"n": [1, 2.5, None, True], "bytes": b"\x00\xff", "text": "grün"}
    assert await lane.call(args, timeout_s=5) == args
    assert (lane.stats.calls, lane.threads, lane.waiting) == (1, 1, 0)
    assert lane.memory_bytes == 4 * 65536


@pytest.mark.parametrize("letter", ["T", "L", "R", "O"])
async def test_a_hostile_call_costs_its_caller_an_error_and_nobody_else_anything(
    make_lane: MakeLane, letter: str
) -> None:
    lane = make_lane(deadline_ms=50)
    with pytest.raises(PluginTrapped):
        await lane.call(letter, timeout_s=10)
    assert await lane.call("again", timeout_s=10) == "again"
    assert (lane.stats.traps + lane.stats.kills, lane.stats.strikes, lane.stats.respawns) == (1, 1, 1)


async def test_a_memory_bomb_gets_no_more_than_its_manifest_says(make_lane: MakeLane) -> None:
    lane = make_lane()
    assert await lane.call("M", timeout_s=10) == 1
    assert lane.memory_bytes == 2 << 20


@pytest.mark.parametrize(("letter", "number"), [("7", 7), ("H", 4), ("P", -2), ("X", -2)])
async def test_a_refusal_and_a_malformed_answer_are_errors_with_their_code(
    make_lane: MakeLane, letter: str, number: int
) -> None:
    lane = make_lane()
    with pytest.raises(CodecError) as caught:
        await lane.call(letter, timeout_s=10)
    assert caught.value.number == number
    assert letter != "7" or "no such thing" in str(caught.value)
    assert lane.stats.respawns == 0


async def test_arguments_that_cannot_be_carried_or_are_too_large_do_not_reach_the_plugin(make_lane: MakeLane) -> None:
    lane = make_lane()
    with pytest.raises(CodecError, match="cannot be carried"):
        await lane.call({"what": object()}, timeout_s=10)
    with pytest.raises(CodecError, match="max_input"):
        await lane.call("x" * 70_000, timeout_s=10)
    assert lane.stats.calls == 0


async def test_the_loop_runs_while_a_call_does(make_lane: MakeLane) -> None:
    lane = make_lane(deadline_ms=300)
    turns = 0
    call = asyncio.get_running_loop().create_task(lane.call("L", timeout_s=10))
    while not call.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    assert isinstance(call.exception(), PluginTrapped)


async def test_the_callers_time_is_the_guests_budget_where_it_is_shorter_than_the_manifests(
    make_lane: MakeLane,
) -> None:
    lane = make_lane(deadline_ms=60_000)
    await lane.call("warm", timeout_s=10)
    with pytest.raises(PluginTrapped):
        await lane.call("L", timeout_s=0.1)
    assert (lane.stats.kills, lane.stats.strikes) == (1, 0), "the caller was in a hurry: no fault of the plugin"
    with pytest.raises(PluginTrapped):
        await lane.call("T", timeout_s=1)
    assert lane.stats.strikes == 1


async def test_a_plugin_that_never_answers_in_its_callers_time_strikes_all_the_same(make_lane: MakeLane) -> None:
    lane = make_lane(deadline_ms=60_000)
    await lane.call("warm", timeout_s=10)
    for strikes in (0, 0, 1):
        with pytest.raises(PluginTrapped):
            await lane.call("L", timeout_s=0.1)
        assert lane.stats.strikes == strikes


async def test_an_answer_between_forgives_what_was_lost_to_callers_in_a_hurry(make_lane: MakeLane) -> None:
    lane = make_lane(deadline_ms=60_000)
    for _ in range(2):
        await lane.call("warm", timeout_s=10)
        for _ in range(2):
            with pytest.raises(PluginTrapped):
                await lane.call("L", timeout_s=0.1)
    assert (lane.stats.kills, lane.stats.strikes) == (4, 0)


async def test_a_call_that_finds_no_thread_in_time_is_not_made(make_lane: MakeLane) -> None:
    lane = make_lane(deadline_ms=1000)
    await lane.call("warm", timeout_s=10)
    busy = await begun(lane, "L")
    with pytest.raises(NotReady, match="had no thread free within"):
        await lane.call("late", timeout_s=0.05)
    assert lane.waiting == 0
    with pytest.raises(PluginTrapped):
        await busy
    assert lane.stats.calls == 2


async def test_a_cancelled_caller_leaves_nothing_behind(make_lane: MakeLane) -> None:
    lane = make_lane(deadline_ms=200)
    running = await begun(lane, "L")
    waiting = asyncio.get_running_loop().create_task(lane.call("waits", timeout_s=10))
    await until(lambda: lane.waiting == 1)
    for task in (running, waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert lane.waiting == 0
    assert await lane.call("next", timeout_s=10) == "next"
    assert lane.stats.calls <= 2, "what waited was not called"


async def test_a_full_queue_rejects_and_counts(make_lane: MakeLane) -> None:
    lane = make_lane(deadline_ms=300)
    first = await begun(lane, "L")
    calls = [asyncio.get_running_loop().create_task(lane.call("ok", timeout_s=30)) for _ in range(MOST_WAITING)]
    await until(lambda: lane.waiting == MOST_WAITING)
    with pytest.raises(NotReady, match="busy"):
        await lane.call("one too many", timeout_s=30)
    assert lane.rejected == 1
    with pytest.raises(PluginTrapped):
        await first
    assert await asyncio.gather(*calls) == ["ok"] * MOST_WAITING


async def test_workers_run_side_by_side_each_with_an_instance_and_the_counters_add_up(make_lane: MakeLane) -> None:
    lane = make_lane(deadline_ms=400, workers=2)
    hung = await begun(lane, "L")
    assert await lane.call("C", timeout_s=10) == 1
    assert await lane.call("C", timeout_s=10) == 2
    assert not hung.done()
    assert lane.threads == 2
    with pytest.raises(PluginTrapped):
        await hung
    assert lane.stats.calls == 3


async def test_an_idle_thread_ends_and_the_next_call_starts_one_that_goes_on_with_its_state(
    make_lane: MakeLane,
) -> None:
    lane = make_lane(idle_s=0.05, carry=True)
    assert await lane.call("C", timeout_s=10) == 1
    await until(lambda: lane.threads == 0)
    assert await lane.call("C", timeout_s=10) == 2


async def test_state_that_the_manifest_does_not_carry_ends_with_its_thread(make_lane: MakeLane) -> None:
    lane = make_lane(idle_s=0.05)
    assert await lane.call("C", timeout_s=10) == 1
    await until(lambda: lane.threads == 0)
    assert await lane.call("C", timeout_s=10) == 1


async def test_a_closed_lane_finishes_what_waits_and_takes_no_more(make_lane: MakeLane) -> None:
    lane = make_lane(deadline_ms=200)
    running = await begun(lane, "L")
    waiting = asyncio.get_running_loop().create_task(lane.call("waits", timeout_s=10))
    await until(lambda: lane.waiting == 1)
    lane.close()
    with pytest.raises(NotReady, match="stopping"):
        await lane.call("late", timeout_s=10)
    assert await waiting == "waits"
    with pytest.raises(PluginTrapped):
        await running
    await until(lambda: lane.threads == 0)


async def test_a_new_version_begins_with_the_state_of_the_old_one(make_lane: MakeLane) -> None:
    old = make_lane(carry=True)
    assert await old.call("C", timeout_s=10) == 1
    unused = make_lane(carry=True, version="2", after=old)
    new = make_lane(carry=True, version="3", after=unused)
    old.close()
    unused.close()
    assert await new.call("C", timeout_s=10) == 2


async def test_a_version_that_carries_no_state_begins_afresh(make_lane: MakeLane) -> None:
    old = make_lane(carry=True)
    await old.call("C", timeout_s=10)
    new = make_lane(version="2", after=old)
    old.close()
    assert await new.call("C", timeout_s=10) == 1


async def test_a_plugin_that_does_not_start_is_not_ready_and_says_why(make_lane: MakeLane) -> None:
    wasm = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1))'))
    lane = make_lane(wasm=wasm)
    with pytest.raises(NotReady, match="does not export gw_abi"):
        await lane.call("x", timeout_s=10)
    with pytest.raises(NotReady, match="tried again"):
        await lane.call("x", timeout_s=10)


async def test_a_fault_of_the_host_on_the_thread_is_an_answer_and_not_silence(make_lane: MakeLane) -> None:
    def broken() -> Sandbox:
        raise RuntimeError("no sandbox today")

    lane = make_lane(sandbox=broken)
    with pytest.raises(NotReady, match="RuntimeError"):
        await lane.call("x", timeout_s=10)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PluginHost]:
    put_caller(tmp_path / "plugins")
    put_caller(tmp_path / "plugins", "broken", wasm=b"no module")
    put_caller(tmp_path / "plugins", "kodec", kind="codec", wasm=well_behaved())
    made = PluginHost(WasmConfig(), [tmp_path / "plugins"], tmp_path / "cache")
    made.load_all()
    yield made
    made.close()


async def test_the_host_calls_a_running_plugin_by_its_id(host: PluginHost) -> None:
    assert await host.call("obey", {"a": 1}, timeout_s=10) == {"a": 1}


async def test_the_host_says_why_a_plugin_cannot_be_called(host: PluginHost) -> None:
    with pytest.raises(NotFound):
        await host.call("nobody", {}, timeout_s=1)
    with pytest.raises(NotReady, match="refused"):
        await host.call("broken", {}, timeout_s=1)
    with pytest.raises(CodecError, match="is a codec"):
        await host.call("kodec", {}, timeout_s=1)
