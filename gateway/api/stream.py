"""`stream`: events (and, when asked for, messages) as they are stored, over server-sent events.

Events are read from the outbox table in the order of their ids; the bus only says that there is something to read.
So a client that comes back with `Last-Event-ID` has no gap and no duplicate, whatever order the bus published in.
Messages come from the bus alone: they carry no id and are not replayed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import structlog
from aiohttp import web
from pydantic import Field

from gateway.api.config import HttpConfig
from gateway.api.parts import Parts
from gateway.api.shapes import event_shape
from gateway.api.views import CONFIG, Resource, requires
from gateway.core.bus import Overflow, Subscription
from gateway.core.clock import rfc3339
from gateway.core.errors import AuthFailed, Forbidden, GatewayError, NotReady, Rejected
from gateway.core.flow import Event, Message
from gateway.core.metrics import Sample
from gateway.identity.access import Session
from gateway.identity.permissions import Permission
from gateway.things.ports import PageRequest

log = structlog.get_logger(__name__)

_PAGE: Final = 500
"""Events read and written at once."""
_GONE: Final = "gone"
_SLOW: Final = "slow"
_UNTRUSTED: Final = "token_ended"
_SHUTDOWN: Final = "shutdown"
_FAILED: Final = "failed"


class _Ended(Exception):
    """The way out of the task group: the stream is over, for a stable reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Selection:
    """What a client wants. `types` are event types, or with a dot at the end the beginnings of some; empty is all."""

    types: tuple[str, ...]
    device_id: str | None
    messages: bool

    def takes(self, event: Event) -> bool:
        """Whether an event of the tenant is wanted."""
        if self.device_id not in (None, event.device_id):
            return False
        return not self.types or any(
            event.type.startswith(wanted) if wanted.endswith(".") else event.type == wanted for wanted in self.types
        )


class Streams:
    """The open streams: bounded in number, counted by how they ended, closed together."""

    def __init__(self, config: HttpConfig) -> None:
        self._most = config.max_streams
        self._open: set[LiveStream] = set()
        self._ended: Counter[str] = Counter()

    @contextmanager
    def entered(self, stream: LiveStream) -> Iterator[None]:
        """Count a stream as open. Raises NotReady over the bound."""
        if len(self._open) >= self._most:
            raise NotReady(f"{self._most} live streams are open already; try again later")
        self._open.add(stream)
        try:
            yield
        finally:
            self._open.discard(stream)
            self._ended[stream.end_reason] += 1

    def close(self) -> None:
        """End every stream; the gateway stops."""
        for stream in self._open:
            stream.close()

    def samples(self) -> list[Sample]:
        """Open streams, and ended ones by reason."""
        ended = [
            Sample("gateway_streams_ended_total", "Live streams ended.", "counter", {"reason": reason}, count)
            for reason, count in self._ended.items()
        ]
        return [Sample("gateway_streams_open", "Live streams open.", "gauge", {}, len(self._open)), *ended]


STREAMS: Final = web.AppKey("streams", Streams)


class StreamView(Resource):
    """`/stream`."""

    @requires(Permission.EVENT_LIST)
    async def get(
        self,
        types: Annotated[
            str, Field(max_length=500, description="Event types, or beginnings such as `alarm.`; commas between.")
        ] = "",
        device: Annotated[str, Field(description="Only this device's.")] | None = None,
        messages: Annotated[bool, Field(description="Property values too, not replayed.")] = False,  # noqa: FBT002  # a query parameter
        last_event_id: Annotated[int, Field(ge=0, le=2**63 - 1, description="As the header Last-Event-ID.")]
        | None = None,
    ) -> web.StreamResponse:
        """Stream events live (text/event-stream); with `Last-Event-ID`, first those after it, without gap."""
        if messages:
            self.scope.require(Permission.HISTORY_LIST)
        if device is not None:
            self.parts.catalog.device(self.scope, device)
        selection = Selection(tuple(name for name in types.split(",") if name), device, messages)
        stream = LiveStream(self.request, self.parts, self.session, selection)
        with self.request.app[STREAMS].entered(stream):
            return await stream.serve(_position(self.request, last_event_id))


class LiveStream:
    """One client's stream, from its first byte to its end."""

    def __init__(self, request: web.Request, parts: Parts, session: Session, selection: Selection) -> None:
        self.end_reason = _GONE
        self._request = request
        self._parts = parts
        self._config = request.app[CONFIG]
        self._session = session
        self._selection = selection
        self._response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self._turn = asyncio.Lock()
        self._closing = asyncio.Event()
        self._written_s = parts.clock.monotonic_s()

    def close(self) -> None:
        """End the stream because the gateway stops."""
        self._closing.set()

    async def serve(self, position: int | None) -> web.StreamResponse:
        """Send what comes after `position` (None: from now on) until somebody ends it."""
        bus, name = self._parts.bus, f"stream {self._session.user.username}"
        events = bus.events.subscribe(name, self._config.stream_backlog, Overflow.REJECT, self._concerns)
        messages = None
        if self._selection.messages:
            messages = bus.messages.subscribe(name, self._config.stream_backlog, Overflow.REJECT, self._concerns)
        try:
            newest = await self._newest()
            start = newest if position is None else min(position, newest)
            greeting = b"" if position is None or position <= newest else _reset(newest)
            await self._response.prepare(self._request)
            self.end_reason = await self._run(events, messages, start, greeting)
        finally:
            bus.events.unsubscribe(events)
            if messages is not None:
                bus.messages.unsubscribe(messages)
        await self._say_goodbye()
        return self._response

    async def _run(
        self, events: Subscription[Event], messages: Subscription[Message] | None, start: int, greeting: bytes
    ) -> str:
        reasons: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_events(events, start, greeting))
                if messages is not None:
                    group.create_task(self._send_messages(messages))
                group.create_task(self._watch())
                group.create_task(self._wait_for_close())
        except* _Ended as ended:
            reasons += [end.reason for end in ended.exceptions if isinstance(end, _Ended)]
        except* ConnectionError:
            reasons.append(_GONE)
        except* GatewayError as failed:
            log.warning("stream failed", actor=self._session.scope.actor, exc_info=failed)
            reasons.append(_FAILED)
        return reasons[0]

    async def _send_events(self, wake: Subscription[Event], position: int, greeting: bytes) -> None:
        await self._write(greeting)
        while True:
            # All of the tenant's, so that the position moves past what is not wanted and is never read twice.
            page = await self._parts.history.events(self._session.scope, None, position, PageRequest(limit=_PAGE))
            if page.items:
                position = page.items[-1].seq
            await self._write(b"".join(_event(event) for event in page.items if self._selection.takes(event)))
            _check_pace(wake)
            if len(page.items) < _PAGE:
                await wake.take()
            wake.take_all(self._config.stream_backlog)

    async def _send_messages(self, messages: Subscription[Message]) -> None:
        while True:
            batch = await messages.take()
            await self._write(b"".join(map(_message, batch)))
            _check_pace(messages)

    async def _watch(self) -> None:
        """Keep a quiet stream open, and end it when its token ends."""
        step_s = min(self._config.stream_heartbeat_s, self._config.stream_check_s)
        while True:
            await asyncio.sleep(step_s)
            try:
                session = await self._parts.access.recheck(self._session)
                session.scope.require(Permission.EVENT_LIST)
                if self._selection.messages:
                    session.scope.require(Permission.HISTORY_LIST)
            except (AuthFailed, Forbidden) as end:
                raise _Ended(_UNTRUSTED) from end
            if self._parts.clock.monotonic_s() - self._written_s >= self._config.stream_heartbeat_s:
                await self._write(b": still here\n\n")

    async def _wait_for_close(self) -> None:
        await self._closing.wait()
        raise _Ended(_SHUTDOWN)

    async def _write(self, chunk: bytes) -> None:
        if not chunk:
            return
        try:
            async with asyncio.timeout(self._config.stream_stall_s), self._turn:
                await self._response.write(chunk)
        except TimeoutError as stalled:
            raise _Ended(_SLOW) from stalled
        self._written_s = self._parts.clock.monotonic_s()

    async def _say_goodbye(self) -> None:
        """Tell a client that still reads why; drop one that does not."""
        transport = self._request.transport
        if self.end_reason in (_GONE, _SLOW):
            if transport is not None:
                transport.abort()
            return
        try:
            await self._write(_block("end", {"reason": self.end_reason}))
        except (_Ended, ConnectionError):
            if transport is not None:
                transport.abort()

    async def _newest(self) -> int:
        page = await self._parts.history.events(self._session.scope, None, 0, PageRequest(limit=1, sort="-seq"))
        return page.items[0].seq if page.items else 0

    def _concerns(self, item: Event | Message) -> bool:
        wanted = self._selection.device_id
        return item.tenant_id == self._session.scope.tenant_id and wanted in (None, item.device_id)


def _check_pace(subscription: Subscription[Event] | Subscription[Message]) -> None:
    if subscription.shed:
        raise _Ended(_SLOW)


def _position(request: web.Request, given: int | None) -> int | None:
    """Where to resume: the query's word, else the header that browsers send by themselves."""
    header = request.headers.get("Last-Event-ID", "")
    if given is not None or not header:
        return given
    if not (header.isascii() and header.isdigit() and len(header) <= 18):
        raise Rejected("Last-Event-ID: send the id of an event of this stream")
    return int(header)


def _event(event: Event) -> bytes:
    return b"id: %d\n%b" % (event.seq, _block(event.type, msgspec.to_builtins(event_shape(event))))


def _reset(newest: int) -> bytes:
    """Said to a client whose position lies ahead of every event, as after a database was put back: it begins anew."""
    return b"id: %d\n%b" % (newest, _block("reset", {"last_event_id": newest}))


def _message(message: Message) -> bytes:
    return _block(
        "message",
        {
            "product_id": message.product_id,
            "device_id": message.device_id,
            "observed_at": rfc3339(message.observed_at_ms),
            "received_at": rfc3339(message.received_at_ms),
            "values": message.values,
            "quality": message.quality or {},
        },
    )


def _block(name: str, data: dict[str, object]) -> bytes:
    """One event of the stream; a name can hold no line break, and JSON has none."""
    return b"event: %b\ndata: %b\n\n" % (
        name.encode().replace(b"\n", b"").replace(b"\r", b""),
        msgspec.json.encode(data),
    )
