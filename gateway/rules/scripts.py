"""The folder of script files: what is there, what changed. Knows no Lua."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """One `*.lua` file as it was read. `problem` says why it cannot be used."""

    name: str
    path: Path
    source: bytes
    problem: str = ""


class ScriptFolder:
    """Looks at the files of one directory and tells those that changed since the last look."""

    def __init__(self, directory: Path, most: int, most_bytes: int) -> None:
        """Have seen nothing."""
        self._directory = directory
        self._most = most
        self._most_bytes = most_bytes
        self._seen: dict[Path, tuple[int, int]] = {}
        self._sources: dict[Path, bytes] = {}
        self._missing = False
        self.skipped = 0

    def look(self) -> tuple[list[ScriptFile], list[str]]:
        """Files that are new or differ in content, and names of files that are gone. Touching a file is no change."""
        there = self._directory.is_dir()
        if not there and not self._missing:
            log.warning("there is no directory of scripts", directory=str(self._directory))
        self._missing = not there
        found = sorted(self._directory.glob("*.lua")) if there else []
        self.skipped = max(0, len(found) - self._most)
        found = found[: self._most]
        gone = [path for path in self._seen if path not in found]
        for path in gone:
            self._seen.pop(path)
            self._sources.pop(path, None)
        changed = [file for path in found if (file := self._changed(path)) is not None]
        return changed, [path.stem for path in gone]

    def forget(self, name: str) -> None:
        """Take a file as new at the next look."""
        for path in [path for path in self._seen if path.stem == name]:
            self._seen.pop(path)
            self._sources.pop(path, None)

    def put_back(self, files: list[ScriptFile]) -> None:
        """Tell of these files again: they could not be taken."""
        for file in files:
            self.forget(file.name)

    def _changed(self, path: Path) -> ScriptFile | None:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if self._seen.get(path) == stamp:
                return None
            self._seen[path] = stamp
            if not stat.S_ISREG(status.st_mode):  # a pipe would never end
                return ScriptFile(path.stem, path, b"", "is no regular file")
            if status.st_size > self._most_bytes:
                self._sources.pop(path, None)
                return ScriptFile(path.stem, path, b"", f"the file is larger than {self._most_bytes} bytes")
            source = path.read_bytes()
        except OSError as failure:
            self._sources.pop(path, None)
            return ScriptFile(path.stem, path, b"", f"cannot be read: {failure.strerror}")
        if self._sources.get(path) == source:
            return None
        self._sources[path] = source
        return ScriptFile(path.stem, path, source)
