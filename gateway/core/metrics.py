"""A figure that a room shows to `/metrics`. Knows no exposition format: `gateway/api` renders it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import msgspec


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One figure. A counter's `name` ends in `_total`; samples of one name share help, kind and label names.

    value: of a histogram, the sum of what was observed. buckets: of a histogram, pairs of an upper bound and the count
    of observations up to it, bounds ascending, the last one infinite.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: dict[str, str]
    value: float
    buckets: tuple[tuple[float, int], ...] = ()


Samples: TypeAlias = Callable[[], Iterable[Sample]]
"""Gives every sample as it stands now; called on the loop's thread, must not block."""
