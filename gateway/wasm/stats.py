"""Counters of a plugin, as `/metrics` and the API show them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class PluginStats(msgspec.Struct):
    """Counters of one plugin since it was loaded.

    calls: calls into the plugin, batches and encodes.
    errors: results by code (the ABI's, the plugin's own, TRAPPED and MALFORMED).
    traps: instances lost to a fault. kills: instances lost to a deadline.
    strikes: faults of the plugin, one per guilty frame or request. busy_s: wall seconds inside guest calls.
    """

    calls: int = 0
    frames: int = 0
    decoded: int = 0
    dropped: int = 0
    errors: dict[int, int] = {}
    encodes: int = 0
    traps: int = 0
    kills: int = 0
    respawns: int = 0
    strikes: int = 0
    busy_s: float = 0.0


def summed(parts: Iterable[PluginStats]) -> PluginStats:
    """The counters of several instances, or threads, as one; those that are still counting may be a call behind."""
    total = PluginStats()
    for part in parts:
        for name in part.__struct_fields__:
            count = getattr(part, name)
            if isinstance(count, dict):
                mine = getattr(total, name)
                for key, value in list(count.items()):
                    mine[key] = mine.get(key, 0) + value
            else:
                setattr(total, name, getattr(total, name) + count)
    return total
