"""Builds plugins from their C sources with the zig toolchain of the `ziglang` wheel.

A built module carries the digest of what it was built from in a custom section, so that it is built again exactly when
sources, headers, flags or compiler differ. Knows no host.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import gateway
from gateway.core.errors import ConfigError
from gateway.wasm.manifest import MANIFEST_NAME, Manifest, load_manifest, plugin_folders

SECTION = b"gw1.build"
_TARGET_FLAGS = (
    "--target=wasm32-freestanding",
    "-nostdlib",
    "-std=c11",
    "-O2",
    "-fno-sanitize=undefined",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    "-Wl,-z,stack-size=262144",
)
_TIMEOUT_S = 300.0
"""The first run builds a part of the toolchain; a machine with one slow core needs minutes for it."""
_SHOWN_CHARS = 4000


def build_plugin(folder: Path, *, force: bool = False) -> Path:
    """Build one plugin's module unless it is up to date, and return its path.

    Raises ConfigError with the compiler's words, or saying how to get the compiler.
    """
    manifest = load_manifest(folder)
    target = folder / manifest.wasm_name
    if not manifest.build.sources:
        if target.exists():
            return target
        raise ConfigError(f"{folder / MANIFEST_NAME}: no `build.sources`, and {target.name} is not there")
    includes = [folder, *sdk_folders(folder)]
    sources = _sources(folder, manifest)
    digest = _digest(sources, includes, manifest.build.flags)
    if force or not target.exists() or built_digest(target.read_bytes()) != digest:
        _compile(folder, sources, includes, manifest.build.flags, target, digest)
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
    if importlib.util.find_spec("ziglang") is None:
        raise ConfigError("the plugin compiler is not installed; run `make setup`, or `pip install ziglang`")
    return [sys.executable, "-m", "ziglang", "cc"]


def compiler_environment() -> dict[str, str]:
    """Environment for the compiler, with its cache outside any source tree."""
    cache = str(_cache_folder())
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}


def built_digest(module: bytes) -> str | None:
    """What a module was built from, or None where it does not say. The section is the module's last."""
    entry = _section("0" * 64)
    tail = module[-len(entry) :]
    head = entry[:-64]
    return tail[len(head) :].decode("ascii", "replace") if tail.startswith(head) else None


def _cache_folder() -> Path:
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / ".zig-cache"
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(home) / "flux-gateway" / "zig"


def _sources(folder: Path, manifest: Manifest) -> list[Path]:
    sources = [folder / name for name in manifest.build.sources]
    for source in sources:
        if not source.is_file():
            raise ConfigError(f"{folder / MANIFEST_NAME}: `build.sources` names {source.name}, which is not there")
    return sources


def _digest(sources: list[Path], includes: list[Path], flags: tuple[str, ...]) -> str:
    try:
        tool = version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        tool = "none"
    digest = hashlib.sha256(repr((tool, _TARGET_FLAGS, flags)).encode())
    for path in (*sources, *_headers(includes)):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _headers(includes: list[Path]) -> Iterator[Path]:
    for folder in includes:
        yield from sorted(folder.glob("**/*.h"))


def _compile(
    folder: Path, sources: list[Path], includes: list[Path], flags: tuple[str, ...], target: Path, digest: str
) -> None:
    command = [*compiler(), *_TARGET_FLAGS, *flags, *(f"-I{place}" for place in includes)]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        made = Path(scratch) / target.name
        command += ["-o", str(made), *map(str, sources)]
        try:
            done = subprocess.run(  # noqa: S603 - the command is ours, its flags are the plugin author's
                command,
                env=compiler_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{folder.name}: the compiler did not finish in {_TIMEOUT_S:.0f} s") from None
        if done.returncode or not made.exists():
            raise ConfigError(f"{folder.name}: does not compile:\n{done.stderr.strip()[:_SHOWN_CHARS]}")
        with made.open("ab") as module:
            module.write(_section(digest))
        made.chmod(0o644)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)


def _section(digest: str) -> bytes:
    """A custom section. Source: WebAssembly core specification 2.0, 5.5.3."""
    body = bytes([len(SECTION)]) + SECTION + digest.encode()
    return bytes([0, len(body)]) + body
