"""The backlog: frames that arrived and are not settled yet, with the back-pressure that bounds them.

Queues by product, so that one product's plugin works on one batch; products take turns. A sender over its own bound, or
every sender while the whole is over its bound, is paused, never cut: nothing accepted is lost here.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, NamedTuple

import msgspec

from gateway.listeners.connection import Connection

_HOLD = "backlog"


_Count = Annotated[int, msgspec.Meta(ge=1, le=2**40)]


class BacklogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what is accepted and not durable yet.

    connection_frames, connection_bytes: of one connection; one talker must not fill the memory or starve the others.
    frames, bytes: of all connections together; the memory that a stalled disk may cost.
    """

    connection_frames: _Count = 512
    connection_bytes: _Count = 1 << 20
    frames: _Count = 50_000
    bytes: _Count = 64 << 20


class Run(NamedTuple):
    """Frames that one connection sent in a row."""

    connection: Connection
    frames: list[bytes]


class _Load:
    """What one connection has on the way."""

    __slots__ = ("bytes", "frames", "held")

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0
        self.held = False


class Backlog:
    """Bounded queues of frames. `put` on arrival, `take` to work, `settle` when the outcome is durable."""

    def __init__(self, config: BacklogConfig) -> None:
        """Start empty."""
        self._config = config
        self._loads: dict[Connection, _Load] = {}
        self._queues: dict[tuple[str, str], deque[Run]] = {}
        self._held: set[Connection] = set()
        self.queued = 0
        self.frames = 0
        self.bytes = 0

    def put(self, connection: Connection, frames: list[bytes]) -> None:
        """Queue what a connection sent, pausing it (or everyone who sends) at the bounds."""
        load = self._loads.get(connection)
        if load is None:
            load = self._loads[connection] = _Load()
        count, size = len(frames), sum(map(len, frames))
        load.frames += count
        load.bytes += size
        self.frames += count
        self.bytes += size
        self.queued += count
        config = self._config
        if (
            load.frames >= config.connection_frames
            or load.bytes >= config.connection_bytes
            or self.frames >= config.frames
            or self.bytes >= config.bytes
        ) and not load.held:
            load.held = True
            self._held.add(connection)
            connection.hold(_HOLD)
        key = (connection.tenant_id, connection.product_id)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(Run(connection, frames))

    def take(self, most: int) -> list[Run]:
        """The next runs of one product, about `most` frames; the product then goes to the end of the line."""
        key = next(iter(self._queues))
        queue = self._queues.pop(key)
        runs: list[Run] = []
        left = most
        while queue and left > 0:
            run = queue.popleft()
            if len(run.frames) > left:
                queue.appendleft(Run(run.connection, run.frames[left:]))
                run = Run(run.connection, run.frames[:left])
            runs.append(run)
            left -= len(run.frames)
        if queue:
            self._queues[key] = queue
        self.queued -= most - left
        return runs

    def put_back(self, runs: list[Run]) -> None:
        """Return runs of one product that were taken and not worked on, to the head of their queue."""
        connection = runs[0].connection
        queue = self._queues.setdefault((connection.tenant_id, connection.product_id), deque())
        queue.extendleft(reversed(runs))
        self.queued += sum(len(run.frames) for run in runs)

    def settle(self, connection: Connection, frames: int, size: int) -> bool:
        """The outcome of frames is durable; True when the connection has nothing more on the way."""
        load = self._loads[connection]
        load.frames -= frames
        load.bytes -= size
        self.frames -= frames
        self.bytes -= size
        if load.frames or load.held:
            return not load.frames
        del self._loads[connection]
        return True

    def has(self, connection: Connection) -> bool:
        """Whether frames of the connection are on the way."""
        load = self._loads.get(connection)
        return load is not None and load.frames > 0

    def relax(self) -> None:
        """Let held connections send again, once the whole and their own part are half empty."""
        config = self._config
        if not self._held or self.frames > config.frames // 2 or self.bytes > config.bytes // 2:
            return
        for connection in list(self._held):
            load = self._loads[connection]
            if load.frames <= config.connection_frames // 2 and load.bytes <= config.connection_bytes // 2:
                self._held.discard(connection)
                load.held = False
                if not load.frames:
                    del self._loads[connection]
                connection.release(_HOLD)
