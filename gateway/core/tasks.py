"""Supervised tasks: the only way to start background work.

A part that fails is restarted with back-off and its last failure shows in `/health`. One of the three walls where
`except Exception` stands.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.core.clock import Clock, rfc3339

log = structlog.get_logger(__name__)


class PartState(enum.StrEnum):
    """What `/health` says of a part."""

    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(slots=True)
class PartHealth:
    """State of one supervised part. `detail` is the last failure, for people."""

    state: PartState
    restarts: int = 0
    detail: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between restarts, in seconds: doubled from `first_s` to `most_s`, forgotten after `calm_s` of health."""

    first_s: float = 0.2
    most_s: float = 30.0
    calm_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Wait before the restart after this many failures in a row."""
        return float(min(self.most_s, self.first_s * 2 ** min(failures - 1, 16)))


class Supervisor:
    """Runs named parts until `stop`. A part is a coroutine function that runs for ever or returns when done."""

    def __init__(self, clock: Clock, backoff: Backoff | None = None) -> None:
        """Own no task yet."""
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self.parts: dict[str, PartHealth] = {}
        self.job_failures = 0

    def start(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run `part` under `name`, restarting it whenever it raises."""
        if name in self._tasks and not self._tasks[name].done():
            raise ValueError(f"part {name} already runs")
        self.parts[name] = PartHealth(PartState.RUNNING, since=rfc3339(self._clock.now_ms()))
        self._tasks[name] = asyncio.get_running_loop().create_task(self._run(name, part), name=name)

    def spawn(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        """Run a short job once; a failure is logged and counted, never lost."""
        task = asyncio.get_running_loop().create_task(self._once(name, job), name=name)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def stop_part(self, name: str) -> None:
        """Cancel one part and wait for its end."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.parts.pop(name, None)

    async def stop(self) -> None:
        """Cancel everything, newest first, and wait."""
        for name in reversed(list(self._tasks)):
            await self.stop_part(name)
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _run(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        health = self.parts[name]
        failures = 0
        while True:
            started = self._clock.monotonic_s()
            try:
                await part()
            except (Exception, asyncio.CancelledError) as failure:
                # wall: a crashed part becomes health data and a restart
                if told_to_end(failure):
                    raise
                if self._clock.monotonic_s() - started > self._backoff.calm_s:
                    failures = 0
                failures += 1
                health.restarts += 1
                health.state = PartState.RESTARTING
                health.detail = f"{type(failure).__name__}: {failure}"
                log.error("part failed", part=name, restarts=health.restarts, exc_info=failure)
                await asyncio.sleep(self._backoff.delay_s(failures))
                health.state = PartState.RUNNING
                health.since = rfc3339(self._clock.now_ms())
            else:
                health.state = PartState.STOPPED
                return

    async def _once(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except Exception as failure:  # wall: a failed job becomes a counted log line
            self.job_failures += 1
            log.error("job failed", job=name, exc_info=failure)


def told_to_end(failure: BaseException) -> bool:
    """Whether a failure is the cancellation of the running task; one that nobody asked for is a failure as any.

    Such a one comes from awaiting what somebody else cancelled, and would end its task without a trace.
    """
    if not isinstance(failure, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs, so nothing can have been cancelled
        return False
    return task is not None and task.cancelling() > 0
