"""The journal port: the one way by which device traffic becomes durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.core.errors import StorageFailed
from gateway.core.flow import Commit

Done = Callable[[StorageFailed | None], None]
"""Told once, on the loop's thread, that a commit is durable (None) or that nothing of it was kept."""


class Journal(Protocol):
    """Makes commits durable in order, several of them in one transaction when they arrive faster than the disk."""

    def submit(self, commit: Commit, done: Done) -> None:
        """Queue a commit; `seq` of its messages and events is set before `done` is called.

        Raises NotReady when the queue is full or the journal is closed; the caller keeps the commit.
        """
        ...

    @property
    def waiting(self) -> int:
        """Messages queued and not yet durable, for back-pressure."""
        ...
