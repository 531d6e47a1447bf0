"""Third-party sources: fetched by hash with the real pip from a folder, unpacked within bounds."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.wasm.manifest import Upstream
from gateway.workbench import upstream
from gateway.workbench.build import build_plugin
from gateway.workbench.upstream import unpack, upstream_folder

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="needs the plugin compiler: pip install ziglang"
)

# A build backend of the archive's own, so that pip asks no registry for one.
_PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
_BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    place = pathlib.Path(folder) / "meterlib-1.2.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\\nName: meterlib\\nVersion: 1.2.0\\n")
    return place.name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise SystemExit("nobody builds this")
"""
_LIBRARY = '#include "meterlib.h"\nint meter_scale(int raw) { int unused; return raw * 5; }\n'


def archive(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.addfile(content)
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """A folder in place of a registry, with one source archive; the cache is this test's own."""
    place = tmp_path / "registry"
    place.mkdir()
    made = archive(
        place / "meterlib-1.2.0.tar.gz",
        {
            "meterlib-1.2.0/pyproject.toml": _PROJECT.encode(),
            "meterlib-1.2.0/backend.py": _BACKEND.encode(),
            "meterlib-1.2.0/PKG-INFO": b"Metadata-Version: 2.1\nName: meterlib\nVersion: 1.2.0\n",
            "meterlib-1.2.0/src/meterlib.c": _LIBRARY.encode(),
            "meterlib-1.2.0/src/meterlib.h": b"int meter_scale(int raw);\n",
        },
    )
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(place), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(upstream, "cache_folder", lambda: tmp_path / "cache")
    return Upstream(requirement="meterlib==1.2.0", sha256=hashlib.sha256(made.read_bytes()).hexdigest())


@needs_compiler
def test_a_plugin_is_built_with_fetched_sources(registry: Upstream, tmp_path: Path) -> None:
    folder = tmp_path / "scaled"
    folder.mkdir()
    (folder / "plugin.toml").write_text(
        'id = "scaled"\nversion = "1"\nlicense = "MIT"\n[build]\nsources = ["main.c", "upstream/src/meterlib.c"]\n'
        'flags = ["-Werror"]\n'
        f'upstream = {{ requirement = "{registry.requirement}", sha256 = "{registry.sha256}" }}\n'
    )
    (folder / "main.c").write_text(
        '#include "gw1.h"\n#include "meterlib.h"\n'
        "static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {\n"
        "    return meter_scale((int)len);\n}\nGW_DECODER(decode)\n"
    )
    first = build_plugin(folder).read_bytes()
    assert str(tmp_path).encode() not in first
    made_at = (folder / "scaled.wasm").stat().st_mtime_ns
    build_plugin(folder)
    assert (folder / "scaled.wasm").stat().st_mtime_ns == made_at
    shutil.rmtree(tmp_path / "cache")
    build_plugin(folder)  # what is up to date fetches nothing
    assert (folder / "scaled.wasm").stat().st_mtime_ns == made_at
    assert not (tmp_path / "cache").exists()
    (folder / "plugin.toml").write_text((folder / "plugin.toml").read_text().replace("meterlib.c", "meterlab.c"))
    with pytest.raises(ConfigError, match=r"`build\.sources` names meterlab\.c, which is not there"):
        build_plugin(folder)


def test_sources_are_fetched_once_and_said_so(registry: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    folder = upstream_folder(registry, lines.append)
    assert (folder / "src" / "meterlib.c").read_text() == _LIBRARY
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    assert upstream_folder(registry, lines.append) == folder
    assert lines == ["fetching meterlib==1.2.0"]


def test_an_archive_with_another_hash_is_refused_and_leaves_nothing(registry: Upstream, tmp_path: Path) -> None:
    other = Upstream(requirement=registry.requirement, sha256="0" * 64)
    with pytest.raises(ConfigError, match="the command was"):
        upstream_folder(other, lambda _line: None)
    assert [path.name for path in (tmp_path / "cache" / "upstream").iterdir() if path.is_dir()] == []


def test_a_registry_that_does_not_answer_is_said_with_the_command(
    registry: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    with pytest.raises(ConfigError, match="is a package registry reachable") as refused:
        upstream_folder(registry, lambda _line: None)
    assert "pip" in str(refused.value)
    assert "--require-hashes" in str(refused.value)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a/../../outside.c": b"x"}, "leaves the archive's folder"),
        ({"/etc/outside.c": b"x"}, "leaves the archive's folder"),
        ({"a/link": link("a/link", "/etc/passwd")}, "neither a file nor a folder"),
        ({"a/hard": link("a/hard", "a/x", tarfile.LNKTYPE)}, "neither a file nor a folder"),
        ({"a/dev": link("a/dev", "", tarfile.CHRTYPE)}, "neither a file nor a folder"),
        ({"a/x.c": b"one", "b/x.c": b"two"}, "cannot be unpacked"),
    ],
    ids=["dots", "absolute", "symlink", "hardlink", "device", "twice"],
)
def test_a_member_out_of_the_ordinary_is_refused(
    tmp_path: Path, members: dict[str, bytes | tarfile.TarInfo], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        unpack(archive(tmp_path / "bad.tar.gz", members), tmp_path / "out")
    assert not (tmp_path / "outside.c").exists()


def test_an_archive_that_swells_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match="unpacks to more than 1000 bytes"):
        unpack(archive(tmp_path / "big.tar.gz", {"a/x": bytes(600), "a/y": bytes(600)}), tmp_path / "out")
    assert not (tmp_path / "out" / "y").exists()
    monkeypatch.setattr(upstream, "_MOST_BYTES", 1 << 20)
    monkeypatch.setattr(upstream, "_MOST_MEMBERS", 3)
    with pytest.raises(ConfigError, match="3 members"):
        unpack(archive(tmp_path / "many.tar.gz", {f"a/{n}": b"" for n in range(4)}), tmp_path / "out2")


def test_bytes_that_are_no_archive_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(ConfigError, match="cannot be unpacked"):
        unpack(tmp_path / "bad.tar.gz", tmp_path / "out")
