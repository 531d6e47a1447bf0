"""`plugins/sdk/c/gw1.h`, compiled: its reader and writer against msgspec's, and what it does at its bounds."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from guests_gw1 import Sandbox
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import CodecError, ConfigError
from gateway.wasm.host import WasmCodec
from gateway.wasm.manifest import Limits
from gateway.workbench.build import build_plugin

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="needs the plugin compiler: pip install ziglang"
)

# Encoding copies msgpack from the reader to the writer, value by value. aux 1: skip it. aux 2: look up "key".
# Decoding a frame of n bytes gives an item whose `value` is a string of 100 * n bytes; "!" gives its own code 300.
_SOURCE = r"""
#include "gw1.h"

static int32_t copy(gw_out *out, gw_in in) {
    while (in.at < in.end) {
        gw_value v = gw_next(&in);
        switch (v.type) {
        case GW_T_END: return gw_error(GW_BAD_CONFIG, "not msgpack");
        case GW_T_NIL: gw_nil(out); break;
        case GW_T_BOOL: gw_bool(out, v.uint); break;
        case GW_T_UINT: gw_uint(out, v.uint); break;
        case GW_T_INT: gw_int(out, v.sint); break;
        case GW_T_F64: gw_f64(out, v.f64); break;
        case GW_T_STR: gw_str(out, v.text, v.len); break;
        case GW_T_BIN: gw_bin(out, v.text, v.len); break;
        case GW_T_ARRAY: gw_array(out, v.len); break;
        case GW_T_MAP: gw_map(out, v.len); break;
        }
    }
    return GW_WRITTEN;
}

static int32_t encode(gw_out *out, gw_in request, uint32_t aux) {
    if (aux == 1) {
        if (!gw_skip(&request)) return gw_error(GW_BAD_CONFIG, "not msgpack");
        gw_uint(out, (uint64_t)(request.end - request.at));
        return GW_WRITTEN;
    }
    if (aux == 2) {
        gw_in value;
        if (!gw_find(request, "key", &value)) return GW_UNSUPPORTED;
        value.end = request.end;
        gw_in after = value;
        if (!gw_skip(&after)) return GW_BAD_CONFIG;
        gw_raw(out, value.at, (size_t)(after.at - value.at));
        return GW_WRITTEN;
    }
    if (aux == 3) {
        uint8_t *head = gw_map_open(out);
        gw_key(out, "hex"); gw_hex(out, request.at, (size_t)(request.end - request.at));
        gw_key(out, "int"); gw_int(out, gw_get_int(request, "int", -7));
        gw_close(out, head, 2);
        return GW_WRITTEN;
    }
    return copy(out, request);
}
GW_ENCODER(encode)

static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {
    if (len && frame[0] == '!') { gw_map(out, 9); return gw_error(GW_OWN + 44, "own"); }
    if (len && frame[0] == '?') return GW_DROP;
    gw_map(out, 2);
    gw_key(out, "kind"); gw_lit(out, "report");
    gw_key(out, "value"); gw_tag16(out, 0xda, (uint16_t)(100 * len));
    for (uint32_t i = 0; i < 100 * len; i++) gw_byte(out, 'x');
    return GW_WRITTEN;
}
GW_DECODER(decode)
"""


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WasmCodec]:
    folder: Path = tmp_path_factory.mktemp("plugins") / "copy"
    folder.mkdir()
    (folder / "copy.c").write_text(_SOURCE)
    (folder / "plugin.toml").write_text(
        'id = "copy"\nversion = "1"\nlicense = "MIT"\n[build]\nsources = ["copy.c"]\n'
        'flags = ["-DGW_IN_BYTES=32768u", "-DGW_OUT_BYTES=4096u", "-Werror"]\n'
    )
    wasm = build_plugin(folder).read_bytes()
    sandbox = Sandbox("fast")
    patient = Limits(max_input=32768, deadline_ms=1000, batch_deadline_ms=1000)
    yield sandbox.codec(wasm, limits=patient)
    sandbox.close()


_keys = st.text(max_size=40)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(_keys, inner, max_size=20),
    max_leaves=15,
)


@settings(deadline=None, max_examples=200)
@given(value=_values)
def test_what_is_read_is_written_byte_for_byte(codec: WasmCodec, value: object) -> None:
    packed = msgspec.msgpack.encode(value)
    if len(packed) > 4096:
        with pytest.raises(CodecError) as refused:
            codec.encode(packed)
        assert refused.value.number == 4
    else:
        assert codec.encode(packed) == packed
    assert codec.encode(packed, 1) == b"\x00"


@settings(deadline=None, max_examples=200)
@given(before=st.dictionaries(_keys.filter(lambda key: key != "key"), _values, max_size=4), value=_values)
def test_a_key_is_found_wherever_it_stands(codec: WasmCodec, before: dict[str, object], value: object) -> None:
    packed = msgspec.msgpack.encode(value)
    if len(packed) <= 4096:
        assert codec.encode(msgspec.msgpack.encode({**before, "key": value, "z": 1}), 2) == packed
    with pytest.raises(CodecError) as refused:
        codec.encode(msgspec.msgpack.encode(before), 2)
    assert refused.value.number == 5


@settings(deadline=None, max_examples=500)
@given(data=st.binary(max_size=60), aux=st.integers(0, 3))
def test_no_bytes_make_the_reader_trap(codec: WasmCodec, data: bytes, aux: int) -> None:
    try:
        codec.encode(data, aux)
    except CodecError as error:
        assert error.number in {4, 5, 7}  # noqa: PT017 - any of these, or a result
    assert codec.stats.traps == 0
    assert codec.stats.kills == 0


def test_a_giant_count_ends_at_the_inputs_end(codec: WasmCodec) -> None:
    for data in (b"\xdf\xff\xff\xff\xff\x01", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffabc", b"\x91" * 30000):
        with pytest.raises(CodecError):
            codec.encode(data, 1)


def test_counts_hex_and_defaults(codec: WasmCodec) -> None:
    request = msgspec.msgpack.encode({"int": -300})
    assert msgspec.msgpack.decode(codec.encode(request, 3)) == {"hex": request.hex(), "int": -300}
    assert msgspec.msgpack.decode(codec.encode(b"\x80", 3)) == {"hex": "80", "int": -7}


def test_an_item_that_does_not_fit_is_code_4_and_its_neighbours_live(codec: WasmCodec) -> None:
    results = codec.decode_batch([b"a", b"b" * 50, b"c", b"!", b"?", b"d"])
    kinds = [result if result is None or isinstance(result, int) else len(result.value) for result in results]
    assert kinds == [103, 4, 103, 300, None, 103]


def test_items_that_fit_alone_but_not_together_all_come_through(codec: WasmCodec) -> None:
    results = codec.decode_batch([b"a" * 15] * 40)
    assert [len(result.value) for result in results] == [1503] * 40  # type: ignore[union-attr]  # all are items


def test_a_plugin_whose_buffer_is_smaller_than_its_max_input_is_refused(tmp_path: Path, make_codec: object) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "small.c").write_text(_SOURCE)
    (folder / "plugin.toml").write_text(
        'id = "small"\nversion = "1"\nlicense = "MIT"\n'
        '[build]\nsources = ["small.c"]\nflags = ["-DGW_IN_BYTES=1024u"]\n'
    )
    wasm = build_plugin(folder).read_bytes()
    sandbox = Sandbox("fast")
    with pytest.raises(ConfigError, match="no input buffer of max_input"):
        sandbox.codec(wasm)
    sandbox.close()


def test_the_headers_buffers_fit_the_default_limits() -> None:
    text = (Path(__file__).parents[2] / "plugins" / "sdk" / "c" / "gw1.h").read_text()
    assert f"#define GW_IN_BYTES ({Limits().max_input // 1024}u * 1024u)" in text
    assert f"#define GW_OUT_BYTES ({Limits().max_output // 1024}u * 1024u)" in text
