"""`gateway plugin new` and `build`: what they make, and what they refuse to make."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner
from made_plugins import Made, require_toolchain

from gateway.cli import main
from gateway.cli.plugin_author import _LANGUAGES
from gateway.core.errors import ConfigError
from gateway.things.files import load_model
from gateway.things.validation import check_model
from gateway.wasm.manifest import load_manifest
from gateway.workbench import shipped, templates
from gateway.workbench.check import check
from gateway.workbench.piece import opened
from gateway.workbench.templates import Template, new_plugin

LANGUAGES: tuple[Template, ...] = get_args(Template)


def run(*arguments: str) -> str:
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def refused(*arguments: str) -> str:
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 1, outcome.output
    return outcome.output


def test_the_command_offers_every_template() -> None:
    assert _LANGUAGES == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_file_is_filled_in(language: Template, tmp_path: Path) -> None:
    made = new_plugin(language, "boiler-7_b", tmp_path)
    assert made.folder == tmp_path / "boiler-7_b"
    assert {"README.md", "plugin.toml", "thing-model.json", "vectors.json"} < set(made.files)
    for name in made.files:
        text = (made.folder / name).read_text()
        assert "{{" not in text, name
    assert load_manifest(made.folder).id == "boiler-7_b"
    assert made.frame in (made.folder / "vectors.json").read_text()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_thing_model_says_what_the_manifest_reports(language: Template, tmp_path: Path) -> None:
    folder = new_plugin(language, "boiler", tmp_path).folder
    model = load_model(folder / "thing-model.json")
    check_model(model)
    fields = {field.name: (field.type, field.unit) for field in load_manifest(folder).schema.fields}
    assert fields == {name: (one.type, one.unit) for name, one in model.properties.items()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_made_passes_its_own_check_without_a_warning(language: Template, made: Made) -> None:
    folder = made(language)
    with opened(str(folder), folder.parent) as piece:
        assert [(one.what, one.detail) for one in check(piece) if one.grade != "ok"] == []


def test_the_commands_that_new_prints_work_without_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_toolchain("c")
    monkeypatch.chdir(tmp_path)
    told = run("plugin", "new", "--lang", "c", "meter")
    build, test, decode = [line.split()[1:] for line in told.splitlines() if line.startswith("  gateway ")]
    assert run(*build) == f"built {tmp_path / 'meter' / 'meter.wasm'}\n"
    assert "85 of 85 vectors pass" in run(*test, "--seconds", "0")
    assert '"temperature": 21.5' in run(*decode)


def test_new_goes_into_the_folder_of_plugins_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_toolchain("c")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    run("plugin", "new", "--lang", "c", "meter")
    assert (tmp_path / "plugins" / "meter" / "plugin.toml").is_file()
    run("plugin", "build", "meter")
    assert (tmp_path / "plugins" / "meter" / "meter.wasm").is_file()
    run("plugin", "new", "--lang", "zig", "pump", "--into", "else/where")
    assert (tmp_path / "else" / "where" / "pump" / "plugin.toml").is_file()


@pytest.mark.parametrize("name", ["", "Meter", "7meter", "-meter", "me ter", "../meter", "m" * 65, "mètre", "a/b", "."])
def test_a_name_that_is_none_is_refused_with_the_rule(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name a plugin: start with a lower-case letter"):
        new_plugin("c", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "meter").mkdir()
    assert "is already there; choose another name" in refused(
        "plugin", "new", "--lang", "c", "meter", "--into", str(tmp_path)
    )
    assert list((tmp_path / "meter").iterdir()) == []
    (tmp_path / "pump").symlink_to(tmp_path / "nowhere")
    assert "is already there" in refused("plugin", "new", "--lang", "c", "pump", "--into", str(tmp_path))


def test_the_name_of_a_shipped_plugin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="comes with the gateway"):
        new_plugin("c", "jt808", tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made: "):
        new_plugin("c", "meter", tmp_path / "file")


def test_a_template_that_breaks_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_example", lambda _path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        new_plugin("c", "meter", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_installation_without_templates_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "shipped_plugins", lambda: tmp_path)
    with pytest.raises(ConfigError, match="install the gateway again"):
        new_plugin("c", "meter", tmp_path)


def test_build_names_every_place_it_looked_at(tmp_path: Path) -> None:
    told = refused("plugin", "build", "nowhere", "--plugins", str(tmp_path))
    assert "no plugin 'nowhere'" in told
    assert str(tmp_path) in told
    assert (shipped.shipped_plugins() / "jt808" / "plugin.toml").is_file()


def test_to_build_all_of_nothing_is_no_success(tmp_path: Path) -> None:
    told = refused("plugin", "build", "--all", "--plugins", str(tmp_path / "plugns"))
    assert "no plugin to build below it" in told


def test_build_wants_one_plugin_or_all() -> None:
    assert CliRunner().invoke(main, ["plugin", "build"]).exit_code == 2
    assert CliRunner().invoke(main, ["plugin", "build", "jt808", "--all"]).exit_code == 2


def test_a_javascript_plugin_builds_its_runtime_only(made: Made) -> None:
    folder = made("js")
    assert "nothing to build: a runtime runs" in run("plugin", "build", str(folder))
    assert not list(folder.glob("*.wasm"))
    assert "17 of 17 vectors pass" in run("plugin", "test", str(folder), "--seconds", "0")


def test_the_readmes_listener_and_product_are_configuration(tmp_path: Path) -> None:
    for language in LANGUAGES:
        folder = new_plugin(language, f"boiler-{language}", tmp_path).folder
        text = (folder / "README.md").read_text()
        snippet = tomllib.loads(text.split("```toml\n", 1)[1].split("```", 1)[0])
        assert snippet["listeners"][folder.name] == {"type": "tcp", "port": 9100, "product": folder.name}
        assert snippet["products"][folder.name]["plugin"] == folder.name
