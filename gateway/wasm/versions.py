"""Which versions of each plugin lie ready, and which of them is meant to run.

Owns looking: at the operator's folders and at the installed area, cheaply enough to do it every few seconds. Loads and
runs nothing. May be used from any thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from gateway.core.errors import ConfigError, Conflict, Rejected
from gateway.wasm.area import Decisions, PluginArea
from gateway.wasm.manifest import load_manifest, plugin_folders
from gateway.wasm.package import folder_files
from gateway.wasm.signing import SIGNATURE_NAME, Trust
from gateway.wasm.status import Source

log = structlog.get_logger(__name__)

_MOST_FILES: Final = 2000
"""Files of a plugin's folder that are looked at for changes; a source tree beyond that changes unnoticed."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A version that lies ready in a folder of its own. version: empty where the manifest cannot be read."""

    id: str
    version: str
    folder: Path
    source: Source
    sha256: str = ""
    signed_by: str = ""
    trusted: bool = False


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What lies ready of one plugin. mark: changes with any of it.

    refused: versions that may not run, by name, with the reason. refused_folder: which of them is the folder's.
    """

    id: str
    found: tuple[Found, ...]
    refused: dict[str, str]
    decisions: Decisions
    mark: str
    refused_folder: str | None = None

    @property
    def in_folder(self) -> Found | None:
        """The folder's version."""
        return next((found for found in self.found if found.source == "folder"), None)

    def version(self, version: str) -> Found | None:
        """A version by its name; an installed one before the folder's."""
        named = [found for found in self.found if found.version == version]
        return next((found for found in named if found.source == "installed"), named[0] if named else None)

    def preferred(self) -> list[Found]:
        """What is meant to run, and what to fall back on where it cannot."""
        decided = None if self.decisions.active is None else self.version(self.decisions.active)
        installed = [found for found in self.found if found.source == "installed"]
        first = decided or self.in_folder or (installed[-1] if installed else None)
        second = None if self.decisions.previous is None else self.version(self.decisions.previous)
        return [found for place, found in enumerate((first, second)) if found and (place == 0 or found != first)]


class _Folder(NamedTuple):
    """What an operator's folder says of itself. refused: its signature is wrong."""

    version: str
    signed_by: str = ""
    trusted: bool = False
    refused: str = ""


class PluginSources:
    """The operator's folders and the installed area."""

    def __init__(self, dirs: Sequence[Path], area: PluginArea | None) -> None:
        """Look at nothing yet. Without an area decisions last as long as the process."""
        self._dirs = tuple(dirs)
        self._area = area
        self._decided: dict[str, Decisions] = {}
        self._seen: dict[Path, tuple[str, _Folder]] = {}

    def ids(self) -> list[str]:
        """Every plugin of which there is a version, folders first."""
        installed = [] if self._area is None else [name for name in self._area.ids() if self._area.versions(name)]
        return list(dict.fromkeys([*self._folders(), *installed]))

    def ignored(self) -> list[tuple[Path, Path]]:
        """Folders whose id another one has already, each with that other one."""
        kept = self._folders()
        every = [folder for root in self._dirs for folder in plugin_folders(root)]
        return [(folder, kept[folder.name]) for folder in every if kept[folder.name] != folder]

    def survey_all(self) -> list[Survey]:
        """Look at every plugin."""
        folders = self._folders()
        return [self._survey(plugin_id, folders.get(plugin_id)) for plugin_id in self.ids()]

    def survey(self, plugin_id: str) -> Survey:
        """Look at one plugin; one that is gone has no versions."""
        return self._survey(plugin_id, self._folders().get(plugin_id))

    def _survey(self, plugin_id: str, folder: Path | None) -> Survey:
        found: list[Found] = []
        refused: dict[str, str] = {}
        refused_folder: str | None = None
        traces: list[str] = []
        if folder is not None:
            traces.append(fingerprint(folder))
            seen = self._look_at(folder, traces[0])
            if seen.refused:
                refused[seen.version], refused_folder = seen.refused, seen.version
            else:
                signed: dict[str, Any] = {"signed_by": seen.signed_by, "trusted": seen.trusted}
                found.append(Found(id=plugin_id, version=seen.version, folder=folder, source="folder", **signed))
        if self._area is not None:
            for one in self._area.versions(plugin_id):
                fields = {name: getattr(one, name) for name in one.__struct_fields__}
                found.append(Found(**fields, source="installed"))
                traces.append(f"{one.version} {one.sha256}")
            refused = self._area.refused(plugin_id) | refused
        decisions = self.decisions(plugin_id)
        mark = _digest([*traces, repr(refused), repr(decisions)])
        return Survey(
            id=plugin_id,
            found=tuple(found),
            refused=refused,
            decisions=decisions,
            mark=mark,
            refused_folder=refused_folder,
        )

    def decisions(self, plugin_id: str) -> Decisions:
        """What was decided about a plugin."""
        if self._area is None:
            return self._decided.get(plugin_id, Decisions())
        return self._area.decisions(plugin_id)

    def decide(self, plugin_id: str, decisions: Decisions) -> None:
        """Keep decisions, durably where there is an area. Raises StorageFailed."""
        if self._area is None:
            self._decided[plugin_id] = decisions
        else:
            self._area.decide(plugin_id, decisions)

    def remove(self, plugin_id: str, version: str | None) -> None:
        """Remove an installed version, or all of them with every decision. Raises NotFound, Conflict, StorageFailed."""
        if self._area is None or (version is None and plugin_id not in self._area.ids()):
            raise Conflict(f"plugin {plugin_id} comes from a folder of [plugins] dirs: remove it there, or disable it")
        if version is None:
            self._area.forget(plugin_id)
        else:
            self._area.remove(plugin_id, version)

    def _look_at(self, folder: Path, trace: str) -> _Folder:
        """What a folder says of itself; read again only when it changed."""
        known = self._seen.get(folder)
        if known is None or known[0] != trace:
            try:
                read = _read(folder, None if self._area is None else self._area.trust)
            except Exception as error:  # whatever lies in one folder keeps nobody from looking at the others
                log.exception("a plugin's folder cannot be read", folder=str(folder))
                read = _Folder("", refused=f"it cannot be read: {type(error).__name__}")
            known = self._seen[folder] = trace, read
        return known[1]

    def _folders(self) -> dict[str, Path]:
        folders: dict[str, Path] = {}
        for root in self._dirs:
            for folder in plugin_folders(root):
                folders.setdefault(folder.name, folder)
        return folders


def _read(folder: Path, trust: Trust | None) -> _Folder:
    """Read version and signature. An operator's folder needs no signature, but one that it has must be right."""
    try:
        manifest = load_manifest(folder)
    except ConfigError:
        return _Folder("")  # loading it says what is wrong
    if trust is None or not (folder / SIGNATURE_NAME).exists():
        return _Folder(manifest.version)
    try:
        signer = trust.signer(folder_files(folder, manifest))
    except (ConfigError, Rejected) as error:
        return _Folder(manifest.version, refused=str(error))
    if signer is None:
        return _Folder(manifest.version)
    return _Folder(manifest.version, str(signer), signer.trusted)


def fingerprint(folder: Path) -> str:
    """Changes when a file of the folder is written, replaced, added or removed; reads no file's contents."""
    traces: list[str] = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            try:
                status = path.stat()
            except OSError:
                continue  # gone meanwhile: the next look says so
            traces.append(f"{path} {status.st_mtime_ns} {status.st_size} {status.st_ino}")
            if len(traces) >= _MOST_FILES:
                return _digest(traces)
    return _digest(traces)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()
