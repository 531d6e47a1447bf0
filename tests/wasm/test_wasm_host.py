"""The codec contract over both call paths: whatever a guest does, every frame gets its outcome and the host lives."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import msgspec
import pytest
from guests_gw1 import LIMITS, MakeCodec, Sandbox, answering, guest, well_behaved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import CodecError, ConfigError, PluginTrapped
from gateway.core.flow import Decoded
from gateway.wasm import abi
from gateway.wasm.abi import unpack_batch
from gateway.wasm.codec import MALFORMED, TRAPPED, DecodeResult
from gateway.wasm.manifest import Limits
from gateway.wasm.stats import MOST_CODES, OTHER_CODES, summed


def shown(results: list[DecodeResult]) -> list[str | int | None]:
    """Results as short words: the device of an item, else the code."""
    return [result.device if isinstance(result, Decoded) else result for result in results]


def test_frames_give_items_in_their_order(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert shown(codec.decode_batch([b"a", b"bb", b"", b"c"])) == ["a", "b", "c", "c"]
    assert codec.stats.frames == 4
    assert codec.stats.calls == 1


def test_no_frames_give_no_results(make_codec: MakeCodec) -> None:
    assert make_codec(well_behaved()).decode_batch([]) == []


def test_codes_and_drops_stand_beside_items(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert shown(codec.decode_batch([b"a", b"N", b"3", b"b"])) == ["a", None, 3, "b"]
    assert codec.stats.decoded == 2
    assert codec.stats.dropped == 1
    assert codec.stats.errors == {3: 1}


def test_codes_that_a_guest_makes_up_are_counted_together_beyond_a_bound(make_codec: MakeCodec) -> None:
    counter = """(global $code (mut i32) (i32.const 1000))"""
    next_code = """(global.set $code (i32.add (global.get $code) (i32.const 1)))
      (i64.extend_i32_u (global.get $code))"""
    codec = make_codec(guest(next_code, more=counter))
    for _ in range(MOST_CODES + 100):
        codec.decode_batch([b"a"])
    assert len(codec.stats.errors) == MOST_CODES + 1
    assert codec.stats.errors[OTHER_CODES] == 100
    assert sum(summed([codec.stats, codec.stats]).errors.values()) == 2 * (MOST_CODES + 100)


def test_one_malformed_item_leaves_its_neighbours_alone(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert shown(codec.decode_batch([b"a", b"B", b"b"])) == ["a", MALFORMED, "b"]


def test_a_guest_cannot_speak_the_hosts_own_codes(make_codec: MakeCodec) -> None:
    assert shown(make_codec(well_behaved()).decode_batch([b"a", b"-"])) == ["a", MALFORMED]


def test_a_broken_array_is_decoded_frame_by_frame(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert shown(codec.decode_batch([b"a", b"X", b"b"])) == ["a", MALFORMED, "b"]


def test_a_wrong_number_of_items_blames_only_the_frame_that_makes_it(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert shown(codec.decode_batch([b"a", b"2", b"b"])) == ["a", MALFORMED, "b"]


@pytest.mark.parametrize("order", [b"T", b"D", b"O"])
def test_a_trap_costs_the_poison_frame_and_no_other(make_codec: MakeCodec, order: bytes) -> None:
    codec = make_codec(well_behaved())
    frames = [b"a", order + b"1", b"b", order + b"2", b"c"]
    results = codec.decode_batch(frames)
    while len(results) < len(frames):  # a busy machine may use up the time of a batch
        results += codec.decode_batch(frames[len(results) :])
    assert shown(results) == ["a", TRAPPED, "b", TRAPPED, "c"]
    assert codec.stats.strikes == 2
    assert codec.stats.traps == 3  # the batch once, then each poison frame alone
    assert codec.strikes_in() == 2


def test_a_trap_of_a_single_frame_is_counted_once(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert codec.decode_batch([b"T"]) == [TRAPPED]
    assert (codec.stats.traps, codec.stats.strikes) == (1, 1)


def test_state_is_fresh_after_a_respawn(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert [result.reply_to for result in codec.decode_batch([b"a", b"a"])] == [1, 2]
    codec.decode_batch([b"T"])
    assert codec.decode_batch([b"a"])[0].reply_to == 1
    assert codec.stats.respawns == 1


def test_an_endless_loop_ends_at_its_deadline_and_gives_the_prefix(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    frames = [b"a", b"b", b"L", b"c"]
    results = codec.decode_batch(frames)
    assert shown(results) == ["a", "b", TRAPPED]
    assert shown(codec.decode_batch(frames[len(results) :])) == ["c"]
    assert codec.stats.kills == 2
    assert codec.stats.strikes == 1


def test_a_loop_of_one_frame_takes_about_its_deadline(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    began = perf_counter()
    assert codec.decode_batch([b"L"]) == [TRAPPED]
    took_s = perf_counter() - began
    assert LIMITS.deadline_ms / 1000 <= took_s < 5  # never early; how late is the benchmark's business


def test_a_neighbour_answers_right_after_a_kill(sandbox: Sandbox) -> None:
    bad, good = sandbox.codec(well_behaved()), sandbox.codec(well_behaved())
    assert shown(good.decode_batch([b"a"])) == ["a"]
    assert bad.decode_batch([b"L"]) == [TRAPPED]
    assert [result.reply_to for result in good.decode_batch([b"a"])] == [2]  # the same instance, state and all
    assert good.stats.kills == 0
    assert good.stats.respawns == 0


def test_a_tick_meant_for_another_call_costs_a_respawn_and_nothing_else(sandbox: Sandbox) -> None:
    codec = sandbox.codec(well_behaved())
    codec.decode_batch([b"a"])
    sandbox.engine.increment_epoch()
    assert shown(codec.decode_batch([b"a", b"b"])) == ["a", "b"]
    sandbox.engine.increment_epoch()
    assert codec.encode(b"\x80") == b"\x80"
    assert (codec.stats.kills, codec.stats.strikes, codec.stats.respawns) == (0, 0, 2)


def test_a_thousand_calls_after_a_kill_are_not_killed(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    codec.decode_batch([b"L"])
    for _ in range(1000):
        assert shown(codec.decode_batch([b"a"])) == ["a"]
    assert codec.stats.kills == 1


def test_a_batch_too_slow_as_a_whole_is_made_shorter(make_codec: MakeCodec) -> None:
    slow = """(local $i i64)
      (local.set $i (i64.mul (i64.extend_i32_u (local.get $n)) (i64.const 4000000)))
      (loop $l (local.set $i (i64.sub (local.get $i) (i64.const 1))) (br_if $l (i64.gt_s (local.get $i) (i64.const 0))))
      (i64.const 2)"""
    codec = make_codec(guest(slow), limits=Limits(**{**_limits(), "deadline_ms": 900, "batch_deadline_ms": 900}))
    codec._batch_deadline_s = 0.1  # a machine that is ten times slower must still pass a single frame
    results = codec.decode_batch([b"a"] * 1000)
    assert 0 < len(results) < 1000
    assert set(results) == {2}
    assert codec._most == 500
    assert codec.stats.strikes == 1


def _limits() -> dict[str, int]:
    return {name: getattr(LIMITS, name) for name in LIMITS.__struct_fields__}


def test_a_batch_over_max_input_is_split(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    frames = [bytes([97 + i % 26]) + bytes(10_000) for i in range(20)]
    assert shown(codec.decode_batch(frames)) == [chr(97 + i % 26) for i in range(20)]
    assert codec.stats.calls == 4


def test_a_frame_over_max_input_is_refused_alone(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert shown(codec.decode_batch([b"a", b"b" + bytes(70_000), b"c"])) == ["a", 5, "c"]


def test_an_item_that_did_not_fit_beside_others_gets_a_call_of_its_own(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    assert shown(codec.decode_batch([b"a", b"4", b"b"])) == ["a", 4, "b"]
    assert codec.stats.calls == 2


def test_aux_values_must_match_the_frames(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    with pytest.raises(ValueError, match="1 aux values for 2 frames"):
        codec.decode_batch([b"a", b"b"], [1])


def test_aux_reaches_the_guest_and_is_zero_by_default(make_codec: MakeCodec) -> None:
    # The item's code is the aux value, read behind the lengths.
    echo = """(i32.store8 (i32.const 131072) (i32.const 0x91))
      (i32.store8 (i32.const 131073) (i32.load8_u (i32.add (local.get $p) (i32.const 4))))
      (i64.const 0x2000000000002)"""
    codec = make_codec(guest(echo))
    assert codec.decode_batch([b"a"], [77]) == [77]
    assert codec.decode_batch([b"a"]) == [None]


PAGES_8 = 8 * 65536
BAD_RESULTS = {
    "points past the end": PAGES_8 << 32 | 1,
    "ends past the end": (PAGES_8 - 4) << 32 | 8,
    "points at the end with no bytes": PAGES_8 << 32,
    "largest pointer": 0xFFFF_FFFF << 32 | 1,
    "no bytes at all": 131072 << 32,
    "zeroes": 131072 << 32 | 16,
}


@pytest.mark.parametrize("packed", BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
@pytest.mark.parametrize("count", [1, 3])
def test_a_result_that_is_not_there_is_malformed(make_codec: MakeCodec, packed: int, count: int) -> None:
    signed = packed - (1 << 64) if packed >= 1 << 63 else packed
    codec = make_codec(guest(f"(i64.const {signed})"))
    assert codec.decode_batch([b"a"] * count) == [MALFORMED] * count
    assert codec.stats.strikes == 0


def test_a_result_over_max_output_is_too_large(make_codec: MakeCodec) -> None:
    codec = make_codec(guest(f"(i64.const {131072 << 32 | LIMITS.max_output + 1})"))
    assert codec.decode_batch([b"a", b"b"]) == [4, 4]


def test_a_code_for_the_whole_batch_is_asked_of_each_frame(make_codec: MakeCodec) -> None:
    codec = make_codec(guest("(i64.extend_i32_u (i32.add (local.get $n) (i32.const 255)))"))
    assert codec.decode_batch([b"a", b"b"]) == [256, 256]


def test_a_result_lying_on_its_own_input_is_copied_before_the_next_call(make_codec: MakeCodec) -> None:
    # The result is the frame itself, inside the input buffer that the next call overwrites.
    inside = (
        "(i64.or (i64.shl (i64.extend_i32_u (i32.add (local.get $p) (i32.const 8))) (i64.const 32)) (i64.const 37))"
    )
    codec = make_codec(guest(inside))
    item = b"\x91\x82\xa4kind\xa6report\xa5value\xb0"
    first = codec.decode_batch([item + b"x" * 16])[0]
    second = codec.decode_batch([item + b"y" * 16])[0]
    assert bytes(first.value) == b"\xb0" + b"x" * 16
    assert bytes(second.value) == b"\xb0" + b"y" * 16


HOSTILE_ANSWERS = {
    "giant array header": b"\xdd\xff\xff\xff\xff",
    "giant inner array": b"\x91\x82\xa4kind\xa6report\xa6points\xdd\xff\xff\xff\xff",
    "giant map": b"\x91\x82\xa4kind\xa6report\xa6points\x91\x81\xa6values\xdf\xff\xff\xff\xff",
    "deep arrays": b"\x91\x82\xa4kind\xa6report\xa5value" + b"\x91" * 60_000,
    "deep values": b"\x91\x82\xa4kind\xa6report\xa6points\x91\x81\xa6values\x81\xa1a" + b"\x91" * 60_000,
    "unknown kind": b"\x91\x81\xa4kind\xa5happy",
    "no kind": b"\x91\x80",
    "not UTF-8": b"\x91\x82\xa4kind\xa6report\xa6device\xa2\xff\xfe",
    "text as item": b"\x91\xa5hello",
    "float as item": b"\x91\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
    "extension": b"\x91\x82\xa4kind\xa6report\xa6points\x91\x81\xa6values\x81\xa1a\xd4\x05\x00",
    "timestamp": b"\x91\x82\xa4kind\xa6report\xa6points\x91\x81\xa6values\x81\xa1a\xd6\xff\x00\x00\x00\x01",
    "timestamp in a list": b"\x91\x82\xa4kind\xa6report\xa6points\x91\x81\xa6values\x81\xa1a\x91\xd6\xff\0\0\0\1",
    "bytes": b"\x91\x82\xa4kind\xa6report\xa6points\x91\x81\xa6values\x81\xa1a\xc4\x01\x00",
    "number keys": b"\x91\x82\xa4kind\xa6report\xa6points\x91\x81\xa6values\x81\xa1a\x81\x01\x02",
    "result with an extension": b"\x91\x82\xa4kind\xa5reply\xa5value\x81\xa1a\xd4\x05\x00",
    "result with a timestamp": b"\x91\x82\xa4kind\xa5reply\xa5value\x81\xa1a\xd6\xff\x00\x00\x00\x01",
    "result that is too deep": b"\x91\x82\xa4kind\xa5reply\xa5value" + b"\x91" * 500 + b"\xc0",
    "trailing bytes": b"\x91\xc0\xc0",
    "code over 32 bits": b"\x91\xcf\x00\x00\x00\x01\x00\x00\x00\x00",
    "deep event": b"\x91\x82\xa4kind\xa5event\xa5event\x82\xa4name\xa1e\xa4data\x81\xa1a" + b"\x91" * 100 + b"\xc0",
    "event with bytes": b"\x91\x82\xa4kind\xa5event\xa5event\x82\xa4name\xa1e\xa4data\x81\xa1a\xc4\x01\x00",
    "event with number keys": b"\x91\x82\xa4kind\xa5event\xa5event\x82\xa4name\xa1e\xa4data\x81\xa1a\x81\x01\x02",
}


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS.keys())
def test_a_hostile_answer_is_malformed_and_nothing_worse(make_codec: MakeCodec, answer: bytes) -> None:
    codec = make_codec(answering(answer))
    assert codec.decode_batch([b"a"]) == [MALFORMED]
    assert codec.decode_batch([b"a", b"b"]) == [MALFORMED, MALFORMED]


EVENT = b"\x91\x82\xa4kind\xa5event\xa5event\x82\xa4name\xa1e\xa4data\x81\xa1a"


@pytest.mark.parametrize("byte", [b"\x80", b"\x90", b"\xc0"], ids=["maps", "lists", "nil"])
def test_a_result_of_far_too_many_values_is_malformed_and_a_strike(
    make_codec: MakeCodec, byte: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi, "MOST_VALUES", 65_536)
    monkeypatch.setattr(abi, "_MOST_UNCOUNTED_BYTES", 65_536)
    most = abi.MOST_VALUES + abi.VALUES_PER_FRAME
    bomb = EVENT + b"\xdd" + most.to_bytes(4, "big") + byte * most
    limits = Limits(memory_mib=4, deadline_ms=1000, max_output=1 << 20)
    codec = make_codec(answering(bomb), limits=limits)
    assert codec.decode_batch([b"a"]) == [MALFORMED]
    assert (codec.stats.strikes, codec.strikes_in()) == (1, 1)
    assert codec.decode_batch([b"a", b"b"]) == [MALFORMED, MALFORMED]
    assert codec.stats.strikes == 3


def test_a_large_result_of_few_values_passes(make_codec: MakeCodec) -> None:
    text = b"\xdb" + (100_000).to_bytes(4, "big") + b"x" * 100_000
    codec = make_codec(answering(EVENT + text), limits=Limits(memory_mib=4, deadline_ms=1000, max_output=1 << 20))
    assert codec.decode_batch([b"a"])[0].event.data == {"a": "x" * 100_000}
    assert codec.stats.strikes == 0


def test_a_well_formed_answer_of_the_same_shape_passes(make_codec: MakeCodec) -> None:
    nested = b"\x91" * 3 + b"\xc0"
    codec = make_codec(answering(b"\x91\x82\xa4kind\xa5event\xa5event\x82\xa4name\xa1e\xa4data\x81\xa1a" + nested))
    assert codec.decode_batch([b"a"])[0].event.data == {"a": [[[None]]]}


def packed_item(**fields: Any) -> bytes:
    return msgspec.msgpack.encode([{"kind": "reply", "value": {"a": [1.5, None]}, **fields}])


FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999


@pytest.mark.parametrize("at", [FIRST_MS, 0, LAST_MS, None])
@pytest.mark.parametrize("reply_to", [0, 2**32 - 1, None])
def test_times_of_years_1_to_9999_and_serials_of_32_bits_pass(at: int | None, reply_to: int | None) -> None:
    [item] = unpack_batch(packed_item(points=[{"at": at, "values": {"a": {"b": [2**64 - 1]}}}], reply_to=reply_to), 1)
    assert isinstance(item, Decoded)
    assert (item.points[0].at, item.reply_to) == (at, reply_to)


@pytest.mark.parametrize("at", [-(2**63), FIRST_MS - 1, LAST_MS + 1, 2**63, 2**64 - 1])
def test_a_time_that_no_database_holds_is_malformed_and_its_neighbour_lives(at: int) -> None:
    late = {"kind": "report", "points": [{"values": {"a": 1}}, {"at": at, "values": {"a": 1}}]}
    bad, good = unpack_batch(msgspec.msgpack.encode([late, {"kind": "report"}]), 2)
    assert bad == MALFORMED
    assert isinstance(good, Decoded)


@pytest.mark.parametrize("reply_to", [-1, 2**32, 2**64 - 1])
def test_a_serial_over_32_bits_is_malformed(reply_to: int) -> None:
    assert unpack_batch(packed_item(reply_to=reply_to), 1) == [MALFORMED]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(payload=st.binary(max_size=120), count=st.integers(1, 3))
def test_any_answer_gives_one_outcome_per_frame(fast_sandbox: Sandbox, payload: bytes, count: int) -> None:
    # The guest hands its input back as its answer.
    back = """(i64.or (i64.shl (i64.extend_i32_u (i32.add (local.get $p) (i32.shl (local.get $n) (i32.const 3))))
        (i64.const 32)) (i64.extend_i32_u (i32.load (local.get $p))))"""
    if not fast_sandbox.codecs:
        fast_sandbox.codec(guest(back))
    results = fast_sandbox.codecs[0].decode_batch([payload] * count)
    assert len(results) == count
    assert all(r is None or isinstance(r, Decoded) or (isinstance(r, int) and r >= MALFORMED) for r in results)


def test_memory_grown_during_a_call_is_read(make_codec: MakeCodec) -> None:
    grow = """(local $at i32)
      (local.set $at (i32.mul (memory.grow (i32.const 2)) (i32.const 65536)))
      (i32.store16 (local.get $at) (i32.const 0xc091))
      (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.const 2))"""
    codec = make_codec(guest(grow))
    before = codec.memory_bytes
    assert codec.decode_batch([b"a"]) == [None]
    assert codec.memory_bytes == before + 2 * 65536
    assert codec.decode_batch([b"a"]) == [None]


def test_a_memory_bomb_stops_at_its_limit(make_codec: MakeCodec) -> None:
    bomb = """(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      (i64.extend_i32_u (memory.size))"""
    codec = make_codec(guest(bomb))
    assert codec.decode_batch([b"a"]) == [LIMITS.memory_mib * 16]


def test_a_bomb_that_writes_what_it_grows_is_only_slow(make_codec: MakeCodec) -> None:
    bomb = """(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      (memory.fill (i32.const 0) (i32.const 7) (i32.mul (memory.size) (i32.const 65536))) (i64.const 2)"""
    assert make_codec(guest(bomb)).decode_batch([b"a"]) == [2]


def test_a_module_with_more_memory_than_its_limit_is_refused(make_codec: MakeCodec) -> None:
    with pytest.raises(ConfigError, match="cannot be instantiated"):
        make_codec(guest(memory="64"))


def test_recursion_without_end_is_a_trap(make_codec: MakeCodec) -> None:
    deep = "(drop (call $down (i32.const 0))) (i64.const 0)"
    more = "(func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (local.get 0))))"
    wasm = guest(deep, abi=_with(more))
    codec = make_codec(wasm)
    assert codec.decode_batch([b"a"]) == [TRAPPED]
    assert codec.decode_batch([b"a"]) == [TRAPPED]


def _with(more: str) -> str:
    return f"""(func (export "gw_abi") (result i32) (i32.const 0x10000))
  (func (export "gw_buf") (param i32) (result i32) (i32.const 65536)) {more}"""


def test_encode_gives_the_guests_bytes(make_codec: MakeCodec) -> None:
    assert make_codec(well_behaved()).encode(b"\x80abc") == b"\x80abc"


def test_encode_tells_code_and_text_without_control_characters(make_codec: MakeCodec) -> None:
    with pytest.raises(CodecError, match=r"bad config: bad\?\?\[31m argume") as refused:
        make_codec(well_behaved()).encode(b"\x80", 7)
    assert refused.value.number == 7


@pytest.mark.parametrize("aux", [8, 9])
def test_an_encoder_that_fails_is_respawned(make_codec: MakeCodec, aux: int) -> None:
    codec = make_codec(well_behaved())
    with pytest.raises(PluginTrapped):
        codec.encode(b"\x80", aux)
    assert codec.stats.strikes == 1
    assert codec.encode(b"\x80") == b"\x80"


@pytest.mark.parametrize("worse", ["unreachable", "(loop $l (br $l)) (i64.const 0)"])
def test_a_fault_while_saying_what_is_wrong_is_a_strike(make_codec: MakeCodec, worse: str) -> None:
    more = f"""(func (export "gw_encode") (param i32 i32 i32) (result i64) (i64.const 5))
      (func (export "gw_last_error") (result i64) {worse})"""
    codec = make_codec(guest(abi=_with(more)))
    for number in range(1, 4):
        with pytest.raises(PluginTrapped):
            codec.encode(b"\x80")
        assert codec.strikes_in() == number


def test_an_encoders_pointer_is_checked(make_codec: MakeCodec) -> None:
    with pytest.raises(CodecError) as refused:
        make_codec(well_behaved()).encode(b"\x80", 6)
    assert refused.value.number == MALFORMED


def test_a_request_over_max_input_is_refused(make_codec: MakeCodec) -> None:
    with pytest.raises(CodecError, match="larger than the plugin's max_input"):
        make_codec(well_behaved()).encode(bytes(LIMITS.max_input + 1))


def test_a_plugin_without_an_encoder_says_so(make_codec: MakeCodec) -> None:
    with pytest.raises(CodecError, match="encodes nothing") as refused:
        make_codec(guest()).encode(b"\x80")
    assert refused.value.number == 5
