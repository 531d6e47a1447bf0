"""The turn to write: one at a time, in the order of asking, between threads and coroutines."""

from __future__ import annotations

import asyncio
import threading

from gateway.storage.turn import WriteTurn


async def test_only_one_holds_the_turn_and_all_get_it_in_order() -> None:
    turn = WriteTurn()
    order: list[int] = []
    holders = 0

    async def on_loop(number: int) -> None:
        nonlocal holders
        async with turn.on_loop():
            holders += 1
            assert holders == 1
            await asyncio.sleep(0.001)
            order.append(number)
            holders -= 1

    await asyncio.gather(*(on_loop(number) for number in range(10)))
    assert order == list(range(10))


async def test_a_thread_and_the_loop_take_turns() -> None:
    turn = WriteTurn()
    done = threading.Event()
    in_thread = 0

    def flood() -> None:
        nonlocal in_thread
        while not done.is_set():
            with turn.in_thread():
                in_thread += 1

    thread = threading.Thread(target=flood)
    thread.start()
    for _ in range(200):
        async with asyncio.timeout(5), turn.on_loop():
            pass
    done.set()
    await asyncio.to_thread(thread.join)
    assert in_thread > 0


async def test_whoever_gives_up_waiting_gives_up_the_place() -> None:
    turn = WriteTurn()

    async def hold() -> None:
        async with turn.on_loop():
            pass

    async with turn.on_loop():
        waiting = [asyncio.get_running_loop().create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.sleep(0)
    await asyncio.wait_for(waiting[2], 5)
    assert waiting[0].cancelled()
    async with asyncio.timeout(5), turn.on_loop():
        pass


async def test_a_turn_granted_and_cancelled_in_the_same_moment_is_passed_on() -> None:
    turn = WriteTurn()
    held = turn.on_loop()
    await held.__aenter__()

    async def hold() -> None:
        async with turn.on_loop():
            raise AssertionError("cancelled before it ran")

    waiting = asyncio.get_running_loop().create_task(hold())
    await asyncio.sleep(0)
    await held.__aexit__(None, None, None)
    await asyncio.sleep(0)  # the grant is delivered, the task has not run yet
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    async with asyncio.timeout(5), turn.on_loop():
        pass


async def test_an_exception_in_the_block_passes_the_turn_on() -> None:
    turn = WriteTurn()

    def fail() -> None:
        with turn.in_thread():
            raise ValueError

    assert isinstance((await asyncio.gather(asyncio.to_thread(fail), return_exceptions=True))[0], ValueError)
    async with asyncio.timeout(5), turn.on_loop():
        pass
