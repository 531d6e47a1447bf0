from __future__ import annotations

import stat
from pathlib import Path

import pytest
import structlog
from guests_gw1 import guest, well_behaved

from gateway.core.errors import ConfigError
from gateway.wasm import module_cache
from gateway.wasm.engine import make_engine
from gateway.wasm.module_cache import ModuleCache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cache_of(folder: Path) -> ModuleCache:
    return ModuleCache(make_engine(), folder)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.bin"))


def test_a_module_is_compiled_once_and_then_loaded(folder: Path) -> None:
    cache_of(folder).load(well_behaved())
    again = cache_of(folder)
    assert next(export.name for export in again.load(well_behaved()).exports) == "memory"
    assert (again.hits, again.compiled) == (1, 0)


def test_folder_key_and_entries_are_private(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    cache_of(folder).load(well_behaved())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("where", [0, 40, -1])
def test_a_tampered_entry_is_compiled_again_and_replaced(folder: Path, where: int) -> None:
    cache_of(folder).load(well_behaved())
    (entry,) = entries(folder)
    data = bytearray(entry.read_bytes())
    data[where] ^= 1
    entry.write_bytes(bytes(data))
    with structlog.testing.capture_logs() as lines:
        again = cache_of(folder)
        again.load(well_behaved())
    assert (again.hits, again.compiled, again.refused) == (0, 1, 1)
    assert "changed by someone else" in lines[0]["event"]
    third = cache_of(folder)
    third.load(well_behaved())
    assert third.hits == 1


def test_an_entry_of_another_module_under_this_name_is_refused(folder: Path) -> None:
    cache = cache_of(folder)
    cache.load(well_behaved())
    (mine,) = entries(folder)
    cache.load(guest("(i64.const 7)"))
    (other,) = [path for path in entries(folder) if path != mine]
    mine.write_bytes(other.read_bytes())
    again = cache_of(folder)
    again.load(well_behaved())
    assert (again.hits, again.refused) == (0, 1)


@pytest.mark.parametrize("data", [b"", b"x" * 10, b"x" * 1000])
def test_rubbish_in_an_entry_is_compiled_again(folder: Path, data: bytes) -> None:
    cache_of(folder).load(well_behaved())
    entries(folder)[0].write_bytes(data)
    again = cache_of(folder)
    again.load(well_behaved())
    assert again.compiled == 1


def test_entries_of_another_installation_are_refused(folder: Path) -> None:
    cache_of(folder).load(well_behaved())
    (folder / "cache.key").unlink()
    again = cache_of(folder)
    again.load(well_behaved())
    assert again.refused == 1


def test_a_key_that_others_could_read_is_replaced(folder: Path) -> None:
    cache_of(folder)
    old = (folder / "cache.key").read_bytes()
    (folder / "cache.key").chmod(0o644)
    cache_of(folder)
    assert (folder / "cache.key").read_bytes() != old


def test_another_wasmtime_has_entries_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_of(folder).load(well_behaved())
    monkeypatch.setattr(module_cache, "settings_fingerprint", lambda: "another")
    again = cache_of(folder)
    again.load(well_behaved())
    assert again.compiled == 1
    assert len(entries(folder)) == 2


def test_old_entries_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_cache, "_MOST_ENTRIES", 2)
    cache = cache_of(folder)
    for number in range(1, 5):
        cache.load(guest(f"(i64.const {number})"))
    assert len(entries(folder)) == 2


def test_without_a_usable_folder_modules_are_compiled_every_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with structlog.testing.capture_logs() as lines:
        cache = cache_of(blocked / "cache")
    assert lines[0]["event"] == "compiled plugins are not cached"
    cache.load(well_behaved())
    cache.load(well_behaved())
    assert cache.compiled == 2


def test_a_folder_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.setattr(module_cache.os, "geteuid", lambda: 12345)
    cache_of(folder).load(well_behaved())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("wasm", [b"", b"\0asm", b"\0asm\x01\0\0\0\xff", b"not wasm at all"])
def test_what_is_no_module_is_a_config_error(folder: Path, wasm: bytes) -> None:
    with pytest.raises(ConfigError, match="not a module that the sandbox takes"):
        cache_of(folder).load(wasm)
    assert entries(folder) == []
