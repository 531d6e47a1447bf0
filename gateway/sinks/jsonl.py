"""A sink that appends JSON Lines to a file and turns it over by size: for log shippers, and for looking at.

Knows no bus: who feeds it decides what and when.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec

from gateway.core.clock import Clock, rfc3339
from gateway.core.errors import ConfigError
from gateway.core.flow import Event, Message


class JsonLinesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[sinks.NAME]` of type `jsonl`.

    path: the file; relative to the configuration. It is made with mode 0600: it holds what devices measured.
    max_bytes: size after which the file becomes `path.1` (and that `path.2`, ...) and a new one is begun.
    keep: files kept beside the present one; the oldest is deleted.
    sync: `fsync` after every batch, so that what was written survives a power cut.
    """

    type: str
    path: Annotated[str, msgspec.Meta(min_length=1)]
    max_bytes: Annotated[int, msgspec.Meta(ge=4096, le=1 << 40)] = 64 << 20
    keep: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 4
    sync: bool = False


class JsonLinesSink:
    """Appends one object per message or event. A batch is written whole before `write` returns."""

    def __init__(self, name: str, config: JsonLinesConfig, *, home: Path, clock: Clock) -> None:
        """Open nothing yet. `home` is the folder that relative paths start at."""
        self._name = name
        self._config = config
        self._path = (home / Path(config.path).expanduser()).resolve()
        self._clock = clock
        self._file: BinaryIO | None = None

    async def open(self) -> None:
        """Open the file for appending. Raises ConfigError."""
        try:
            await asyncio.to_thread(self._open)
        except OSError as failure:
            raise ConfigError(f"sinks.{self._name}: cannot write {self._path}: {failure.strerror}") from failure

    async def write(self, messages: list[Message], events: list[Event]) -> None:
        """Append a batch; raises OSError (a full disk, say), and what was written of it is taken back."""
        lines = b"".join(_lines([*map(_message, messages), *map(_event, events)]))
        await asyncio.to_thread(self._append, lines)

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = file = os.fdopen(handle, "ab", buffering=0)
        self._end_torn_line()
        return file

    def _end_torn_line(self) -> None:
        """End the line that a crash left half, so that the next one is whole."""
        size = self._path.stat().st_size
        if size and self._file is not None:
            with self._path.open("rb") as file:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    self._file.write(b"\n")

    def _append(self, lines: bytes) -> None:
        file = self._file or self._open()
        before = file.seek(0, os.SEEK_END)  # what was taken back left the position behind the end
        if before and before + len(lines) > self._config.max_bytes:
            file = self._turn_over(file)
            before = 0
        try:
            left = memoryview(lines)
            while left:
                left = left[file.write(left) :]
            if self._config.sync:
                os.fsync(file.fileno())
        except OSError:
            self._take_back(file, before)
            raise

    def _take_back(self, file: BinaryIO, size: int) -> None:
        """Undo a half-written batch; where even that fails, open anew next time, which ends a torn line."""
        try:
            file.truncate(size)
        except OSError:
            file.close()
            self._file = None

    def _turn_over(self, file: BinaryIO) -> BinaryIO:
        file.close()
        self._file = None
        keep = self._config.keep
        self._numbered(keep).unlink(missing_ok=True)
        for number in range(keep - 1, -1, -1):
            if self._numbered(number).exists():
                self._numbered(number).replace(self._numbered(number + 1))
        return self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _lines(objects: Iterable[dict[str, Any]]) -> Iterable[bytes]:
    for one in objects:
        yield msgspec.json.encode(one)
        yield b"\n"


def _message(message: Message) -> dict[str, Any]:
    line: dict[str, Any] = {
        "type": "message",
        "seq": message.seq,
        "tenant": message.tenant_id,
        "product": message.product_id,
        "device": message.device_id,
        "observed_at": rfc3339(message.observed_at_ms),
        "received_at": rfc3339(message.received_at_ms),
        "values": message.values,
    }
    if message.quality:
        line["quality"] = message.quality
    return line


def _event(event: Event) -> dict[str, Any]:
    return {
        "type": event.type,
        "seq": event.seq,
        "tenant": event.tenant_id,
        "device": event.device_id,
        "at": rfc3339(event.at_ms),
        "data": event.data,
    }
