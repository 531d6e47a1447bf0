"""The sinks that the configuration declares, fed from the bus: each at its own pace, none slows the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from gateway.core.bus import Bus, Overflow, Subscription
from gateway.core.clock import Clock
from gateway.core.errors import ConfigError
from gateway.core.flow import Event, Message
from gateway.core.metrics import Sample
from gateway.core.plain import nearest, typed
from gateway.core.tasks import Backoff, Supervisor
from gateway.extensions.hookspecs import SinkKind
from gateway.extensions.wall import ExtensionFailed, wall

T = TypeVar("T", Message, Event)

log = structlog.get_logger(__name__)

QUEUE_ITEMS: Final = 50_000
"""Messages, and as many events, that wait for a sink; over it the oldest are shed and counted."""
BATCH_ITEMS: Final = 2_000
_OPEN_S: Final = 10.0
_DRAIN_S: Final = 5.0


class _Feed(msgspec.Struct):
    """One sink with what waits for it."""

    name: str
    kind: str
    sink: Any
    messages: Subscription[Message]
    events: Subscription[Event]
    written: int = 0
    failures: int = 0
    idle: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class SinkFleet:
    """Opens sinks, feeds them in order, tries again what one refused, closes them."""

    def __init__(
        self,
        kinds: Mapping[str, SinkKind],
        bus: Bus,
        supervisor: Supervisor,
        clock: Clock,
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> None:
        """Feed nothing yet. `backoff` is between tries of a batch that a sink refused."""
        self._kinds = kinds
        self._bus = bus
        self._supervisor = supervisor
        self._clock = clock
        self._backoff = backoff
        self._feeds: list[_Feed] = []
        self.left_out = 0

    async def start(self, declared: Mapping[str, dict[str, Any]], home: Path) -> None:
        """Open every declared sink and begin to feed it. Raises ConfigError naming the entry."""
        read = {name: read_sink(name, plain, self._kinds) for name, plain in declared.items()}
        for name, (kind, config) in read.items():
            sink = await self._opened(name, kind, config, home)
            if sink is None:
                continue
            feed = _Feed(
                name,
                declared[name]["type"],
                sink,
                self._bus.messages.subscribe(f"sink-{name}", QUEUE_ITEMS, Overflow.DROP_OLDEST),
                self._bus.events.subscribe(f"sink-{name}", QUEUE_ITEMS, Overflow.DROP_OLDEST),
            )
            self._feeds.append(feed)
            self._supervisor.start(f"sink-{name}", partial(self._serve, feed))

    async def stop(self) -> None:
        """Write what waits, all sinks at once and within bounds, and close."""
        for feed in self._feeds:
            self._bus.messages.unsubscribe(feed.messages)
            self._bus.events.unsubscribe(feed.events)
        await asyncio.gather(*(self._stop(feed) for feed in self._feeds))
        self._feeds = []

    async def _opened(self, name: str, kind: SinkKind, config: Any, home: Path) -> Any:
        """The sink of an entry, or None where an extension's fails or hangs: the gateway goes on without it.

        Raises ConfigError: what an operator wrote wrongly is for the operator.
        """
        try:
            with wall(f"sink {name}", "open", ConfigError):
                async with asyncio.timeout(_OPEN_S):
                    sink = kind.make(name, config, home=home, clock=self._clock)
                    await sink.open()
        except ExtensionFailed as failed:
            self.left_out += 1
            log.error("a sink is left out: it does not open", sink=name, exc_info=failed.cause)
            return None
        return sink

    async def _stop(self, feed: _Feed) -> None:
        try:
            await asyncio.wait_for(feed.idle.wait(), _DRAIN_S)
        except TimeoutError:
            log.error("a sink stopped before it had everything", sink=feed.name, waiting=_waiting(feed))
        await self._supervisor.stop_part(f"sink-{feed.name}")
        try:
            with wall(f"sink {feed.name}", "close"):
                async with asyncio.timeout(_DRAIN_S):
                    await feed.sink.close()
        except ExtensionFailed as failed:
            log.error("a sink does not close", sink=feed.name, exc_info=failed.cause)

    def samples(self) -> Iterator[Sample]:
        """Figures of every sink for `/metrics`."""
        yield Sample("gateway_sinks_left_out", "Declared sinks that do not open.", "gauge", {}, self.left_out)
        for feed in self._feeds:
            labels = {"sink": feed.name, "type": feed.kind}
            shed = feed.messages.shed + feed.events.shed
            for name, text, value in (
                ("written", "Messages and events written.", feed.written),
                ("shed", "Messages and events that waited too long for the sink.", shed),
                ("failures", "Writes that failed and were tried again.", feed.failures),
            ):
                yield Sample(f"gateway_sink_{name}_total", text, "counter", labels, value)
            yield Sample("gateway_sink_waiting", "Messages and events that wait.", "gauge", labels, _waiting(feed))

    async def _serve(self, feed: _Feed) -> None:
        writing = asyncio.Lock()
        await asyncio.gather(
            self._pass_on(feed.messages, lambda items: self._write(feed, writing, items, [])),
            self._pass_on(feed.events, lambda items: self._write(feed, writing, [], items)),
        )
        feed.idle.set()

    async def _pass_on(self, queue: Subscription[T], write: Callable[[list[T]], Awaitable[None]]) -> None:
        while True:
            items = await queue.take()
            if not items:
                return
            items = items + queue.take_all(BATCH_ITEMS - len(items))  # not `+=`: the batch is also others'
            for at in range(0, len(items), BATCH_ITEMS):
                await write(items[at : at + BATCH_ITEMS])

    async def _write(self, feed: _Feed, writing: asyncio.Lock, messages: list[Message], events: list[Event]) -> None:
        """Write until it worked: meanwhile the queue fills, and sheds by its policy."""
        failures = 0
        while True:
            try:
                async with writing:
                    with wall(f"sink {feed.name}", "write"):
                        await feed.sink.write(messages, events)
            except ExtensionFailed as failed:
                failures += 1
                feed.failures += 1
                log.error(
                    "a sink refused a batch",
                    sink=feed.name,
                    why=failed.said,
                    again_in_s=self._backoff.delay_s(failures),
                )
                await asyncio.sleep(self._backoff.delay_s(failures))
            else:
                feed.written += len(messages) + len(events)
                return


def read_sink(name: str, plain: dict[str, Any], kinds: Mapping[str, SinkKind]) -> tuple[SinkKind, Any]:
    """Read an entry without opening anything. Raises ConfigError naming it."""
    kind = kinds.get(str(plain.get("type")))
    if kind is None:
        given = f"unknown type `{plain['type']}`" if "type" in plain else "has no `type`"
        raise ConfigError(f"sinks.{name}: {given}; {nearest(str(plain.get('type')), kinds)}")
    return kind, typed(plain, kind.config, f"sinks.{name}")


def _waiting(feed: _Feed) -> int:
    return len(feed.messages) + len(feed.events)
