"""Builds plugins from their sources.

A built module carries the digest of what it was built from in a custom section, so that it is built again exactly when
sources, headers, flags or compiler differ. Knows no host.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from msgspec.structs import replace

from gateway.core.errors import ConfigError
from gateway.wasm.manifest import MANIFEST_NAME, Build, Manifest, load_manifest, plugin_folders
from gateway.wasm.package import write_file
from gateway.workbench import toolchains
from gateway.workbench.compilers import COMPILERS, Compiler, Sources
from gateway.workbench.shipped import plugin_folder, shipped_plugins
from gateway.workbench.tools import Tell, run_tool, tell_on_stderr
from gateway.workbench.upstream import upstream_folder

SECTION = b"gw1.build"
UPSTREAM = "upstream/"
"""What begins the name of a source from the fetched archive."""
_TIMEOUT_S = 300.0
"""One command. The first run builds a part of the toolchain; a machine with one slow core needs minutes for it."""
_GENERATE_TIMEOUT_S = 60.0
_WORDS_AND_PACKAGES = ("README*", "*.gwp")
_JOBS = 2
"""Builds at a time: a compiler is a process with threads and much memory of its own."""


def build_plugin(folder: Path, *, force: bool = False, tell: Tell = tell_on_stderr) -> Path:
    """Build one plugin's module unless it is up to date, and return its path.

    Of a plugin with a runtime the script's path is returned, and the runtime built where it has no module: whoever
    brings a module needs no compiler. Raises ConfigError with the compiler's words, or saying how to get the compiler.
    """
    folder = folder.resolve()
    manifest = load_manifest(folder)
    if manifest.script is not None and manifest.runtime is not None:
        script = _present(folder / manifest.script, "`script`", folder)
        runtime = plugin_folder(manifest.runtime, folder.parent)
        if not (runtime / load_manifest(runtime).wasm_name).exists():
            build_plugin(runtime, tell=tell)
        return script
    target = folder / manifest.wasm_name
    if not manifest.build.sources:
        if target.exists():
            return target
        raise ConfigError(f"{folder / MANIFEST_NAME}: no `build.sources`, and {target.name} is not there")
    compiler = COMPILERS[manifest.build.language]
    with tempfile.TemporaryDirectory(prefix="gateway-build-") as name:
        scratch = Path(name).resolve()
        sources = _sources(folder, manifest, compiler, scratch)
        digest = _digest(sources, manifest.build, compiler)
        if force or not target.exists() or built_digest(target.read_bytes()) != digest:
            sources = _with_upstream(sources, manifest.build, tell)
            made = scratch / "module.wasm"
            for step in compiler.steps(sources, scratch, made, tell):
                what = f"{folder.name}: the compiler"
                run_tool(step.command, what, timeout_s=_TIMEOUT_S, env=step.environment, cwd=step.cwd)
            if not made.exists():
                raise ConfigError(f"{folder.name}: the compiler made no module")
            write_file(target, made.read_bytes() + _section(digest), "copy the plugin's folder and build it there")
    return target


def build_all(root: Path, *, force: bool = False, built: Callable[[Path], None] | None = None) -> list[Path]:
    """Build every plugin below `root` that has sources, some at a time, and tell of each as it is done.

    Raises ConfigError with what every plugin that failed had to say, once the others are built.
    """
    folders = [folder for folder in plugin_folders(root) if load_manifest(folder).build.sources]
    done: dict[Path, Path] = {}
    failures: list[ConfigError] = []
    with ThreadPoolExecutor(_JOBS) as pool:
        jobs = {pool.submit(build_plugin, folder, force=force): folder for folder in folders}
        for job in as_completed(jobs):
            try:
                done[jobs[job]] = job.result()
            except ConfigError as failure:
                failures.append(failure)
            else:
                if built is not None:
                    built(done[jobs[job]])
    if failures:
        raise ConfigError("\n".join(map(str, failures)))
    return [done[folder] for folder in folders]


def sdk_folder(folder: Path, compiler: Compiler) -> Path:
    """The SDK of a language: beside the plugin's folder, else the gateway's own. Raises ConfigError."""
    for place in (folder.parent / "sdk", shipped_plugins() / "sdk"):
        if (place / compiler.sdk / compiler.sdk_file).is_file():
            return place / compiler.sdk
    raise ConfigError(f"{folder.name}: the SDK {compiler.sdk} is not there; install the gateway again")


def sdk_folders(folder: Path) -> list[Path]:
    """Folders of headers for a C program beside a plugin: where `gw1.h` lies."""
    return [sdk_folder(folder.resolve(), COMPILERS["c"])]


def compiler() -> list[str]:
    """The command of the C compiler; raises ConfigError where it is not installed."""
    return [*toolchains.zig(tell_on_stderr).command, "cc"]


def compiler_environment() -> dict[str, str]:
    """Environment for the compiler, with its cache outside any source tree."""
    return toolchains.zig(tell_on_stderr).environment


def built_digest(module: bytes) -> str | None:
    """What a module was built from, or None where it does not say. The section is the module's last."""
    entry = _section("0" * 64)
    tail = module[-len(entry) :]
    head = entry[:-64]
    return tail[len(head) :].decode("ascii", "replace") if tail.startswith(head) else None


def _sources(folder: Path, manifest: Manifest, compiler: Compiler, scratch: Path) -> Sources:
    """Everything that the module is made of, generated headers included, but for what must be fetched."""
    build = manifest.build
    if build.language != "c" and (build.generated or build.upstream is not None or build.libc):
        raise ConfigError(f"{folder / MANIFEST_NAME}: `build.generated`, `upstream` and `libc` are for C alone")
    generated = scratch / "generated"
    for name, script in build.generated.items():
        _generate(folder, generated / name, _present(folder / script, "`build.generated`", folder))
    own = [name for name in build.sources if build.upstream is None or not name.startswith(UPSTREAM)]
    sdk = sdk_folder(folder, compiler)
    for place in (folder, sdk, scratch):
        _speakable(place)
    return Sources(
        folder=folder,
        files=tuple(_present(folder / name, "`build.sources`", folder) for name in own),
        sdk=sdk,
        flags=build.flags,
        includes=(folder, generated, sdk),
        apart=_apart(folder, manifest),
        libc=build.libc,
    )


def _with_upstream(sources: Sources, build: Build, tell: Tell) -> Sources:
    """The sources with the third-party ones, fetched where they are not there. The digest has their hash instead."""
    if build.upstream is None:
        return sources
    upstream = upstream_folder(build.upstream, tell)
    names = [name.removeprefix(UPSTREAM) for name in build.sources if name.startswith(UPSTREAM)]
    foreign = tuple(_present(upstream / name, "`build.sources`", sources.folder) for name in names)
    includes = tuple(dict.fromkeys([upstream, *(source.parent for source in foreign)]))
    return replace(sources, foreign=foreign, foreign_includes=includes)


def _speakable(place: Path) -> None:
    """Refuse a path that compilers cannot write into the files by which they talk to themselves."""
    name = str(place)
    if any(sign in '"\\' or not sign.isprintable() for sign in name):
        raise ConfigError(
            f"{name!r}: compilers take no folder with quotation marks, backslashes or unprintable signs in its path; "
            "rename it, or build a copy elsewhere"
        )


def _present(path: Path, key: str, folder: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{folder / MANIFEST_NAME}: {key} names {path.name}, which is not there")
    return path


def _generate(folder: Path, to: Path, script: Path) -> None:
    """Write what a script of the plugin prints. It runs isolated: what it imports is Python's own, not the caller's."""
    what = f"{folder.name}: {script.name}"
    printed = run_tool([sys.executable, "-I", str(script)], what, timeout_s=_GENERATE_TIMEOUT_S, cwd=folder)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(printed)


def _digest(sources: Sources, build: Build, compiler: Compiler) -> str:
    upstream = None if build.upstream is None else build.upstream.sha256
    recipe = (build.language, compiler.version(), compiler.recipe, build.flags, build.libc, upstream, build.sources)
    digest = hashlib.sha256(repr(recipe).encode())
    for path in sources.files:
        digest.update(_part(path, sources.folder))
    for folder in sources.includes:
        for path in _files(folder):
            takes_part = path.name.endswith(compiler.suffixes) if folder == sources.sdk else path not in sources.apart
            if takes_part:
                digest.update(_part(path, folder))
    return digest.hexdigest()


def _part(path: Path, folder: Path) -> bytes:
    """What stands for a file in a digest: where it lies and what it holds."""
    with path.open("rb") as file:
        return b"\0%b\0%b" % (os.fsencode(path.relative_to(folder)), hashlib.file_digest(file, "sha256").digest())


def _apart(folder: Path, manifest: Manifest) -> frozenset[Path]:
    """Files of a plugin's folder that no module is made of: itself, its packages, its promises and words for people.

    Any other may be: sources include, embed and import what the manifest does not name.
    """
    names = [MANIFEST_NAME, manifest.wasm_name, *(vector.vectors for vector in manifest.test)]
    known = {folder / name for name in names if name is not None}
    return frozenset(known.union(*(folder.glob(pattern) for pattern in _WORDS_AND_PACKAGES)))


def _files(folder: Path) -> list[Path]:
    """The files of a folder in a stable order, without what an editor or a language's own tool left there."""
    found = (path for path in folder.glob("**/*") if path.is_file())
    return sorted(path for path in found if not any(map(_is_work, path.relative_to(folder).parts)))


def _is_work(name: str) -> bool:
    return name[0] == "." or name in {"node_modules", "target", "__pycache__"}


def _section(digest: str) -> bytes:
    """A custom section. Source: WebAssembly core specification 2.0, 5.5.3."""
    body = bytes([len(SECTION)]) + SECTION + digest.encode()
    return bytes([0, len(body)]) + body
