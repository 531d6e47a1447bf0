"""Counters of a plugin, as `/metrics` and the API show them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

LATENCY_BOUNDS_S: Final = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4),
    *(1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0),
)
"""Upper bounds of the latency histogram's buckets: from a small frame to a call that ran into any codec's deadline."""


MOST_CODES: Final = 64
"""Distinct result codes counted one by one: more than a protocol has. A plugin may make up four billion."""
OTHER_CODES: Final = -100
"""Stands for all further ones."""


def count_code(counts: dict[int, int], code: int, times: int = 1) -> None:
    """Count a result code, as OTHER_CODES where there are too many others already."""
    if code not in counts and len(counts) >= MOST_CODES:
        code = OTHER_CODES
    counts[code] = counts.get(code, 0) + times


class PluginStats(msgspec.Struct):
    """Counters of one plugin since it was loaded.

    calls: calls into the plugin, batches and encodes.
    errors: results by code (the ABI's, the plugin's own, TRAPPED and MALFORMED), MOST_CODES of them and OTHER_CODES.
    traps: instances lost to a fault. kills: instances lost to a deadline.
    strikes: faults of the plugin, one per guilty frame or request.
    busy_s: wall seconds inside guest calls; stalled_s: those of them in which the thread had no processor, as far as
    was looked. latency: guest calls by wall time, one count per bound of LATENCY_BOUNDS_S and one above.
    poison_refused: frames that were not run, since they are proven to trap.
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
    stalled_s: float = 0.0
    poison_refused: int = 0
    latency: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))

    @property
    def cpu_s(self) -> float:
        """Processor seconds inside guest calls."""
        return self.busy_s - self.stalled_s


def summed(parts: Iterable[PluginStats]) -> PluginStats:
    """The counters of several instances, or threads, as one; those that are still counting may be a call behind."""
    total = PluginStats()
    for part in parts:
        for name in part.__struct_fields__:
            count = getattr(part, name)
            if isinstance(count, dict):
                mine = getattr(total, name)
                for code, times in list(count.items()):
                    count_code(mine, code, times)
            elif isinstance(count, list):
                setattr(total, name, [a + b for a, b in zip(getattr(total, name), count, strict=True)])
            else:
                setattr(total, name, getattr(total, name) + count)
    return total
