"""Third-party sources of a plugin: fetched by exact version and sha256, unpacked within bounds, kept in the cache.

Knows no compiler.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gateway.core.errors import ConfigError
from gateway.wasm.manifest import Upstream
from gateway.workbench.toolchains import pip
from gateway.workbench.tools import Tell, cache_folder, locked

_MOST_BYTES = 256 << 20
"""Unpacked: the sources of a whole JavaScript engine have 5 MB."""
_MOST_MEMBERS = 20_000


def upstream_folder(upstream: Upstream, tell: Tell) -> Path:
    """The unpacked archive, below its top folder; fetched on first use. Raises ConfigError saying what is wrong."""
    folder = cache_folder() / "upstream" / upstream.sha256
    with locked(folder):
        if not folder.exists():
            tell(f"fetching {upstream.requirement}")
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
                archive = _fetch(upstream, Path(scratch))
                unpacked = Path(scratch) / "unpacked"
                unpack(archive, unpacked)
                unpacked.rename(folder)
    return folder


def unpack(archive: Path, to: Path) -> None:
    """Unpack the files of a .tar.gz without its top folder; raises ConfigError for any member out of the ordinary.

    Links, devices and names that leave the folder are refused, not skipped: an honest source archive has none.
    """
    to.mkdir()
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in _members(tar, archive.name):
                target = to.joinpath(*PurePosixPath(member.name).parts[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                if source is not None:
                    with source, target.open("xb") as file:
                        shutil.copyfileobj(source, file)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ConfigError(f"{archive.name}: cannot be unpacked: {error}") from error


def _members(tar: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    """The plain files of an archive, each checked before it is written."""
    left = _MOST_BYTES
    for number, member in enumerate(tar, 1):
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ConfigError(f"{name}: the member {member.name[:200]!r} leaves the archive's folder")
        if not member.isfile() and not member.isdir():
            raise ConfigError(f"{name}: the member {member.name[:200]!r} is neither a file nor a folder")
        left -= member.size
        if left < 0 or number > _MOST_MEMBERS:
            raise ConfigError(f"{name}: unpacks to more than {_MOST_BYTES} bytes or {_MOST_MEMBERS} members")
        if member.isfile() and len(path.parts) > 1:
            yield member


def _fetch(upstream: Upstream, scratch: Path) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{upstream.requirement} --hash=sha256:{upstream.sha256}\n")
    place = scratch / "archive"
    what = f"fetching {upstream.requirement}"
    pip(
        [
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--require-hashes",
            "-r",
            str(requirements),
            "-d",
            str(place),
        ],
        what,
    )
    for archive in place.iterdir():
        if hashlib.sha256(archive.read_bytes()).hexdigest() == upstream.sha256:
            return archive
    raise ConfigError(f"{what}: the registry gave another archive than the manifest's sha256 {upstream.sha256}")
