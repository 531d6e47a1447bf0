"""`[reports]`: what one report may cost. Knows nothing else."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class ReportsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reports.

    points: points of history that one report may read; some 20 bytes each on their way to the plugin, whose max_input
        must hold them, too.
    page_points: points read at once, so that neither the loop nor the database is held up.
    lead_s: how far before its `from` a report looks for the value that held then.
    rows, result_bytes: lines of a report, and all of its answer in MessagePack.
    running: reports that run at the same time; each holds its points in memory.
    waiting: reports that may wait for their turn; policy: reject.
    timeout_s: of reading, and again of the plugin.
    """

    points: _Count = 200_000
    page_points: _Count = 2_000
    lead_s: Annotated[float, msgspec.Meta(ge=0, le=31_536_000)] = 86_400.0
    rows: _Count = 10_000
    result_bytes: Annotated[int, msgspec.Meta(ge=1024, le=16 * 1024**2)] = 2 * 1024**2
    running: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2
    waiting: _Count = 64
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
