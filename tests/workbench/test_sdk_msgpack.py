"""The msgpack reader and writer of every SDK against msgspec's: what is read is written byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_plugins import require_toolchain

from gateway.core.errors import CodecError
from gateway.wasm.host import WasmCodec
from gateway.workbench.build import build_plugin
from gateway.workbench.piece import opened

# An encoder that copies its request value by value. aux 1: it skips one value and gives how many bytes are left;
# aux 2: it gives the value of "key"; aux 3: it gives the request as hex, and "no", whether there is such a key;
# aux 4: it gives an array of eight copies of it; aux 5: it refuses it with words;
# aux 6: it gives the numbers of "a" and "b" as floats, 0 where there is none.
_ZIG = """
const gw1 = @import("gw1");
pub const panic = gw1.panic;

fn copy(out: *gw1.Writer, v: gw1.Value) void {
    switch (v) {
        .nil => out.nil(),
        .boolean => |b| out.boolean(b),
        .uint => |n| out.uint(n),
        .sint => |n| out.sint(n),
        .float => |f| out.float(f),
        .str => |s| out.str(s),
        .bin => |b| out.bin(b),
        .array => |n| out.array(n),
        .map => |n| out.map(n),
    }
}
fn encode(out: *gw1.Writer, request: gw1.Reader, aux: u32) gw1.Failure!void {
    var in = request;
    switch (aux) {
        1 => {
            if (!in.skip()) return error.BadConfig;
            out.uint(in.at.rest.len);
        },
        2 => copy(out, request.get("key") orelse return error.Unsupported),
        3 => {
            out.array(2);
            out.hex(in.at.rest);
            out.boolean(request.find("no") != null);
        },
        4 => {
            out.array(8);
            for (0..8) |_| out.bin(in.at.rest);
        },
        5 => return gw1.fail(error.BadConfig, "not today"),
        6 => {
            out.array(2);
            for ([_][]const u8{ "a", "b" }) |key| {
                out.float(if (request.get(key)) |v| (if (v == .float) v.float else 0) else 0);
            }
        },
        else => while (in.at.rest.len > 0) copy(out, in.next() orelse return error.BadConfig),
    }
}
fn decode(_: *gw1.Writer, _: []const u8, _: u32) gw1.Failure!void {
    return error.Drop;
}
comptime {
    gw1.plugin(.{ .decode = decode, .encode = encode });
}
"""
_RUST = """
use gw1::{Code, Outcome, Reader, Value, Writer};

fn copy(out: &mut Writer, value: Value) {
    match value {
        Value::Nil => out.nil(),
        Value::Bool(v) => out.bool(v),
        Value::Uint(v) => out.uint(v),
        Value::Int(v) => out.int(v),
        Value::F64(v) => out.f64(v),
        Value::Str(v) => out.str(v),
        Value::Bin(v) => out.bin(v),
        Value::Array(n) => out.array(n as usize),
        Value::Map(n) => out.map(n as usize),
    };
}
fn encode(out: &mut Writer, mut request: Reader, aux: u32) -> Outcome {
    match aux {
        1 => {
            request.skip().ok_or(Code::BAD_CONFIG)?;
            out.uint(request.0.len() as u64);
        }
        2 => copy(out, request.get("key").ok_or(Code::UNSUPPORTED)?),
        3 => {
            out.array(2).hex(request.0).bool(request.find("no").is_some());
        }
        4 => {
            out.array(8);
            (0..8).for_each(|_| drop(out.bin(request.0)));
        }
        5 => return Err(Code::BAD_CONFIG.because("not today")),
        6 => {
            out.array(2);
            for key in ["a", "b"] {
                out.f64(request.get(key).and_then(Value::as_f64).unwrap_or(0.0));
            }
        }
        _ => {
            while !request.0.is_empty() {
                copy(out, request.next().ok_or(Code::BAD_CONFIG)?);
            }
        }
    }
    Ok(())
}
fn decode(_: &mut Writer, _: &[u8], _: u32) -> Outcome {
    Err(Code::DROP.into())
}
gw1::plugin! { decode: decode, encode: encode }
"""
_GO = """
package main

import "gw1"

func copyValue(out *gw1.Writer, v gw1.Value) error {
	switch v.Type {
	case gw1.Nil:
		out.Nil()
	case gw1.Bool:
		out.Bool(v.Uint != 0)
	case gw1.Uint:
		out.Uint(v.Uint)
	case gw1.Int:
		out.Int(v.Int)
	case gw1.F64:
		out.F64(v.F64)
	case gw1.Str:
		out.Text(v.Bytes)
	case gw1.Bin:
		out.Bin(v.Bytes)
	case gw1.Array:
		out.Array(v.Len)
	case gw1.Map:
		out.Map(v.Len)
	default:
		return gw1.BadConfig
	}
	return nil
}

func encode(out *gw1.Writer, request gw1.Reader, aux uint32) error {
	switch aux {
	case 1:
		if !request.Skip() {
			return gw1.BadConfig
		}
		out.Uint(uint64(len(request.Rest())))
	case 2:
		found, there := request.Find("key")
		if !there {
			return gw1.Unsupported
		}
		if copyValue(out, found.Next()) != nil {
			return gw1.Unsupported
		}
	case 3:
		_, there := request.Find("no")
		out.Array(2).Hex(request.Rest()).Bool(there)
	case 4:
		out.Array(8)
		for range 8 {
			out.Bin(request.Rest())
		}
	case 5:
		return gw1.BadConfig.Because("not today")
	case 6:
		out.Array(2).F64(request.Get("a").F64).F64(request.Get("b").F64)
	default:
		for len(request.Rest()) > 0 {
			if err := copyValue(out, request.Next()); err != nil {
				return err
			}
		}
	}
	return nil
}

func init() {
	gw1.Register(gw1.Plugin{
		Decode: func(*gw1.Writer, []byte, uint32) error { return gw1.Drop },
		Encode: encode,
	})
}

func main() {}
"""
_AS = """
import { Bytes, Code, Reader, Type, Writer, decoder, encoder, fail } from "gw1";

function copy(out: Writer, v: Reader): bool {
  if (v.type == Type.Nil) out.nil();
  else if (v.type == Type.Bool) out.bool(v.uint != 0);
  else if (v.type == Type.Uint) out.uint(v.uint);
  else if (v.type == Type.Int) out.int(v.int);
  else if (v.type == Type.F64) out.f64(v.f64);
  else if (v.type == Type.Str) out.text(v.text, v.count);
  else if (v.type == Type.Bin) out.bin(v.text, v.count);
  else if (v.type == Type.Array) out.array(v.count);
  else if (v.type == Type.Map) out.map(v.count);
  else return false;
  return true;
}
encoder((out: Writer, request: Reader, aux: u32): Code => {
  if (aux == 1) {
    if (!request.skip()) return Code.BadConfig;
    out.uint(request.end - request.at);
  } else if (aux == 2) {
    if (!copy(out, request.get("key"))) return Code.Unsupported;
  } else if (aux == 3) {
    out.array(2).hex(request.at, <i32>(request.end - request.at)).bool(request.find("no"));
  } else if (aux == 4) {
    out.array(8);
    for (let i = 0; i < 8; i++) out.bin(request.at, <i32>(request.end - request.at));
  } else if (aux == 5) {
    return fail(Code.BadConfig, "not today");
  } else if (aux == 6) {
    out.array(2).f64(request.get("a").f64).f64(request.get("b").f64);
  } else {
    while (request.at < request.end) {
      request.next();
      if (!copy(out, request)) return Code.BadConfig;
    }
  }
  return Code.Written;
});
decoder((out: Writer, frame: Bytes, aux: u32): Code => Code.Drop);
"""
_SOURCES = {
    "zig": ("zig", "main.zig", _ZIG),
    "rust": ("rust", "lib.rs", _RUST),
    "go": ("go", "main.go", _GO),
    "as": ("assemblyscript", "main.ts", _AS),
}
_MANIFEST = """
id = "copy"
version = "1.0.0"
license = "Apache-2.0"
[build]
language = "{}"
sources = ["{}"]
[limits]
memory_mib = 32
deadline_ms = 1000
start_deadline_ms = 1000
[caps]
wasi = {}
"""


@pytest.fixture(scope="module", params=_SOURCES)
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WasmCodec]:
    require_toolchain(request.param)
    language, name, source = _SOURCES[request.param]
    folder: Path = tmp_path_factory.mktemp(request.param) / "copy"
    folder.mkdir()
    (folder / name).write_text(source)
    (folder / "plugin.toml").write_text(_MANIFEST.format(language, name, str(language == "go").lower()))
    if language == "go":
        (folder / "go.mod").write_text("module codec/copy\n\ngo 1.24\n")
    build_plugin(folder)
    with opened(str(folder), folder.parent) as piece, piece.codec() as codec:
        yield codec
        assert (codec.stats.traps, codec.stats.kills) == (0, 0)


_keys = st.text(max_size=40)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from(
        [edge + step for edge in (0, 2**7, 2**8, 2**16, 2**32, -(2**5), -(2**7), -(2**15)) for step in (-1, 0, 1)]
    )
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(_keys, inner, max_size=20),
    max_leaves=15,
)


@settings(max_examples=150)
@given(value=_values)
def test_what_is_read_is_written_byte_for_byte(copy: WasmCodec, value: object) -> None:
    packed = msgspec.msgpack.encode(value)
    assert copy.encode(packed) == packed
    assert copy.encode(packed, 1) == b"\x00"
    assert copy.encode(packed + b"\xc0\xc0", 1) == b"\x02"
    assert msgspec.msgpack.decode(copy.encode(packed, 3))[0] == packed.hex()


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65535, 65536, 100_000])
def test_every_length_of_text_bytes_and_lists_is_written_in_its_shortest_form(copy: WasmCodec, size: int) -> None:
    for value in ("x" * size, b"\x00" * size, [None] * size, {str(n): None for n in range(min(size, 20_000))}):
        packed = msgspec.msgpack.encode(value)
        assert copy.encode(packed) == packed


@settings(max_examples=80)
@given(
    before=st.dictionaries(_keys.filter(lambda key: key != "key"), _values, max_size=4),
    value=st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=40) | st.floats(allow_nan=False),
)
def test_a_key_is_found_wherever_it_stands(copy: WasmCodec, before: dict[str, object], value: object) -> None:
    found = copy.encode(msgspec.msgpack.encode({**before, "key": value, "z": 1}), 2)
    assert found == msgspec.msgpack.encode(value)
    with pytest.raises(CodecError) as refused:
        copy.encode(msgspec.msgpack.encode(before), 2)
    assert refused.value.number == 5


def test_what_does_not_fit_the_output_is_code_4_and_what_fits_to_the_last_byte_is_written(copy: WasmCodec) -> None:
    fits = b"x" * ((1024 * 1024 - 1) // 8 - 5)  # a head for the list, and one of five bytes for each item
    assert copy.encode(fits, 4) == msgspec.msgpack.encode([fits] * 8)
    with pytest.raises(CodecError) as refused:
        copy.encode(fits + b"x", 4)
    assert refused.value.number == 4
    assert copy.encode(b"\x07") == b"\x07"


def test_the_words_of_a_call_before_are_not_those_of_an_output_that_is_too_large(copy: WasmCodec) -> None:
    with pytest.raises(CodecError, match="not today"):
        copy.encode(b"\xc0", 5)
    with pytest.raises(CodecError) as refused:
        copy.encode(b"x" * (1024 * 1024 // 8), 4)
    assert refused.value.number == 4
    assert "not today" not in str(refused.value)


def test_a_key_that_is_missing_has_no_number_of_another(copy: WasmCodec) -> None:
    assert copy.encode(msgspec.msgpack.encode({"a": 21.5}), 6) == msgspec.msgpack.encode([21.5, 0.0])


def test_keys_that_are_containers_are_stepped_over(copy: WasmCodec) -> None:
    pairs = b"\x83" + b"\x92\xa3key\x01" + b"\x05" + b"\x81\xa3key\x02" + b"\x06" + b"\xa3key" + b"\x07"
    assert copy.encode(pairs, 2) == b"\x07"


def test_floats_of_four_bytes_are_read_as_what_they_are(copy: WasmCodec) -> None:
    assert copy.encode(b"\xca\x3f\x20\x00\x00") == msgspec.msgpack.encode(0.625)


@settings(max_examples=300)
@given(data=st.binary(max_size=60), aux=st.integers(0, 3))
def test_any_bytes_give_an_answer_or_a_code_and_never_a_trap(copy: WasmCodec, data: bytes, aux: int) -> None:
    try:
        copied = copy.encode(data, aux)
    except CodecError as refused:
        assert refused.number in {5, 7}  # noqa: PT017 - either, or an answer
    else:
        if aux == 0:  # what it takes for msgpack is read by itself again
            assert copy.encode(copied) == copied
    assert (copy.stats.traps, copy.stats.kills) == (0, 0)


@pytest.mark.parametrize(
    "text", [b"\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe4\xbd"]
)
def test_text_that_is_not_utf_8_ends_the_input(copy: WasmCodec, text: bytes) -> None:
    with pytest.raises(CodecError) as refused:
        copy.encode(bytes([0xA0 + len(text)]) + text)
    assert refused.value.number == 7


def test_extension_types_are_refused(copy: WasmCodec) -> None:
    for data in (b"\xc1", b"\xc7\x00\x01", b"\xd4\x01\x00", b"\xd6\xff\x00\x00\x00\x00"):
        with pytest.raises(CodecError):
            copy.encode(data)
        with pytest.raises(CodecError):
            copy.encode(data, 1)
