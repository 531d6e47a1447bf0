"""One channel at work: takes what waits, oldest first, at the channel's pace, again and again until it is delivered.

The queue is the table: a channel holds no notification in memory but the one it is at. Knows no service and no plugin.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from gateway.core.clock import Clock
from gateway.core.errors import GatewayError, NotReady, StorageFailed
from gateway.core.log import safe_text
from gateway.core.metrics import Sample
from gateway.extensions.wall import ExtensionFailed, wall
from gateway.notify.config import ChannelConfig
from gateway.notify.model import (
    ChannelStatus,
    Notification,
    NotificationRepository,
    Notifier,
    Status,
    Undelivered,
    may_pass,
)
from gateway.notify.pace import Pace

log = structlog.get_logger(__name__)

_ERROR_CHARS: Final = 500
_MOST_RETRY_AFTER_S: Final = 3600.0
"""Longest wait that a service may ask for; a mistaken one must not silence a channel for days."""
_LOOK_AGAIN_S: Final = 5.0
"""Longest time until a channel that was blocked sees that it is not any more."""
_SAVE_FIRST_S: Final = 0.2
_SAVE_MOST_S: Final = 10.0


class Channel:
    """Delivers what waits in one channel; `run` it as a supervised part."""

    def __init__(
        self,
        name: str,
        kind: str,
        config: ChannelConfig,
        notifier: Notifier,
        repository: NotificationRepository,
        clock: Clock,
        pace: Pace,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Send nothing yet. `pace`: as the notifier's way out has it. `chance`: numbers from 0 to 1, for the jitter."""
        self.name = name
        self.waiting = 0
        self.refused = 0
        self._kind = kind
        self._config = config
        self._notifier = notifier
        self._repository = repository
        self._clock = clock
        self._chance = chance
        self._pace = pace
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._failures = 0
        self._last_error = ""
        self._held_for = ""
        self._ended: dict[Status, int] = {"sent": 0, "failed": 0, "expired": 0}
        self._retries = 0

    @property
    def room(self) -> int:
        """How many more may wait."""
        return max(0, self._config.queue - self.waiting)

    def status(self) -> ChannelStatus:
        """How it fares."""
        problem = problem_of(self._notifier)
        return ChannelStatus(
            name=self.name,
            type=self._kind,
            state="blocked" if problem else "retrying" if self._failures else "ready",
            detail=problem or self._last_error,
            waiting=self.waiting,
            sent=self._ended["sent"],
            failed=self._ended["failed"],
            expired=self._ended["expired"],
            retries=self._retries,
            refused=self.refused,
        )

    def samples(self) -> Iterator[Sample]:
        """Figures for `/metrics`."""
        label = {"channel": self.name}
        yield Sample("gateway_notifications_waiting", "Notifications that are queued.", "gauge", label, self.waiting)
        for status, count in self._ended.items():
            labels = label | {"status": status}
            yield Sample("gateway_notifications_ended_total", "Notifications ended.", "counter", labels, count)
        yield Sample("gateway_notification_retries_total", "Attempts made again.", "counter", label, self._retries)
        text = "Notifications refused, as the queue was full."
        yield Sample("gateway_notifications_refused_total", text, "counter", label, self.refused)
        text = "Whether an operator must change something before the channel delivers."
        yield Sample("gateway_notifications_blocked", text, "gauge", label, bool(problem_of(self._notifier)))

    def wake(self) -> None:
        """Something was queued."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever. Raises StorageFailed, NotReady; what waits is kept."""
        while True:
            self._wake.clear()
            notification = await self._repository.next_queued(self.name)
            if notification is None:
                await self._wake.wait()
                continue
            await self._sleep(self._pace.wait_s(self._clock.monotonic_s()))
            self._idle.clear()
            try:
                if self._stopping:
                    return
                delay_s = await self._attempt(notification)
            finally:
                self._idle.set()
            await self._sleep(delay_s)

    def halt(self) -> None:
        """Begin no further attempt."""
        self._stopping = True

    async def stop(self, within_s: float) -> None:
        """Begin no further attempt, and let the present one end: one that is cut is made again at the next start."""
        self.halt()
        try:
            await asyncio.wait_for(self._idle.wait(), within_s)
        except TimeoutError:
            log.warning("a notification was under way at the stop and will be sent again", channel=self.name)

    async def _attempt(self, notification: Notification) -> float:
        """Try once and keep what came of it; returns seconds to wait before the next attempt at anything."""
        problem = self._held(problem_of(self._notifier))
        if self._clock.now_ms() - notification.created_at_ms > self._config.expire_s * 1000:
            why = problem or notification.last_error or "it waited too long"
            await self._end(notification, "expired", safe_text(why, _ERROR_CHARS))
            return 0.0
        if problem:
            return min(self._config.first_retry_s, _LOOK_AGAIN_S)
        began_s = self._clock.monotonic_s()
        outcome = await self._try(notification)
        if not self._pace.by_request:
            self._pace.note(began_s)
        notification.attempts += 1
        if isinstance(outcome, str):
            self._failures, self._last_error = 0, ""
            await self._end(notification, "sent", safe_text(outcome, _ERROR_CHARS))
            return 0.0
        failure = outcome
        self._last_error = safe_text(str(failure), _ERROR_CHARS)
        if not failure.again:
            await self._end(notification, "failed", self._last_error)
            return 0.0
        self._failures += 1
        if notification.attempts >= self._config.attempts:
            await self._end(notification, "failed", self._last_error)
        else:
            self._retries += 1
            notification.last_error = self._last_error
            await self._save(notification)
        return self._delay_s(failure.retry_after_s or 0.0)

    def _held(self, problem: str) -> str:
        """Say in the log that a channel is blocked, and that it is not any more; returns the problem."""
        if problem != self._held_for:
            if problem:
                log.error("a channel holds what waits", channel=self.name, problem=problem, waiting=self.waiting)
            else:
                log.info("a channel delivers again", channel=self.name)
            self._held_for = problem
        return problem

    async def _try(self, notification: Notification) -> Undelivered | str:
        """Why it was not delivered, or a remark on its delivery, mostly empty."""
        try:
            async with asyncio.timeout(self._config.timeout_s) as self._pace.limit:
                with wall(f"the notifier of channel {self.name}", "send", Undelivered, TimeoutError, GatewayError):
                    remark = await self._notifier.send(notification)
        except Undelivered as failure:
            return failure
        except TimeoutError:
            return Undelivered(f"not delivered within {self._config.timeout_s:g} s; see `timeout_s`", again=True)
        except GatewayError as failure:
            return Undelivered(str(failure), again=may_pass(failure))
        except ExtensionFailed as failed:
            log.error("notifier failed", channel=self.name, exc_info=failed.cause)
            return Undelivered(f"the channel's code failed: {type(failed.cause).__name__}", again=True)
        finally:
            self._pace.limit = None
        return remark if isinstance(remark, str) else ""

    def _delay_s(self, asked_s: float) -> float:
        config = self._config
        asked_s = 0.0 if math.isnan(asked_s) else asked_s
        delay_s = min(config.most_retry_s, config.first_retry_s * 2.0 ** min(self._failures - 1, 30))
        return max(min(asked_s, _MOST_RETRY_AFTER_S), delay_s * (0.5 + self._chance() / 2))

    async def _end(self, notification: Notification, status: Status, error: str) -> None:
        notification.status, notification.last_error = status, error
        notification.ended_at_ms = self._clock.now_ms()
        await self._save(notification)
        self.waiting -= 1
        self._ended[status] += 1
        if status != "sent":
            log.error("notification not delivered", channel=self.name, id=notification.id, status=status, error=error)

    async def _save(self, notification: Notification) -> None:
        """Keep the outcome, however long the database refuses: to forget that it was sent is to send it again."""
        delay_s = _SAVE_FIRST_S
        while True:
            try:
                await self._repository.save_notification(notification)
            except (StorageFailed, NotReady) as failure:
                log.error("notification's outcome waits for the database", channel=self.name, error=str(failure))
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _SAVE_MOST_S)
            else:
                return

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)


def problem_of(notifier: Notifier) -> str:
    """What an operator must change before a notifier can deliver, in one line; empty where nothing is known."""
    try:
        with wall(type(notifier).__name__, "problem"):
            return safe_text(str(notifier.problem() or ""), _ERROR_CHARS)
    except ExtensionFailed as failed:
        return f"the channel's code failed: {type(failed.cause).__name__}; see its extension"
