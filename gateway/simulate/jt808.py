"""A fleet of simulated JT/T 808 terminals: connects them, lets them report at a rate, and says how it went.

One loop decides which terminal reports next; there is no task and no timer per frame. Knows the platform's address and
nothing else of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import NotReady
from gateway.simulate.jt808_terminal import Acknowledged, Drive, Tally, Terminal
from gateway.simulate.jt808_wire import Edition

_TICK_S: Final = 0.005
_PROGRESS_S: Final = 0.25
_PERCENT: Final = (0.50, 0.95, 0.99, 1.0)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to simulate.

    rate: locations each terminal sends per second. burst: locations sent in one segment, at the same rate over all.
    seconds: how long terminals report, once all are online.
    first_phone: number of the first terminal; the others follow. It is padded to 12 digits (20 in edition 2019).
    heartbeat_s: a terminal sends a heartbeat this often.
    connect_s: how long all terminals together may take to get online; those that did not stay out of the run.
    connecting: terminals that connect at the same time; more would only fill the platform's backlog.
    reply_s: a terminal that is not online this long after connecting hangs up and tries again.
    ack_wait_s: how long to wait for outstanding acknowledgements at the end.
    retry_s, retry_most_s: first and longest wait before a terminal connects again.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 8808
    devices: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 10
    rate: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 1.0
    burst: Annotated[int, msgspec.Meta(ge=1, le=1_024)] = 1
    seconds: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    first_phone: Annotated[int, msgspec.Meta(ge=0, lt=10**12)] = 13_800_000_000
    edition: Edition = "2013"
    heartbeat_s: float = 7.0
    connect_s: float = 30.0
    connecting: int = 100
    reply_s: float = 10.0
    ack_wait_s: float = 10.0
    retry_s: float = 0.2
    retry_most_s: float = 3.0

    def phone(self, index: int) -> str:
        """Number of a terminal, and so the id of its device."""
        return f"{self.first_phone + index:0{20 if self.edition == '2019' else 12}d}"


class Progress(msgspec.Struct, frozen=True):
    """How far a run is."""

    elapsed_s: float
    online: int
    sent: int
    acknowledged: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to. sent = acknowledged + unacknowledged + the refused among them.

    sent, acknowledged, unacknowledged: locations. refused: messages that the platform answered with a failure.
    errors: replies that fit no message, or are not well-formed. held_back: locations that were due while a terminal
    was offline or the platform did not read. never_online: terminals that did not get online before the run.
    """

    devices: int
    never_online: int
    registered: int
    reconnects: int
    sent: int
    acknowledged: int
    unacknowledged: int
    refused: int
    errors: int
    held_back: int
    heartbeats: int
    heartbeats_acknowledged: int
    commands: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    latency_max_ms: float | None
    wall_s: float
    first_error: str = ""

    @property
    def clean(self) -> bool:
        """Everything that was sent came back acknowledged, from every terminal."""
        return not (self.never_online or self.unacknowledged or self.refused or self.errors)


async def run(
    options: Options,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    journal: list[Acknowledged] | None = None,
    clock: Clock | None = None,
) -> Result:
    """Simulate a fleet. `journal` receives every acknowledged location, in order.

    Raises NotReady when nothing listens at the address.
    """
    fleet = _Fleet(options, on_progress, journal, clock or SystemClock())
    return await fleet.run()


class _Fleet:
    """The terminals of one run and the loop that drives them."""

    def __init__(
        self,
        options: Options,
        on_progress: Callable[[Progress], None] | None,
        journal: list[Acknowledged] | None,
        clock: Clock,
    ) -> None:
        """Create the terminals, all offline."""
        self._options = options
        self._on_progress = on_progress or (lambda _: None)
        self._tally = Tally(journal)
        self._loop = asyncio.get_running_loop()
        drive = Drive(options.seconds, clock)
        self._terminals = [
            Terminal(index, options.phone(index), options.edition, drive, self._tally)
            for index in range(options.devices)
        ]
        self._missing = set(range(options.devices))
        self._all_online = asyncio.Event()
        self._door = asyncio.Semaphore(options.connecting)
        self._reached = False
        self._told_s = 0.0
        for index, terminal in enumerate(self._terminals):
            terminal.on_online = functools.partial(self._came_online, index)

    async def run(self) -> Result:
        """Connect, drive, wait for what is outstanding, hang up."""
        begun_s = self._loop.time()
        try:
            never_online = await self._connect_drive_settle()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return self._result(never_online, self._loop.time() - begun_s)

    async def _connect_drive_settle(self) -> int:
        """The whole run; returns how many terminals missed its start."""
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep_connected(terminal)) for terminal in self._terminals]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_online.wait(), self._options.connect_s)
            never_online = len(self._missing)
            await self._drive()
            await self._settle()
            self._hang_up(keepers)
        return never_online

    # Connections.

    async def _keep_connected(self, terminal: Terminal) -> None:
        """Connect, and again whenever the connection is lost."""
        wait_s = self._options.retry_s
        while not terminal.stopping:
            terminal.lost.clear()
            if await self._connect(terminal):
                alarm = self._loop.call_later(self._options.reply_s, _give_up_unless_online, terminal)
                await terminal.lost.wait()
                alarm.cancel()
                if terminal.was_online:
                    wait_s = self._options.retry_s
                self._tally.reconnects += not terminal.stopping
            if not terminal.stopping:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, self._options.retry_most_s)

    async def _connect(self, terminal: Terminal) -> bool:
        options = self._options
        async with self._door:
            try:
                await self._loop.create_connection(lambda: terminal, options.host, options.port)
            except OSError as failure:
                if not self._reached:
                    raise NotReady(
                        f"cannot connect to {options.host}:{options.port} ({failure.strerror or failure}); "
                        "is the gateway running, and is this its JT/T 808 port?"
                    ) from failure
                return False
        self._reached = True
        return True

    def _came_online(self, index: int) -> None:
        self._missing.discard(index)
        if not self._missing:
            self._all_online.set()

    def _hang_up(self, keepers: list[asyncio.Task[None]]) -> None:
        for terminal, keeper in zip(self._terminals, keepers, strict=True):
            terminal.stopping = True
            if terminal.connected:
                terminal.hang_up()
            else:
                keeper.cancel()

    # Reports.

    async def _drive(self) -> None:
        """Let terminals report in turns, so that the load is even: report n is terminal n modulo all."""
        options = self._options
        count = len(self._terminals)
        turns_per_s = options.rate * count / options.burst
        beats_per_s = count / options.heartbeat_s
        turns_in_all = math.floor(options.seconds * turns_per_s)
        turn = beat = 0
        begun_s = self._loop.time()
        while turn < turns_in_all:
            elapsed_s = self._loop.time() - begun_s
            due = min(turns_in_all, math.floor(elapsed_s * turns_per_s) + 1)
            for number in range(turn, due):
                self._terminals[number % count].report(number / turns_per_s, options.burst)
            turn = due
            while beat < math.floor(elapsed_s * beats_per_s):
                self._terminals[beat % count].heartbeat()
                beat += 1
            self._tell(elapsed_s)
            await asyncio.sleep(_TICK_S)
        self._tell(options.seconds, last=True)

    async def _settle(self) -> None:
        """Wait until every location has its reply, or no longer."""
        until_s = self._loop.time() + self._options.ack_wait_s
        while self._tally.outstanding and self._loop.time() < until_s:  # noqa: ASYNC110 - the hot path only counts
            await asyncio.sleep(_TICK_S)
        self._tell(self._options.seconds, last=True)

    def _tell(self, elapsed_s: float, *, last: bool = False) -> None:
        if last or elapsed_s - self._told_s >= _PROGRESS_S:
            self._told_s = elapsed_s
            online = sum(terminal.online for terminal in self._terminals)
            self._on_progress(Progress(elapsed_s, online, self._tally.sent, self._tally.acknowledged))

    def _result(self, never_online: int, wall_s: float) -> Result:
        tally = self._tally
        ordered = sorted(tally.latencies_s)
        at = [1000 * ordered[math.ceil(share * len(ordered)) - 1] if ordered else None for share in _PERCENT]
        return Result(
            devices=self._options.devices,
            never_online=never_online,
            registered=tally.registered,
            reconnects=tally.reconnects,
            sent=tally.sent,
            acknowledged=tally.acknowledged,
            unacknowledged=tally.unacknowledged,
            refused=tally.refused,
            errors=tally.errors,
            held_back=tally.held_back,
            heartbeats=tally.heartbeats,
            heartbeats_acknowledged=tally.heartbeats_acknowledged,
            commands=tally.commands,
            latency_p50_ms=at[0],
            latency_p95_ms=at[1],
            latency_p99_ms=at[2],
            latency_max_ms=at[3],
            wall_s=wall_s,
            first_error=tally.first_error,
        )


def _give_up_unless_online(terminal: Terminal) -> None:
    if not terminal.online:
        terminal.hang_up()
