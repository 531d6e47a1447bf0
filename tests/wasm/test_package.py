import hashlib
import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fakes.packages import members, package, plugin_folder, with_claimed_size, zipped
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError, Rejected
from gateway.wasm.package import (
    PackageLimits,
    is_member_name,
    open_package,
    pack,
    pack_folder,
    package_name,
    read_package,
    unpack,
    version_key,
    write_file,
)

VECTORS = '[[test]]\nvectors = "samples/vectors.json"\n'


def test_a_package_holds_what_a_gateway_needs_and_no_source(tmp_path: Path) -> None:
    folder = plugin_folder(
        tmp_path,
        manifest=VECTORS,
        files={"samples/vectors.json": b"[]", "src/meter.c": b"int x;", "README.md": b"# Meter", ".secret": b"s"},
    )
    opened = unpack(pack(folder))
    assert sorted(opened.files) == ["README.md", "meter.wasm", "plugin.toml", "samples/vectors.json"]
    assert opened.files["plugin.toml"] == (folder / "plugin.toml").read_bytes()
    assert (opened.manifest.id, opened.manifest.version) == ("meter", "1.0.0")


def test_a_script_travels_in_place_of_a_module(tmp_path: Path) -> None:
    folder = plugin_folder(tmp_path, manifest='runtime = "js"\nscript = "codec.js"\n', files={"codec.js": b"x"})
    assert sorted(members(pack(folder))) == ["codec.js", "plugin.toml"]


def test_the_same_folder_gives_the_same_bytes_whenever_and_wherever_it_is_packed(tmp_path: Path) -> None:
    first = pack(plugin_folder(tmp_path / "a", files={"README.md": b"x"}))
    folder = plugin_folder(tmp_path / "b", files={"README.md": b"x"})
    (folder / "README.md").chmod(0o600)
    os.utime(folder / "plugin.toml", (1, 1))
    program = "import os, sys; os.umask(0o077); from gateway.wasm.package import *; from pathlib import Path; "
    program += "pack_folder(Path(sys.argv[1]), Path(sys.argv[2]))"
    subprocess.run(
        [sys.executable, "-c", program, str(folder), str(tmp_path / "out")],
        env={**os.environ, "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"},
        check=True,
    )
    assert (tmp_path / "out" / "meter-1.0.0.gwp").read_bytes() == first


def test_a_package_has_no_time_and_one_mode(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(package(tmp_path))) as opened:
        entries = opened.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {stat.S_IFREG | 0o644}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


def test_a_written_package_is_readable_by_others_and_named_by_id_and_version(tmp_path: Path) -> None:
    path = pack_folder(plugin_folder(tmp_path), tmp_path / "out")
    assert path.name == package_name(unpack(path.read_bytes()).manifest) == "meter-1.0.0.gwp"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("missing", ["meter.wasm", "samples/vectors.json"])
def test_a_folder_without_a_named_file_is_not_packed(tmp_path: Path, missing: str) -> None:
    folder = plugin_folder(tmp_path, manifest=VECTORS, files={"samples/vectors.json": b"[]"})
    (folder / missing).unlink()
    with pytest.raises(ConfigError, match=r"is not there; run: gateway plugin build meter"):
        pack(folder)


@pytest.mark.parametrize("version", ["1/2", "..", "1 2", "1\\n2", "é"])
def test_a_version_that_cannot_name_a_file_is_not_packed(tmp_path: Path, version: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a file"):
        pack(plugin_folder(tmp_path, version, marker=""))


@pytest.mark.parametrize("name", ["samples//v.json", "samples/./v.json", "a/b/c/d/e.json"])
def test_a_name_that_is_not_plain_is_not_packed(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="plain relative name"):
        pack(plugin_folder(tmp_path, manifest=f'[[test]]\nvectors = "{name}"\n'))


def test_a_package_of_another_tool_is_taken_deflated_too(tmp_path: Path) -> None:
    plain = members(package(tmp_path))
    opened = unpack(zipped(plain, method=zipfile.ZIP_DEFLATED))
    assert opened.files == plain


def test_a_package_is_known_by_the_digest_of_its_bytes(tmp_path: Path) -> None:
    data = package(tmp_path)
    assert unpack(data).sha256 != unpack(zipped(members(data), method=zipfile.ZIP_DEFLATED)).sha256
    assert unpack(data).sha256 == unpack(bytes(data)).sha256


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "names are plain"),
        ("../meter.wasm", "names are plain"),
        ("a/../../b", "names are plain"),
        ("a\\b", "names are plain"),
        ("C:evil", "names are plain"),
        (".hidden", "names are plain"),
        ("a//b", "names are plain"),
        ("naïve.json", "names are plain"),
        ("x" * 200, "names are plain"),
        ("folder/", "names are plain"),
        ("PLUGIN.toml", "two spellings"),
        ("readme.MD", "two spellings"),
        ("README.md/x", "a file and a folder"),
        ("evil.so", "no gateway needs"),
        ("src/meter.c", "no gateway needs"),
    ],
)
def test_a_member_by_a_wrong_name_is_refused(tmp_path: Path, name: str, why: str) -> None:
    files = members(package(tmp_path, files={"README.md": b"x"}))
    with pytest.raises(Rejected, match=why):
        unpack(zipped({**files, name: b"x"}))


def test_a_name_that_a_reader_would_end_early_is_refused(tmp_path: Path) -> None:
    files = members(package(tmp_path))
    data = zipped({**files, "README.mdX.so": b"x"}).replace(b"README.mdX.so", b"README.md\0.so")
    with pytest.raises(Rejected, match="names are plain"):
        unpack(data)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    data = zipped({**members(package(tmp_path)), "README.xx": b"x", "README.md": b"y"})
    with pytest.raises(Rejected, match="twice"):
        unpack(data.replace(b"README.xx", b"README.md"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_is_refused(tmp_path: Path, kind: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in members(package(tmp_path)).items():
            made.writestr(name, data)
        entry = zipfile.ZipInfo("README.md")
        entry.external_attr = (kind | 0o777) << 16
        made.writestr(entry, b"/etc/passwd")
    with pytest.raises(Rejected, match="no ordinary file"):
        unpack(out.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(Rejected, match="store or deflate"):
        unpack(zipped(members(package(tmp_path)), method=method))


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(package(tmp_path))
    for mark, at_flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + at_flags] |= 1
    with pytest.raises(Rejected, match="encrypted"):
        unpack(bytes(data))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    files = members(package(tmp_path))
    with pytest.raises(Rejected, match=r"unpacks to more than 100 times"):
        unpack(zipped({**files, "README.md": bytes(20 << 20)}, method=zipfile.ZIP_DEFLATED))


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    files = members(package(tmp_path))
    bomb = zipped({**files, "README.md": bytes(20 << 20)}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(Rejected):
        unpack(with_claimed_size(bomb, "README.md", 100))


def test_a_member_shorter_than_it_claims_is_refused(tmp_path: Path) -> None:
    data = zipped({**members(package(tmp_path)), "README.md": b"hello"}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(Rejected):
        unpack(with_claimed_size(data, "README.md", 60_000))


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (PackageLimits(max_package_bytes=100), "larger than 100 bytes"),
        (PackageLimits(max_unpacked_bytes=100), "unpacks to more than 100 bytes"),
        (PackageLimits(max_files=1), "more than 1 files"),
    ],
)
def test_a_package_over_a_limit_is_refused(tmp_path: Path, limits: PackageLimits, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        unpack(package(tmp_path), limits)


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    files = members(package(tmp_path))
    data = bytearray(zipped({"README.md": b"x", **files}))
    directory = data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", directory + 4)
    data[second + 42 : second + 46] = data[directory + 42 : directory + 46]  # its local header's offset
    with pytest.raises(Rejected):
        unpack(bytes(data))


@pytest.mark.parametrize("around", [(b"MZ", b""), (b"", b"more"), (b"#!/bin/sh\n", b"")])
def test_bytes_around_the_archive_are_refused(tmp_path: Path, around: tuple[bytes, bytes]) -> None:
    before, after = around
    with pytest.raises(Rejected):
        unpack(before + package(tmp_path) + after)


def shifted(data: bytes, hidden: bytes) -> bytes:
    """The archive after other bytes, with all its offsets set right: nothing in the directory tells."""
    end = len(data) - 22
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    directory, at = bytearray(data[start:end]), 0
    while at < len(directory):
        offset = int.from_bytes(directory[at + 42 : at + 46], "little") + len(hidden)
        directory[at + 42 : at + 46] = offset.to_bytes(4, "little")
        at += 46 + sum(int.from_bytes(directory[at + place : at + place + 2], "little") for place in (28, 30, 32))
    tail = bytearray(data[end:])
    tail[16:20] = (start + len(hidden)).to_bytes(4, "little")
    return hidden + data[:start] + bytes(directory) + bytes(tail)


@pytest.mark.parametrize("hidden", [b"#!/bin/sh\nexit 0\n", b"\x7fELF" + bytes(60)])
def test_bytes_ahead_that_the_directory_counts_are_refused_too(tmp_path: Path, hidden: bytes) -> None:
    with pytest.raises(Rejected, match="no file"):
        unpack(shifted(package(tmp_path), hidden))
    assert unpack(shifted(package(tmp_path), b"")).manifest.id == "meter"


def test_bytes_between_members_and_directory_are_refused(tmp_path: Path) -> None:
    data = package(tmp_path)
    end = len(data) - 22
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    tail = data[end : end + 16] + (start + 40).to_bytes(4, "little") + data[end + 20 :]
    with pytest.raises(Rejected, match="no file"):
        unpack(data[:start] + bytes(40) + data[start:end] + tail)


def test_a_zip64_directory_is_refused_before_anybody_reads_it(tmp_path: Path) -> None:
    data = package(tmp_path)
    end = len(data) - 22
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 5000, 5000, end - start, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    size = len(record) + len(locator) + end - start
    tail = data[end : end + 12] + size.to_bytes(4, "little") + data[end + 16 :]
    with pytest.raises(Rejected, match="zip64"):
        unpack(data[:end] + record + locator + tail)


def test_a_package_that_a_tool_wrote_into_a_pipe_is_taken(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, piece: Any) -> int:
            self.data += bytes(piece)
            return len(piece)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members(package(tmp_path)).items():
            made.writestr(name, content)
    assert unpack(bytes(pipe.data)).manifest.id == "meter"


@pytest.mark.parametrize("junk", [b"", b"PK", b"x" * 1000, b"PK\x05\x06" + bytes(18), b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_archive_is_refused(junk: bytes) -> None:
    with pytest.raises(Rejected):
        unpack(junk)


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (b"\xff\xfe", "not valid TOML"),
        (b"id = ", "not valid TOML"),
        (b"[" * 5000, "not valid TOML"),
        (b'id = "meter"', "plugin.toml"),
        (b'id = "meter"\nversion = "../../x"\nlicense = "x"', "cannot name a file"),
        (b'id = "meter"\nversion = "1"\nlicense = "x"\nfile = "../x.wasm"', "file|leaves"),
        (b'id = "meter"\nversion = "1"\nlicense = "x"\nfile = "other.wasm"', "lacks other.wasm"),
        (b'id = "meter"\nversion = "1"\nlicense = "x"\nfrob = 1', "frob"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_key(tmp_path: Path, manifest: bytes, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        unpack(zipped({**members(package(tmp_path)), "plugin.toml": manifest}))


def test_a_package_without_a_manifest_is_refused() -> None:
    with pytest.raises(Rejected, match=r"lacks plugin\.toml"):
        unpack(zipped({"meter.wasm": b"x"}))


@given(st.data())
def test_any_change_of_a_package_gives_a_package_or_a_refusal(data: st.DataObject) -> None:
    good = zipped({"plugin.toml": b'id = "m"\nversion = "1"\nlicense = "x"\n', "m.wasm": b"\0asm" * 9})
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        opened = unpack(bytes(changed))
    except Rejected:
        return
    assert all(is_member_name(name) for name in opened.files)


@given(st.binary(max_size=300))
def test_any_bytes_before_an_end_record_give_a_refusal(noise: bytes) -> None:
    size = len(noise).to_bytes(4, "little")
    with pytest.raises(Rejected):
        unpack(noise + b"PK\x05\x06\0\0\0\0\x01\0\x01\0" + size + bytes(4) + bytes(2))


def test_versions_are_ordered_as_people_mean_them() -> None:
    ordered = ["0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.0.0+b1", "1.2", "1.10"]
    assert sorted(ordered[3:] + ordered[:3], key=version_key) == ordered
    assert sorted(["2026b", "2026a", "2025z"], key=version_key) == ["2025z", "2026a", "2026b"]


def test_a_file_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="name another folder"):
        write_file(tmp_path / "file" / "x.gwp", b"x")


def test_a_file_that_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x.gwp").mkdir()
    with pytest.raises(ConfigError, match="name another folder"):
        write_file(tmp_path / "x.gwp", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.gwp"]


def test_ones_own_package_is_read_as_far_as_any_gateway_takes_one(tmp_path: Path) -> None:
    large = tmp_path / "large.gwp"
    large.write_bytes(package(tmp_path, files={"README.md": b" " * PackageLimits().max_package_bytes}))
    assert open_package(large).sha256 == hashlib.sha256(large.read_bytes()).hexdigest()
    assert len(read_package(Path("/dev/zero"), PackageLimits(max_package_bytes=100))) == 101  # and no more
