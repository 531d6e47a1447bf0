"""Whether a process has ended, for tests that end one which is not their child."""

from __future__ import annotations

import psutil


def ended(pid: int) -> bool:
    """A zombie has ended, too: nobody here waits for it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
