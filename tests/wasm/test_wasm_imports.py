from __future__ import annotations

import msgspec
import pytest
import structlog
from guests_gw1 import MakeCodec, Sandbox, guest

from gateway.wasm.imports import HostServices
from gateway.wasm.manifest import Caps

_OUT = 131072


def _answer(call: str) -> str:
    """A batch body that answers with the i32 that a host function gave, as an int64 item."""
    return f"""(i32.store8 (i32.const {_OUT}) (i32.const 0x91))
      (i32.store8 (i32.const {_OUT + 1}) (i32.const 0xce))
      (i32.store (i32.const {_OUT + 2}) (i32.const 0))
      (i32.store8 (i32.const {_OUT + 5}) {call})
      (i64.const {_OUT << 32 | 6})"""


_KV = """(import "gw1" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))
         (import "gw1" "kv_set" (func $set (param i32 i32 i32 i32) (result i32)))"""
_RANDOM = '(import "gw1" "random" (func $random (param i32 i32)))'
_LOG = '(import "gw1" "log" (func $log (param i32 i32 i32)))'
_NOW = '(import "gw1" "now_ms" (func $now (result i64)))'
_CONFIG = '(import "gw1" "config" (func $config (param i32 i32 i32 i32) (result i32)))'


class FixedClock:
    """It is always the same moment."""

    def now_ms(self) -> int:
        return 1_700_000_000_123

    def monotonic_s(self) -> float:
        return 5.0


def test_the_clock_is_the_gateways(make_codec: MakeCodec) -> None:
    body = "(i64.add (i64.const 1000) (i64.rem_u (call $now) (i64.const 1000)))"
    codec = make_codec(guest(body, more=_NOW), caps=Caps(clock=True), clock=FixedClock())
    assert codec.decode_batch([b"a"]) == [1123]


def test_configuration_arrives_as_msgpack_and_only_where_it_fits(make_codec: MakeCodec) -> None:
    # Key: the three bytes "abc" at 0; the value goes behind the array head at _OUT.
    body = f"""(drop (call $config (i32.const 0) (i32.const 3) (i32.const {_OUT + 1}) (i32.const 8)))
      (i32.store8 (i32.const {_OUT}) (i32.const 0x91)) (i64.const {_OUT << 32 | 3})"""
    wasm = guest(body, more=_CONFIG, memory='8) (data (i32.const 0) "abc"')
    codec = make_codec(wasm, caps=Caps(config=True), settings={"abc": 200})
    assert codec.decode_batch([b"a"]) == [200]
    length = _answer("(call $config (i32.const 0) (i32.const 3) (i32.const 200000) (i32.const 1))")
    small = guest(length, more=_CONFIG, memory='8) (data (i32.const 0) "abc"')
    assert make_codec(small, caps=Caps(config=True), settings={"abc": 200}).decode_batch([b"a"]) == [2]


def test_a_missing_key_is_minus_one(make_codec: MakeCodec) -> None:
    body = _answer("(call $get (i32.const 0) (i32.const 3) (i32.const 200000) (i32.const 8))")
    assert make_codec(guest(body, more=_KV), caps=Caps(kv=True)).decode_batch([b"a"]) == [0xFF]


def test_the_store_outlives_a_respawn(make_codec: MakeCodec) -> None:
    body = f"""(if (i32.eqz (i32.load8_u (i32.add (local.get $p) (i32.const 8)))) (then
        (drop (call $set (i32.const 0) (i32.const 3) (i32.const 0) (i32.const 5))) unreachable))
      {_answer("(call $get (i32.const 0) (i32.const 3) (i32.const 200000) (i32.const 8))")}"""
    codec = make_codec(guest(body, more=_KV), caps=Caps(kv=True))
    assert codec.decode_batch([b"\0"]) == [-1]
    assert codec.decode_batch([b"a"]) == [5]


BAD_RANGES = ["(i32.const 0x7fffffff) (i32.const 100)", "(i32.const -1) (i32.const 2)", "(i32.const 8) (i32.const -1)"]


@pytest.mark.parametrize("where", BAD_RANGES)
def test_a_range_outside_guest_memory_is_refused_and_never_raises(make_codec: MakeCodec, where: str) -> None:
    set_key = _answer(f"(call $set {where} (i32.const 0) (i32.const 1))")
    assert make_codec(guest(set_key, more=_KV), caps=Caps(kv=True)).decode_batch([b"a"]) == [0xFF]
    set_value = _answer(f"(call $set (i32.const 0) (i32.const 1) {where})")
    assert make_codec(guest(set_value, more=_KV), caps=Caps(kv=True)).decode_batch([b"a"]) == [0xFF]
    log = f"(call $log (i32.const 1) {where}) (i64.const 2)"
    assert make_codec(guest(log, more=_LOG), caps=Caps(log=True)).decode_batch([b"a"]) == [2]
    rand = f"(call $random {where}) (i64.const 2)"
    assert make_codec(guest(rand, more=_RANDOM), caps=Caps(random=True)).decode_batch([b"a"]) == [2]


def test_the_store_is_bounded(make_codec: MakeCodec) -> None:
    # Sets ever new keys (a counter) with values of 1,000 bytes until it is refused; answers how many went in.
    body = """(local $i i32)
      (loop $l
        (i32.store (i32.const 0) (local.get $i))
        (if (i32.eqz (call $set (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 1000)))
          (then (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l))))
      (i64.extend_i32_u (local.get $i))"""
    from guests_gw1 import LIMITS  # noqa: PLC0415 - only here is time of no interest

    patient = msgspec.structs.replace(LIMITS, deadline_ms=1000)
    codec = make_codec(guest(body, more=_KV), caps=Caps(kv=True), limits=patient)
    assert codec.decode_batch([b"a"]) == [1024]


def test_random_bytes_differ_and_are_bounded(make_codec: MakeCodec) -> None:
    body = f"""(call $random (i32.const {_OUT + 2}) (i32.const 4))
      (i32.store8 (i32.const {_OUT}) (i32.const 0x91)) (i32.store8 (i32.const {_OUT + 1}) (i32.const 0xce))
      (i64.const {_OUT << 32 | 6})"""
    codec = make_codec(guest(body, more=_RANDOM), caps=Caps(random=True))
    assert len({codec.decode_batch([b"a"])[0] for _ in range(8)}) > 1
    lots = f"""(call $random (i32.const {_OUT}) (i32.const 100000))
      (i64.extend_i32_u (i32.add (i32.const 1) (i32.load (i32.const {_OUT + 4096}))))"""
    assert make_codec(guest(lots, more=_RANDOM), caps=Caps(random=True)).decode_batch([b"a"]) == [1]


def test_log_lines_are_made_safe_and_rationed(make_codec: MakeCodec) -> None:
    body = """(local $i i32)
      (loop $l (call $log (i32.const 2) (i32.const 0) (i32.const 12))
        (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 50))))
      (i64.const 2)"""
    wasm = guest(body, more=_LOG, memory='8) (data (i32.const 0) "hi\\n\\1b[2Jthere\\ff"')
    codec = make_codec(wasm, caps=Caps(log=True), clock=FixedClock())
    with structlog.testing.capture_logs() as lines:
        assert codec.decode_batch([b"a"]) == [2]
    assert len(lines) == 20
    assert lines[0] == {"event": "plugin says", "plugin": "guest", "text": "hi??[2Jthere", "log_level": "warning"}
    assert codec.log_lines_dropped == 30


class BrokenClock(FixedClock):
    """A collaborator with a bug."""

    def now_ms(self) -> int:
        raise RuntimeError("the clock fell down")


def test_a_host_function_that_fails_never_reaches_another_plugins_call(sandbox: Sandbox) -> None:
    body = "(i64.add (i64.const 9) (call $now))"
    failing = sandbox.codec(guest(body, more=_NOW), caps=Caps(clock=True), clock=BrokenClock())
    other = sandbox.codec(guest("(i64.const 5)"))
    with structlog.testing.capture_logs() as lines:
        assert failing.decode_batch([b"a"]) == [9]
    assert lines[0]["event"] == "a host function failed"
    assert other.decode_batch([b"a"]) == [5]
    assert other.stats.traps == 0


def test_services_count_their_failures() -> None:
    services = HostServices("guest", BrokenClock(), {})
    assert services.failures == 0
    with structlog.testing.capture_logs():
        assert services._walled(services._now_ms, 0)(_NoCaller()) == 0
    assert services.failures == 1


class _NoCaller:
    """A caller that is gone."""

    def get(self, _name: str) -> None:
        return None
