"""How fast a plugin is on this machine, beside another one in the same run: only the ratio says something elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Final

import msgspec

from gateway.core.errors import CodecError, ConfigError
from gateway.core.flow import Decoded
from gateway.workbench.piece import Piece, calls_of, frames_of

BATCHES: Final = (1, 8, 64, 512)
_ROUNDS: Final = 5
_ROUND_S: Final = 0.05


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """Frames (or calls) a second in batches of `batch`; `ratio` to the reference, None without one."""

    batch: int
    per_s: float
    bytes_per_s: float
    reference_per_s: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the reference."""
        return None if not self.reference_per_s else self.per_s / self.reference_per_s


def measure(piece: Piece, reference: Piece | None) -> Iterator[Figure]:
    """A codec's frames, decoded to messages, in batches of each size beside the reference's; a caller's calls.

    Best of interleaved rounds. Raises ConfigError where the vectors hold nothing to decode.
    """
    if piece.release.manifest.kind != "codec":
        yield _calls(piece)
        return
    frames, aux = _good_frames(piece)
    size = sum(map(len, frames)) / len(frames)
    with piece.codec() as codec:
        if reference is None:
            for batch in BATCHES:
                (rate,) = _best([_decoding(codec.decode_batch, frames, aux, batch)])
                yield Figure(batch=batch, per_s=rate, bytes_per_s=rate * size)
            return
        other_frames, other_aux = _good_frames(reference)
        with reference.codec() as other:
            for batch in BATCHES:
                rate, against = _best(
                    [
                        _decoding(codec.decode_batch, frames, aux, batch),
                        _decoding(other.decode_batch, other_frames, other_aux, batch),
                    ]
                )
                yield Figure(batch=batch, per_s=rate, bytes_per_s=rate * size, reference_per_s=against)


Round = Callable[[], int]
"""Does some work and says how many frames it was."""


def _best(rounds: list[Round]) -> list[float]:
    best = [0.0] * len(rounds)
    for _ in range(_ROUNDS):
        for place, work in enumerate(rounds):
            began, done = perf_counter(), 0
            while (took := perf_counter() - began) < _ROUND_S:
                done += work()
            best[place] = max(best[place], done / took)
    return best


def _decoding(decode: Callable[..., Sequence[object]], frames: list[bytes], aux: list[int], batch: int) -> Round:
    repeated = (frames * (batch // len(frames) + 1))[:batch]
    auxes = (aux * (batch // len(aux) + 1))[:batch]

    def work() -> int:
        left, others = repeated, auxes
        while left:
            done = len(decode(left, others))
            left, others = left[done:], others[done:]
        return batch

    return work


def _good_frames(piece: Piece) -> tuple[list[bytes], list[int]]:
    with piece.codec() as codec:
        good = [
            (frame, aux)
            for frame, aux in frames_of(piece)
            if isinstance(codec.decode_batch([frame], [aux])[0], Decoded)
        ]
    if not good:
        raise ConfigError(
            f"plugin {piece.release.id}: no vector holds a frame that decodes; there is nothing to measure"
        )
    return [frame for frame, _ in good], [aux for _, aux in good]


def _calls(piece: Piece) -> Figure:
    budget_s = piece.release.manifest.limits.call_deadline_ms / 1000
    with piece.caller() as caller:
        good = []
        for args in calls_of(piece):
            try:
                caller.call_packed(args, budget_s)
            except CodecError:
                continue
            good.append(args)
        if not good:
            raise ConfigError(f"plugin {piece.release.id}: no vector holds a call that succeeds; nothing to measure")

        def work() -> int:
            for args in good:
                caller.unpacked(caller.call_packed(args, budget_s))
            return len(good)

        (rate,) = _best([work])
    return Figure(batch=1, per_s=rate, bytes_per_s=rate * sum(map(len, good)) / len(good))
