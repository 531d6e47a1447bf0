"""Whose turn it is to write to the database file.

SQLite has one writer, and whoever waits for it polls: beside a journal that writes without a pause, a repository's
transaction could wait for ever. The turn hands the file over in the order of asking, between the journal's thread and
the loop. Knows no database.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager


class WriteTurn:
    """A fair lock that a thread may hold as well as a coroutine."""

    def __init__(self) -> None:
        """Start with nobody writing."""
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[Callable[[], None]] = deque()

    def _ask(self, grant: Callable[[], None]) -> bool:
        with self._guard:
            if self._held:
                self._waiting.append(grant)
                return False
            self._held = True
            return True

    def _pass_on(self) -> None:
        with self._guard:
            if not self._waiting:
                self._held = False
                return
            grant = self._waiting.popleft()
        grant()

    @contextmanager
    def in_thread(self) -> Iterator[None]:
        """Hold the turn in a thread that is not the loop's."""
        granted = threading.Event()
        if not self._ask(granted.set):
            granted.wait()
        try:
            yield
        finally:
            self._pass_on()

    @asynccontextmanager
    async def on_loop(self) -> AsyncIterator[None]:
        """Hold the turn in a coroutine; a cancelled wait gives its place up."""
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if granted.cancelled():
                self._pass_on()
            else:
                granted.set_result(None)

        def grant() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:  # the loop was closed while its coroutine waited: the next one's turn
                self._pass_on()

        if not self._ask(grant):
            try:
                await granted
            except asyncio.CancelledError:
                # Granted and cancelled in the same turn of the loop: nobody else will pass it on.
                if granted.done() and not granted.cancelled():
                    self._pass_on()
                raise
        try:
            yield
        finally:
            self._pass_on()
