"""The attacks that the guarantee of docs/plugin-guarantee.md speaks of, as modules in WebAssembly text.

Each attacks as soon as it is loaded, started or given a frame whose first byte is `X`; other frames it answers well, so
that it passes its vectors as a clever one would.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import wasmtime

from gateway.wasm.codec import MALFORMED, TRAPPED

BUFFER, OUT, ITEM = 65536, 131072, 1024
"""Where input, output and the prepared item lie in a guest's memory."""
_ITEM = msgspec.msgpack.encode({"kind": "report", "points": [{"values": {"v": 1}}]})

ABI = f"""
  (func (export "gw_abi") (result i32) (i32.const 0x10000))
  (func (export "gw_buf") (param i32) (result i32) (i32.const {BUFFER}))"""

DECODE = f"""
  (func $packed (param $p i32) (param $n i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $n))))
  (func (export "gw_decode_batch") (param $p i32) (param $len i32) (param $n i32) (result i64)
    (local $i i32) (local $at i32) (local $frame i32)
    (local.set $frame (i32.add (local.get $p) (i32.shl (local.get $n) (i32.const 3))))
    (i32.store8 (i32.const {OUT}) (i32.const 0xdc))
    (i32.store8 (i32.const {OUT + 1}) (i32.shr_u (local.get $n) (i32.const 8)))
    (i32.store8 (i32.const {OUT + 2}) (local.get $n))
    (local.set $at (i32.const {OUT + 3}))
    (loop $next
      (if (i32.and (i32.ne (i32.load (i32.add (local.get $p) (i32.shl (local.get $i) (i32.const 2)))) (i32.const 0))
                   (i32.eq (i32.load8_u (local.get $frame)) (i32.const 0x58)))
        (then ATTACK))
      (memory.copy (local.get $at) (i32.const {ITEM}) (i32.const {len(_ITEM)}))
      (local.set $at (i32.add (local.get $at) (i32.const {len(_ITEM)})))
      (local.set $frame (i32.add (local.get $frame)
        (i32.load (i32.add (local.get $p) (i32.shl (local.get $i) (i32.const 2))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $n))))
    (call $packed (i32.const {OUT}) (i32.sub (local.get $at) (i32.const {OUT}))))"""


def _text(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)


def module(attack: str = "(nop)", *, more: str = "", imports: str = "", memory: str = "8", abi: str = ABI) -> bytes:
    """A codec that attacks on a frame `X`; `attack` stands where it does."""
    decode = DECODE.replace("ATTACK", attack)
    return bytes(
        wasmtime.wat2wasm(
            f'(module {imports} (memory (export "memory") {memory}) {abi} {more} {decode}'
            f' (data (i32.const {ITEM}) "{_text(_ITEM)}"))'
        )
    )


def good() -> bytes:
    """A codec without any attack: the neighbour."""
    return module()


def answering(answer: bytes) -> bytes:
    """Attacks with an answer of its own making for the whole batch."""
    return module(
        f"(return (call $packed (i32.const 300000) (i32.const {len(answer)})))",
        more=f'(data (i32.const 300000) "{_text(answer)}")',
    )


def exporting(name: bytes) -> bytes:
    """A sound module with one export renamed to bytes of our choice, which need not be UTF-8."""
    whole = module(more='(func (export "name_to_be_replaced"))')
    old = b"name_to_be_replaced"
    assert whole.count(old) == 1
    return whole.replace(old, (name * len(old))[: len(old)])


def _random_bytes() -> bytes:
    return b"\0asm\x01\0\0\0" + random.Random(808).randbytes(4000)


_LOG = '(import "gw1" "log" (func $log (param i32 i32 i32)))'
_KV_SET = '(import "gw1" "kv_set" (func $kv (param i32 i32 i32 i32) (result i32)))'
_DEEP = b"\x91" * 20_000 + b"\xc0"

AT_LOAD: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "truncated module": (lambda: good()[:-40], "", "not a module"),
    "half a module": (lambda: good()[: len(good()) // 2], "", "not a module"),
    "empty module": (lambda: b"", "", "not a module"),
    "random bytes": (_random_bytes, "", "not a module"),
    "forbidden import": (lambda: module(imports='(import "env" "exit" (func))'), "", "imports env.exit"),
    "unknown host function": (lambda: module(imports='(import "gw1" "shell" (func))'), "", "imports gw1.shell"),
    "import without its word": (lambda: module(imports=_LOG), "", "does not say `caps.log = true`"),
    "wasi without a grant": (
        lambda: module(
            imports='(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))'
        ),
        "[caps]\nwasi = true\n",
        "grant",
    ),
    "wrong import signature": (
        lambda: module(imports='(import "gw1" "log" (func (param i64)))'),
        "[caps]\nlog = true\n",
        "gw1.log must be",
    ),
    "wrong export signature": (
        lambda: module(more='(func (export "gw_encode") (param i64) (result i32) (i32.const 0))'),
        "",
        "gw_encode must be",
    ),
    "name that is not UTF-8": (lambda: exporting(b"\xff\xfe"), "", "not a module"),
    "import named to forge a log line": (
        lambda: module(imports='(import "gw1" "x\\0a\\1b[31mERROR gateway down" (func))'),
        "",
        "imports gw1.x",
    ),
    "lying gw_abi, next major": (
        lambda: module(abi=ABI.replace("0x10000", "0x20000")),
        "",
        "speaks ABI 2.0",
    ),
    "lying gw_abi, huge": (lambda: module(abi=ABI.replace("0x10000", "0xffffffff")), "", "speaks ABI 65535.65535"),
    "input buffer outside memory": (
        lambda: module(abi=ABI.replace(f"(i32.const {BUFFER})", "(i32.const 0xfffffff0)")),
        "",
        "no input buffer",
    ),
    "trap in start": (lambda: module(more="(func $s unreachable) (start $s)"), "", "failed while starting"),
    "loop in start": (lambda: module(more="(func $s (loop $l (br $l))) (start $s)"), "", "failed while starting"),
    "loop in gw_init": (
        lambda: module(more='(func (export "gw_init") (param i32 i32) (result i32) (loop $l (br $l)) (i32.const 0))'),
        "",
        "failed while starting",
    ),
    "more memory than its limit": (lambda: module(memory="600"), "", "memory"),
    "a table of a billion": (lambda: module(more="(table 1000000000 funcref)"), "", "cannot be instantiated"),
    "threads and shared memory": (lambda: wasmtime.wat2wasm("(module (memory 1 1 shared))"), "", "not a module"),
    "memory64": (lambda: wasmtime.wat2wasm('(module (memory (export "memory") i64 1))'), "", "not a module"),
    "vectors that fail": (good, "[[test]]\nframe = '00'\nerror = 3\n", "1 test vectors fail"),
    "vectors that trap": (
        lambda: module("unreachable"),
        "[[test]]\nframe = '58'\nitem = {}\n",
        "1 test vectors fail",
    ),
}
"""Name -> module, manifest after its limits, and words of the reason why it is refused."""

IN_TRAFFIC: dict[str, tuple[Callable[[], bytes], str, set[int]]] = {
    "infinite loop": (lambda: module("(loop $l (br $l))"), "", {TRAPPED}),
    "recursion": (
        lambda: module("(call $deep)", more="(func $deep (call $deep))"),
        "",
        {TRAPPED},
    ),
    "recursion with big frames": (
        lambda: module(
            "(drop (call $deep (i64.const 0)))",
            more="(func $deep (param i64) (result i64)"
            + "".join(f" (local $v{number} i64)" for number in range(400))
            + " (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (local.get 0)))",
        ),
        "",
        {TRAPPED},
    ),
    "unreachable": (lambda: module("unreachable"), "", {TRAPPED}),
    "out-of-bounds read": (lambda: module("(drop (i32.load (i32.const 0x7fffffff)))"), "", {TRAPPED}),
    "out-of-bounds write": (lambda: module("(i64.store (i32.const -8) (i64.const -1))"), "", {TRAPPED}),
    "out-of-bounds copy": (
        lambda: module("(memory.copy (i32.const 0) (i32.const 0) (i32.const -1))"),
        "",
        {TRAPPED},
    ),
    "division by zero": (lambda: module("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), "", {TRAPPED}),
    "memory bomb": (
        lambda: module("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"),
        "",
        {TRAPPED},
    ),
    "memory bomb for ever": (
        lambda: module("(loop $l (drop (memory.grow (i32.const 1))) (br $l))"),
        "",
        {TRAPPED},
    ),
    "growing memory between calls": (
        lambda: module(
            "(drop (memory.grow (i32.const 1))) (return (call $packed (i32.const -65536) (i32.const 65536)))"
        ),
        "",
        {MALFORMED},
    ),
    "result pointer outside memory": (
        lambda: module("(return (call $packed (i32.const 0x7fff0000) (i32.const 16)))"),
        "",
        {MALFORMED},
    ),
    "result that ends outside memory": (
        lambda: module("(return (call $packed (i32.const 524280) (i32.const 16)))"),
        "",
        {MALFORMED},
    ),
    "result that wraps around": (
        lambda: module("(return (call $packed (i32.const -1) (i32.const 65536)))"),
        "",
        {MALFORMED},
    ),
    "huge output": (lambda: module(f"(return (call $packed (i32.const {OUT}) (i32.const -1)))"), "", {4}),
    "too many items": (lambda: answering(msgspec.msgpack.encode([None] * 1000)), "", {MALFORMED}),
    "an array that claims 4 billion items": (lambda: answering(b"\xdd\xff\xff\xff\xff"), "", {MALFORMED}),
    "nesting without end": (lambda: answering(_DEEP), "", {MALFORMED}),
    "text that is not UTF-8": (lambda: answering(b"\x91\x81\xa4kind\xa6rep\xff\xfe\xfd"), "", {MALFORMED}),
    "the host's own codes": (lambda: answering(b"\x91\xff"), "", {MALFORMED}),
    "host-call storm": (
        lambda: module(
            "(loop $l (drop (call $kv (i32.const 0) (i32.const 8) (i32.const 0) (i32.const 64))) (br $l))",
            imports=_KV_SET,
        ),
        "[caps]\nkv = true\n",
        {TRAPPED},
    ),
    "host calls that point outside": (
        lambda: module(
            "(drop (call $kv (i32.const -1) (i32.const -1) (i32.const -1) (i32.const -1)))"
            "(drop (call $kv (i32.const 0) (i32.const 0x7fffffff) (i32.const 0) (i32.const 0x7fffffff)))"
            "unreachable",
            imports=_KV_SET,
        ),
        "[caps]\nkv = true\n",
        {TRAPPED},
    ),
    "log flood": (
        lambda: module("(loop $l (call $log (i32.const 3) (i32.const 1024) (i32.const 32)) (br $l))", imports=_LOG),
        "[caps]\nlog = true\n",
        {TRAPPED},
    ),
}
"""Name -> module, manifest after its limits, and what its frame may come to."""
