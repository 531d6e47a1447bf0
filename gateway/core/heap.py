"""The process's heap: what the C library keeps after a burst of work goes back to the system."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return free memory: tens of MB that glibc would keep for a process of days. Some milliseconds, any thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and need none
    if trim is not None:
        trim(0)
