"""Makes the folder of a new plugin: an example that builds and passes its own tests at once. Builds nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.core.errors import ConfigError
from gateway.wasm.manifest import PluginId, load_manifest, load_vectors
from gateway.workbench.shipped import shipped_plugins

Template = Literal["c", "zig", "as", "go", "rust", "js"]

_SHARED: Final = "shared"
_BUILD: Final = "build.toml"
_SDK: Final = "sdk.md"
_CONFORMANCE: Final = "conformance.json"
_VECTORS: Final = "vectors.json"
_NAME: Final = "{{name}}"


class NewPlugin(msgspec.Struct, frozen=True):
    """What was made. `frame` is one that its vectors decode, as hex."""

    folder: Path
    files: tuple[str, ...]
    frame: str


def new_plugin(template: Template, name: str, into: Path) -> NewPlugin:
    """Make `into/name` from a template, whole or not at all.

    Raises ConfigError where the name is none for a plugin, or something of that name is there.
    """
    try:
        msgspec.convert(name, PluginId)
    except msgspec.ValidationError:
        raise ConfigError(
            f"{name!r} cannot name a plugin: start with a lower-case letter, go on with those, digits, `-` and `_`, "
            "at most 64 of them"
        ) from None
    target = into / name
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} is already there; choose another name, or another folder with --into")
    if (shipped_plugins() / name).is_dir():
        raise ConfigError(f"{name!r} is the name of a plugin that comes with the gateway; choose another")
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into, prefix=".new-") as scratch:
            folder = Path(scratch) / name
            _fill(folder, template, name)
            made = _described(folder, target)
            folder.rename(target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be made: {error.strerror}") from error
    return made


def _fill(folder: Path, template: Template, name: str) -> None:
    """Write every file of a template; one of its own takes the place of the shared one."""
    sdk = shipped_plugins() / "sdk"
    own, shared = sdk / "templates" / template, sdk / "templates" / _SHARED
    if not own.is_dir():
        raise ConfigError(f"the template {template!r} is not there; install the gateway again")
    files = {**dict(_files(shared)), **dict(_files(own))}
    if _VECTORS not in files:
        files[_VECTORS] = sdk / _CONFORMANCE
    parts = {"build": files.pop(_BUILD, None), "sdk": files.pop(_SDK, None)}
    words = {key: path.read_text().strip() for key, path in parts.items() if path is not None}
    words |= {"source": _source(files, name), "frame": _example(files[_VECTORS]), "name": name}
    for place, path in files.items():
        to = folder / place.replace(_NAME, name)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(_filled(path.read_text(), words))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.glob("**/*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _filled(text: str, words: Mapping[str, str]) -> str:
    # In this order: the parts name the plugin, too.
    for key, word in words.items():
        text = text.replace(f"{{{{{key}}}}}", word)
    return text


def _source(files: Mapping[str, Path], name: str) -> str:
    """The file to edit: the only one that is neither text for people nor data."""
    code = [place for place in files if Path(place).suffix not in {".toml", ".md", ".json", ".mod"}]
    return ", ".join(f"`{place.replace(_NAME, name)}`" for place in code)


def _example(vectors: Path) -> str:
    data = msgspec.json.decode(vectors.read_bytes())
    return next(str(vector["frame"]) for vector in data["vectors"] if "item" in vector or "expect" in vector)


def _described(folder: Path, target: Path) -> NewPlugin:
    """Read back what was made, as the gateway will."""
    manifest = load_manifest(folder)
    load_vectors(manifest, folder)
    files = tuple(place for place, _ in _files(folder))
    return NewPlugin(target, files, _example(folder / _VECTORS))
