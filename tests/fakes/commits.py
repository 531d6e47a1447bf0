"""Commits for tests of the journal."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.core.errors import StorageFailed
from gateway.core.flow import Commit, Message, Quality
from gateway.core.journal import Journal


def a_message(
    at_ms: int = 1000, device_key: int = 1, quality: dict[str, Quality] | None = None, **values: Any
) -> Message:
    """A message of device `d<key>` of product `p`, received 5 ms after it was observed."""
    return Message("default", "p", f"d{device_key}", device_key, at_ms, at_ms + 5, values, quality)


def a_commit(*messages: Message, **fields: Any) -> Commit:
    """A commit of messages, with the ledger as the pipeline books it."""
    return Commit(**({"messages": list(messages), "ledger": {"stored": len(messages)}} | fields))


async def outcome(journal: Journal, commit: Commit) -> StorageFailed | None:
    """Submit and wait for `done`."""
    told: asyncio.Future[StorageFailed | None] = asyncio.get_running_loop().create_future()
    journal.submit(commit, told.set_result)
    return await asyncio.wait_for(told, 10)


async def outcomes(journal: Journal, commits: list[Commit]) -> list[StorageFailed | None]:
    """Submit all in one turn of the loop, so that they share a transaction, and wait for each `done`."""
    loop = asyncio.get_running_loop()
    told: list[asyncio.Future[StorageFailed | None]] = [loop.create_future() for _ in commits]
    for commit, one in zip(commits, told, strict=True):
        journal.submit(commit, one.set_result)
    return await asyncio.wait_for(asyncio.gather(*told), 10)
