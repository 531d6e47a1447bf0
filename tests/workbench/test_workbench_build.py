"""Building from source, with the real compiler where it is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from fakes.eventually import eventually
from process_end import ended

from gateway.core.errors import ConfigError
from gateway.wasm.manifest import plugin_folders
from gateway.workbench import build, toolchains
from gateway.workbench.build import build_all, build_plugin, built_digest
from gateway.workbench.toolchains import Toolchain

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="needs the plugin compiler: pip install ziglang"
)

_SOURCE = """#include "gw1.h"
static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {
    gw_map(out, 1); gw_key(out, "kind"); gw_lit(out, "heartbeat");
    return GW_WRITTEN;
}
GW_DECODER(decode)
"""
_MANIFEST = 'id = "{}"\nversion = "1"\nlicense = "MIT"\n[build]\nsources = ["main.c"]\nflags = ["-O1"]\n'


def make(root: Path, name: str = "beat", source: str = _SOURCE) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "plugin.toml").write_text(_MANIFEST.format(name))
    (folder / "main.c").write_text(source)
    return folder


@needs_compiler
def test_a_module_is_built_only_when_something_it_is_made_of_changed(tmp_path: Path) -> None:
    folder = make(tmp_path)
    target = build_plugin(folder)
    assert target == folder / "beat.wasm"
    first = (target.stat().st_mtime_ns, target.read_bytes())
    assert build_plugin(folder) == target
    assert target.stat().st_mtime_ns == first[0]
    (folder / "main.c").touch()
    build_plugin(folder)
    assert target.stat().st_mtime_ns == first[0]  # newer, but the same
    (folder / "extra.h").write_text("#define X 1\n")
    build_plugin(folder)
    second = target.stat().st_mtime_ns
    assert second != first[0]
    (folder / "plugin.toml").write_text(_MANIFEST.format("beat").replace("-O1", "-O3"))
    build_plugin(folder)
    assert target.stat().st_mtime_ns != second
    assert sorted(path.name for path in folder.iterdir()) == ["beat.wasm", "extra.h", "main.c", "plugin.toml"]


@needs_compiler
def test_the_compilers_words_are_shown_and_the_old_module_stays(tmp_path: Path) -> None:
    folder = make(tmp_path)
    before = build_plugin(folder).read_bytes()
    (folder / "main.c").write_text("#error the meter is upside down\n")
    with pytest.raises(ConfigError, match="the meter is upside down"):
        build_plugin(folder)
    assert (folder / "beat.wasm").read_bytes() == before


@needs_compiler
def test_every_plugin_of_a_folder_is_built(tmp_path: Path) -> None:
    make(tmp_path, "one")
    make(tmp_path, "two")
    (tmp_path / "sdk" / "c").mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "plugins" / "sdk" / "c" / "gw1.h", tmp_path / "sdk" / "c")
    assert [path.name for path in build_all(tmp_path)] == ["one.wasm", "two.wasm"]
    assert [path.name for path in plugin_folders(tmp_path)] == ["one", "two"]


@needs_compiler
def test_plugins_that_fail_keep_no_other_from_being_built_and_each_is_told(tmp_path: Path) -> None:
    for name, source in (("bad", "#error first"), ("good", _SOURCE), ("worse", "#error second")):
        make(tmp_path, name, source)
    told: list[str] = []
    with pytest.raises(ConfigError, match=r"(?s)bad: .*worse: |worse: .*bad: "):
        build_all(tmp_path, built=lambda path: told.append(path.name))
    assert told == ["good.wasm"]


def test_what_only_c_can_do_is_refused_for_others(tmp_path: Path) -> None:
    folder = make(tmp_path)
    manifest = _MANIFEST.format("beat").replace("[build]", '[build]\nlanguage = "zig"\nlibc = true')
    (folder / "plugin.toml").write_text(manifest)
    with pytest.raises(ConfigError, match="are for C alone"):
        build_plugin(folder)


def test_a_missing_compiler_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="pip install 'ziglang"):
        build_plugin(make(tmp_path))


@needs_compiler
def test_what_a_script_prints_is_a_header_and_a_changed_print_is_a_new_module(tmp_path: Path) -> None:
    folder = make(tmp_path, source='#include "tables.h"\n' + _SOURCE.replace("heartbeat", '" WORD "'))
    manifest = _MANIFEST.format("beat") + 'generated = { "tables.h" = "tables.py" }\n'
    (folder / "plugin.toml").write_text(manifest)
    (folder / "words.txt").write_text("event")
    (folder / "tables.py").write_text(
        "from pathlib import Path\nword = (Path(__file__).parent / 'words.txt').read_text()\n"
        "print(f'#define WORD \"{word}\"')\n"
    )
    first = build_plugin(folder).read_bytes()
    assert b"event" in first
    made_at = (folder / "beat.wasm").stat().st_mtime_ns
    build_plugin(folder)
    assert (folder / "beat.wasm").stat().st_mtime_ns == made_at
    (folder / "words.txt").write_text("report")
    assert b"report" in build_plugin(folder).read_bytes()
    assert not (folder / "tables.h").exists()


def test_a_script_that_fails_is_shown_with_its_words(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "plugin.toml").write_text(_MANIFEST.format("beat") + 'generated = { "tables.h" = "tables.py" }\n')
    with pytest.raises(ConfigError, match=r"`build\.generated` names tables\.py, which is not there"):
        build_plugin(folder)
    (folder / "tables.py").write_text("raise SystemExit('the table is empty')\n")
    with pytest.raises(ConfigError, match=r"(?s)beat: tables\.py failed:.*the table is empty"):
        build_plugin(folder)


def test_a_script_that_prints_without_end_is_ended_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    folder = make(tmp_path)
    (folder / "plugin.toml").write_text(_MANIFEST.format("beat") + 'generated = { "tables.h" = "tables.py" }\n')
    (folder / "tables.py").write_text("while True:\n    print('#define X 1' * 1000)\n")
    with pytest.raises(ConfigError, match=r"beat: tables\.py prints more than 16777216 bytes"):
        build_plugin(folder)
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == ["main.c", "plugin.toml", "tables.py"]


@needs_compiler
def test_a_plugin_may_use_the_c_library(tmp_path: Path) -> None:
    source = "#include <stdlib.h>\n#include <stdio.h>\n" + _SOURCE.replace(
        "gw_map(out, 1);", 'char *text = malloc(64); snprintf(text, 64, "%u", len); gw_map(out, 1);'
    )
    folder = make(tmp_path, source=source)
    (folder / "plugin.toml").write_text(_MANIFEST.format("beat") + "libc = true\n")
    module = build_plugin(folder).read_bytes()
    assert b"_initialize" in module


@needs_compiler
def test_the_same_sources_in_another_folder_give_the_same_bytes(tmp_path: Path) -> None:
    source = _SOURCE.replace("gw_map(out, 1);", 'gw_map(out, 2); gw_key(out, "device"); gw_cstr(out, __FILE__);')
    modules = []
    for place in ("here", "a longer way"):
        (tmp_path / place).mkdir()
        modules.append(build_plugin(make(tmp_path / place, source=source)).read_bytes())
    assert modules[0] == modules[1]
    assert str(tmp_path).encode() not in modules[0]


@pytest.mark.parametrize("name", ['a "b"', "a\\b", "a\nb", "a\tb", "a\udcffb"])
@pytest.mark.parametrize("language", ["c", "go"])
def test_a_folder_that_compilers_cannot_name_is_refused_before_any_is_asked(
    tmp_path: Path, name: str, language: str
) -> None:
    (tmp_path / name).mkdir()
    folder = make(tmp_path / name)
    (folder / "plugin.toml").write_text(_MANIFEST.format("beat") + f'language = "{language}"\n')
    with pytest.raises(ConfigError, match="rename it, or build a copy elsewhere") as refused:
        build_plugin(folder)
    str(refused.value).encode()  # it can be shown


@needs_compiler
def test_other_signs_in_the_name_of_a_folder_hurt_nobody(tmp_path: Path) -> None:
    place = tmp_path / "one = two, $three (四) #5 [6];*'`@:%"
    place.mkdir()
    assert build_plugin(make(place)).is_file()


@needs_compiler
def test_a_changed_file_that_a_source_embeds_is_a_new_module(tmp_path: Path) -> None:
    source = _SOURCE.replace(
        "gw_map(out, 1);", 'static const char word[] = {\n#include "word.txt"\n};\ngw_map(out, 2); '
    )
    source = source.replace("gw_key", 'gw_key(out, "device"); gw_str(out, word, sizeof word); gw_key', 1)
    folder = make(tmp_path, source=source)
    (folder / "word.txt").write_text("'o','l','d'")
    first = build_plugin(folder).read_bytes()
    (folder / "word.txt").write_text("'n','e','w'")
    assert build_plugin(folder).read_bytes() != first


@needs_compiler
def test_what_no_module_is_made_of_builds_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path)
    manifest = _MANIFEST.format("beat") + '[[test]]\nvectors = "vectors.json"\n'
    (folder / "plugin.toml").write_text(manifest)
    made_at = build_plugin(folder).stat().st_mtime_ns
    for name in ("README.md", "vectors.json", "beat-1.0.0.gwp", ".editor", "target/x.o", "__pycache__/tables.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("more")
    (folder / "plugin.toml").write_text(manifest + "# a note\n")
    assert build_plugin(folder).stat().st_mtime_ns == made_at


def test_a_plugin_with_a_runtime_builds_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "plugin.toml").write_text(
        'id = "beat"\nversion = "1"\nlicense = "MIT"\nruntime = "lorawan-js"\nscript = "codec.js"\n'
    )
    with pytest.raises(ConfigError, match=r"`script` names codec\.js, which is not there"):
        build_plugin(folder)
    (folder / "codec.js").write_text("")
    assert build_plugin(folder) == folder / "codec.js"
    assert not list(folder.glob("*.wasm"))


def test_a_runtime_that_is_there_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    runtime = make(tmp_path, "runner")
    (runtime / "runner.wasm").write_bytes(b"made elsewhere")
    folder = make(tmp_path)
    (folder / "plugin.toml").write_text(
        'id = "beat"\nversion = "1"\nlicense = "MIT"\nruntime = "runner"\nscript = "codec.js"\n'
    )
    (folder / "codec.js").write_text("")
    assert build_plugin(folder) == folder / "codec.js"
    assert (runtime / "runner.wasm").read_bytes() == b"made elsewhere"
    (runtime / "runner.wasm").unlink()
    with pytest.raises(ConfigError, match="pip install 'ziglang"):
        build_plugin(folder)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "main.c").unlink()
    with pytest.raises(ConfigError, match=r"names main\.c, which is not there"):
        build_plugin(folder)


def test_a_plugin_without_sources_is_what_it_is_or_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "plugin.toml").write_text('id = "beat"\nversion = "1"\nlicense = "MIT"\n')
    with pytest.raises(ConfigError, match=r"no `build\.sources`"):
        build_plugin(folder)
    (folder / "beat.wasm").write_bytes(b"made elsewhere")
    assert build_plugin(folder) == folder / "beat.wasm"


def test_a_compiler_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child"
    monkeypatch.setattr(build, "_TIMEOUT_S", 0.5)
    # The grandchild holds the pipes open: were it left alive, the build would wait for it.
    script = f"sleep 600 & echo $! > {child}; wait"
    hanging = Toolchain(command=("sh", "-c", script), environment=dict(os.environ))
    monkeypatch.setattr(toolchains, "zig", lambda _tell: hanging)
    folder = make(tmp_path)
    with pytest.raises(ConfigError, match=r"did not finish in 0\.5 s"):
        build_plugin(folder)
    assert not (folder / "beat.wasm").exists()
    eventually(lambda: ended(int(child.read_text())))  # a signal that was sent may not have arrived yet


def test_a_module_made_elsewhere_has_no_digest() -> None:
    assert built_digest(b"") is None
    assert built_digest(b"\0asm\x01\0\0\0" + bytes(200)) is None


def test_the_compilers_cache_lies_outside_the_tree() -> None:
    cache = Path(build.compiler_environment()["ZIG_GLOBAL_CACHE_DIR"])
    repository = Path(__file__).parents[2]
    assert not cache.is_relative_to(repository) or cache.is_relative_to(repository / ".venv")
