import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes.packages import members, package, plugin_folder, zipped
from structlog.testing import capture_logs

from gateway.core.errors import ConfigError, Conflict, NotFound, Rejected, StorageFailed
from gateway.wasm import area as area_module
from gateway.wasm.area import Decisions, PluginArea
from gateway.wasm.manifest import load_manifest
from gateway.wasm.package import PackageLimits, archive, pack
from gateway.wasm.signing import Trust, make_key, sign


@pytest.fixture
def area(tmp_path: Path) -> PluginArea:
    return PluginArea(tmp_path / "data" / "plugins")


def tree(area: PluginArea) -> dict[str, bytes]:
    return {
        str(path.relative_to(area._folder)): path.read_bytes() for path in area._folder.rglob("*") if path.is_file()
    }


def test_an_installed_version_is_a_plugin_folder(area: PluginArea, tmp_path: Path) -> None:
    data = package(tmp_path, files={"README.md": b"x"})
    installed = area.install(data)
    assert (installed.id, installed.version, installed.signed_by, installed.trusted) == ("meter", "1.0.0", "", False)
    assert load_manifest(installed.folder).version == "1.0.0"
    assert {path.name: path.read_bytes() for path in installed.folder.iterdir()} == members(data)
    assert (area.ids(), area.versions("meter")) == (["meter"], [installed])


@pytest.mark.parametrize("version", ["decisions.json", "decisions.json.damaged", "installed.json", "lock"])
def test_a_version_called_like_a_file_of_the_area_touches_none_of_them(
    area: PluginArea, tmp_path: Path, version: str
) -> None:
    area.install(package(tmp_path))
    area.decide("meter", Decisions(active="1.0.0", granted=("emit",)))
    assert area.install(package(tmp_path, version)).version == version
    assert area.decisions("meter") == Decisions(active="1.0.0", granted=("emit",))
    area.decide("meter", Decisions(active=version))
    area.clear_leftovers()
    assert PluginArea(area._folder).decisions("meter") == Decisions(active=version)
    area.remove("meter", version)
    assert [one.version for one in area.versions("meter")] == ["1.0.0"]


def test_another_process_sees_the_same(area: PluginArea, tmp_path: Path) -> None:
    installed = area.install(package(tmp_path))
    other = PluginArea(area._folder)
    assert other.versions("meter") == [installed]
    area.install(package(tmp_path, "1.1.0"))
    area.remove("meter", "1.0.0")
    assert [one.version for one in other.versions("meter")] == ["1.1.0"]


def test_an_area_that_nobody_used_is_no_folder(area: PluginArea) -> None:
    assert (area.ids(), area.versions("meter"), area.decisions("meter")) == ([], [], Decisions())
    area.clear_leftovers()
    assert not area._folder.exists()


def test_a_package_may_be_a_file(area: PluginArea, tmp_path: Path) -> None:
    path = tmp_path / "meter.gwp"
    path.write_bytes(package(tmp_path))
    assert area.install(path).version == "1.0.0"
    with pytest.raises(ConfigError, match="cannot be read"):
        area.install(tmp_path / "none.gwp")


def test_the_same_package_twice_changes_nothing(area: PluginArea, tmp_path: Path) -> None:
    data = package(tmp_path)
    first = area.install(data)
    before = tree(area)
    assert area.install(data) == first
    assert tree(area) == before


def test_the_same_version_with_other_bytes_is_a_conflict_and_the_first_one_stays(
    area: PluginArea, tmp_path: Path
) -> None:
    first = area.install(package(tmp_path))
    with pytest.raises(Conflict, match="raise `version`"):
        area.install(package(tmp_path, marker="other"))
    assert area.versions("meter") == [first]


def test_versions_are_listed_from_old_to_new(area: PluginArea, tmp_path: Path) -> None:
    for version in ("1.10.0", "1.2.0", "1.10.0-rc1"):
        area.install(package(tmp_path, version))
    assert [one.version for one in area.versions("meter")] == ["1.2.0", "1.10.0-rc1", "1.10.0"]


def test_more_versions_than_are_kept_are_a_conflict_that_says_what_to_do(tmp_path: Path) -> None:
    area = PluginArea(tmp_path / "plugins", max_versions=2)
    for version in ("1", "2"):
        area.install(package(tmp_path, version))
    with pytest.raises(Conflict, match=r"has 2 installed versions; remove one first"):
        area.install(package(tmp_path, "3"))
    area.remove("meter", "1")
    area.install(package(tmp_path, "3"))


def test_more_plugins_than_are_kept_are_a_conflict(
    area: PluginArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(area_module, "MOST_PLUGINS", 1)
    area.install(package(tmp_path, plugin_id="one"))
    with pytest.raises(Conflict, match="remove one first"):
        area.install(package(tmp_path, plugin_id="two"))
    area.install(package(tmp_path, "1.1.0", plugin_id="one"))


def test_a_refused_package_leaves_no_trace(area: PluginArea, tmp_path: Path) -> None:
    for junk in (b"", zipped({**members(package(tmp_path)), "../evil": b"x"})):
        with pytest.raises(Rejected):
            area.install(junk)
    assert not area._folder.exists()


def test_a_limit_holds_for_files_too(tmp_path: Path) -> None:
    area = PluginArea(tmp_path / "plugins", limits=PackageLimits(max_package_bytes=100))
    path = tmp_path / "meter.gwp"
    path.write_bytes(package(tmp_path))
    with pytest.raises(Rejected, match="larger than 100 bytes"):
        area.install(path)


# Removing


def test_a_removed_version_is_gone_with_the_decisions_that_name_it(area: PluginArea, tmp_path: Path) -> None:
    for version in ("1", "2"):
        area.install(package(tmp_path, version))
    area.decide("meter", Decisions(active="2", previous="1", granted=("log",)))
    area.remove("meter", "1")
    assert area.decisions("meter") == Decisions(active="2", granted=("log",))
    area.remove("meter", "2")
    assert area.decisions("meter") == Decisions(granted=("log",))
    assert area.versions("meter") == []


def test_a_forgotten_plugin_leaves_nothing(area: PluginArea, tmp_path: Path) -> None:
    area.install(package(tmp_path))
    area.decide("meter", Decisions(disabled=True))
    area.forget("meter")
    assert (area.ids(), area.decisions("meter")) == ([], Decisions())
    assert list(tree(area)) == [".lock"]


def test_what_is_not_there_cannot_be_removed(area: PluginArea, tmp_path: Path) -> None:
    area.install(package(tmp_path))
    for plugin_id, version in (("meter", "9"), ("nobody", "1"), ("..", "1"), ("meter", "../../x"), ("meter", "")):
        with pytest.raises(NotFound):
            area.remove(plugin_id, version)
    with pytest.raises(NotFound):
        area.forget("nobody")
    for plugin_id in ("..", "", ".", "Meter"):
        with pytest.raises(NotFound):
            area.forget(plugin_id)
        with pytest.raises(NotFound):
            area.decide(plugin_id, Decisions())
    assert area.decisions("..") == Decisions()


# Decisions


def test_decisions_are_kept_for_the_next_start_without_a_version_too(area: PluginArea) -> None:
    decided = Decisions(active="1", previous="0", disabled=True, granted=("wasi", "emit"))
    area.decide("meter", decided)
    assert PluginArea(area._folder).decisions("meter") == decided
    assert area.ids() == ["meter"]
    assert sorted(tree(area)) == [".lock", "meter/.decisions.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"active": 1}', b"\xff", b"[" * 9999, b" " * 100_000])
def test_damaged_decisions_are_set_aside_with_a_log_line(area: PluginArea, damage: bytes) -> None:
    area.decide("meter", Decisions(active="1"))
    (area._folder / "meter" / ".decisions.json").write_bytes(damage)
    with capture_logs() as logs:
        assert area.decisions("meter") == Decisions()
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("plugin decisions set aside", "error")]
    assert (area._folder / "meter" / ".decisions.json.damaged").read_bytes() == damage
    area.decide("meter", Decisions(active="2"))
    assert area.decisions("meter").active == "2"


def test_decisions_that_cannot_be_read_just_now_are_not_set_aside(
    area: PluginArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided = Decisions(active="1", disabled=True)
    area.decide("meter", decided)

    def refuses(_path: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(area_module, "_small", refuses)
        with pytest.raises(StorageFailed, match="Too many open files"):
            area.decisions("meter")
    assert area.decisions("meter") == decided


def test_a_version_that_cannot_be_read_just_now_is_looked_at_again(
    area: PluginArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    area.install(package(tmp_path))
    again = PluginArea(area._folder)

    def refuses(_path: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(area_module, "_small", refuses)
        assert list(again.refused("meter")) == ["1.0.0"]
    assert [one.version for one in again.versions("meter")] == ["1.0.0"]


def test_decisions_of_a_later_gateway_are_read_as_far_as_they_are_known(area: PluginArea) -> None:
    area.decide("meter", Decisions())
    (area._folder / "meter" / ".decisions.json").write_bytes(b'{"active": "1", "colour": "blue"}')
    assert area.decisions("meter") == Decisions(active="1")


# What lies there is checked again at each start


@pytest.mark.parametrize("damage", ["module", "record", "no record", "missing", "other version"])
def test_a_damaged_version_may_not_run_and_is_replaced_by_installing_it_again(
    area: PluginArea, tmp_path: Path, damage: str
) -> None:
    data = package(tmp_path)
    place = area.install(data).folder.parent
    if damage == "module":
        (place / "meter" / "meter.wasm").write_bytes(b"\0asm changed")
    elif damage == "record":
        (place / "installed.json").write_bytes(b"{")
    elif damage == "no record":
        (place / "installed.json").unlink()
    elif damage == "missing":
        (place / "meter" / "plugin.toml").unlink()
    else:
        place.rename(place.with_name("2.0.0"))
    fresh = PluginArea(area._folder)
    assert fresh.versions("meter") == []
    assert len(fresh.refused("meter")) == 1
    fresh.install(data)
    assert [one.version for one in fresh.versions("meter")] == ["1.0.0"]


def test_trust_is_asked_anew_at_each_start(tmp_path: Path) -> None:
    public = make_key(tmp_path / "acme.key")
    files = members(package(tmp_path))
    signature, _ = sign(files, tmp_path / "acme.key")
    folder = tmp_path / "plugins"
    trust = Trust({"acme": public}, require_signed=True)
    installed = PluginArea(folder, trust).install(archive({**files, "plugin.sig": signature}))
    assert (installed.signed_by, installed.trusted) == ("acme", True)
    assert PluginArea(folder, trust).versions("meter") == [installed]
    (shown,) = PluginArea(folder).versions("meter")
    assert (shown.signed_by.startswith("unknown key "), shown.trusted) == (True, False)
    strict = PluginArea(folder, Trust(require_signed=True))
    assert strict.versions("meter") == []
    assert "require_signed" in strict.refused("meter")["1.0.0"]


def test_an_unsigned_package_is_refused_where_signatures_are_asked_for(tmp_path: Path) -> None:
    area = PluginArea(tmp_path / "plugins", Trust(require_signed=True))
    with pytest.raises(Rejected, match="not signed"):
        area.install(package(tmp_path))
    assert not area._folder.exists()


# Faults


@pytest.mark.parametrize("call", ["fsync", "open", "rename"])
def test_a_full_disk_leaves_nothing_half(
    area: PluginArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Let the n-th use of a system call fail, for every n: the version is there whole or not at all."""
    data = package(tmp_path)
    area.install(package(tmp_path, "0.9"))
    real = {"fsync": os.fsync, "open": os.open, "rename": Path.rename}[call]
    for nth in range(40):
        left = nth

        def fails(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path if call == "rename" else os, call, fails)
            try:
                area.install(data)
            except StorageFailed as failure:
                assert "No space left" in str(failure)  # noqa: PT017 - not every round fails
            else:
                assert left >= 0
                break
        fresh = PluginArea(area._folder)
        assert [one.version for one in fresh.versions("meter")][:1] == ["0.9"]
        assert fresh.refused("meter") == {}
        assert not list(area._folder.glob(".coming-*"))
    else:
        pytest.fail("the installation never succeeded")


def test_what_a_killed_process_left_is_cleared_away(area: PluginArea, tmp_path: Path) -> None:
    area.install(package(tmp_path))
    for name in (".coming-ab", ".going-cd"):
        (area._folder / name / "meter").mkdir(parents=True)
        (area._folder / name / "meter" / "plugin.toml").write_bytes(b"half")
    (area._folder / "meter" / ".coming-ef").write_bytes(b"{")
    assert area.ids() == ["meter"]
    area.clear_leftovers()
    assert sorted(path.name for path in area._folder.iterdir()) == [".lock", "meter"]
    assert sorted(path.name for path in (area._folder / "meter").iterdir()) == ["1.0.0"]
    assert [one.version for one in area.versions("meter")] == ["1.0.0"]


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    area = PluginArea(tmp_path / "data" / "plugins")
    with pytest.raises(StorageFailed, match="nothing was changed"):
        area.install(package(tmp_path))
    with pytest.raises(StorageFailed):
        area.decide("meter", Decisions())


def test_links_and_strange_names_in_the_area_are_passed_over(area: PluginArea, tmp_path: Path) -> None:
    installed = area.install(package(tmp_path))
    (area._folder / "linked").symlink_to(area._folder / "meter")
    (area._folder / "meter" / "2.0.0").symlink_to(installed.folder.parent)
    (area._folder / "Upper Case").mkdir()
    (area._folder / "file").write_bytes(b"")
    assert (area.ids(), area.versions("meter")) == (["meter"], [installed])


def test_many_at_once_install_one_version_once(area: PluginArea, tmp_path: Path) -> None:
    data = package(tmp_path)
    other = package(tmp_path / "b", marker="other")
    outcomes: list[str] = []

    def install(package_bytes: bytes) -> None:
        try:
            outcomes.append(PluginArea(area._folder).install(package_bytes).sha256)
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=install, args=(data if n % 2 else other,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (kept,) = area.versions("meter")
    assert sorted(outcomes) == sorted(["conflict"] * 4 + [kept.sha256] * 4)


def test_a_shipped_plugin_installs(area: PluginArea, tmp_path: Path) -> None:
    folder = plugin_folder(tmp_path, manifest='[[test]]\nvectors = "v/a.json"\n', files={"v/a.json": b"[]"})
    installed = area.install(pack(folder))
    assert (installed.folder / "v" / "a.json").read_bytes() == b"[]"
    assert PluginArea(area._folder).versions("meter") == [installed]
