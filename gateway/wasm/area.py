"""The installed plugins: versions that came as packages, and what people decided about them, below the data directory.

    plugins/<id>/.decisions.json                   which version is meant to run, what was granted
    plugins/<id>/<version>/installed.json          digests that the version is checked against
    plugins/<id>/<version>/<id>/plugin.toml, ...   the version's files, as a plugin's folder

Owns these files: each change is whole or not there, whatever ends the process at whatever moment, and several processes
may work on one area. What lies beside versions and plugins begins with a dot: they never do, whatever a package calls
itself. Runs nothing; knows neither the host nor any folder of `[plugins] dirs`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.core.errors import ConfigError, Conflict, NotFound, Rejected, StorageFailed
from gateway.wasm.config import PluginsConfig
from gateway.wasm.manifest import load_manifest
from gateway.wasm.package import Package, PackageLimits, folder_files, is_version, read_package, unpack, version_key
from gateway.wasm.signing import SIGNATURE_NAME, Signer, Trust, statement

log = structlog.get_logger(__name__)

MOST_VERSIONS: Final = 16
"""Versions of one plugin that are kept: enough to go back, few enough to show."""
MOST_PLUGINS: Final = 512

_DECISIONS: Final = ".decisions.json"
_RECORD: Final = "installed.json"
_LOCK: Final = ".lock"
_COMING: Final = ".coming-"
_GOING: Final = ".going-"
_MOST_RECORD_BYTES: Final = 64 << 10
_ID: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """An installed version that may run.

    folder: the version's files, a plugin's folder. sha256: of the package that it came in. signed_by: the trusted key's
    name, `unknown key <id>`, or empty.
    """

    id: str
    version: str
    folder: Path
    sha256: str
    signed_by: str
    trusted: bool


class Decisions(msgspec.Struct, frozen=True, kw_only=True):
    """What people decided about a plugin; it holds over restarts. Keys of a later gateway are passed over.

    active: the installed version that is meant to run; None for the folder's, else the newest installed.
    previous: the version before it, for a rollback. disabled: none runs. granted: capabilities beyond
    `[wasm] default_grants`, None where nobody was asked.
    """

    active: str | None = None
    previous: str | None = None
    disabled: bool = False
    granted: tuple[str, ...] | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """`installed.json`: SHA-256 of the package, and of what its files' signature would be over."""

    package: str
    content: str


_DAMAGE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises for a file that is not what was written."""

_Seen = tuple[int, int]
"""Inode and modification time of a record: another one is read and checked again."""


class PluginArea:
    """The area in `folder`. May be used from any thread; methods that change it wait for the disk."""

    def __init__(
        self,
        folder: Path,
        trust: Trust | None = None,
        limits: PackageLimits | None = None,
        *,
        max_versions: int = MOST_VERSIONS,
    ) -> None:
        """Touch nothing yet: an area that nobody installs into is no folder."""
        self._folder = folder
        self.trust = trust or Trust()
        self.limits = limits or PackageLimits()
        self._max_versions = max_versions
        self._checked: dict[Path, tuple[_Seen, Installed | str]] = {}

    @classmethod
    def open(cls, config: PluginsConfig, data_dir: Path) -> PluginArea:
        """The area of a data directory, as configured. Raises ConfigError for a trusted key that is none."""
        return cls(
            data_dir / "plugins",
            Trust(config.trusted, require_signed=config.require_signed),
            PackageLimits(max_package_bytes=config.max_package_bytes, max_unpacked_bytes=2 * config.max_package_bytes),
            max_versions=config.max_versions,
        )

    def clear_leftovers(self) -> None:
        """Remove what an installation or removal that was cut off left behind. Raises StorageFailed."""
        if not self._folder.is_dir():
            return
        with self._locked(), _disk():
            for path in self._folder.iterdir():
                if path.name.startswith((_COMING, _GOING)):
                    shutil.rmtree(path)
            for path in self._folder.glob(f"*/{_COMING}*"):
                path.unlink()

    def ids(self) -> list[str]:
        """Plugins that have a version or decisions here, in order."""
        return sorted(path.name for path in _folders(self._folder) if _ID.fullmatch(path.name))

    def versions(self, plugin_id: str) -> list[Installed]:
        """Versions that may run, from old to new. Those that may not are told by `refused`."""
        return [found for _, found in self._found(plugin_id) if isinstance(found, Installed)]

    def refused(self, plugin_id: str) -> dict[str, str]:
        """Versions that lie here and may not run (damaged, not signed as asked for), each with the reason."""
        return {version: found for version, found in self._found(plugin_id) if isinstance(found, str)}

    def install(self, package: bytes | Path) -> Installed:
        """Check a package and keep it; returns once it is durable. The same package again changes nothing.

        Raises Rejected for a package that is not taken, Conflict where other bytes have its version or there are too
        many, StorageFailed where the disk refuses; then nothing of it is kept.
        """
        data = read_package(package, self.limits) if isinstance(package, Path) else package
        opened = unpack(data, self.limits)
        plugin_id, version = opened.manifest.id, opened.manifest.version
        signer = self.trust.admit(opened.files)
        with self._locked():
            place = self._folder / plugin_id / version
            found = dict(self._found(plugin_id)).get(version)
            if isinstance(found, Installed):
                if self._record(place).content == _content(opened.files):
                    return found
                raise Conflict(
                    f"{plugin_id} {version} is installed with other content; raise `version` in plugin.toml and pack "
                    "it again, or remove the installed one first"
                )
            self._check_room(plugin_id, found)
            self._put(opened, place)
            installed = _installed(plugin_id, version, place, opened.sha256, signer)
            self._checked[place] = (_seen(place), installed)
        log.info("plugin installed", plugin=plugin_id, version=version, signed_by=installed.signed_by)
        return installed

    def remove(self, plugin_id: str, version: str) -> None:
        """Forget a version, and decisions that name it. Raises NotFound, StorageFailed."""
        with self._locked(), _disk():
            place = self._place(plugin_id, version)
            before = self.decisions(plugin_id)
            after = msgspec.structs.replace(
                before,
                active=None if before.active == version else before.active,
                previous=None if before.previous == version else before.previous,
            )
            if after != before:
                self._keep(plugin_id, after)
            self._take_away(place)
        log.info("installed plugin removed", plugin=plugin_id, version=version)

    def forget(self, plugin_id: str) -> None:
        """Forget all versions of a plugin and every decision about it. Raises NotFound, StorageFailed."""
        with self._locked(), _disk():
            if plugin_id not in self.ids():
                raise NotFound(f"no plugin {plugin_id!r} is installed")
            self._take_away(self._folder / plugin_id)
        log.info("installed plugin removed", plugin=plugin_id)

    def decisions(self, plugin_id: str) -> Decisions:
        """What was decided; a damaged file is set aside, as if nothing had been. Raises StorageFailed."""
        path = self._folder / plugin_id / _DECISIONS
        if not _ID.fullmatch(plugin_id):
            return Decisions()
        try:
            return msgspec.json.decode(_small(path), type=Decisions)
        except FileNotFoundError:
            return Decisions()
        except OSError as error:  # the file may be as good as ever
            raise StorageFailed(
                f"{path}: cannot be read: {error.strerror}; see to the disk or to open files"
            ) from error
        except _DAMAGE as error:
            aside = path.with_name(f"{_DECISIONS}.damaged")
            log.error("plugin decisions set aside", plugin=plugin_id, file=str(aside), reason=str(error))
            try:
                path.replace(aside)
            except OSError as failure:
                log.error("plugin decisions cannot be set aside", plugin=plugin_id, reason=str(failure))
            return Decisions()

    def decide(self, plugin_id: str, decisions: Decisions) -> None:
        """Keep decisions in place of the former ones; returns once they are durable. Raises StorageFailed."""
        if not _ID.fullmatch(plugin_id):
            raise NotFound(f"no plugin {plugin_id!r}")
        with self._locked(), _disk():
            self._keep(plugin_id, decisions)

    # -- reading --------------------------------------------------------------------------------------------------

    def _found(self, plugin_id: str) -> list[tuple[str, Installed | str]]:
        """Every version that lies here, from old to new, or why it may not run."""
        if not _ID.fullmatch(plugin_id):
            return []
        places = [path for path in _folders(self._folder / plugin_id) if is_version(path.name)]
        places.sort(key=lambda path: version_key(path.name))
        return [(place.name, self._checked_version(plugin_id, place)) for place in places]

    def _checked_version(self, plugin_id: str, place: Path) -> Installed | str:
        """Check digests and signature, once for each record: a version never changes in its place."""
        try:
            seen = _seen(place)
        except OSError as error:
            return f"{_RECORD} cannot be read: {error.strerror}; install the package again"
        known = self._checked.get(place)
        if known is not None and known[0] == seen:
            return known[1]
        try:
            found: Installed | str = self._check(plugin_id, place)
        except (*_DAMAGE, ConfigError, Rejected, OSError) as error:
            found = str(error)
            log.error("installed plugin refused", plugin=plugin_id, version=place.name, reason=found)
            if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
                return found  # of the disk, or of too many open files: the next look may go well
        self._checked[place] = (seen, found)
        return found

    def _check(self, plugin_id: str, place: Path) -> Installed:
        record = self._record(place)
        folder = place / plugin_id
        manifest = load_manifest(folder)
        files = folder_files(folder, manifest)
        if manifest.version != place.name or _content(files) != record.content:
            raise ConfigError(f"{plugin_id} {place.name} is damaged: its files changed; install the package again")
        return _installed(plugin_id, place.name, place, record.package, self.trust.admit(files))

    def _record(self, place: Path) -> _Record:
        return msgspec.json.decode(_small(place / _RECORD), type=_Record)

    # -- changing -------------------------------------------------------------------------------------------------

    def _check_room(self, plugin_id: str, found: str | None) -> None:
        """Raise Conflict where one more would be too many; one that is refused is replaced, not added."""
        ids = self.ids()
        if plugin_id not in ids and len(ids) >= MOST_PLUGINS:
            raise Conflict(f"there are {MOST_PLUGINS} installed plugins; remove one first")
        if found is None and len(self._found(plugin_id)) >= self._max_versions:
            raise Conflict(
                f"{plugin_id} has {self._max_versions} installed versions; remove one first, or raise "
                "[plugins] max_versions"
            )

    def _put(self, opened: Package, place: Path) -> None:
        """Write a version beside the area's own, then move it to its place in one step."""
        draft = self._folder / f"{_COMING}{secrets.token_hex(8)}"
        try:
            with _disk():
                record = _Record(package=opened.sha256, content=_content(opened.files))
                _write_tree(draft, {f"{opened.manifest.id}/{name}": data for name, data in opened.files.items()})
                _write(draft / _RECORD, msgspec.json.encode(record))
                _sync_folder(draft)
                _make_durable_folder(place.parent)
                if place.exists():
                    self._take_away(place)
                draft.rename(place)
                _sync_folder(place.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _keep(self, plugin_id: str, decisions: Decisions) -> None:
        folder = self._folder / plugin_id
        _make_durable_folder(folder)
        draft = folder / f"{_COMING}{secrets.token_hex(8)}"
        try:
            _write(draft, msgspec.json.format(msgspec.json.encode(decisions)) + b"\n")
            draft.replace(folder / _DECISIONS)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(folder)

    def _take_away(self, path: Path) -> None:
        """Make a folder vanish in one step, then free its space."""
        going = self._folder / f"{_GOING}{secrets.token_hex(8)}"
        path.rename(going)
        _sync_folder(path.parent)
        _sync_folder(self._folder)
        for place in [known for known in list(self._checked) if known.is_relative_to(path)]:
            self._checked.pop(place, None)
        shutil.rmtree(going)

    def _place(self, plugin_id: str, version: str) -> Path:
        if version not in dict(self._found(plugin_id)):
            raise NotFound(f"no version {version!r} of plugin {plugin_id!r} is installed")
        return self._folder / plugin_id / version

    def _make_folder(self) -> None:
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_durable_folder(self._folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process or thread at a time install and remove; the lock ends with its holder."""
        with _disk():
            self._make_folder()
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@contextmanager
def _disk() -> Iterator[None]:
    """Restate what the disk refuses."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"the plugins' folder in the data directory cannot be written: {error.strerror}; nothing was changed"
        ) from error


def _seen(place: Path) -> _Seen:
    state = (place / _RECORD).stat()
    return state.st_ino, state.st_mtime_ns


def _installed(plugin_id: str, version: str, place: Path, sha256: str, signer: Signer | None) -> Installed:
    return Installed(
        id=plugin_id,
        version=version,
        folder=place / plugin_id,
        sha256=sha256,
        signed_by="" if signer is None else str(signer),
        trusted=signer is not None and signer.trusted,
    )


def _content(files: Mapping[str, bytes]) -> str:
    """Digest of all files by name, the signature included."""
    digest = hashlib.sha256(statement(files))
    digest.update(files.get(SIGNATURE_NAME, b""))
    return digest.hexdigest()


def _folders(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MOST_RECORD_BYTES + 1)
    if len(data) > _MOST_RECORD_BYTES:
        raise msgspec.DecodeError(f"larger than {_MOST_RECORD_BYTES} bytes")
    return data


def _write_tree(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a new folder, durable with all their folders."""
    root.mkdir(mode=0o700)
    folders = {root}
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders.update(parent for parent in path.parents if parent.is_relative_to(root))
        _write(path, data)
    for folder in folders:
        _sync_folder(folder)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make_durable_folder(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
