"""The watchdog: ends a plugin call that runs over its deadline, at no cost worth mentioning to calls that do not.

A store's deadline is "the next tick of the engine's epoch", and the epoch ticks only when a call must end. Owns the
one thread that does so. Knows nothing of what runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from time import perf_counter

_LONGEST_NAP_S = 1.0
_GRACE_CPU_S = 0.003
"""CPU time that an overdue call still gets: many times what a frame takes, little beside its deadline."""
_STARVED_S = 0.25
"""Wall time after which it is ended whatever CPU it got."""
_LOOK_S = 0.001


class Watchdog:
    """Ticks the epoch when the running call is overdue. Its one caller is the thread that made it; sleeps with it.

    An instance whose remembered `epoch` differs must arm its store anew before it calls.
    """

    __slots__ = (
        "_caller",
        "_closed",
        "_period_s",
        "_thread",
        "_tick",
        "_wake",
        "asleep",
        "deadline",
        "epoch",
        "running",
    )

    def __init__(self, tick: Callable[[], None]) -> None:
        """Sleep; `tick` increments the engine's epoch."""
        self.epoch = 0
        self.deadline = 0.0
        self.running = False
        self.asleep = True
        self._tick = tick
        self._caller = time.pthread_getcpuclockid(threading.get_ident())
        self._period_s = _LONGEST_NAP_S
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, shortest_s: float) -> None:
        """Promise to look at least this often while calls run: the shortest deadline that is in use."""
        self._period_s = min(self._period_s, shortest_s)

    def begin(self, deadline: float) -> None:
        """A call starts and must be over at `deadline` (perf_counter seconds); `running = False` ends it."""
        self.deadline = deadline
        self.running = True
        if self.asleep:
            self._rouse()

    def _rouse(self) -> None:
        self.asleep = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="wasm-watchdog", daemon=True)
            self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        seen = -1.0
        while not self._closed:
            deadline = self.deadline
            if not self.running:
                if deadline == seen:
                    self._sleep()
                else:
                    seen = deadline
                    self._wake.wait(self._period_s)
                    self._wake.clear()
            else:
                left = deadline - perf_counter()
                if left > 0:
                    # The call may end and one with a shorter deadline begin meanwhile: look again in time for that.
                    self._wake.wait(min(left, self._period_s))
                    self._wake.clear()
                elif self._had_its_time(deadline):
                    self.epoch += 1
                    self._tick()
                    self._wait_for_end(deadline)

    def _had_its_time(self, deadline: float) -> bool:
        """Whether the overdue call goes on for so much CPU time more: on a busy machine no guest is at fault.

        A thread that got no CPU had no chance to end its call in time. What loops spends the grace at once.
        """
        until = perf_counter() + _STARVED_S
        began = time.clock_gettime(self._caller)
        while self.running and self.deadline == deadline and not self._closed:
            if time.clock_gettime(self._caller) - began >= _GRACE_CPU_S or perf_counter() >= until:
                return True
            self._wake.wait(_LOOK_S)
            self._wake.clear()
        return False

    def _sleep(self) -> None:
        self.asleep = True
        # A call that began before `asleep` was set did not wake us: look once more before sleeping for good.
        if not self.running and not self._closed:
            self._wake.wait()
        self._wake.clear()
        self.asleep = False

    def _wait_for_end(self, deadline: float) -> None:
        """One tick is enough to end a call, as soon as it is back in guest code; do not tick for it again."""
        while self.running and self.deadline == deadline and not self._closed:
            self._wake.wait(0.001)
            self._wake.clear()
