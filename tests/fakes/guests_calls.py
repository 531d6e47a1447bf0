"""Guests that answer calls, in WebAssembly text: one that obeys a letter, and a shelf of plugin folders for them."""

from __future__ import annotations

from pathlib import Path

import wasmtime

# Arguments are a short text: its first letter says what to do. Input buffer at 64 KiB, answers at 1024.
OBEDIENT = r"""(module (memory (export "memory") 4)
  (global $calls (mut i32) (i32.const 0))
  (data (i32.const 2048) "no such thing")
  (func (export "gw_abi") (result i32) (i32.const 0x10000))
  (func (export "gw_buf") (param i32) (result i32) (i32.const 65536))
  (func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func (export "gw_call") (param $p i32) (param $len i32) (param $aux i32) (result i64) (local $do i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (local.set $do (i32.load8_u offset=1 (local.get $p)))
    (if (i32.eq (local.get $do) (i32.const 0x54)) (then unreachable))                              ;; T trap
    (if (i32.eq (local.get $do) (i32.const 0x4c)) (then (loop $l (br $l))))                        ;; L loop
    (if (i32.eq (local.get $do) (i32.const 0x52)) (then (drop (call $deep (i32.const 0)))))        ;; R recursion
    (if (i32.eq (local.get $do) (i32.const 0x4f)) (then (drop (i32.load (i32.const 0x7fffffff))))) ;; O out of bounds
    (if (i32.eq (local.get $do) (i32.const 0x37)) (then (return (i64.const 7))))                   ;; 7 a code
    (if (i32.eq (local.get $do) (i32.const 0x50)) (then (return (i64.const 0x7fffffff00000001))))  ;; P bad pointer
    (if (i32.eq (local.get $do) (i32.const 0x48)) (then (return (i64.const 0x40000ffffff))))       ;; H huge answer
    (if (i32.eq (local.get $do) (i32.const 0x58))                                                  ;; X no msgpack
      (then (i32.store8 (i32.const 1024) (i32.const 0xc1)) (return (i64.const 0x40000000001))))
    (if (i32.eq (local.get $do) (i32.const 0x4d))                                                  ;; M memory bomb
      (then (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))))
    (if (i32.or (i32.eq (local.get $do) (i32.const 0x43)) (i32.eq (local.get $do) (i32.const 0x4d))) ;; C calls so far
      (then (i32.store8 (i32.const 1024) (i32.and (global.get $calls) (i32.const 0x7f)))
        (return (i64.const 0x40000000001))))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))
  (func (export "gw_last_error") (result i64) (i64.const 0x8000000000d))
  (func (export "gw_state_save") (result i64)
    (i32.store (i32.const 1024) (global.get $calls)) (i64.const 0x40000000004))
  (func (export "gw_state_load") (param $p i32) (param $len i32) (result i32)
    (global.set $calls (i32.load (local.get $p))) (i32.const 0)))"""
"""Answers with its arguments, unless their first letter says otherwise."""

LIMITS = """[limits]
memory_mib = 2
max_input = 65536
max_output = 65536
call_deadline_ms = {deadline_ms}
workers = {workers}
"""


def obedient() -> bytes:
    """The guest above, as a module."""
    return bytes(wasmtime.wat2wasm(OBEDIENT))


def put_caller(
    root: Path,
    name: str = "obey",
    *,
    kind: str = "algo",
    version: str = "1",
    deadline_ms: int = 200,
    workers: int = 1,
    carry: bool = False,
    wasm: bytes | None = None,
) -> Path:
    """Make, or change, the folder of a plugin that answers calls."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.toml").write_text(
        f'id = "{name}"\nversion = "{version}"\nlicense = "MIT"\nkind = "{kind}"\n'
        + LIMITS.format(deadline_ms=deadline_ms, workers=workers)
        + ("[state]\ncarry = true\n" if carry else "")
    )
    (folder / f"{name}.wasm").write_bytes(obedient() if wasm is None else wasm)
    return folder


# Its answer is `{data: <the last byte of its arguments>}`, which is the last byte of `data`.
LAST_BYTE = r"""(module (memory (export "memory") 4)
  (data (i32.const 1024) "\81\a4data\c4\01?")
  (data (i32.const 2048) "the key is 0123456789")
  (func (export "gw_abi") (result i32) (i32.const 0x10000))
  (func (export "gw_buf") (param i32) (result i32) (i32.const 65536))
  (func (export "gw_call") (param $p i32) (param $len i32) (param $aux i32) (result i64) (local $last i32)
    (local.set $last (i32.load8_u (i32.sub (i32.add (local.get $p) (local.get $len)) (i32.const 1))))
    (if (i32.eq (local.get $last) (i32.const 0x54)) (then unreachable))                        ;; T trap
    (if (i32.eq (local.get $last) (i32.const 0x4c)) (then (loop $l (br $l))))                  ;; L loop
    (if (i32.eq (local.get $last) (i32.const 0x33)) (then (return (i64.const 3))))             ;; 3 checksum
    (if (i32.eq (local.get $last) (i32.const 0x58)) (then (return (i64.const 0x40000000001)))) ;; X a map cut short
    (i32.store8 (i32.const 1032) (local.get $last))
    (i64.const 0x40000000009))
  (func (export "gw_last_error") (result i64) (i64.const 0x80000000015)))"""


def last_byte() -> bytes:
    """The guest above, as a module."""
    return bytes(wasmtime.wat2wasm(LAST_BYTE))
