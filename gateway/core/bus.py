"""The bus: what was stored goes to whoever subscribed, in batches, each through a bounded queue of its own.

A slow subscriber loses its own batches by its own policy, counted; it never slows the pipeline.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.core.flow import Event, Message

T = TypeVar("T", Message, Event)


class Overflow(enum.StrEnum):
    """What a full subscription does with the next batch."""

    DROP_OLDEST = "drop_oldest"
    REJECT = "reject"


class Subscription(Generic[T]):
    """A bounded queue of batches with one reader. Bound: `most` items over all batches."""

    def __init__(self, name: str, most: int, overflow: Overflow, accepts: Callable[[T], bool] | None = None) -> None:
        """Start empty; `accepts` filters items before they take room."""
        self.name = name
        self.shed = 0
        self.closed = False
        self._most = most
        self._overflow = overflow
        self._accepts: Callable[[T], bool] | None = accepts
        self._batches: deque[list[T]] = deque()
        self._items = 0
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        """Items that wait."""
        return self._items

    def offer(self, batch: list[T]) -> None:
        """Queue a batch; over the bound, shed by policy and count."""
        if self._accepts is not None:
            batch = [item for item in batch if self._accepts(item)]
        if not batch:
            return
        if self._items + len(batch) > self._most:
            if self._overflow is Overflow.REJECT:
                self.shed += len(batch)
                return
            self.shed += max(0, len(batch) - self._most)
            while self._batches and self._items + len(batch) > self._most:
                oldest = self._batches.popleft()
                self._items -= len(oldest)
                self.shed += len(oldest)
            batch = batch[-self._most :]
        self._batches.append(batch)
        self._items += len(batch)
        self._ready.set()

    async def take(self) -> list[T]:
        """Wait for the next batch; an empty list means the subscription was closed."""
        while not self._batches:
            if self.closed:
                return []
            self._ready.clear()
            await self._ready.wait()
        batch = self._batches.popleft()
        self._items -= len(batch)
        return batch

    def take_all(self, most: int) -> list[T]:
        """Whatever waits, up to about `most` items, without waiting."""
        taken: list[T] = []
        while self._batches and len(taken) < most:
            batch = self._batches.popleft()
            self._items -= len(batch)
            taken.extend(batch)
        return taken

    def close(self) -> None:
        """Let the reader finish what waits and then end."""
        self.closed = True
        self._ready.set()


class Topic(Generic[T]):
    """One kind of thing that is published, with its subscribers."""

    def __init__(self) -> None:
        """Start without subscribers."""
        self._subscriptions: list[Subscription[T]] = []

    def subscribe(
        self, name: str, most: int, overflow: Overflow, accepts: Callable[[T], bool] | None = None
    ) -> Subscription[T]:
        """Open a subscription that receives every batch published from now on."""
        subscription = Subscription(name, most, overflow, accepts)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription[T]) -> None:
        """Close a subscription; publishing to it ends."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        subscription.close()

    def publish(self, batch: list[T]) -> None:
        """Hand a batch to every subscriber. Never blocks, never raises."""
        for subscription in self._subscriptions:
            subscription.offer(batch)

    @property
    def subscriptions(self) -> tuple[Subscription[T], ...]:
        """Who listens, for metrics."""
        return tuple(self._subscriptions)


class Bus:
    """The two topics of the gateway: stored messages and stored events."""

    def __init__(self) -> None:
        """Start without subscribers."""
        self.messages: Topic[Message] = Topic()
        self.events: Topic[Event] = Topic()
