"""Packages: a plugin as one file, `<id>-<version>.gwp`, a zip archive of what a gateway needs and nothing else.

Owns the archive's form: which files, their names and bounds. Packing is reproducible byte for byte. Knows neither keys
nor where packages are kept.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from gateway.core.errors import ConfigError, Rejected
from gateway.wasm.manifest import MANIFEST_NAME, Manifest, load_manifest, manifest_data, parse_manifest
from gateway.wasm.signing import SIGNATURE_NAME, sign

SUFFIX: Final = ".gwp"

_OPTIONAL: Final = ("README.md", "LICENSE", "NOTICE", "thing-model.json", SIGNATURE_NAME)
_MEMBER_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}){0,3}")
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = (stat.S_IFREG | 0o644) << 16
_MADE_ON_UNIX: Final = 3
_ENCRYPTED: Final = 0x1
_LOCAL_HEADER_BYTES: Final = 30
_LOCAL_LENGTHS: Final = struct.Struct("<HH")
_LOCAL_LENGTHS_AT: Final = 26
_DESCRIBED: Final = 0x8
_DESCRIPTOR_BYTES: Final = 16
"""After a member whose length was not known ahead: what `zip` writes into a pipe."""
_END: Final = struct.Struct("<4s4H2LH")
_ZIP64: Final = b"PK\x06\x07"
_ZIP64_BYTES: Final = 20
_ENTRY_BYTES: Final = 46 + 1024
"""More than a directory entry of a name that is taken can have."""
_ALWAYS_ALLOWED: Final = 64 << 10
"""Bytes that a member may unpack to whatever its ratio: short texts compress well by nature."""


class PackageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a package may cost whoever opens it.

    max_package_bytes: of the archive. max_unpacked_bytes: of all its files together, which are held in memory at once.
    max_files: manifest, module and vector files are a handful. max_ratio: unpacked to packed bytes of one file; more is
    an archive made to fill a disk.
    """

    max_package_bytes: int = 32 << 20
    max_unpacked_bytes: int = 64 << 20
    max_files: int = 64
    max_ratio: int = 100


_AUTHORS: Final = PackageLimits(max_package_bytes=256 << 20, max_unpacked_bytes=512 << 20)
"""For one's own packages: the largest that any gateway can be set to take."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An opened package: its files by name, and the SHA-256 of the archive."""

    manifest: Manifest
    files: dict[str, bytes]
    sha256: str


def pack(folder: Path) -> bytes:
    """The package of a built plugin's folder: the same bytes wherever and whenever it is made.

    Files are stored, not deflated: compressors differ between machines. Raises ConfigError naming what is missing.
    """
    folder = folder.resolve()
    manifest = load_manifest(folder)
    return archive(folder_files(folder, manifest))


def pack_folder(folder: Path, out_dir: Path) -> Path:
    """Write a folder's package as `<id>-<version>.gwp` into `out_dir`, replacing an older one in one step."""
    data = pack(folder)
    path = out_dir / package_name(load_manifest(folder.resolve()))
    write_file(path, data)
    return path


def open_package(path: Path) -> Package:
    """Open one's own package, as large as any gateway takes. Raises ConfigError saying what is wrong with it."""
    try:
        return unpack(read_package(path, _AUTHORS), _AUTHORS)
    except Rejected as error:
        raise ConfigError(f"{path}: {error}") from error


def read_package(path: Path, limits: PackageLimits) -> bytes:
    """A package file's bytes, one more than are allowed where it is larger. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(limits.max_package_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def signed_package(path: Path, key_file: Path) -> str:
    """Sign a package in its place, replacing a signature it has; returns the public key. Raises ConfigError."""
    files = open_package(path).files
    signature, public = sign(files, key_file)
    write_file(path, archive({**files, SIGNATURE_NAME: signature}))
    return public


def signed_folder(folder: Path, key_file: Path) -> str:
    """Sign what a package of the folder would hold, in `plugin.sig` beside it; returns the public key."""
    folder = folder.resolve()
    signature, public = sign(folder_files(folder, load_manifest(folder)), key_file)
    write_file(folder / SIGNATURE_NAME, signature)
    return public


def write_file(path: Path, data: bytes, instead: str = "name another folder") -> None:
    """Replace a file in one step: whoever reads it meanwhile has the old or the new one, never a part.

    Raises ConfigError where it cannot be written, saying what to do `instead`; then nothing is left behind.
    """
    made: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
            made = Path(file.name)
            file.write(data)
        made.chmod(0o644)
        made.replace(path)
    except OSError as error:
        if made is not None:
            made.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; {instead}") from error


def package_name(manifest: Manifest) -> str:
    """File name of a version's package."""
    return f"{manifest.id}-{manifest.version}{SUFFIX}"


def folder_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """What a package of the folder holds, by name; raises ConfigError where something is missing."""
    _check_version(manifest)
    required, optional = member_names(manifest)
    files: dict[str, bytes] = {}
    for name in required | optional:
        path = folder / name
        if name in optional and not path.is_file():
            continue
        try:
            files[name] = path.read_bytes()
        except FileNotFoundError:
            raise ConfigError(f"{path} is not there; run: gateway plugin build {manifest.id}") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return files


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip archive of files by name, in order of the names, with nothing in it that depends on time or machine."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = _MADE_ON_UNIX
            entry.external_attr = _MODE
            made.writestr(entry, files[name])
    return out.getvalue()


def unpack(data: bytes, limits: PackageLimits | None = None) -> Package:
    """Open a package that anybody may have made. Raises Rejected saying what is wrong with it.

    Only the archive's form and the manifest are checked: not the signature, and nothing runs.
    """
    limits = limits or PackageLimits()
    if len(data) > limits.max_package_bytes:
        raise Rejected(f"the package is larger than {limits.max_package_bytes} bytes")
    _check_end(data, limits)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            _check_members(opened, data, limits)
            files = {entry.filename: _read(opened, entry) for entry in opened.infolist()}
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
    ) as error:
        why = str(error) or type(error).__name__
        raise Rejected(f"this is not a package: {why}; make one with: {_PACK}") from error
    manifest = _manifest(files)
    required, optional = member_names(manifest)
    missing, foreign = required - files.keys(), files.keys() - required - optional
    if missing:
        raise Rejected(f"the package lacks {_listed(missing)}; make it with: {_PACK}")
    if foreign:
        raise Rejected(f"the package holds what no gateway needs: {_listed(foreign)}; make it with: {_PACK}")
    return Package(manifest=manifest, files=files, sha256=hashlib.sha256(data).hexdigest())


def member_names(manifest: Manifest) -> tuple[set[str], set[str]]:
    """Names that a package of this manifest must hold, and those that it may."""
    code = manifest.wasm_name if manifest.script is None else manifest.script
    vectors = (vector.vectors for vector in manifest.test)
    required = {MANIFEST_NAME, code, *(name for name in vectors if name is not None)}
    for name in sorted(required):
        if not is_member_name(name):
            raise ConfigError(f"plugin {manifest.id}: {name!r} cannot be in a package; write a plain relative name")
    return required, {*_OPTIONAL} - required


def is_member_name(name: str) -> bool:
    """Whether a name is relative, plain and means the same file on every system."""
    return _MEMBER_NAME.fullmatch(name) is not None and PurePosixPath(name).as_posix() == name


def is_version(text: str) -> bool:
    """Whether a version can name a file and a folder."""
    return _VERSION.fullmatch(text) is not None


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions from old to new: numbers by value, a pre-release before its release, build marks last.

    Source: Semantic Versioning 2.0.0, 11; what does not follow it is ordered by the same parts.
    """
    plain, _, build = version.partition("+")
    release, dash, before = plain.partition("-")
    return (*_parts(release), (0, 0, "") if dash else (1, 0, ""), *_parts(before), *_parts(build))


def _parts(text: str) -> Iterable[tuple[int, int, str]]:
    for part in filter(None, re.split(r"[.\-]", text)):
        yield (2, int(part), "") if part.isdecimal() else (3, 0, part)


_PACK: Final = "gateway plugin pack FOLDER"


def _check_version(manifest: Manifest) -> None:
    if not is_version(manifest.version):
        raise ConfigError(
            f"plugin {manifest.id}: version {manifest.version!r} cannot name a file; "
            "use letters, digits and . + - _, as in 1.2.0"
        )


def _check_end(data: bytes, limits: PackageLimits) -> None:
    """Bound the directory before anybody reads it, and leave no room for a second archive in the same bytes.

    Source: ZIP File Format Specification 6.3, 4.3.15 and 4.3.16, zip64 locator and end of central directory record.
    """
    at = len(data) - _END.size
    if at < 0 or data[at : at + 4] != b"PK\x05\x06":
        raise Rejected(f"this is not a package; make one with: {_PACK}")
    _, disk, first_disk, here, entries, size, offset, _ = _END.unpack_from(data, at)
    if disk or first_disk or here != entries or offset + size != at:
        raise Rejected(f"the package's directory does not fit the file; make it with: {_PACK}")
    if data[max(0, at - _ZIP64_BYTES) :].startswith(_ZIP64):
        # A reader that follows it finds another directory than the one that was bounded here.
        raise Rejected(f"the package is in zip64 form, which none needs; make it with: {_PACK}")
    if entries > limits.max_files or size > limits.max_files * _ENTRY_BYTES:
        raise Rejected(f"the package holds more than {limits.max_files} files")


def _check_members(opened: zipfile.ZipFile, data: bytes, limits: PackageLimits) -> None:
    entries = opened.infolist()
    seen: set[str] = set()
    end = slack = 0
    for entry in sorted(entries, key=lambda one: one.header_offset):
        _check_member(entry, limits)
        folded = entry.filename.casefold()
        if folded in seen:
            raise Rejected(f"the package holds {entry.filename!r} twice, or in two spellings")
        seen.add(folded)
        if entry.header_offset < end:
            raise Rejected(f"the package's {entry.filename!r} overlaps another file")
        if entry.header_offset > end + slack:
            raise Rejected(
                f"the package holds bytes ahead of {entry.filename!r} that are no file; make it with: {_PACK}"
            )
        end = entry.header_offset + _local_bytes(data, entry)
        slack = _DESCRIPTOR_BYTES if entry.flag_bits & _DESCRIBED else 0
    if opened.start_dir > end + slack:
        raise Rejected(f"the package holds bytes ahead of its directory that are no file; make it with: {_PACK}")
    if len(entries) > limits.max_files:
        raise Rejected(f"the package holds more than {limits.max_files} files")
    if sum(entry.file_size for entry in entries) > limits.max_unpacked_bytes:
        raise Rejected(f"the package unpacks to more than {limits.max_unpacked_bytes} bytes")
    folders = {str(parent) for name in seen for parent in PurePosixPath(name).parents}
    if folders & seen:
        raise Rejected(f"the package holds a file and a folder of one name: {_listed(folders & seen)}")


def _local_bytes(data: bytes, entry: zipfile.ZipInfo) -> int:
    """Bytes of a member with its local header. Source: ZIP File Format Specification 6.3, 4.3.7."""
    name, extra = _LOCAL_LENGTHS.unpack_from(data, entry.header_offset + _LOCAL_LENGTHS_AT)
    return int(_LOCAL_HEADER_BYTES + name + extra + entry.compress_size)


def _check_member(entry: zipfile.ZipInfo, limits: PackageLimits) -> None:
    # zipfile ends a name at a NUL and turns separators round: what was written must be what is read.
    if entry.orig_filename != entry.filename or not is_member_name(entry.filename):
        raise Rejected(f"the package holds a file by the name {entry.orig_filename[:80]!r}; names are plain: a/b.json")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG} or entry.is_dir():
        raise Rejected(f"the package's {entry.filename!r} is no ordinary file")
    if entry.flag_bits & _ENCRYPTED:
        raise Rejected(f"the package's {entry.filename!r} is encrypted")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise Rejected(f"the package's {entry.filename!r} is compressed in a way that is not taken: store or deflate")
    if entry.file_size > max(_ALWAYS_ALLOWED, entry.compress_size * limits.max_ratio):
        raise Rejected(f"the package's {entry.filename!r} unpacks to more than {limits.max_ratio} times its size")


def _read(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A member's bytes; the library stops at the size that the directory claims, and checks the CRC there."""
    with opened.open(entry) as file:
        data = file.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        raise Rejected(f"the package's {entry.filename!r} is not as long as its directory says")
    return data


def _manifest(files: Mapping[str, bytes]) -> Manifest:
    if MANIFEST_NAME not in files:
        raise Rejected(f"the package lacks {MANIFEST_NAME}; make it with: {_PACK}")
    try:
        manifest = parse_manifest(manifest_data(files[MANIFEST_NAME], MANIFEST_NAME), MANIFEST_NAME)
        _check_version(manifest)
        member_names(manifest)
    except ConfigError as error:
        raise Rejected(str(error)) from error
    return manifest


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:5])
