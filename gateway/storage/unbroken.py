"""Work that a cancelled caller must not leave half done: it ends first, then the cancellation goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, even when the caller is cancelled meanwhile; then raise its CancelledError.

    For statements that run in a driver's thread: they cannot be stopped, and a connection given up in the middle of
    one keeps the file locked.
    """
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as why:
            cancelled = why
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # taken note of: the caller is gone
    raise cancelled
