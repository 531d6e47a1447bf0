"""Small real plugins as folders and packages: a codec that answers every frame with one report."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import wasmtime

from gateway.wasm.package import pack


def codec_module(marker: str = "one") -> bytes:
    """A module whose every frame is a report of a temperature and of the marker, by which versions are told apart."""
    item = msgspec.msgpack.encode(
        {"kind": "report", "device": "d1", "points": [{"values": {"temperature": 21.5, "marker": marker}}]}
    )
    data = "".join(f"\\{byte:02x}" for byte in item)
    return bytes(
        wasmtime.wat2wasm(
            f"""(module (memory (export "memory") 16)
            (func (export "gw_abi") (result i32) (i32.const 0x10000))
            (func (export "gw_buf") (param i32) (result i32) (i32.const 65536))
            (data (i32.const 1024) "{data}")
            (func (export "gw_decode_batch") (param $p i32) (param $len i32) (param $n i32) (result i64)
              (local $at i32)
              (i32.store8 (i32.const 524288) (i32.const 0xdc))
              (i32.store8 (i32.const 524289) (i32.shr_u (local.get $n) (i32.const 8)))
              (i32.store8 (i32.const 524290) (local.get $n))
              (local.set $at (i32.const 524291))
              (loop $next
                (memory.copy (local.get $at) (i32.const 1024) (i32.const {len(item)}))
                (local.set $at (i32.add (local.get $at) (i32.const {len(item)})))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br_if $next (local.get $n)))
              (i64.or (i64.const 0x8000000000000) (i64.extend_i32_u (i32.sub (local.get $at) (i32.const 524288))))))"""
        )
    )


def plugin_folder(
    root: Path,
    version: str = "1.0.0",
    *,
    plugin_id: str = "meter",
    marker: str | None = None,
    manifest: str = "",
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """A plugin's folder below `root`; `manifest` is TOML after the required keys, `files` lie beside it."""
    folder = root / plugin_id
    folder.mkdir(parents=True, exist_ok=True)
    head = f'id = "{plugin_id}"\nversion = "{version}"\nlicense = "Apache-2.0"\n'
    (folder / "plugin.toml").write_text(head + manifest)
    (folder / f"{plugin_id}.wasm").write_bytes(codec_module(version if marker is None else marker))
    for name, data in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def package(root: Path, version: str = "1.0.0", **options: Any) -> bytes:
    """The package of such a folder."""
    return pack(plugin_folder(root, version, **options))


def zipped(files: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive as any tool makes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    """What a zip archive holds."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {entry.filename: opened.read(entry) for entry in opened.infolist()}


def with_claimed_size(data: bytes, name: str, size: int) -> bytes:
    """The archive with another unpacked size claimed for a member, in both of its headers."""
    changed = bytearray(data)
    encoded = name.encode()
    for mark, at_size, at_name in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            if data[at + at_name : at + at_name + len(encoded)] == encoded:
                changed[at + at_size : at + at_size + 4] = struct.pack("<I", size)
    return bytes(changed)
