"""The way of device traffic: frame -> decode -> normalise -> commit -> acknowledge -> publish.

Natural batching: whatever arrived in one turn of the loop goes through together; at idle a batch is one frame and waits
for nothing. Frames of one connection keep their order. Every frame is counted once as accepted and once as stored or
shed for a reason (the ledger). Knows no protocol: what a frame means is the codec's answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Annotated, Any, Protocol

import msgpack
import msgspec
import structlog

from gateway.core.bus import Bus
from gateway.core.clock import Clock
from gateway.core.errors import CodecError, NotReady, PluginTrapped, StorageFailed
from gateway.core.flow import DeadLetter, Decoded, Event, Message, Point, Quality
from gateway.core.journal import Journal
from gateway.listeners.backlog import Backlog, Run
from gateway.listeners.connection import Connection
from gateway.things.admission import Admission, Arrivals, Link
from gateway.things.model import Device, Product
from gateway.things.sessions import Session, SessionRegistry
from gateway.wasm.codec import CODE_TEXTS, TRAPPED, Codec, code_text

log = structlog.get_logger(__name__)

_EMPTY = msgspec.Raw()
_DEPART_AGAIN_S = 1.0
_LEAST_PIECE = 8


_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class PipelineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the pipeline.

    turn_ms: time after which a turn ends, so that the loop breathes; what is left waits for the next.
    turn_messages: messages after which a turn ends; one frame may hold dozens.
    piece_frames: most frames handed to a codec at once; the turn's limits are looked at between pieces, and a piece
        that took a turn's time makes the next one smaller.
    waiting_messages: messages handed to the journal and not yet durable; above, no more are decoded. With a turn's and
        a piece's it must stay below `journal.max_waiting_rows`.
    dead_letters_per_s: undecodable frames kept for people to look at; more are only counted.
    poison_frames, poison_window_s: so many frames within the window that trap the plugin close their connection.
    refusals: refused registrations and authentications after which a connection is closed.
    """

    turn_ms: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 15.0
    turn_messages: _Count = 4_096
    piece_frames: _Count = 256
    waiting_messages: _Count = 16_000
    dead_letters_per_s: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 20
    poison_frames: _Count = 3
    poison_window_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60.0
    refusals: _Count = 10


class Normalise(Protocol):
    """Checks values against the thing model: (values, qualities that are not good, values shed)."""

    def normalise(self, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Quality] | None, int]:
        """Never raises, whatever the values."""
        ...


class Directory(Protocol):
    """The catalog, as far as the way of a frame needs it."""

    def product_by_id(self, tenant_id: str, product_id: str) -> Product | None:
        """None when nobody declared it."""
        ...

    def normaliser(self, tenant_id: str, product_id: str) -> Normalise:
        """The product's compiled thing model."""
        ...

    def confirm(self, device: Device) -> None:
        """The row of a device that registered itself is durable."""
        ...


class Answers(Protocol):
    """The command service, as far as traffic needs it."""

    def answered(self, device: Device, serial: int, result: dict[str, Any] | None, *, ok: bool) -> bool:
        """A device answered a command."""
        ...

    def session_bound(self, session: Session) -> None:
        """A device can be reached."""
        ...


class Turn(Arrivals):
    """What one turn gathers until it is durable.

    kept: frames whose effect is in the commit. acks: what to encode and send. replies: answers to commands.
    settled: frames by link, for the backlog.
    """

    __slots__ = ("acks", "frames", "kept", "replies", "settled")

    def __init__(self, now_ms: int) -> None:
        """Nothing yet."""
        super().__init__(now_ms)
        self.acks: list[tuple[Link, Codec, bytes]] = []
        self.replies: list[tuple[Device, int, msgspec.Raw, bool]] = []
        self.settled: list[tuple[Link, int, int]] = []
        self.frames = 0
        self.kept = 0


class Pipeline:
    """Takes frames from listeners and brings them to the journal, the devices' acknowledgements and the bus."""

    def __init__(
        self,
        config: PipelineConfig,
        backlog: Backlog,
        directory: Directory,
        sessions: SessionRegistry,
        admission: Admission,
        codecs: Callable[[Product], Codec],
        journal: Journal,
        bus: Bus,
        clock: Clock,
    ) -> None:
        """Start with no connection. `codecs` gives a product's codec and raises NotReady while it has none."""
        self._config = config
        self._backlog = backlog
        self._directory = directory
        self._sessions = sessions
        self._admission = admission
        self._codecs = codecs
        self._journal = journal
        self._bus = bus
        self._clock = clock
        self.answers: Answers | None = None
        self._links: dict[Connection, Link] = {}
        self._opened = 0
        self._piece = config.piece_frames
        self._scheduled = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._unbooked: Counter[str] = Counter()
        self._owed: deque[tuple[Link, Codec, bytes]] = deque()
        self._mute: set[str] = set()
        self._letters_left = float(config.dead_letters_per_s)
        self._letters_at = clock.monotonic_s()
        self.accepted = 0
        self.stored = 0
        self.shed: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        """Frames accepted and neither stored nor shed yet."""
        return self._backlog.frames

    def resume_ledger(self, totals: dict[str, int]) -> None:
        """Go on counting where the database's ledger stands (`stored`, `shed:<reason>`)."""
        self.stored = totals.get("stored", 0)
        for name, count in totals.items():
            if name.startswith("shed:"):
                self.shed[name.removeprefix("shed:")] = count
        self.accepted = self.stored + self.shed.total()

    # What listeners call.

    def opened(self, connection: Connection) -> None:
        """A peer connected; which device it is, its frames will tell."""
        self._opened = self._opened % 0xFFFF_FFFF + 1
        self._links[connection] = Link(connection, self._opened)

    def received(self, connection: Connection, frames: list[bytes]) -> None:
        """Queue frames for this turn of the loop."""
        self.accepted += len(frames)
        self._backlog.put(connection, frames)
        self._schedule()

    def closed(self, connection: Connection, reason: str) -> None:
        """A peer is gone: its devices go offline once what it sent before is durable."""
        link = self._links[connection]
        link.closed = reason
        if not self._backlog.has(connection):
            self._release(link)

    # One turn.

    def _schedule(self) -> None:
        if not self._scheduled and self._backlog.queued:
            self._scheduled = True
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        turn = Turn(self._clock.now_ms())
        turn_s = self._config.turn_ms / 1000
        began = at = self._clock.monotonic_s()
        while self._backlog.queued and self._may_go_on(turn):
            if not self._work(turn, self._backlog.take(self._piece)):
                break
            before, at = at, self._clock.monotonic_s()
            # Frames of one protocol may hold a value or a thousand: the piece follows what the last one took.
            slow = at - before > turn_s
            self._piece = (
                max(_LEAST_PIECE, self._piece // 2) if slow else min(self._config.piece_frames, self._piece * 2)
            )
            if at - began >= turn_s:
                break
        if turn.frames:
            self._submit(turn)
            self._schedule()
        # Else the journal is behind, or a codec with what it is to encode: who catches up schedules the next turn.

    def _may_go_on(self, turn: Turn) -> bool:
        gathered = len(turn.commit.messages)
        room = self._config.waiting_messages - self._journal.waiting
        # Who is slow at acknowledging gets nothing new to acknowledge: what is owed stays bounded by the backlog.
        return not self._owed and gathered < self._config.turn_messages and gathered < room

    def _work(self, turn: Turn, runs: list[Run]) -> bool:
        """Decode and take one product's runs as one batch; False when the loop should breathe before the rest."""
        head = runs[0].connection
        product = self._directory.product_by_id(head.tenant_id, head.product_id)
        if product is None or not product.enabled or product.plugin_id is None:
            self._shed_runs(turn, runs, "product_unknown" if product is None else "product_disabled")
            return True
        frames = runs[0].frames if len(runs) == 1 else [frame for run in runs for frame in run.frames]
        aux = [self._links[connection].number for connection, sent in runs for _ in sent]
        try:
            codec = self._codecs(product)
            results = codec.decode_batch(frames, aux)
        except NotReady:
            self._shed_runs(turn, runs, "plugin_unavailable")
            return True
        if len(results) < len(frames):
            runs = self._cut(runs, len(results))
        normalise = self._directory.normaliser(product.tenant_id, product.id).normalise
        outcomes = iter(results)
        for connection, sent in runs:
            link = self._links[connection]
            for frame, result in zip(sent, outcomes, strict=False):
                if type(result) is Decoded:
                    self._take(turn, product, codec, normalise, link, result)
                else:
                    self._refuse(turn, product, link, frame, result)  # type: ignore[arg-type]  # int or None here
            turn.frames += len(sent)
            turn.settled.append((link, len(sent), sum(map(len, sent))))
        return len(results) == len(frames)

    def _cut(self, runs: list[Run], done: int) -> list[Run]:
        """Split runs after `done` frames; what has no result yet goes back to wait for the next turn."""
        kept: list[Run] = []
        rest: list[Run] = []
        for connection, frames in runs:
            here = max(0, min(done, len(frames)))
            done -= here
            if here:
                kept.append(Run(connection, frames[:here]))
            if here < len(frames):
                rest.append(Run(connection, frames[here:]))
        self._backlog.put_back(rest)
        return kept

    def _shed_runs(self, turn: Turn, runs: list[Run], reason: str) -> None:
        for connection, frames in runs:
            self._shed(turn, reason, len(frames))
            turn.frames += len(frames)
            turn.settled.append((self._links[connection], len(frames), sum(map(len, frames))))

    def _take(
        self, turn: Turn, product: Product, codec: Codec, normalise: Callable[..., Any], link: Link, item: Decoded
    ) -> None:
        """One decoded message: whose it is, whether it may speak, what is stored of it."""
        session = link.last
        if session is None or (item.device is not None and session.device.id != item.device):
            found = self._admission.session(turn, product, link, item.device)
            if isinstance(found, str):
                self._turn_away(turn, codec, link, item, found)
                return
            session = found
        kind = item.kind
        if kind == "register" or kind == "authenticate":  # noqa: PLR1714 - two compares beat a tuple on the hot path
            self._prove(turn, product, codec, link, session, item)
            return
        refusal = self._admission.refusal(product, session)
        if refusal:
            self._shed(turn, refusal)
            if refusal == "device_disabled":
                link.connection.close(refusal)
            return
        self._admission.heard(turn, session)
        for point in item.points:
            self._store(turn, session.device, normalise, point)
        if kind != "report":
            self._mind(turn, session, item)
        elif not item.points and not item.ack:
            self._shed(turn, "part")
            return
        turn.kept += 1
        if item.ack:
            turn.acks.append((link, codec, bytes(item.ack)))

    def _turn_away(self, turn: Turn, codec: Codec, link: Link, item: Decoded, reason: str) -> None:
        """A device that is not admitted; one that registers is told so."""
        self._shed(turn, reason)
        if item.kind in {"register", "authenticate"}:
            self._answer_proof(turn, codec, link, item, accepted=False, credential=None)

    def _store(self, turn: Turn, device: Device, normalise: Callable[..., Any], point: Point) -> None:
        values, quality, dropped = normalise(point.values)
        if dropped:
            self.counts["values_shed"] += dropped
        if values:
            now = turn.now_ms
            at = point.at
            turn.commit.messages.append(
                Message(
                    device.tenant_id,
                    device.product_id,
                    device.id,
                    device.key,
                    now if at is None else at,
                    now,
                    values,
                    quality,
                )
            )

    def _mind(self, turn: Turn, session: Session, item: Decoded) -> None:
        """What is not a plain report: events, answers to commands, a logout."""
        device = session.device
        if item.event is not None:
            data = {"name": item.event.name, "data": item.event.data}
            turn.commit.events.append(Event(device.tenant_id, "device.event", turn.now_ms, device.id, data))
        if item.kind == "reply" and item.reply_to is not None:
            turn.replies.append((device, item.reply_to, item.value, item.ok))
        elif item.kind == "logout":
            session.proven = None

    def _prove(self, turn: Turn, product: Product, codec: Codec, link: Link, session: Session, item: Decoded) -> None:
        """Registration and authentication."""
        accepted, credential = self._admission.prove(turn, product, session, item)
        turn.kept += 1
        self._answer_proof(turn, codec, link, item, accepted=accepted, credential=credential)

    def _answer_proof(
        self, turn: Turn, codec: Codec, link: Link, item: Decoded, *, accepted: bool, credential: str | None
    ) -> None:
        """The codec's acknowledgement is told the outcome; who fails again and again is closed."""
        if item.ack:
            request = _map_of(item.ack) or {}
            request["accepted"] = accepted
            request["credential"] = credential or ""
            turn.acks.append((link, codec, msgpack.packb(request)))
        if not accepted:
            link.refusals += 1
            if link.refusals >= self._config.refusals:
                link.connection.close("refused")

    # What becomes of a frame.

    def _shed(self, turn: Turn, reason: str, count: int = 1) -> None:
        name = f"shed:{reason}"
        ledger = turn.commit.ledger
        ledger[name] = ledger.get(name, 0) + count

    def _refuse(self, turn: Turn, product: Product, link: Link, frame: bytes, code: int | None) -> None:
        """The codec gave no message for a frame: count why, keep some of them for people to look at."""
        reason = code_text(code or 0).replace(" ", "_")
        # One name in the ledger for all that plugins make up: it is kept for good.
        self._shed(turn, reason if code is None or code in CODE_TEXTS else "plugin_error")
        if not code:
            return
        if self._may_keep_letter():
            device_id = link.last.device.id if link.last is not None else None
            letter = DeadLetter(
                product.tenant_id, product.id, product.plugin_id or "", reason, frame, turn.now_ms, device_id
            )
            turn.commit.dead_letters.append(letter)
        if code == TRAPPED:
            self._blame(link)

    def _blame(self, link: Link) -> None:
        """What a connection sent made the plugin trap; one that goes on doing so is closed."""
        now = self._clock.monotonic_s()
        link.poison = [at for at in link.poison if now - at < self._config.poison_window_s]
        link.poison.append(now)
        if len(link.poison) >= self._config.poison_frames:
            link.connection.close("poison_frames")

    def _may_keep_letter(self) -> bool:
        """Token bucket over all connections."""
        now = self._clock.monotonic_s()
        rate = self._config.dead_letters_per_s
        self._letters_left = min(float(rate), self._letters_left + (now - self._letters_at) * rate)
        self._letters_at = now
        if self._letters_left < 1:
            self.counts["dead_letters_shed"] += 1
            return False
        self._letters_left -= 1
        return True

    # Commit and what follows it.

    def _submit(self, turn: Turn) -> None:
        ledger = turn.commit.ledger
        if turn.kept:
            ledger["stored"] = turn.kept
        for name, count in self._unbooked.items():
            ledger[name] = ledger.get(name, 0) + count
        carried = self._unbooked
        self._unbooked = Counter()
        try:
            self._journal.submit(turn.commit, lambda failure: self._durable(turn, carried, failure))
        except NotReady as failure:
            self._durable(turn, carried, StorageFailed(str(failure)))

    def _durable(self, turn: Turn, carried: Counter[str], failure: StorageFailed | None) -> None:
        """The commit is durable, or nothing of it was kept: acknowledge and publish, or shed."""
        if failure is None:
            self._book(turn.commit.ledger, carried)
            for device in turn.registered:
                self._directory.confirm(device)
            busy = bool(self._owed)
            self._owed += turn.acks
            if not busy:
                self._acknowledge()
            self._bus.messages.publish(turn.commit.messages)
            self._bus.events.publish(turn.commit.events)
            self._tell_commands(turn)
        else:
            self._undo(turn, carried, failure)
        for link, frames, size in turn.settled:
            if self._backlog.settle(link.connection, frames, size) and link.closed:
                self._release(link)
        self._backlog.relax()
        self._go_on()

    def _go_on(self) -> None:
        """Take the next turn, or tell that everything is done."""
        self._schedule()
        if not self._backlog.frames and not self._owed:
            self._idle.set()

    def _book(self, ledger: dict[str, int], carried: Counter[str]) -> None:
        for name, count in ledger.items():
            own = count - carried.get(name, 0)
            if name == "stored":
                self.stored += own
            else:
                self.shed[name.removeprefix("shed:")] += own

    def _undo(self, turn: Turn, carried: Counter[str], failure: StorageFailed) -> None:
        """Nothing was kept: no acknowledgement leaves, so the devices send again."""
        log.error("commit refused", frames=turn.frames, why=str(failure))
        self.shed["storage_failed"] += turn.frames
        self._unbooked.update(carried)
        self._unbooked["shed:storage_failed"] += turn.frames
        self._admission.undo(turn, [link for link, _, _ in turn.settled])
        if turn.departed:
            asyncio.get_running_loop().call_later(_DEPART_AGAIN_S, self._depart, turn.departed)

    def _tell_commands(self, turn: Turn) -> None:
        if self.answers is None:
            return
        for session in turn.bound:
            self.answers.session_bound(session)
        for device, serial, value, ok in turn.replies:
            if not self.answers.answered(device, serial, _map_of(value), ok=ok):
                self.counts["replies_unmatched"] += 1

    def _acknowledge(self) -> None:
        """Encode and send what is owed, one write per connection, for as long as a turn may take; the rest comes later.

        A codec that traps while encoding encodes no more of what is owed: each call could take its whole deadline.
        """
        answers: dict[Link, list[bytes]] = {}
        ends = self._clock.monotonic_s() + self._config.turn_ms / 1000
        try:
            while self._owed:
                link, codec, request = self._owed.popleft()
                part = self._encoded(link, codec, request)
                if part is not None:
                    answers.setdefault(link, []).append(part)
                if self._clock.monotonic_s() >= ends:
                    break
        finally:
            for link, parts in answers.items():
                link.connection.send(b"".join(parts))
            if self._owed:
                asyncio.get_running_loop().call_soon(self._acknowledge)
            else:
                self._mute.clear()
                self._go_on()

    def _encoded(self, link: Link, codec: Codec, request: bytes) -> bytes | None:
        """An acknowledgement's bytes; None, and counted, where the codec gives none."""
        if codec.plugin_id not in self._mute:
            try:
                return codec.encode(request, party=link.number)
            except (CodecError, NotReady) as failure:
                if isinstance(failure, PluginTrapped):
                    self._blame(link)
                if not isinstance(failure, CodecError) or isinstance(failure, PluginTrapped):
                    self._mute.add(codec.plugin_id)
                    log.warning("acknowledgements not encoded", plugin=codec.plugin_id, why=str(failure))
        self.counts["acks_failed"] += 1
        return None

    def _release(self, link: Link) -> None:
        """The link's devices go offline."""
        self._links.pop(link.connection, None)
        self._depart([(session, link.closed) for session in link.sessions.values()])

    def _depart(self, sessions: list[tuple[Session, str]]) -> None:
        """Make it durable that sessions ended; asked again when the commit was refused."""
        turn = Turn(self._clock.now_ms())
        turn.departed = [
            (session, reason) for session, reason in sessions if self._sessions.release(session, reason, turn.commit)
        ]
        if turn.departed:
            self._submit(turn)

    # For the composition root.

    def drop_device(self, device: Device, reason: str) -> None:
        """Close the connection of a device that was disabled or deleted."""
        session = self._sessions.of(device)
        if session is not None:
            session.line.close(reason)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until what was accepted is durable; False when that took too long."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


def _map_of(raw: msgspec.Raw) -> dict[str, Any] | None:
    """A plugin's map, None where it gave none or something else."""
    if raw == _EMPTY:
        return None
    try:
        value = msgpack.unpackb(bytes(raw))
    except (ValueError, msgpack.UnpackException):
        return None
    return value if isinstance(value, dict) else None
