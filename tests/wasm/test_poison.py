"""Frames that trap: the same bytes cannot take a codec down twice, and no innocent frame is refused for another's."""

from __future__ import annotations

import hashlib

import pytest
from guests_gw1 import MakeCodec, Sandbox, guest, well_behaved
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import NotReady, PluginTrapped
from gateway.core.flow import Decoded
from gateway.wasm.caller import WasmCaller, packed_arguments
from gateway.wasm.codec import TRAPPED
from gateway.wasm.poison import MOST_POISONS, PoisonMemory


def test_the_same_poison_frame_again_and_again_costs_one_strike(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    for _ in range(50):
        assert codec.decode_batch([b"T"]) == [TRAPPED]
    assert codec.stats.strikes == 1
    assert codec.stats.traps == 1
    assert codec.stats.errors == {TRAPPED: 50}
    assert codec.stats.poison_refused == 49


def test_a_poison_frame_that_comes_many_times_at_once_costs_one_strike(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    results = codec.decode_batch([b"a", *[b"T"] * 100, b"b"])
    assert [result for result in results if not isinstance(result, Decoded)] == [TRAPPED] * 100
    assert codec.stats.strikes == 1


def test_a_frame_that_loops_is_run_no_third_time(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    for _ in range(20):
        assert codec.decode_batch([b"L"]) == [TRAPPED]
    assert (codec.stats.kills, codec.stats.strikes) == (1, 1)


def test_neighbours_of_a_known_poison_frame_keep_their_instance_and_their_order(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    codec.decode_batch([b"T"])
    codec.decode_batch([b"T"])
    frames = [b"T", b"a", b"b", b"T", b"T", b"N", b"c", b"T"]
    results = codec.decode_batch(frames)
    shown = [result.device if isinstance(result, Decoded) else result for result in results]
    assert shown == [TRAPPED, "a", "b", TRAPPED, TRAPPED, None, "c", TRAPPED]
    assert codec.decode_batch([b"a"])[0].reply_to == 5  # five frames on one instance: nothing was lost
    assert codec.stats.respawns == 1


def test_a_suspect_in_a_batch_gives_the_prefix_up_to_it(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    codec.decode_batch([b"T1"])
    codec.decode_batch([b"T2"])
    frames = [b"a", b"T1", b"b", b"T2", b"c"]
    results: list[object] = []
    while len(results) < len(frames):
        results += codec.decode_batch(frames[len(results) :])
    assert [getattr(result, "device", result) for result in results] == ["a", TRAPPED, "b", TRAPPED, "c"]
    assert codec.stats.strikes == 2


def test_a_frame_that_trapped_for_the_state_before_it_is_not_held_against_it(make_codec: MakeCodec) -> None:
    # The third frame of an instance traps, whatever it is.
    third = """(global.set $seen (i32.add (global.get $seen) (local.get $n)))
      (if (i32.gt_u (global.get $seen) (i32.const 2)) (then unreachable)) (i64.const 3)"""
    codec = make_codec(guest(third, more="(global $seen (mut i32) (i32.const 0))"))
    outcomes = [codec.decode_batch([b"heartbeat"])[0] for _ in range(8)]
    assert outcomes == [3, 3, TRAPPED, 3, 3, TRAPPED, 3, 3]
    assert codec.stats.poison_refused == 0


def test_a_suspect_is_not_tried_while_the_plugin_does_not_start(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    codec.decode_batch([b"T"])
    codec.close()
    with pytest.raises(NotReady):
        codec.decode_batch([b"T"])
    assert codec._poison.suspicion(b"T") == "suspect"


def test_a_caller_in_a_hurry_proves_nothing_against_arguments(sandbox: Sandbox) -> None:
    slow = """(func (export "gw_call") (param $p i32) (param $len i32) (param i32) (result i64) (local $i i32)
      (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200000000))))
      (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))"""
    caller = WasmCaller(sandbox.codec(guest(more=slow)).program)
    caller._poison.suspect(packed_arguments("x"))  # as after a trap that was not theirs
    with pytest.raises(PluginTrapped):
        caller.call("x", 0.001, fair=False)
    assert caller.call("x", 30.0) == "x"


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    memory = PoisonMemory()
    for number in range(2 * MOST_POISONS):
        memory.suspect(b"%d" % number)
    assert len(memory.known) == MOST_POISONS
    assert memory.suspicion(b"0") is None
    assert memory.suspicion(b"%d" % (2 * MOST_POISONS - 1)) == "suspect"


def test_a_proven_frame_stays_proven_and_one_that_was_asked_for_stays_longest() -> None:
    memory = PoisonMemory(most=2)
    memory.prove(b"a")
    memory.suspect(b"b")
    memory.suspect(b"a")
    assert memory.suspicion(b"a") == "proven"
    memory.suspect(b"c")
    assert memory.suspicion(b"b") is None
    assert memory.suspicion(b"a") == "proven"
    memory.clear(b"a")
    assert memory.suspicion(b"a") is None


@given(st.lists(st.tuples(st.sampled_from("spcq"), st.binary(max_size=3)), max_size=60))
def test_only_frames_that_were_named_are_ever_known(steps: list[tuple[str, bytes]]) -> None:
    memory = PoisonMemory(most=8)
    named: set[bytes] = set()
    for step, frame in steps:
        if step == "q":
            assert memory.suspicion(frame) is None or frame in named
        else:
            {"s": memory.suspect, "p": memory.prove, "c": memory.clear}[step](frame)
            named.add(frame)
        assert len(memory.known) <= 8


def test_two_frames_of_one_hash_are_not_taken_for_each_other() -> None:
    memory = PoisonMemory()
    memory.prove(b"a")
    memory.known[hash(b"b")] = memory.known[hash(b"a")]  # as if both had one hash
    assert memory.suspicion(b"b") is None
    assert hashlib.blake2b(b"a", digest_size=16).digest() == memory.known[hash(b"a")][0]
