"""State over a reload, in every SDK: what one instance saves, the next one loads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from made_plugins import require_toolchain

from gateway.workbench.build import build_plugin
from gateway.workbench.check import check
from gateway.workbench.piece import opened
from gateway.workbench.templates import Template, new_plugin

# Behind each language's example: what is carried is the prefix of the sensors' names.
_CARRYING: dict[Template, str] = {
    "c": r"""
static int32_t save(gw_out *out) { gw_str(out, prefix.text, prefix.len); return GW_WRITTEN; }
static int32_t load(gw_in state) {
    gw_value text = gw_next(&state);
    if (text.type != GW_T_STR || text.len > MOST_PREFIX) return gw_error(GW_BAD_CONFIG, "no state of ours");
    memcpy(prefix.text, text.text, text.len);
    prefix.len = text.len;
    return 0;
}
GW_STATE(save, load)
""",
    "zig": """
fn save(out: *gw1.Writer) gw1.Failure!void {
    out.str(prefix);
}
fn load(state: gw1.Reader) gw1.Failure!void {
    var in = state;
    const text = in.next() orelse gw1.Value.nil;
    if (text != .str or text.str.len > most_prefix) return gw1.fail(error.BadConfig, "no state of ours");
    @memcpy(prefix_text[0..text.str.len], text.str);
    prefix = prefix_text[0..text.str.len];
}
comptime {
    gw1.plugin(.{ .init = init, .decode = decode, .encode = encode, .save = save, .load = load });
}
""",
    "go": """
func init() {
	carry.Register(
		func(out *gw1.Writer) error { out.Str(prefix); return nil },
		func(state gw1.Reader) error {
			text := state.Next()
			if text.Type != gw1.Str || len(text.Bytes) > mostPrefix {
				return gw1.BadConfig.Because("no state of ours")
			}
			prefix = string(text.Bytes)
			return nil
		},
	)
}
""",
    "as": """
import { carrier } from "gw1_state";
export { gw_state_load, gw_state_save } from "gw1_state";
carrier(
  (out: Writer): Code => {
    out.str(prefix);
    return Code.Written;
  },
  (state: Reader): Code => {
    if (state.next() != Type.Str || state.count > MOST_PREFIX) return fail(Code.BadConfig, "no state of ours");
    prefix = state.str();
    return Code.Written;
  },
);
""",
    "rust": """
fn save(out: &mut Writer) -> Outcome {
    PREFIX.with(|prefix| out.str(&prefix.borrow()));
    Ok(())
}
fn load(mut state: Reader) -> Outcome {
    match state.next() {
        Some(Value::Str(text)) if text.len() <= MOST_PREFIX => {
            PREFIX.with(|prefix| *prefix.borrow_mut() = text.to_string());
            Ok(())
        }
        _ => Err(Code::BAD_CONFIG.because("no state of ours")),
    }
}
gw1::plugin! { init: init, decode: decode, encode: encode, save: save, load: load }
""",
}
_OLD_GLUE = {
    "zig": "comptime {\n    gw1.plugin(.{ .init = init, .decode = decode, .encode = encode });\n}\n",
    "rust": "gw1::plugin! { init: init, decode: decode, encode: encode }\n",
    "go": '\t"gw1"\n',
}
_NEW_GLUE = {"zig": "", "rust": "", "go": '\t"gw1"\n\t"gw1/carry"\n'}


_SOURCES = {
    "c": "src/carrier.c",
    "zig": "src/carrier.zig",
    "as": "src/carrier.ts",
    "go": "main.go",
    "rust": "src/lib.rs",
}


def carrying(language: Template, root: Path) -> Path:
    """A new plugin whose example carries its prefix over a reload."""
    folder = new_plugin(language, "carrier", root).folder
    source = folder / _SOURCES[language]
    text = source.read_text()
    if language in _OLD_GLUE:
        assert _OLD_GLUE[language] in text
        text = text.replace(_OLD_GLUE[language], _NEW_GLUE[language])
    source.write_text(text + _CARRYING[language])
    manifest = folder / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("[schema]", "[state]\ncarry = true\n\n[schema]"))
    build_plugin(folder)
    return folder


@pytest.mark.parametrize("language", _CARRYING)
def test_what_one_instance_saves_the_next_one_loads(language: Template, tmp_path: Path) -> None:
    require_toolchain(language)
    folder = carrying(language, tmp_path)
    with opened(str(folder), tmp_path) as piece:
        assert [one.detail for one in check(piece) if one.grade != "ok"] == []
        program = piece.start()
        try:
            assert program.save_state(1.0) == msgspec.msgpack.encode("sensor-")
            assert program.load_state(msgspec.msgpack.encode("Büro ☀ "), 1.0)
            assert program.save_state(1.0) == msgspec.msgpack.encode("Büro ☀ ")
            for no_state in (b"", b"\xc1", b"\x05", msgspec.msgpack.encode("x" * 33), b"\xdb\xff\xff\xff\xff"):
                assert not program.load_state(no_state, 1.0)
            assert program.save_state(1.0) == msgspec.msgpack.encode("Büro ☀ ")
        finally:
            program.close()
