"""A sink of its own: counts messages per device, in memory, for the extension's API route."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from gateway.core.clock import Clock
from gateway.core.flow import Event, Message

counted: Counter[str] = Counter()


class TallyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[sinks.NAME]` with `type = "tally"`."""

    type: str


class TallySink:
    """Nothing can go wrong on the other side: there is none."""

    def __init__(self, name: str, config: TallyConfig, *, home: Path, clock: Clock) -> None:
        self.name = name

    async def open(self) -> None:
        counted.clear()

    async def write(self, messages: list[Message], events: list[Event]) -> None:
        counted.update(message.device_id for message in messages)

    async def close(self) -> None:
        counted.clear()
