"""Throws damaged input at a plugin: whatever comes in, a value or an error code must come out, never a trap.

What is thrown: the vectors' own frames cut, joined, flipped and stretched, and noise; all from one seed, so that a
failure comes back. Knows no protocol.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import msgspec

from gateway.core.errors import CodecError, NotReady
from gateway.wasm.codec import MALFORMED, TRAPPED
from gateway.workbench.piece import Piece, calls_of, frames_of

BATCH = 64
MOST_FRAME_BYTES = 4096
"""Longest noise; a vector's own frame may be longer."""
SHORTEN_S = 20.0
"""How long an input is made shorter: each try of one that hangs takes a deadline, and a long one needs thousands."""
_INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)


class FuzzResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run gave. `failure` says what broke the promise, `failing_hex` the input, as short as it still does."""

    inputs: int
    accepted: int
    refused: int
    seed: int
    failure: str = ""
    failing_hex: str = ""
    failing_aux: int = 0


def fuzz(piece: Piece, *, seconds: float, seed: int, progress: Callable[[int], None] = lambda _: None) -> FuzzResult:
    """Throw for so long, or until one thing breaks. Raises as `Piece.start`."""
    return (
        _fuzz_codec(piece, seconds, seed, progress)
        if _is_codec(piece)
        else _fuzz_caller(piece, seconds, seed, progress)
    )


def mutations(seeds: Sequence[bytes], chance: random.Random) -> Iterator[bytes]:
    """Damaged copies of the seeds, and noise, without end."""
    while True:
        kind = chance.randrange(8)
        if kind == 0 or not seeds:
            yield chance.randbytes(int(MOST_FRAME_BYTES ** chance.random()))
            continue
        data = bytearray(chance.choice(seeds))
        for _ in range(1 << chance.randrange(4)):
            data = _damaged(data, kind, seeds, chance)
        yield bytes(data)


def _damaged(data: bytearray, kind: int, seeds: Sequence[bytes], chance: random.Random) -> bytearray:
    at = chance.randrange(len(data) + 1)
    match kind:
        case 1:
            return data[:at]
        case 2:
            return data[at:]
        case 3:
            return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at:]
        case 4:
            other = chance.choice(seeds)
            return data[:at] + other[chance.randrange(len(other) + 1) :]
        case 5:
            end = min(len(data), at + chance.randrange(1, 9))
            return data[:at] + data[end:]
        case _:
            if data:
                place = chance.randrange(len(data))
                data[place] = chance.choice(_INTERESTING) if kind == 6 else data[place] ^ 1 << chance.randrange(8)
            return data


def _is_codec(piece: Piece) -> bool:
    return piece.release.manifest.kind == "codec"


def _fuzz_codec(piece: Piece, seconds: float, seed: int, progress: Callable[[int], None]) -> FuzzResult:
    chance = random.Random(seed)  # noqa: S311 - a sequence that comes back is the point
    known = frames_of(piece)
    room = piece.release.manifest.limits.max_input // 2
    stream = mutations([frame for frame, _ in known], chance)
    auxes = sorted({aux for _, aux in known} | {0, 1, 0xFFFF_FFFF})
    inputs = accepted = 0
    with piece.codec() as codec:
        ends = perf_counter() + seconds  # a big module compiles for longer than it is thrown at
        while perf_counter() < ends:
            frames = [next(stream)[:room] for _ in range(BATCH)]
            aux = [chance.choice(auxes) for _ in frames]
            try:
                results = codec.decode_batch(frames, aux)
            except NotReady as down:
                return FuzzResult(
                    inputs=inputs, accepted=accepted, refused=inputs - accepted, seed=seed, failure=str(down)
                )
            inputs += len(results)
            for frame, one, result in zip(frames, aux, results, strict=False):
                if result in {TRAPPED, MALFORMED} if isinstance(result, int) else False:
                    return _failed(piece, frame, one, inputs, accepted, seed)
                accepted += not isinstance(result, int)
            progress(inputs)
    return FuzzResult(inputs=inputs, accepted=accepted, refused=inputs - accepted, seed=seed)


def _failed(piece: Piece, frame: bytes, aux: int, inputs: int, accepted: int, seed: int) -> FuzzResult:
    def breaks(data: bytes) -> bool:
        with piece.codec() as codec:
            return codec.decode_batch([data], [aux])[0] in (TRAPPED, MALFORMED)

    short = shortest(frame, breaks) if breaks(frame) else frame
    how = "traps or runs out of time" if breaks(short) else "breaks only after the frames before it"
    return FuzzResult(
        inputs=inputs,
        accepted=accepted,
        refused=inputs - accepted,
        seed=seed,
        failure=f"a frame of {len(short)} bytes {how}",
        failing_hex=short.hex(),
        failing_aux=aux,
    )


def shortest(data: bytes, breaks: Callable[[bytes], bool], seconds: float = SHORTEN_S) -> bytes:
    """Cut pieces out of an input that breaks something, ever smaller ones, as long as it still breaks it.

    Gives the shortest that was found when the time is over.
    """
    ends = perf_counter() + seconds
    size = max(1, len(data) // 2)
    while size:
        at = 0
        while at < len(data):
            if perf_counter() >= ends:
                return data
            less = data[:at] + data[at + size :]
            if breaks(less):
                data = less
            else:
                at += size
        size //= 2
    return data


def _fuzz_caller(piece: Piece, seconds: float, seed: int, progress: Callable[[int], None]) -> FuzzResult:
    chance = random.Random(seed)  # noqa: S311 - as above
    limits = piece.release.manifest.limits
    stream = mutations(calls_of(piece), chance)
    inputs = accepted = 0
    with piece.caller() as caller:
        ends = perf_counter() + seconds
        while perf_counter() < ends:
            args = next(stream)[: limits.max_input]
            inputs += 1
            try:
                caller.unpacked(caller.call_packed(args, limits.call_deadline_ms / 1000))
                accepted += 1
            except CodecError as refusal:
                if refusal.number == TRAPPED or (refusal.number == MALFORMED and _is_sound(args)):
                    return FuzzResult(
                        inputs=inputs,
                        accepted=accepted,
                        refused=inputs - accepted - 1,
                        seed=seed,
                        failure=f"arguments of {len(args)} bytes of msgpack: {refusal}",
                        failing_hex=args.hex(),
                    )
            if inputs % BATCH == 0:
                progress(inputs)
    return FuzzResult(inputs=inputs, accepted=accepted, refused=inputs - accepted, seed=seed)


def _is_sound(args: bytes) -> bool:
    """Whether a host may send this: whole msgpack, every text UTF-8. What came broken may be given back broken."""
    try:
        msgspec.msgpack.decode(args)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return False
    return True
