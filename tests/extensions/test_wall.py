from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import gateway
from gateway.extensions.wall import ExtensionFailed, wall


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("this, too, is the extension's code")


class Stop(BaseException):
    """Neither a failure nor the extension's to raise."""


async def never() -> None:
    await asyncio.Event().wait()


def test_what_an_extension_raises_is_restated_with_its_name_and_what_was_called() -> None:
    cause = OSError("no\nlink")
    with pytest.raises(ExtensionFailed) as caught, wall("lora", "open"):
        raise cause
    failed = caught.value
    assert (failed.extension, failed.called, failed.cause) == ("lora", "open", cause)
    assert (failed.said, failed.reason) == ("no?link", "OSError: no?link")
    assert str(failed) == "lora failed at open: OSError: no?link"
    assert failed.__cause__ is cause


def test_a_call_that_works_is_left_alone() -> None:
    with wall("lora", "open"):
        answer = 7
    assert answer == 7


@pytest.mark.parametrize("end", [StopIteration(), StopAsyncIteration(), GeneratorExit("is no Exception"), Stop()])
def test_only_exceptions_are_failures_and_all_of_them(end: BaseException) -> None:
    with pytest.raises(ExtensionFailed if isinstance(end, Exception) else type(end)), wall("lora", "open"):
        raise end


def test_an_error_that_the_caller_wants_goes_through() -> None:
    with pytest.raises(KeyError), wall("lora", "open", KeyError, TimeoutError):
        raise KeyError("street")


def test_an_error_that_cannot_even_be_shown_is_named_by_its_type() -> None:
    with pytest.raises(ExtensionFailed) as caught, wall("lora", "open"):
        raise Speechless
    assert caught.value.reason == "Speechless: "


def test_what_an_error_says_of_itself_is_bounded() -> None:
    with pytest.raises(ExtensionFailed) as caught, wall("lora", "open"):
        raise ValueError("x" * 1_000_000)
    assert len(str(caught.value)) < 1000


async def test_a_cancellation_of_the_task_is_no_failure() -> None:
    async def part() -> None:
        with wall("lora", "write"):
            await never()

    running = asyncio.get_running_loop().create_task(part())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_time_limit_within_the_wall_is_a_failure() -> None:
    with pytest.raises(ExtensionFailed, match="lora failed at write: TimeoutError"), wall("lora", "write"):
        async with asyncio.timeout(0.001):
            await never()


async def test_a_time_limit_around_the_wall_is_its_owners() -> None:
    async def limited() -> None:
        async with asyncio.timeout(0.001):
            with wall("lora", "write"):
                await never()

    with pytest.raises(TimeoutError):
        await limited()


async def cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancelled_task() -> None:
    task = asyncio.get_running_loop().create_task(never())
    await asyncio.sleep(0)
    task.cancel()
    await task


@pytest.mark.parametrize("call", [cancelled_future, cancelled_task])
async def test_a_cancellation_that_nobody_asked_for_is_a_failure(call: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(ExtensionFailed, match="lora failed at write: CancelledError"), wall("lora", "write"):
        await call()


def test_without_a_loop_a_cancellation_is_a_failure_too() -> None:
    with pytest.raises(ExtensionFailed, match="CancelledError"), wall("lora", "make"):
        raise asyncio.CancelledError


def test_the_blind_except_stands_once_for_extensions() -> None:
    source = Path(gateway.__file__).parent
    rooms = ["extensions", "notify", "sinks", "app"]
    blind = [
        path
        for room in rooms
        for path in (source / room).rglob("*.py")
        if re.search(r"except \(?Exception\b", path.read_text())
    ]
    assert blind == [source / "extensions" / "wall.py"]
