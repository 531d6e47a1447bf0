"""Guests in WebAssembly text, and the sandbox they run in: a well-behaved one, and a mould for worse ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import wasmtime
from fakes.guest_batches import EACH_FRAME

from gateway.core.clock import SystemClock
from gateway.wasm.config import WasmConfig
from gateway.wasm.fastcall import CallPath
from gateway.wasm.host import WasmCodec
from gateway.wasm.imports import HostServices
from gateway.wasm.manifest import Caps, Limits, Manifest
from gateway.wasm.program import Program
from gateway.wasm.sandbox import Sandbox as SharedSandbox

LIMITS = Limits(memory_mib=2, deadline_ms=20, batch_deadline_ms=50, max_input=65536, max_output=65536)

# Memory map: input buffer at 64 KiB, output at 128 KiB, the item's template at 1024, eight pages in all.
_ABI = """
  (func (export "gw_abi") (result i32) (i32.const 0x10000))
  (func (export "gw_buf") (param i32) (result i32) (i32.const 65536))"""

_ITEM = r"\83\a4kind\a6report\a6device\a1?\a8reply_to\00"
_ITEM_BYTES = 1 + 5 + 7 + 7 + 2 + 9 + 1
_DEVICE_AT = 21
_COUNT_AT = _ITEM_BYTES - 1

WELL_BEHAVED = f"""(module (memory (export "memory") 8) {_ABI}
  (global $count (mut i32) (i32.const 0))
  (global $at (mut i32) (i32.const 0))
  (data (i32.const 1024) "{_ITEM}")
  (func $one (param $first i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (if (i32.eq (local.get $first) (i32.const 0x54)) (then unreachable))                      ;; T trap
    (if (i32.eq (local.get $first) (i32.const 0x4c)) (then (loop $l (br $l))))                ;; L loop
    (if (i32.eq (local.get $first) (i32.const 0x4e)) (then (call $byte (i32.const 0xc0)) return))   ;; N nil
    (if (i32.eq (local.get $first) (i32.const 0x33)) (then (call $byte (i32.const 3)) return))      ;; 3 checksum
    (if (i32.eq (local.get $first) (i32.const 0x34)) (then (call $byte (i32.const 4)) return))      ;; 4 too large
    (if (i32.eq (local.get $first) (i32.const 0x2d)) (then (call $byte (i32.const 0xff)) return))   ;; - minus one
    (if (i32.eq (local.get $first) (i32.const 0x42)) (then (call $byte (i32.const 0xc3)) return))   ;; B a bool
    (if (i32.eq (local.get $first) (i32.const 0x58)) (then (call $byte (i32.const 0xc1)) return))   ;; X no msgpack
    (if (i32.eq (local.get $first) (i32.const 0x32))                                                ;; 2 two items
      (then (call $byte (i32.const 0xc0)) (call $byte (i32.const 0xc0)) return))
    (if (i32.eq (local.get $first) (i32.const 0x44))                                                ;; D divide
      (then (call $byte (i32.div_u (i32.const 1) (i32.const 0)))))
    (if (i32.eq (local.get $first) (i32.const 0x4f))                                                ;; O out of bounds
      (then (call $byte (i32.load (i32.const 0x7fffffff)))))
    (memory.copy (global.get $at) (i32.const 1024) (i32.const {_ITEM_BYTES}))
    (i32.store8 (i32.add (global.get $at) (i32.const {_DEVICE_AT})) (local.get $first))
    (i32.store8 (i32.add (global.get $at) (i32.const {_COUNT_AT})) (i32.and (global.get $count) (i32.const 0x7f)))
    (global.set $at (i32.add (global.get $at) (i32.const {_ITEM_BYTES}))))
  {EACH_FRAME}
  (func (export "gw_encode") (param $p i32) (param $len i32) (param $aux i32) (result i64)
    (if (i32.eq (local.get $aux) (i32.const 9)) (then unreachable))
    (if (i32.eq (local.get $aux) (i32.const 8)) (then (loop $l (br $l))))
    (if (i32.eq (local.get $aux) (i32.const 7)) (then (return (i64.const 7))))
    (if (i32.eq (local.get $aux) (i32.const 6)) (then (return (i64.const 0x7fffffff00000001))))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))
  (data (i32.const 2048) "bad\\n\\1b[31m argument")
  (func (export "gw_last_error") (result i64) (i64.const {2048 << 32 | 17})))"""
"""Gives `{kind, device: <first byte>, reply_to: <frames decoded by this instance>}`; the first byte may order worse."""


def well_behaved() -> bytes:
    """The guest above, as a module."""
    return bytes(wasmtime.wat2wasm(WELL_BEHAVED))


def guest(batch: str = "(i64.const 0)", *, more: str = "", memory: str = "8", abi: str = _ABI) -> bytes:
    """A module whose gw_decode_batch has the given body (parameters $p $len $n)."""
    return bytes(
        wasmtime.wat2wasm(f"""(module {more} (memory (export "memory") {memory}) {abi}
      (func (export "gw_decode_batch") (param $p i32) (param $len i32) (param $n i32) (result i64) {batch}))""")
    )


def answering(answer: bytes, *, more: str = "") -> bytes:
    """A module whose gw_decode_batch always answers with the same bytes."""
    text = "".join(f"\\{byte:02x}" for byte in answer)
    return guest(f"(i64.const {131072 << 32 | len(answer)})", more=more, memory=f'8) (data (i32.const 131072) "{text}"')


class Sandbox:
    """Engine and watchdog of one test, and every codec it made."""

    def __init__(self, path: CallPath) -> None:
        self.shared = SharedSandbox(WasmConfig(call_path="public" if path == "public" else "auto"))
        self.path = path
        self.engine = self.shared.engine
        self.watchdog = self.shared.watchdog
        self.codecs: list[WasmCodec] = []

    def codec(
        self,
        wasm: bytes,
        *,
        limits: Limits = LIMITS,
        caps: Caps = Caps(),  # noqa: B008 - frozen
        granted: frozenset[str] | None = None,
        settings: dict[str, Any] | None = None,
        clock: Any = None,
    ) -> WasmCodec:
        clock = clock or SystemClock()
        manifest = Manifest(id="guest", version="1", license="Apache-2.0", limits=limits, caps=caps)
        program = Program(
            manifest,
            wasmtime.Module(self.engine, wasm),
            self.shared,
            HostServices("guest", clock, settings or {}),
            granted=caps.asked() if granted is None else granted,
            clock=clock,
            start=msgspec.msgpack.encode({"config": settings or {}}),
        )
        made = WasmCodec(program)
        self.codecs.append(made)
        return made

    def close(self) -> None:
        for codec in self.codecs:
            codec.close()
        self.watchdog.close()


MakeCodec: TypeAlias = Callable[..., WasmCodec]
