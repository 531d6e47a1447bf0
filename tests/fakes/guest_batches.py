"""What guests in WebAssembly text that decode batches share: a walk over the frames, each of which puts an item out."""

from __future__ import annotations

OUT = 131072

EACH_FRAME = f"""
  (func $byte (param i32)
    (i32.store8 (global.get $at) (local.get 0)) (global.set $at (i32.add (global.get $at) (i32.const 1))))
  (func (export "gw_decode_batch") (param $p i32) (param $len i32) (param $n i32) (result i64)
    (local $i i32) (local $frame i32)
    (global.set $at (i32.const {OUT}))
    (call $byte (i32.const 0xdc))
    (call $byte (i32.shr_u (local.get $n) (i32.const 8))) (call $byte (local.get $n))
    (local.set $frame (i32.add (local.get $p) (i32.shl (local.get $n) (i32.const 3))))
    (loop $next
      (call $one (i32.load8_u (local.get $frame)))
      (local.set $frame (i32.add (local.get $frame)
        (i32.load (i32.add (local.get $p) (i32.shl (local.get $i) (i32.const 2))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $n))))
    (i64.or (i64.const {OUT << 32:#x}) (i64.extend_i32_u (i32.sub (global.get $at) (i32.const {OUT})))))"""
"""Calls `$one` with the first byte of each frame, which puts its result at the global `$at` and moves that on."""
