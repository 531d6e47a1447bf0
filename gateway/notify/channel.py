"""One channel at work: takes what waits, oldest first, at the channel's pace, again and again until it is delivered.

The queue is the table: a channel holds no notification in memory but the one it is at. Knows no service and no plugin.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from gateway.core.clock import Clock
from gateway.core.errors import GatewayError, NotReady, StorageFailed
from gateway.core.log import safe_text
from gateway.core.metrics import Sample
from gateway.notify.config import ChannelConfig
from gateway.notify.model import ChannelStatus, Notification, NotificationRepository, Notifier, Status, Undelivered

log = structlog.get_logger(__name__)

_ERROR_CHARS: Final = 500
_PACE_S: Final = 60.0
_MOST_RETRY_AFTER_S: Final = 3600.0
"""Longest wait that a service may ask for; a mistaken one must not silence a channel for days."""
_SAVE_FIRST_S: Final = 0.2
_SAVE_MOST_S: Final = 10.0


class Pace:
    """At most so many within any minute."""

    def __init__(self, most: int) -> None:
        """Start with a free minute."""
        self._times: deque[float] = deque(maxlen=most)

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next one may go."""
        if len(self._times) < (self._times.maxlen or 0):
            return 0.0
        return max(0.0, self._times[0] + _PACE_S - now_s)

    def note(self, now_s: float) -> None:
        """One goes now."""
        self._times.append(now_s)


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
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Send nothing yet. `chance` gives numbers from 0 to 1, for the jitter of retries."""
        self.name = name
        self.waiting = 0
        self.refused = 0
        self._kind = kind
        self._config = config
        self._notifier = notifier
        self._repository = repository
        self._clock = clock
        self._chance = chance
        self._pace = Pace(config.rate_per_min)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._failures = 0
        self._last_error = ""
        self._ended: dict[Status, int] = {"sent": 0, "failed": 0, "expired": 0}
        self._retries = 0

    @property
    def room(self) -> int:
        """How many more may wait."""
        return max(0, self._config.queue - self.waiting)

    def status(self) -> ChannelStatus:
        """How it fares."""
        problem = self._notifier.problem()
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

    async def stop(self, within_s: float) -> None:
        """Begin no further attempt, and let the present one end: one that is cut is made again at the next start."""
        self._stopping = True
        try:
            await asyncio.wait_for(self._idle.wait(), within_s)
        except TimeoutError:
            log.warning("a notification was under way at the stop and will be sent again", channel=self.name)

    async def _attempt(self, notification: Notification) -> float:
        """Try once and keep what came of it; returns seconds to wait before the next attempt at anything."""
        if self._clock.now_ms() - notification.created_at_ms > self._config.expire_s * 1000:
            why = notification.last_error or "it waited too long"
            await self._end(notification, "expired", why)
            return 0.0
        self._pace.note(self._clock.monotonic_s())
        failure = await self._try(notification)
        notification.attempts += 1
        if failure is None:
            self._failures, self._last_error = 0, ""
            await self._end(notification, "sent", "")
            return 0.0
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

    async def _try(self, notification: Notification) -> Undelivered | None:
        try:
            await self._notifier.send(notification)
        except Undelivered as failure:
            return failure
        except GatewayError as failure:
            return Undelivered(str(failure), again=isinstance(failure, NotReady))
        except Exception as failure:  # wall: an extension's notifier is foreign code
            log.error("notifier failed", channel=self.name, exc_info=failure)
            return Undelivered(f"the channel's code failed: {type(failure).__name__}", again=True)
        return None

    def _delay_s(self, asked_s: float) -> float:
        config = self._config
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
