"""What the host offers, called through every SDK; and what Go's recovery is worth."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import structlog
from made_plugins import require_toolchain

from gateway.core.errors import ConfigError
from gateway.core.flow import Decoded
from gateway.wasm.manifest import load_manifest
from gateway.workbench.build import build_plugin
from gateway.workbench.check import check
from gateway.workbench.piece import opened

# An encoder that answers with [now, setting "site", calls counted in the store, the store's room for too much, 8 random
# bytes, "none"], and logs.
_C = """
#include "gw1.h"
static int32_t encode(gw_out *out, gw_in request, uint32_t aux) {
    static uint8_t much[2 << 20];
    uint8_t buffer[64], count = 0;
    gw_log(1, "asked", 5);
    gw_array(out, 6);
    gw_int(out, gw_now_ms());
    int32_t n = gw_config("site", 4, buffer, sizeof buffer);
    if (n < 0) gw_nil(out); else gw_raw(out, buffer, (size_t)n);
    if (gw_kv_get("n", 1, &count, 1) != 1) count = 0;
    count++;
    gw_kv_set("n", 1, &count, 1);
    gw_uint(out, count);
    gw_bool(out, gw_kv_set("m", 1, much, sizeof much) == 0);
    gw_random(buffer, 8);
    gw_bin(out, buffer, 8);
    gw_bool(out, gw_config("nothing", 7, buffer, sizeof buffer) < 0 && gw_config("site", 4, buffer, 1) > 1);
    return GW_WRITTEN;
}
static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) { return GW_DROP; }
GW_ENCODER(encode)
GW_DECODER(decode)
"""
_ZIG = """
const gw1 = @import("gw1");
pub const panic = gw1.panic;
var much: [2 << 20]u8 = @splat(0);

fn encode(out: *gw1.Writer, _: gw1.Reader, _: u32) gw1.Failure!void {
    var buffer: [64]u8 = undefined;
    gw1.host.log(.info, "asked");
    out.array(6);
    out.sint(gw1.host.nowMs());
    if (gw1.host.config("site", &buffer)) |site| out.raw(site) else out.nil();
    const count = if (gw1.host.kvGet("n", &buffer)) |kept| kept[0] + 1 else 1;
    _ = gw1.host.kvSet("n", &.{count});
    out.uint(count);
    out.boolean(gw1.host.kvSet("m", &much));
    gw1.host.random(buffer[0..8]);
    out.bin(buffer[0..8]);
    out.boolean(gw1.host.config("nothing", &buffer) == null and gw1.host.config("site", buffer[0..1]) == null);
}
fn decode(_: *gw1.Writer, _: []const u8, _: u32) gw1.Failure!void {
    return error.Drop;
}
comptime {
    gw1.plugin(.{ .decode = decode, .encode = encode });
}
"""
_RUST = """
use gw1::{host, Code, Outcome, Reader, Writer};

fn encode(out: &mut Writer, _: Reader, _: u32) -> Outcome {
    let mut buffer = [0; 64];
    host::log(1, "asked");
    out.array(6).int(host::now_ms());
    match host::config("site", &mut buffer) {
        Some(n) => out.raw(&buffer[..n]),
        None => out.nil(),
    };
    let count = host::kv_get(b"n", &mut buffer).map_or(1, |_| buffer[0] + 1);
    host::kv_set(b"n", &[count]);
    out.uint(count.into());
    out.bool(host::kv_set(b"m", &vec![0; 2 << 20]));
    host::random(&mut buffer[..8]);
    out.bin(&buffer[..8]);
    let (none, small) = (host::config("nothing", &mut buffer), host::config("site", &mut buffer[..1]));
    out.bool(none.is_none() && small.is_none());
    Ok(())
}
fn decode(_: &mut Writer, _: &[u8], _: u32) -> Outcome {
    Err(Code::DROP.into())
}
gw1::plugin! { decode: decode, encode: encode }
"""
_GO = """
package main

import (
	"gw1"
	"gw1/host"
)

func encode(out *gw1.Writer, request gw1.Reader, aux uint32) error {
	buffer := make([]byte, 64)
	host.Log(1, "asked")
	out.Array(6).Int(host.NowMs())
	if site := host.Config("site", buffer); site != nil {
		out.Raw(site...)
	} else {
		out.Nil()
	}
	count := byte(1)
	if kept := host.KvGet([]byte("n"), buffer); kept != nil {
		count = kept[0] + 1
	}
	host.KvSet([]byte("n"), []byte{count})
	out.Uint(uint64(count))
	out.Bool(host.KvSet([]byte("m"), make([]byte, 2<<20)))
	host.Random(buffer[:8])
	out.Bin(buffer[:8])
	out.Bool(host.Config("nothing", buffer) == nil && host.Config("site", buffer[:1]) == nil)
	return nil
}

func decode(out *gw1.Writer, frame []byte, aux uint32) error {
	if frame[3] == 1 { // a frame of fewer bytes is a panic
		panic("by hand")
	}
	out.Map(1).Key("kind").Str("heartbeat")
	return nil
}

func init() { gw1.Register(gw1.Plugin{Decode: decode, Encode: encode}) }

func main() {}
"""
_AS = """
import { Bytes, Code, Reader, Writer, decoder, encoder, host } from "gw1";

encoder((out: Writer, request: Reader, aux: u32): Code => {
  const buffer = new ArrayBuffer(64);
  host.log(1, "asked");
  out.array(6).int(host.nowMs());
  const n = host.config("site", buffer);
  if (n < 0) out.nil();
  else out.raw(changetype<usize>(buffer), n);
  const key = String.UTF8.encode("n");
  const count: u8 = host.kvGet(key, buffer) < 0 ? 1 : load<u8>(changetype<usize>(buffer)) + 1;
  const kept = new ArrayBuffer(1);
  store<u8>(changetype<usize>(kept), count);
  host.kvSet(key, kept);
  out.uint(count);
  out.bool(host.kvSet(String.UTF8.encode("m"), new ArrayBuffer(2 << 20)));
  const random = new ArrayBuffer(8);
  host.random(random);
  out.bin(changetype<usize>(random), 8);
  out.bool(host.config("nothing", buffer) < 0 && host.config("site", kept) < 0);
  return Code.Written;
});
decoder((out: Writer, frame: Bytes, aux: u32): Code => Code.Drop);
"""
_SOURCES = {
    "c": ("c", "main.c", _C),
    "zig": ("zig", "main.zig", _ZIG),
    "rust": ("rust", "lib.rs", _RUST),
    "go": ("go", "main.go", _GO),
    "as": ("assemblyscript", "main.ts", _AS),
}
_MANIFEST = """
id = "asking"
version = "1.0.0"
license = "Apache-2.0"
config = {{ site = "Büro" }}
[build]
language = "{}"
sources = ["{}"]
[limits]
memory_mib = 32
deadline_ms = 1000
start_deadline_ms = 1000
[caps]
log = true
clock = true
random = true
kv = true
config = true
wasi = {}
"""


def asking(language: str, root: Path) -> Path:
    require_toolchain(language)
    name, file, source = _SOURCES[language]
    folder = root / "asking"
    folder.mkdir()
    (folder / file).write_text(source)
    (folder / "plugin.toml").write_text(_MANIFEST.format(name, file, str(language == "go").lower()))
    if language == "go":
        (folder / "go.mod").write_text("module codec/asking\n\ngo 1.24\n")
    build_plugin(folder)
    return folder


@pytest.mark.parametrize("language", _SOURCES)
def test_every_function_of_the_host_can_be_called(language: str, tmp_path: Path) -> None:
    folder = asking(language, tmp_path)
    with structlog.testing.capture_logs() as logs, opened(str(folder), tmp_path) as piece, piece.codec() as codec:
        first, second = (msgspec.msgpack.decode(codec.encode(b"\x80")) for _ in range(2))
        idle = [one.detail for one in check(piece) if one.what == "capabilities"]
    assert idle == [""]  # each capability that the manifest asks for is used
    assert min(first[0], second[0]) > 1_700_000_000_000  # epoch milliseconds, of this century
    assert (first[1], second[1]) == ("Büro", "Büro")
    assert (first[2], second[2]) == (1, 2)
    assert (first[3], second[3]) == (False, False)
    assert len(first[4]) == 8
    assert first[4] != second[4]
    assert (first[5], second[5]) == (True, True)
    said = [(entry["log_level"], entry["text"]) for entry in logs if entry["event"] == "plugin says"]
    assert said == [("info", "asked")] * 2
    assert load_manifest(folder).caps.kv


def test_a_panic_in_go_costs_its_frame_and_not_the_instance(tmp_path: Path) -> None:
    folder = asking("go", tmp_path)
    with opened(str(folder), tmp_path) as piece, piece.codec() as codec:
        results = codec.decode_batch([b"abcd", b"", b"ab\x00\x01", b"abcd"])
        assert [one if isinstance(one, int) else type(one) for one in results] == [Decoded, 5, 5, Decoded]
        assert (codec.stats.traps, codec.stats.respawns) == (0, 0)


def test_what_a_capability_was_not_asked_for_is_named(tmp_path: Path) -> None:
    folder = asking("c", tmp_path)
    manifest = folder / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("kv = true", "kv = false"))
    with opened(str(folder), tmp_path) as piece, pytest.raises(ConfigError, match=r"caps\.kv = true"):
        piece.start()
