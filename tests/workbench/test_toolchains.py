"""Where compilers come from, and what is said where one is missing."""

from __future__ import annotations

import importlib.util
import json
import re
import stat
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.eventually import eventually
from process_end import ended

from gateway.core.errors import ConfigError
from gateway.workbench import toolchains, tools
from gateway.workbench.toolchains import pinned_version
from gateway.workbench.tools import locked, run_tool

_PINNED = Path(toolchains.__file__).parent / "pinned"


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(toolchains, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def test_every_pin_has_hashes_and_no_address() -> None:
    for path in sorted(_PINNED.rglob("*")):
        if path.is_file():
            assert "://" not in path.read_text(), path.name
    for path in _PINNED.glob("*.txt"):
        text = path.read_text()
        assert re.match(r"[a-z-]+==[0-9.]+ ", text), path.name
        assert text.count("--hash=sha256:") >= 4, path.name
    lock = json.loads((_PINNED / "assemblyscript" / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert "node_modules/assemblyscript" in packages
    assert all(entry["integrity"].startswith("sha512-") and "resolved" not in entry for entry in packages.values())
    wanted = json.loads((_PINNED / "assemblyscript" / "package.json").read_text())["dependencies"]
    assert wanted == {"assemblyscript": packages["node_modules/assemblyscript"]["version"]}


def test_the_compiler_that_an_error_asks_for_is_the_one_of_the_build_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert toolchains.ZIG in project["optional-dependencies"]["build"]


def test_a_changed_pin_is_another_version() -> None:
    versions = {pinned_version(name) for name in ("go", "node", "assemblyscript")}
    assert len(versions) == 3


def test_a_rustc_without_the_target_is_passed_over_and_the_way_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "lib"
    program(tmp_path / "bin" / "rustc", f'case "$1" in --print) echo {empty};; *) echo rustc 9.9.9;; esac')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(toolchains, "_DISTRIBUTION_RUSTC", tmp_path / "nowhere" / "rustc")
    with pytest.raises(ConfigError, match=r"(?s)rustup target add wasm32-unknown-unknown.*apt-get install rustc"):
        toolchains.rust(lambda _line: None)
    assert toolchains.rust_version() == "none"


def test_the_first_rustc_that_has_the_target_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = tmp_path / "lib"
    libraries.mkdir()
    (libraries / "libstd-1234.rlib").touch()
    broken = program(tmp_path / "bin" / "rustc", "echo no toolchain >&2; exit 1")
    answers = f'case "$1" in --print) echo {libraries};; *) echo rustc 1.2.3;; esac'
    whole = program(tmp_path / "usr" / "rustc", answers)
    monkeypatch.setenv("PATH", f"{broken.parent}:/bin:/usr/bin")
    monkeypatch.setattr(toolchains, "_DISTRIBUTION_RUSTC", whole)
    assert toolchains.rust(lambda _line: None).command == (str(whole),)
    assert toolchains.rust_version() == "rustc 1.2.3"


@pytest.mark.parametrize("fetch", [toolchains.go, toolchains.assemblyscript])
def test_a_registry_that_does_not_answer_is_told_with_the_command_and_leaves_nothing(
    fetch: object, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nonexistent", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"(?s)is a package registry reachable\?.*--require-hashes"):
        fetch(lines.append)  # type: ignore[operator]  # one of the two above
    assert len(lines) == 1
    assert lines[0].startswith("installing the ")
    assert [path for path in cache.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("tool", [toolchains.zig, toolchains.go, toolchains.assemblyscript])
def test_a_cache_that_cannot_be_made_is_told_with_the_way_out(
    tool: Callable[[tools.Tell], toolchains.Toolchain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(toolchains, "cache_folder", lambda: tmp_path / "file" / "cache")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    with pytest.raises(ConfigError, match="name another place with XDG_CACHE_HOME"):
        tool(lambda _line: None)


def test_a_python_without_pip_is_told_how_to_get_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="-m ensurepip"):
        toolchains.go(lambda _line: None)


def test_what_is_installed_is_not_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / f"go-{pinned_version('go')}").mkdir(parents=True)
    monkeypatch.setattr(toolchains, "pip", lambda *_: pytest.fail("fetched again"))
    found = toolchains.go(lambda _line: pytest.fail("nothing is installed"))
    assert found.command[0].startswith(str(cache))


def test_the_callers_own_settings_do_not_change_what_go_builds(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / f"go-{pinned_version('go')}").mkdir(parents=True)
    monkeypatch.setenv("GOFLAGS", "-race")
    monkeypatch.setenv("GOARCH", "mips")
    environment = toolchains.go(lambda _line: None).environment
    assert "GOFLAGS" not in environment
    assert (environment["GOARCH"], environment["GOPROXY"], environment["GOTOOLCHAIN"]) == ("wasm", "off", "local")
    monkeypatch.setenv("GOPROXY", "direct")
    assert toolchains.go(lambda _line: None).environment["GOPROXY"] == "direct"


def test_one_at_a_time_fills_a_folder_of_the_cache(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "tool"
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with locked(place):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked(place):
        inside.set()
        thread.join(0.2)  # it cannot come in, however long it tries
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_the_cache_lies_in_the_virtual_environment_else_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.sys, "prefix", str(tmp_path))
    assert tools.cache_folder() == tmp_path / ".plugin-toolchains"
    monkeypatch.setattr(tools.sys, "prefix", tools.sys.base_prefix)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert tools.cache_folder() == tmp_path / "mine" / "flux-gateway"


def test_a_tool_that_fails_is_quoted_and_one_that_is_missing_is_named(tmp_path: Path) -> None:
    script = program(tmp_path / "tool", "echo printed; echo the reason >&2; exit 3")
    with pytest.raises(ConfigError, match="making tea failed:\nthe reason"):
        run_tool([str(script)], "making tea", timeout_s=10)
    silent = program(tmp_path / "silent", "exit 3")
    with pytest.raises(ConfigError, match="exit code 3"):
        run_tool([str(silent)], "making tea", timeout_s=10)
    with pytest.raises(ConfigError, match=r"making tea cannot be started: .*nowhere"):
        run_tool([str(tmp_path / "nowhere")], "making tea", timeout_s=10)


def test_a_flood_of_complaints_is_cut(tmp_path: Path) -> None:
    flood = program(tmp_path / "flood", "head -c 200000 /dev/zero | tr '\\0' x >&2; exit 1")
    with pytest.raises(ConfigError) as refused:
        run_tool([str(flood)], "it", timeout_s=10)
    assert len(str(refused.value)) < 5000


@pytest.mark.parametrize("where", ["1", "2"])
def test_a_tool_that_prints_without_end_is_ended_with_its_children(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "MOST_PRINTED_BYTES", 1 << 20)
    child = tmp_path / "child"
    endless = program(tmp_path / "endless", f"yes tea >&{where} & echo $! > {child}; wait")
    with pytest.raises(ConfigError, match=r"making tea prints more than 1048576 bytes:\ntea\ntea") as refused:
        run_tool([str(endless)], "making tea", timeout_s=60)
    assert len(str(refused.value)) < 5000
    eventually(lambda: ended(int(child.read_text())))  # a signal that was sent may not have arrived yet


def test_all_that_a_tool_prints_within_the_bound_comes_out(tmp_path: Path) -> None:
    chatty = program(tmp_path / "chatty", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")
    assert run_tool([str(chatty)], "it", timeout_s=60) == bytes(3_000_000)


@pytest.mark.parametrize("script", ["exec >&- 2>&-; exec sleep 600", "while :; do printf x; done"])
def test_a_tool_that_goes_on_is_ended_whatever_it_prints(script: str, tmp_path: Path) -> None:
    endless = program(tmp_path / "endless", script)
    with pytest.raises(ConfigError, match=r"it did not finish in 0\.2 s"):
        run_tool([str(endless)], "it", timeout_s=0.2)
