"""`gateway plugin pack|keygen|sign|install|list|grant|rollback|remove` as an operator types them, without a gateway."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes.eventually import eventually
from fakes.packages import members, plugin_folder
from fakes.process import GatewayProcess

from gateway.cli import main
from gateway.wasm.area import Decisions, PluginArea
from gateway.wasm.package import pack

WASI = "[caps]\nwasi = true\n"
FAILING = '[[test]]\nname = "a wrong promise"\nframe = "00"\nitem = { device = "nobody" }\n'


class Desk:
    """A folder with a configuration, and the commands that are typed there."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.area = PluginArea(home / "data" / "plugins")
        self.configure()
        monkeypatch.chdir(home)

    def configure(self, more: str = "") -> None:
        (self.home / "config.toml").write_text(f'[plugins]\ndirs = ["dirs"]\n{more}')

    def run(self, *arguments: str, expect: int = 0) -> str:
        outcome = CliRunner().invoke(main, ["plugin", *arguments], catch_exceptions=False)
        assert outcome.exit_code == expect, outcome.output
        return outcome.output

    def packed(self, version: str = "1.0.0", manifest: str = "", marker: str | None = None) -> str:
        folder = plugin_folder(self.home / f"src-{version}", version, manifest=manifest, marker=marker)
        path = self.home / f"meter-{version}.gwp"
        path.write_bytes(pack(folder))
        return path.name


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_a_plugin_goes_from_a_folder_to_a_signed_and_trusted_installation(desk: Desk) -> None:
    folder = plugin_folder(desk.home / "src")
    out = desk.run("pack", str(folder), "--out", "dist")
    assert "packed dist/meter-1.0.0.gwp" in out
    trust = desk.run("keygen", "acme", "--into", "keys")
    key = desk.home / "keys" / "acme.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().splitlines()[1] not in trust
    desk.run("sign", "dist/meter-1.0.0.gwp", "--key", "keys/acme.key")
    desk.configure("require_signed = true\n" + "".join(trust.partition("[plugins.trusted]")[1:]))
    assert "installed meter 1.0.0, signed by acme" in desk.run("install", "dist/meter-1.0.0.gwp")
    line = desk.run("list").strip()
    assert line == "meter  1.0.0  codec  running  installed  signed by acme  caps none"


def test_what_is_not_signed_is_refused_with_the_command_that_signs(desk: Desk) -> None:
    package = desk.packed()
    desk.configure("require_signed = true\n")
    assert "gateway plugin sign PACKAGE --key FILE" in desk.run("install", package, expect=1)
    assert desk.area.ids() == []


def test_signing_twice_keeps_one_signature_and_the_files(desk: Desk) -> None:
    package = desk.home / desk.packed()
    before = members(package.read_bytes())
    desk.run("keygen", "acme")
    for _ in range(2):
        desk.run("sign", package.name, "--key", "acme.key")
    after = members(package.read_bytes())
    assert after.pop("plugin.sig")
    assert after == before


def test_a_folder_is_signed_beside_its_files(desk: Desk) -> None:
    folder = plugin_folder(desk.home / "dirs")
    desk.run("keygen", "acme")
    desk.run("sign", str(folder), "--key", "acme.key")
    assert "folder  signed by unknown key" in desk.run("list")
    (folder / "README.md").write_bytes(b"added later")
    assert "running" in desk.run("list")  # nobody vouches for the key: nothing can be checked


def test_a_folder_whose_trusted_signature_is_wrong_does_not_run(desk: Desk) -> None:
    folder = plugin_folder(desk.home / "dirs")
    trust = desk.run("keygen", "acme")
    desk.run("sign", str(folder), "--key", "acme.key")
    desk.configure("".join(trust.partition("[plugins.trusted]")[1:]))
    assert "running  folder  signed by acme" in desk.run("list")
    plugin_folder(desk.home / "dirs", marker="changed")
    out = desk.run("list")
    assert "refused" in out
    assert "changed after it was signed" in out


def test_a_failing_version_is_not_kept_and_says_what_fails(desk: Desk) -> None:
    desk.run("install", desk.packed("1.0.0"))
    out = desk.run("install", desk.packed("1.1.0", FAILING), expect=1)
    assert "meter 1.1.0 is not installed: 1 test vectors fail; a wrong promise" in out
    assert [one.version for one in desk.area.versions("meter")] == ["1.0.0"]
    assert desk.area.decisions("meter").active == "1.0.0"


def test_a_version_that_asks_for_more_waits_until_it_is_granted(desk: Desk) -> None:
    out = desk.run("install", desk.packed(manifest=WASI))
    assert "gateway plugin grant meter wasi" in out
    assert "waiting" in desk.run("list")
    desk.run("grant", "meter", "wasi")
    assert "running  installed  not signed  caps wasi" in desk.run("list")
    assert "none" in desk.run("grant", "meter", "--only")
    assert "waiting" in desk.run("list")
    desk.run("grant", "meter", expect=2)
    desk.run("grant", "meter", "root", expect=2)
    assert "no plugin 'ghost'" in desk.run("grant", "ghost", "wasi", expect=1)


def test_a_plugin_that_a_script_a_stage_or_a_channel_needs_is_not_removed(desk: Desk) -> None:
    desk.run("install", desk.packed())
    script = plugin_folder(desk.home / "dirs", plugin_id="js", manifest='runtime = "meter"\nscript = "codec.js"\n')
    assert "used by plugin js" in desk.run("remove", "meter", expect=1)
    (script / "plugin.toml").write_text("no manifest")
    desk.configure('[stages.seal]\nplugin = "meter"\n')
    assert "used by stage seal" in desk.run("remove", "meter", expect=1)
    desk.configure('[notify.duty]\ntype = "plugin"\nplugin = "meter"\n')
    assert "used by notification channel duty" in desk.run("remove", "meter", expect=1)
    desk.configure()
    assert "removed meter" in desk.run("remove", "meter")


def test_grants_of_the_configuration_are_changed_there(desk: Desk) -> None:
    desk.configure('[wasm.grants]\nmeter = ["wasi"]\n')
    assert "installed" in desk.run("install", desk.packed(manifest=WASI))
    assert "[wasm.grants]" in desk.run("grant", "meter", "log", expect=1)


def test_a_rollback_goes_to_the_version_before_and_back(desk: Desk) -> None:
    for version in ("1.0.0", "1.1.0"):
        desk.run("install", desk.packed(version))
    assert "version 1.0.0" in desk.run("rollback", "meter")
    assert "meter  1.0.0" in desk.run("list")
    assert "version 1.1.0" in desk.run("rollback", "meter")
    assert "no version to go back to" in desk.run("rollback", "ghost", expect=1)


def test_a_version_installed_over_a_folders_has_a_way_back_to_it(desk: Desk) -> None:
    plugin_folder(desk.home / "dirs", "0.9.0")
    desk.run("install", desk.packed("1.0.0"))
    assert desk.area.decisions("meter").previous == "0.9.0"
    desk.run("install", desk.packed("1.0.0"))
    assert desk.area.decisions("meter").previous == "0.9.0"  # the same again changes nothing
    for _ in range(2):  # and forth
        assert "the version in the folder is active" in desk.run("rollback", "meter")
        assert "meter  0.9.0" in desk.run("list")
        assert "version 1.0.0 is active" in desk.run("rollback", "meter")


def test_a_version_may_be_kept_without_running(desk: Desk) -> None:
    assert "kept, not active" in desk.run("install", desk.packed("1.0.0"), "--no-activate")
    assert "disabled" in desk.run("list")
    desk.run("install", desk.packed("1.1.0"))
    desk.run("install", desk.packed("1.2.0"), "--no-activate")
    assert "meter  1.1.0  codec  running" in desk.run("list")


def test_a_kept_version_leaves_what_nobody_chose_by_name(desk: Desk) -> None:
    desk.run("install", desk.packed("1.0.0"))
    desk.area.decide("meter", Decisions())
    desk.run("install", desk.packed("1.1.0"), "--no-activate")
    assert "meter  1.0.0" in desk.run("list")
    plugin_folder(desk.home / "dirs", "0.9.0", plugin_id="other")
    other = desk.home / "other-1.0.0.gwp"
    other.write_bytes(pack(plugin_folder(desk.home / "src-other", plugin_id="other")))
    desk.run("install", other.name, "--no-activate")
    assert "other  0.9.0  codec  running  folder" in desk.run("list")


def test_what_is_in_use_is_not_removed(desk: Desk) -> None:
    for version in ("1.0.0", "1.1.0"):
        desk.run("install", desk.packed(version))
    assert "active version" in desk.run("remove", "meter", "1.1.0", expect=1)
    desk.run("remove", "meter", "1.0.0")
    desk.configure('[products.p]\nplugin = "meter"\n')
    assert "used by product p" in desk.run("remove", "meter", expect=1)
    desk.configure()
    desk.run("remove", "meter")
    assert desk.run("list") == ""
    assert "no plugin 'meter'" in desk.run("remove", "meter", expect=1)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("install", "missing.gwp"), "cannot be read"),
        (("install", "config.toml"), "gateway plugin pack FOLDER"),
        (("sign", "missing.gwp", "--key", "x.key"), "cannot be read"),
        (("sign", "config.toml", "--key", "x.key"), "not a package"),
        (("pack", "nowhere"), "plugin.toml"),
        (("keygen", "../evil"), "cannot name a key"),
    ],
)
def test_a_wrong_file_or_name_says_what_is_asked_for(desk: Desk, arguments: tuple[str, ...], why: str) -> None:
    assert why in desk.run(*arguments, expect=1)


def test_a_key_that_is_not_there_says_how_to_make_one(desk: Desk) -> None:
    assert "gateway plugin keygen NAME" in desk.run("sign", desk.packed(), "--key", "x.key", expect=1)


def test_a_trusted_key_that_is_none_is_named(desk: Desk) -> None:
    desk.configure('[plugins.trusted]\nacme = "not a key"\n')
    assert "plugins.trusted.acme" in desk.run("list", expect=1)
    outcome = CliRunner().invoke(main, ["check"])
    assert outcome.exit_code == 1
    assert "plugins.trusted.acme" in outcome.output


def test_a_built_plugin_is_packed_beside_its_module_or_elsewhere(desk: Desk) -> None:
    folder = plugin_folder(desk.home / "src")
    desk.run("build", str(folder), "--package")
    desk.run("build", str(folder), "--package", "dist")
    desk.run("build", str(folder), "--package", ".")
    beside = (folder / "meter-1.0.0.gwp").read_bytes()
    assert beside == (desk.home / "dist" / "meter-1.0.0.gwp").read_bytes()
    assert beside == (desk.home / "meter-1.0.0.gwp").read_bytes()


def test_a_running_gateway_follows_what_is_typed_beside_it(desk: Desk) -> None:
    desk.configure('poll_s = 0.1\n[rules]\ndirectory = "none"\n[scenes]\ndirectory = "none"\n')
    with GatewayProcess(desk.home / "data", desk.home / "config.toml") as gateway:

        def shown() -> tuple[str, str]:
            found = {one["id"]: (one["version"], one["state"]) for one in gateway.items("/api/v1/plugins")}
            return found.get("meter", ("", ""))

        desk.run("install", desk.packed("1.0.0"))
        eventually(lambda: shown() == ("1.0.0", "running"))
        desk.run("install", desk.packed("1.1.0"))
        eventually(lambda: shown() == ("1.1.0", "running"))
        desk.run("rollback", "meter")
        eventually(lambda: shown() == ("1.0.0", "running"))
        desk.run("install", desk.packed("1.2.0", WASI))
        eventually(lambda: gateway.get("/api/v1/plugins/meter")["waiting"] == {"version": "1.2.0", "missing": ["wasi"]})
        assert shown() == ("1.0.0", "running")
        desk.run("grant", "meter", "wasi")
        eventually(lambda: shown() == ("1.2.0", "running"))
        desk.run("remove", "meter", "1.1.0")
        eventually(lambda: len(gateway.get("/api/v1/plugins/meter")["versions"]) == 2)
        desk.run("grant", "meter", "--only")
        eventually(lambda: shown()[0] == "1.0.0" or shown()[1] == "waiting")
        desk.run("remove", "meter")
        eventually(lambda: "runs until the gateway stops" in gateway.get("/api/v1/plugins/meter")["detail"])
