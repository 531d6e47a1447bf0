"""Builds plugins from their sources.

A built module carries the digest of what it was built from in a custom section, so that it is built again exactly when
sources, headers, flags or compiler differ. Knows no host.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import gateway
from gateway.core.errors import ConfigError
from gateway.wasm.manifest import MANIFEST_NAME, Build, load_manifest, plugin_folders
from gateway.workbench.compilers import C_FLAGS, C_FREESTANDING, C_LIBC, C_LINK_FLAGS, Sources, c_steps
from gateway.workbench.toolchains import (
    Tell,
    run_tool,
    tell_on_stderr,
    zig_command,
    zig_environment,
    zig_version,
)
from gateway.workbench.upstream import upstream_folder

SECTION = b"gw1.build"
UPSTREAM = "upstream/"
"""What begins the name of a source from the fetched archive."""
_TIMEOUT_S = 300.0
"""One command. The first run builds a part of the toolchain; a machine with one slow core needs minutes for it."""
_GENERATE_TIMEOUT_S = 60.0
_MOST_GENERATED_BYTES = 16 << 20


def build_plugin(folder: Path, *, force: bool = False, tell: Tell = tell_on_stderr) -> Path:
    """Build one plugin's module unless it is up to date, and return its path; of one with a runtime, its script's.

    Raises ConfigError with the compiler's words, or saying how to get the compiler.
    """
    folder = folder.resolve()
    manifest = load_manifest(folder)
    if manifest.script is not None:
        return _present(folder / manifest.script, "`script`", folder)
    target = folder / manifest.wasm_name
    if not manifest.build.sources:
        if target.exists():
            return target
        raise ConfigError(f"{folder / MANIFEST_NAME}: no `build.sources`, and {target.name} is not there")
    with tempfile.TemporaryDirectory(prefix="gateway-build-") as name:
        scratch = Path(name).resolve()
        sources = _sources(folder, manifest.build, scratch, tell)
        digest = _digest(sources, manifest.build)
        if force or not target.exists() or built_digest(target.read_bytes()) != digest:
            _compile(sources, scratch, target, digest)
    return target


def build_all(root: Path, *, force: bool = False) -> list[Path]:
    """Build every plugin below `root` that has sources; raises ConfigError at the first that fails."""
    return [build_plugin(folder, force=force) for folder in plugin_folders(root) if load_manifest(folder).build.sources]


def sdk_folders(folder: Path) -> list[Path]:
    """Where `gw1.h` may lie: beside the plugin's folder, then in the gateway's own tree."""
    places = [folder.parent / "sdk" / "c", Path(gateway.__file__).parent.parent / "plugins" / "sdk" / "c"]
    return [place for place in places if (place / "gw1.h").exists()][:1]


def compiler() -> list[str]:
    """The command of the C compiler; raises ConfigError where it is not installed."""
    return [*zig_command(), "cc"]


def compiler_environment() -> dict[str, str]:
    """Environment for the compiler, with its cache outside any source tree."""
    return zig_environment()


def built_digest(module: bytes) -> str | None:
    """What a module was built from, or None where it does not say. The section is the module's last."""
    entry = _section("0" * 64)
    tail = module[-len(entry) :]
    head = entry[:-64]
    return tail[len(head) :].decode("ascii", "replace") if tail.startswith(head) else None


def _sources(folder: Path, build: Build, scratch: Path, tell: Tell) -> Sources:
    """Everything that the module is made of, with what must be fetched or generated for it."""
    generated = scratch / "generated"
    for name, script in build.generated.items():
        _generate(folder, generated / name, _present(folder / script, "`build.generated`", folder))
    includes = [folder, generated, *sdk_folders(folder)]
    foreign: list[Path] = []
    foreign_includes: list[Path] = []
    if build.upstream is not None:
        upstream = upstream_folder(build.upstream, tell)
        names = [name.removeprefix(UPSTREAM) for name in build.sources if name.startswith(UPSTREAM)]
        foreign = [_present(upstream / name, "`build.sources`", folder) for name in names]
        foreign_includes = list(dict.fromkeys([upstream, *(source.parent for source in foreign)]))
    own = [name for name in build.sources if build.upstream is None or not name.startswith(UPSTREAM)]
    return Sources(
        folder=folder,
        files=tuple(_present(folder / name, "`build.sources`", folder) for name in own),
        foreign=tuple(foreign),
        includes=tuple(includes),
        foreign_includes=tuple(foreign_includes),
        flags=build.flags,
        libc=build.libc,
    )


def _present(path: Path, key: str, folder: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{folder / MANIFEST_NAME}: {key} names {path.name}, which is not there")
    return path


def _generate(folder: Path, to: Path, script: Path) -> None:
    """Write what a script of the plugin prints. It runs isolated: what it imports is Python's own, not the caller's."""
    what = f"{folder.name}: {script.name}"
    printed = run_tool([sys.executable, "-I", str(script)], what, timeout_s=_GENERATE_TIMEOUT_S, cwd=folder)
    if len(printed) > _MOST_GENERATED_BYTES:
        raise ConfigError(f"{what} prints more than {_MOST_GENERATED_BYTES} bytes")
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(printed)


def _digest(sources: Sources, build: Build) -> str:
    upstream = None if build.upstream is None else build.upstream.sha256
    standard = (*C_FLAGS, *C_LINK_FLAGS, *(C_LIBC if sources.libc else C_FREESTANDING))
    recipe = (build.language, zig_version(), standard, sources.flags, upstream, build.sources)
    digest = hashlib.sha256(repr(recipe).encode())
    for path in sources.files:
        digest.update(f"\0{path.relative_to(sources.folder)}\0".encode() + path.read_bytes())
    for folder in sources.includes:
        for path in _headers(folder):
            digest.update(f"\0{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _headers(folder: Path) -> list[Path]:
    hidden = (path for path in folder.glob("**/*.h") if path.is_file())
    return sorted(path for path in hidden if not any(part[0] == "." for part in path.relative_to(folder).parts))


def _compile(sources: Sources, scratch: Path, target: Path, digest: str) -> None:
    made = scratch / target.name
    for step in c_steps(sources, scratch, made):
        what = f"{sources.folder.name}: the compiler"
        run_tool(step.command, what, timeout_s=_TIMEOUT_S, env=step.environment)
    if not made.exists():
        raise ConfigError(f"{sources.folder.name}: the compiler made no module")
    _put(target, made.read_bytes() + _section(digest))


def _put(target: Path, data: bytes) -> None:
    """Replace a file in one step: whoever reads it meanwhile has the old or the new one, never a part."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".built-", delete=False) as file:
            file.write(data)
        made = Path(file.name)
        made.chmod(0o644)
        made.replace(target)
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written: {error.strerror}; copy the plugin's folder and build it there"
        ) from error


def _section(digest: str) -> bytes:
    """A custom section. Source: WebAssembly core specification 2.0, 5.5.3."""
    body = bytes([len(SECTION)]) + SECTION + digest.encode()
    return bytes([0, len(body)]) + body
