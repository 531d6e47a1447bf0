"""`gateway plugin check|test|bench|decode` on plugins made here: what each finds, and what it says."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import wasmtime
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import main
from gateway.core.errors import ConfigError
from gateway.wasm.package import pack_folder
from gateway.workbench.build import build_plugin
from gateway.workbench.check import check
from gateway.workbench.fuzz import fuzz, mutations, shortest
from gateway.workbench.measure import BATCHES, measure
from gateway.workbench.piece import opened
from gateway.workbench.shipped import shipped_plugins

SOURCE = """#include "gw1.h"
static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {
    if (len < 2) return gw_error(GW_TRUNCATED, "two bytes");
    TRAP
    gw_map(out, 2);
    gw_key(out, "kind");   gw_lit(out, "report");
    gw_key(out, "points"); gw_array(out, 1);
    gw_map(out, 1);
    gw_key(out, "values"); gw_map(out, 1);
    gw_key(out, "temperature"); gw_f64(out, (int16_t)gw_be16(frame) / 10.0);
    return GW_WRITTEN;
}
GW_DECODER(decode)
"""
MANIFEST = """id = "meter"
version = "1.0.0"
license = "Apache-2.0"
description = "A meter."
[match]
profiles = ["Meter M-1"]
[schema]
fields = [{ name = "temperature", type = "float", unit = "Cel" }]
[build]
sources = ["meter.c"]
[[test]]
name = "21.5 degrees"
frame = "00d7"
item = { kind = "report", points = [{ values = { temperature = 21.5 } }] }
[[test]]
name = "half a frame"
frame = "00"
error = 1
"""
README = (
    "# Meter\n\nThe Meter M is read every minute over a serial line. " + "It reports one temperature in tenths. " * 8
)
MakeMeter = Callable[..., Path]


@pytest.fixture
def meter(tmp_path: Path) -> MakeMeter:
    def make(manifest: str = MANIFEST, *, trap: str = "", readme: str = README) -> Path:
        folder = tmp_path / "meter"
        folder.mkdir()
        (folder / "meter.c").write_text(SOURCE.replace("TRAP", trap))
        (folder / "plugin.toml").write_text(manifest)
        (folder / "README.md").write_text(readme)
        build_plugin(folder)
        return folder

    return make


def findings(folder: Path, grade: str) -> dict[str, str]:
    with opened(str(folder), Path("nowhere")) as piece:
        return {one.what: one.detail for one in check(piece) if one.grade == grade}


def gateway(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_a_plugin_that_keeps_every_promise_has_no_finding(meter: MakeMeter) -> None:
    folder = meter()
    assert findings(folder, "fail") == {}
    assert findings(folder, "warn") == {}
    outcome = gateway("plugin", "check", str(folder), "--strict")
    assert outcome.exit_code == 0, outcome.output
    assert "ok   2 vectors pass" in outcome.output


@pytest.mark.parametrize(
    ("old", "new", "what", "says"),
    [
        ('unit = "Cel"', 'unit = "celsius"', "unit of temperature", "Cel"),
        ("temperature = 21.5", "temperature = 21.6", "vector 21.5 degrees", "expected 21.6, got 21.5"),
        ("[match]", "[caps]\nclock = true\n[match]", "capabilities", "asked for and not used: clock"),
        ("[match]", "[state]\ncarry = true\n[match]", "state", "gw_state_save"),
        ("[match]", "[limits]\nmemory_mib = 1\n[match]", "memory", "allows 1,048,576"),
        (
            '{ name = "temperature", type = "float", unit = "Cel" }',
            '{ name = "a", type = "int" }, { name = "a", type = "int" }',
            "schema",
            "named twice: a",
        ),
        ('kind = "report", points', 'kind = "event", points', "vector 21.5 degrees", "item.kind"),
    ],
)
def test_each_broken_promise_is_found_and_named(meter: MakeMeter, old: str, new: str, what: str, says: str) -> None:
    assert old in MANIFEST
    folder = meter(MANIFEST.replace(old, new, 1))
    assert says in findings(folder, "fail")[what]
    assert gateway("plugin", "check", str(folder)).exit_code == 1


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('version = "1.0.0"', 'version = "one"', "version one"),
        ('description = "A meter."\n', "", "description"),
        ('profiles = ["Meter M-1"]', 'profiles = ["Sundial"]', "README.md names the device"),
    ],
)
def test_what_could_be_better_is_a_warning_and_a_failure_when_asked_for(
    meter: MakeMeter, old: str, new: str, what: str
) -> None:
    folder = meter(MANIFEST.replace(old, new, 1))
    assert what in findings(folder, "warn")
    assert gateway("plugin", "check", str(folder)).exit_code == 0
    assert gateway("plugin", "check", str(folder), "--strict").exit_code == 1


def test_no_readme_and_no_vectors_are_failures(meter: MakeMeter) -> None:
    folder = meter(MANIFEST.partition("[[test]]")[0], readme="")
    assert {"README.md", "vectors"} <= findings(folder, "fail").keys()


def test_a_module_of_another_abi_is_one_finding(meter: MakeMeter) -> None:
    folder = meter()
    (folder / "meter.wasm").write_bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1))'))
    assert "does not export gw_abi" in findings(folder, "fail")["module"]


def test_a_package_is_checked_as_its_folder_is(meter: MakeMeter, tmp_path: Path) -> None:
    package = pack_folder(meter(), tmp_path)
    assert findings(package, "fail") == {}


def test_a_plugin_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"no plugin 'nix': .* nor one below .*, nor shipped"),
        opened("nix", tmp_path),
    ):
        pass
    outcome = gateway("plugin", "test", "nix")
    assert outcome.exit_code == 1
    assert "no plugin 'nix'" in outcome.output


def test_fuzzing_a_sound_plugin_gives_values_and_codes_only(meter: MakeMeter) -> None:
    with opened(str(meter()), Path()) as piece:
        result = fuzz(piece, seconds=0.3, seed=1)
    assert result.failure == ""
    assert result.accepted
    assert result.refused
    assert result.inputs == result.accepted + result.refused


@pytest.mark.parametrize(
    "trap", ["if (frame[1] == 0xff) __builtin_trap();", "if (frame[1] == 0xff) for (volatile int i = 0;;) i = 0;"]
)
def test_fuzzing_finds_a_trap_and_a_loop_and_shows_the_shortest_frame(meter: MakeMeter, trap: str) -> None:
    folder = meter(
        MANIFEST.replace("[match]", "[limits]\ndeadline_ms = 10\nbatch_deadline_ms = 20\n[match]"), trap=trap
    )
    with opened(str(folder), Path()) as piece:
        result = fuzz(piece, seconds=60, seed=2)
    assert result.failure == "a frame of 2 bytes traps or runs out of time"
    frame = bytes.fromhex(result.failing_hex)
    assert (len(frame), frame[1]) == (2, 0xFF)


def test_the_command_shows_what_broke_and_fails(meter: MakeMeter) -> None:
    folder = meter(trap="if (len > 40) __builtin_trap();")
    outcome = gateway("plugin", "test", str(folder), "--seconds", "60", "--seed", "3")
    assert outcome.exit_code == 1
    assert "2 of 2 vectors pass" in outcome.output
    assert "FAIL a frame of 41 bytes traps or runs out of time; input (seed 3, aux" in outcome.output


def test_the_command_throws_something_and_fails_where_it_did_not(meter: MakeMeter) -> None:
    folder = meter()
    thrown = gateway("plugin", "test", str(folder), "--seconds", "0.2")
    assert thrown.exit_code == 0, thrown.output
    assert re.search(
        r"^[1-9][\d,]* damaged inputs: [1-9][\d,]* values, [1-9][\d,]* error codes$", thrown.output, re.MULTILINE
    )
    nothing = gateway("plugin", "test", str(folder), "--seconds", "1e-300")
    assert nothing.exit_code == 1
    assert "FAIL nothing was thrown in 1e-300 s" in nothing.output
    vectors_alone = gateway("plugin", "test", str(folder), "--seconds", "0")
    assert vectors_alone.exit_code == 0
    assert "damaged inputs" not in vectors_alone.output


def test_the_same_seed_throws_the_same(meter: MakeMeter) -> None:
    seeds = [b"abc", b"defgh"]
    first, second = (list(islice(mutations(seeds, random.Random(5)), 200)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 100


def test_there_is_something_to_throw_without_any_vector() -> None:
    assert len(set(islice(mutations([], random.Random(1)), 50))) > 40


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=3))
def test_the_shortest_input_still_breaks_and_no_byte_of_it_can_go(noise: bytes, needle: bytes) -> None:
    found = shortest(noise + needle + noise, lambda data: needle in data)
    assert found == needle


def test_an_input_is_made_shorter_only_while_there_is_time() -> None:
    tried: list[bytes] = []
    assert shortest(bytes(1000), lambda data: tried.append(data) is None, seconds=0) == bytes(1000)
    assert tried == []


@pytest.mark.parametrize("plugin_id", ["sm3", "feishu", "webhook"])
def test_arguments_of_a_caller_are_fuzzed_too(plugin_id: str) -> None:
    folder = shipped_plugins() / plugin_id
    build_plugin(folder)
    with opened(str(folder), Path()) as piece:
        result = fuzz(piece, seconds=0.5, seed=0)
    assert result.failure == ""
    assert result.refused


ECHO = """#include "gw1.h"
static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
    gw_value text = gw_get(in, "text");
    if (text.type != GW_T_STR) return gw_error(GW_BAD_CONFIG, "give a text");
    gw_str(out, text.text, CUT);
    return GW_WRITTEN;
}
GW_CALLER(call)
"""
ECHO_MANIFEST = """id = "echo"
version = "1.0.0"
kind = "algo"
license = "Apache-2.0"
[build]
sources = ["echo.c"]
[[test]]
call = { text = "81 \u2103" }
result = "81 \u2103"
"""


@pytest.mark.parametrize(("cut", "says"), [("text.len", ""), ("text.len > 5 ? text.len - 1 : text.len", "malformed")])
def test_a_caller_may_give_back_text_that_came_broken_and_must_not_break_what_came_whole(
    tmp_path: Path, cut: str, says: str
) -> None:
    folder = tmp_path / "echo"
    folder.mkdir()
    (folder / "plugin.toml").write_text(ECHO_MANIFEST)
    (folder / "echo.c").write_text(ECHO.replace("CUT", cut))
    build_plugin(folder)
    with opened(str(folder), Path()) as piece:
        result = fuzz(piece, seconds=0.5 if not says else 60, seed=1)
    assert says in result.failure
    assert bool(result.failure) == bool(says)
    assert result.inputs


def test_a_bench_has_a_figure_for_each_batch_beside_the_reference(meter: MakeMeter) -> None:
    build_plugin(shipped_plugins() / "jt808")
    with opened(str(meter()), Path()) as piece, opened("jt808", Path()) as reference:
        figures = list(measure(piece, reference))
    assert [figure.batch for figure in figures] == list(BATCHES)
    assert all(figure.per_s > 0 and figure.ratio for figure in figures)


def test_a_bench_without_a_frame_that_decodes_says_so(meter: MakeMeter) -> None:
    folder = meter(MANIFEST.partition("[[test]]")[0])
    with opened(str(folder), Path()) as piece, pytest.raises(ConfigError, match="no vector holds a frame that decodes"):
        list(measure(piece, None))


def test_the_command_measures_first_and_shows_no_table_without_figures(meter: MakeMeter) -> None:
    build_plugin(shipped_plugins() / "jt808")
    folder = meter()
    table = gateway("plugin", "bench", str(folder))
    assert table.exit_code == 0, table.output
    assert [line.split()[0] for line in table.output.splitlines()] == ["batch", *map(str, BATCHES)]
    (folder / "plugin.toml").write_text(MANIFEST.partition("[[test]]")[0])
    nothing = gateway("plugin", "bench", str(folder))
    assert nothing.exit_code == 1
    assert "no vector holds a frame that decodes" in nothing.output
    assert "frames/s" not in nothing.output


def test_the_tools_work_in_a_folder_without_any_configuration(
    meter: MakeMeter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = meter()
    away = tmp_path / "away"
    shutil.copytree(folder, away / "plugins" / "meter")
    monkeypatch.chdir(away)
    assert '"temperature"' not in gateway("plugin", "decode", "meter", "00").output
    outcome = gateway("plugin", "decode", "meter", "00d7")
    assert outcome.exit_code == 0, outcome.output
    assert '"temperature": 21.5' in outcome.output
    assert gateway("plugin", "decode", "meter", "0g").exit_code == 2
    assert gateway("plugin", "bench", "sm3").exit_code == 0
