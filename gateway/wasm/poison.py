"""Frames that cost a plugin its instance, remembered so that the same bytes cannot do it again and again.

A frame that trapped is first a suspect: the state of the instance may have been at fault, not the frame. Only one that
traps on an instance of its own is proven, and from then on refused without running it. Knows digests, no plugin.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final, Literal

MOST_POISONS: Final = 1024
"""Frames remembered for one release; the one that was not seen for longest is forgotten first."""
_DIGEST_BYTES: Final = 16

Suspicion = Literal["suspect", "proven"]


class PoisonMemory:
    """Suspect and proven frames, at most so many.

    `known` is empty as long as nothing trapped, which is all that traffic has to look at. Frames are found by Python's
    keyed hash first, so that a frame which is not among them costs next to nothing.
    """

    __slots__ = ("_most", "known")

    def __init__(self, most: int = MOST_POISONS) -> None:
        """Know no frame."""
        self._most = most
        self.known: OrderedDict[int, tuple[bytes, Suspicion]] = OrderedDict()

    def suspect(self, frame: bytes) -> None:
        """Remember a frame that trapped; one that is proven stays so."""
        if self.suspicion(frame) is None:
            self._remember(frame, "suspect")

    def prove(self, frame: bytes) -> None:
        """Remember that the frame trapped on an instance of its own."""
        self._remember(frame, "proven")

    def clear(self, frame: bytes) -> None:
        """Forget a frame that turned out innocent."""
        self.known.pop(hash(frame), None)

    def suspicion(self, frame: bytes) -> Suspicion | None:
        """What is known of a frame."""
        entry = self.known.get(hash(frame))
        if entry is None or entry[0] != _digest(frame):
            return None
        self.known.move_to_end(hash(frame))
        return entry[1]

    def _remember(self, frame: bytes, suspicion: Suspicion) -> None:
        self.known[hash(frame)] = (_digest(frame), suspicion)
        self.known.move_to_end(hash(frame))
        if len(self.known) > self._most:
            self.known.popitem(last=False)


def _digest(frame: bytes) -> bytes:
    return hashlib.blake2b(frame, digest_size=_DIGEST_BYTES).digest()
