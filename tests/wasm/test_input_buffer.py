"""Where a guest has its input buffer is the guest's business."""

from __future__ import annotations

from guests_gw1 import MakeCodec, guest

_GROWING = """
  (func (export "gw_abi") (result i32) (i32.const 0x10000))
  (func (export "gw_buf") (param i32) (result i32) (i32.shl (memory.grow (i32.const 2)) (i32.const 16)))"""
_ECHO = """(i64.or (i64.shl (i64.extend_i32_u (i32.add (local.get $p) (i32.const 8))) (i64.const 32))
                   (i64.extend_i32_u (i32.sub (local.get $len) (i32.const 8))))"""


def test_a_buffer_for_which_the_guest_grew_its_memory_takes_input(make_codec: MakeCodec) -> None:
    codec = make_codec(guest(_ECHO, memory="1", abi=_GROWING))
    assert codec.decode_batch([b"\x91\x03"]) == [3]  # the frame itself is the answer: an array of one code
    assert codec.memory_bytes == 3 * 65536
