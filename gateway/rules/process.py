"""A worker process as the gateway holds it: spawned, asked, watched, killed. Knows frames, neither rules nor scenes."""

from __future__ import annotations

import asyncio
import mmap
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, cast

import msgspec
import psutil  # type: ignore[import-untyped]  # its stubs are not among our dependencies
import structlog
from typing_extensions import override

import gateway
from gateway.core.log import safe_text
from gateway.rules.config import SandboxLimits
from gateway.rules.wire import (
    HEARTBEAT_SLOTS,
    LENGTH,
    Answer,
    CallPlugin,
    Greeting,
    PluginTold,
    Request,
    answer_decoder,
    encoder,
)

log = structlog.get_logger(__name__)

Plugins: TypeAlias = Callable[[CallPlugin], Awaitable[PluginTold]]
"""Answers what a worker asks of plugins; within its timeout, and without raising."""

_LOOKS = 4
"""How often the heartbeat is looked at within the time after which a silent call is killed."""
_STARVED = 4
"""How much longer a call may take that gets no CPU: on a machine that is too busy, no rule is at fault."""
_START_S = 10.0
"""Time for a new process to take its first file: the interpreter's start on a busy machine."""


class WorkerLost(Exception):
    """The worker is gone, killed for a call that never ended (`hung`) or by itself.

    script, item: what ran last (see `wire.HEARTBEAT_SLOTS`); script 0 where none did.
    """

    def __init__(self, *, hung: bool, script: int, item: int) -> None:
        """Render who was at work."""
        super().__init__(f"worker {'killed: a call did not end' if hung else 'ended'} (script {script}, item {item})")
        self.hung = hung
        self.script = script
        self.item = item


class _Link(asyncio.Protocol):
    """Frames from the worker, one awaited at a time."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._awaited: asyncio.Future[bytes] | None = None
        self.transport: asyncio.Transport | None = None
        self.lost = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transports are none of asyncio's classes

    def expect(self) -> asyncio.Future[bytes]:
        """The future of the next frame; a ConnectionError when there will be none."""
        self._awaited = asyncio.get_running_loop().create_future()
        if self.lost:
            self._awaited.set_exception(ConnectionResetError("the worker is gone"))
        return self._awaited

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < LENGTH.size:
            return
        length: int = LENGTH.unpack_from(self._buffer)[0]
        if length > self._most_bytes:
            self._end("the worker answered with too much")
        elif len(self._buffer) >= LENGTH.size + length and self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(bytes(self._buffer[LENGTH.size : LENGTH.size + length]))
            del self._buffer[: LENGTH.size + length]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the worker is gone")

    def close(self) -> None:
        """Expect nothing more."""
        self.lost = True
        if self._awaited is not None:
            self._awaited.cancel()
        if self.transport is not None:
            self.transport.abort()

    def _end(self, why: str) -> None:
        self.lost = True
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(ConnectionResetError(why))


class WorkerProcess:
    """One worker. `start` may be called again after it was lost; `ask` is for one caller at a time."""

    def __init__(self, name: str, greeting: Greeting) -> None:
        """Run nothing yet."""
        self.name = name
        self.starts = 0
        self._greeting = greeting
        self._limits: SandboxLimits = greeting.config.limits
        self._process: asyncio.subprocess.Process | None = None
        self._link: _Link | None = None
        self._slots = memoryview(bytearray(HEARTBEAT_SLOTS * 8)).cast("q")

    @property
    def running(self) -> bool:
        """Whether it can be asked."""
        return self._process is not None and self._link is not None and not self._link.lost

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Spawn a new process; what was loaded in the last one is gone."""
        await self.stop()
        self.starts += 1
        ours, theirs = socket.socketpair()
        try:
            with tempfile.TemporaryFile(buffering=0) as shared, theirs:
                shared.truncate(HEARTBEAT_SLOTS * 8)
                self._slots = memoryview(mmap.mmap(shared.fileno(), HEARTBEAT_SLOTS * 8)).cast("q")
                self._process = await self._spawn(theirs.fileno(), shared.fileno())
            ours.setblocking(False)  # noqa: FBT003 - the socket's own signature
            self._link = link = _Link(self._limits.answer_bytes)
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        except BaseException:
            ours.close()
            raise
        self._send(encoder.encode(self._greeting))
        log.info("worker started", worker=self.name, pid=self._process.pid)

    async def _spawn(self, *descriptors: int) -> asyncio.subprocess.Process:
        """Start the interpreter with nothing of this process but the two descriptors and the way to this package."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "gateway.rules.worker",
            *(str(descriptor) for descriptor in descriptors),
            str(self._limits.process_bytes),
            pass_fds=descriptors,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": str(Path(gateway.__file__).parent.parent)},
        )

    async def stop(self) -> None:
        """Kill the process and wait for its end."""
        if self._link is not None:
            self._link.close()
        self._link = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._process = None

    async def ask(self, request: bytes, kind: type[Request], plugins: Plugins | None = None) -> Answer:
        """Send an encoded request and wait for its answer, serving the worker's calls of plugins meanwhile.

        Raises WorkerLost; the process is dead then, whatever was the matter with it.
        """
        link = self._link
        if link is None or link.lost:
            raise await self._lose(hung=False)
        try:
            answer = await self._exchange(link, request)
            while isinstance(answer, CallPlugin) and plugins is not None:
                answer = await self._exchange(link, encoder.encode(await self._told(link, plugins(answer))))
        except asyncio.CancelledError:
            link.close()  # its answer would be taken for that of the next request
            raise
        except ConnectionError:
            raise await self._lose(hung=False) from None
        except msgspec.MsgspecError as failure:
            log.error(
                "worker answered nonsense", worker=self.name, request=kind.__name__, error=safe_text(str(failure))
            )
            raise await self._lose(hung=False) from None
        if isinstance(answer, CallPlugin):
            raise await self._lose(hung=False)
        return answer

    async def _told(self, link: _Link, answer: Awaitable[PluginTold]) -> PluginTold:
        try:
            return await answer
        except BaseException:
            link.close()  # the worker waits for an answer that never comes: it is of no further use
            raise

    async def _exchange(self, link: _Link, frame: bytes) -> Answer | CallPlugin:
        """Send a frame and wait for the worker's next one; time that passes before does not count as its own."""
        awaited = link.expect()
        self._send(frame)
        if not await self._patience(awaited):
            raise await self._lose(hung=True)
        answer: Answer | CallPlugin = answer_decoder.decode(awaited.result())
        return answer

    def _send(self, data: bytes) -> None:
        if self._link is not None and self._link.transport is not None:
            self._link.transport.writelines((LENGTH.pack(len(data)), data))

    async def _patience(self, awaited: asyncio.Future[bytes]) -> bool:
        """Wait as long as calls come to an end; False when one does not.

        Looks at the worker's progress and not at this loop's own clock alone: a loop that was busy elsewhere must not
        take an answer that already lies in the socket for a hang.
        """
        kill_s = self._limits.kill_after_ms / 1000
        look_s = kill_s / _LOOKS
        seen, cpu_s, still_s = self._progress(), 0.0, 0.0
        while not (await asyncio.wait((awaited,), timeout=look_s))[0]:
            progress = self._progress()
            if progress != seen or not still_s:
                seen, cpu_s, still_s = progress, self._cpu_s(), look_s
                continue
            still_s += look_s
            busy = self._cpu_s() - cpu_s > (still_s - look_s) / 2
            patience_s = (kill_s if busy else _STARVED * kill_s) if progress[0] else _START_S
            if still_s >= patience_s:
                return awaited.done()
        return True

    def _progress(self) -> tuple[int, int]:
        return self._slots[0], self._slots[2]

    def _cpu_s(self) -> float:
        """CPU time of the worker so far."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    async def _lose(self, *, hung: bool) -> WorkerLost:
        script, item = self._slots[0], self._slots[1]
        returncode = self._process.returncode if self._process is not None else None
        await self.stop()
        log.error("worker lost", worker=self.name, hung=hung, script=script, item=item, returncode=returncode)
        return WorkerLost(hung=hung, script=script, item=item)
