"""Plugins with a life: versions that differ in one visible thing, keep state, fail on command; and where they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import wasmtime
from fakes.guest_batches import EACH_FRAME
from fakes.traffic import FakeClock

from gateway.wasm.area import PluginArea
from gateway.wasm.config import WasmConfig
from gateway.wasm.package import pack_folder
from gateway.wasm.plugins import PluginHost
from gateway.wasm.slot import Notice

LIMITS = "[limits]\nmemory_mib = 2\nmax_input = 65536\nmax_output = 65536\n"


def counting(
    mark: str,
    *,
    trap_on: str = "T",
    loop_on: str = "L",
    saves: bool = True,
    loads: bool = True,
    ack: bool = False,
    extra: str = "",
) -> bytes:
    """Decodes a frame to `{kind: heartbeat, device: <mark>, reply_to: <frames decoded>}`; the count is its state.

    A first byte `trap_on` traps, `loop_on` loops for ever. gw_encode gives the mark. With `ack` every item asks for an
    acknowledgement and names one device whatever the version. `extra` is more of the module.
    """
    device = "d" if ack else mark
    item = rf"\{0x84 if ack else 0x83:02x}\a4kind\a9heartbeat\a6device\a1{device}"
    item += r"\a3ack\81\a7command\a1k" if ack else ""
    item += r"\a8reply_to\00"
    size = 1 + 5 + 10 + 7 + 2 + (4 + 1 + 8 + 2 if ack else 0) + 9 + 1
    save = (
        """(func (export "gw_state_save") (result i64)
      (i32.store (i32.const 3000) (global.get $count)) (i64.const 0xbb800000004))"""
        if saves
        else ""
    )
    load = (
        """(func (export "gw_state_load") (param i32 i32) (result i32)
      (if (i32.ne (local.get 1) (i32.const 4)) (then (return (i32.const 7))))
      (global.set $count (i32.load (local.get 0))) (i32.const 0))"""
        if loads
        else ""
    )
    return bytes(
        wasmtime.wat2wasm(f"""(module (memory (export "memory") 8)
      (func (export "gw_abi") (result i32) (i32.const 0x10000))
      (func (export "gw_buf") (param i32) (result i32) (i32.const 65536))
      (global $count (mut i32) (i32.const 0)) (global $at (mut i32) (i32.const 0))
      (data (i32.const 1024) "{item}") (data (i32.const 2048) "{mark}")
      (func $one (param $first i32)
        (if (i32.eq (local.get $first) (i32.const {ord(trap_on)})) (then unreachable))
        (if (i32.eq (local.get $first) (i32.const {ord(loop_on)})) (then (loop $l (br $l))))
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (memory.copy (global.get $at) (i32.const 1024) (i32.const {size}))
        (i32.store8 (i32.add (global.get $at) (i32.const {size - 1})) (i32.and (global.get $count) (i32.const 127)))
        (global.set $at (i32.add (global.get $at) (i32.const {size}))))
      {EACH_FRAME}
      (func (export "gw_encode") (param $p i32) (param $len i32) (param $aux i32) (result i64)
        (i64.const {2048 << 32 | len(mark)}))
      {save} {load} {extra})""")
    )


def echoing(prefix: int) -> bytes:
    """A callable plugin: answers any arguments with a number."""
    return bytes(
        wasmtime.wat2wasm(f"""(module (memory (export "memory") 8)
      (func (export "gw_abi") (result i32) (i32.const 0x10000))
      (func (export "gw_buf") (param i32) (result i32) (i32.const 65536))
      (data (i32.const 2048) "\\{prefix:02x}")
      (func (export "gw_call") (param $p i32) (param $len i32) (param $aux i32) (result i64)
        (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 0x81)) (then unreachable))
        (i64.const {2048 << 32 | 1})))""")
    )


class Nursery:
    """A folder of plugin folders, an installed area, and a host over both with a clock that moves by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root / "plugins"
        self.root.mkdir()
        self.cache = root / "cache"
        self._drafts = root / "drafts"
        self.area = PluginArea(root / "area")
        self.clock = FakeClock()
        self.hosts: list[PluginHost] = []
        self.notices: list[Notice] = []

    def put(self, name: str, version: str, wasm: bytes | None, toml: str = "", *, top: str = "") -> Path:
        """Write a plugin's folder, or overwrite it."""
        return _write(self.root / name, version, wasm, toml, top)

    def install(self, name: str, version: str, wasm: bytes, toml: str = "", *, top: str = "") -> None:
        """Install a version as a package."""
        draft = _write(self._drafts / version / name, version, wasm, toml, top)
        package = pack_folder(draft, self._drafts)
        self.area.install(package.read_bytes())

    def host(self, **config: Any) -> PluginHost:
        """A host that has loaded everything there is."""
        made = PluginHost(WasmConfig(**config), [self.root], self.cache, self.clock, area=self.area)
        self.hosts.append(made)
        made.load_all()
        made.on_notice(self.notices.append)
        return made

    def close(self) -> None:
        for host in self.hosts:
            host.close()

    def told(self) -> list[str]:
        """Types of the notices so far, in short."""
        return [notice.type.removeprefix("plugin.") for notice in self.notices]


def _write(folder: Path, version: str, wasm: bytes | None, toml: str, top: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    head = f'id = "{folder.name}"\nversion = "{version}"\nlicense = "MIT"\n{top}\n'
    (folder / "plugin.toml").write_text(head + LIMITS + toml)
    (folder / "README.md").write_text(f"# {folder.name}\n")
    if wasm is not None:
        (folder / f"{folder.name}.wasm").write_bytes(wasm)
    return folder


def marks(host: PluginHost, plugin_id: str, *frames: bytes) -> list[str | int | None]:
    """Decode frames with the version in use: the marks of what came out, or codes."""
    results = host.codec(plugin_id).decode_batch(list(frames) or [b"a"])
    return [getattr(result, "device", result) for result in results]


def vector(mark: str) -> str:
    """A promise that the version marks its items so."""
    return f'[[test]]\nframe = "61"\nitem = {{ device = "{mark}" }}\n'


MakeHost = Callable[..., PluginHost]
