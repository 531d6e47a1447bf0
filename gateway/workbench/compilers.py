"""How each language becomes a module: the commands, and nothing of when or whether they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from gateway.wasm.manifest import Language
from gateway.workbench import toolchains
from gateway.workbench.tools import Tell

C_FLAGS: Final = ("-std=c11", "-O2", "-fno-sanitize=undefined", "-Wall", "-Wextra", "-Wno-unused-parameter")
C_FREESTANDING: Final = ("--target=wasm32-freestanding", "-nostdlib", "-Wl,--no-entry")
C_LIBC: Final = ("--target=wasm32-wasi", "-mexec-model=reactor")
C_LINK_FLAGS: Final = ("-Wl,--strip-all", "-Wl,-z,stack-size=262144")
ZIG_FLAGS: Final = ("-target", "wasm32-freestanding", "-fno-entry", "-rdynamic", "-O", "ReleaseSafe", "-fstrip")
ZIG_STACK: Final = ("--stack", "262144")
GO_FLAGS: Final = ("-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=")
# Not the runtime that never frees: a plugin may keep state, and its garbage must go.
ASC_FLAGS: Final = ("--runtime", "minimal", "--exportStart", "_initialize", "--use", "abort=", "-O3", "--converge")
RUST_FLAGS: Final = ("--edition", "2021", "--target", toolchains.RUST_TARGET, "-C", "opt-level=2", "-C", "panic=abort")
RUST_LINK_FLAGS: Final = ("-C", "lto", "-C", "strip=symbols", "-C", "link-arg=-zstack-size=262144")


class Sources(Struct, frozen=True, kw_only=True):
    """What a module is made of.

    files: the plugin's own sources, the main one first. sdk: the SDK's folder of the language.
    foreign: third-party sources, whose warnings are nobody's concern here.
    includes: folders of headers that the plugin's authors write, the SDK's among them. foreign_includes: of the rest.
    apart: files of the plugin's folder that take no part.
    """

    folder: Path
    files: tuple[Path, ...]
    sdk: Path
    flags: tuple[str, ...]
    foreign: tuple[Path, ...] = ()
    includes: tuple[Path, ...] = ()
    apart: frozenset[Path] = frozenset()
    foreign_includes: tuple[Path, ...] = ()
    libc: bool = False


class Step(Struct, frozen=True, kw_only=True):
    """One command of a build. cwd: where it runs, the caller's folder where not said."""

    command: list[str]
    environment: Mapping[str, str]
    cwd: Path | None = None


Steps = Callable[[Sources, Path, Path, Tell], list[Step]]
"""(sources, scratch folder, module to make, where to tell that a toolchain is being fetched) -> commands in order."""


class Compiler(Struct, frozen=True, kw_only=True):
    """How one language is built.

    sdk: its folder in `plugins/sdk`, and a file that must be there. suffixes: of that folder's files that take part.
    version: of the toolchain, without fetching it. recipe: the standard flags, so that a change of them builds.
    """

    sdk: str
    sdk_file: str
    suffixes: tuple[str, ...]
    version: Callable[[], str]
    recipe: tuple[tuple[str, ...], ...]
    steps: Steps


def c_steps(sources: Sources, scratch: Path, made: Path, tell: Tell) -> list[Step]:
    """Compile C: third-party files one by one without warnings, then the plugin's own and the link in one command."""
    tool = toolchains.zig(tell)
    cc = [*tool.command, "cc", *C_FLAGS, *(C_LIBC if sources.libc else C_FREESTANDING)]
    # Without these, `__FILE__` would carry the machine's paths into the module.
    places = (*sources.includes, *sources.foreign_includes)
    cc += [f"-ffile-prefix-map={place}=." for place in (scratch, *places)]
    cc += [f"-I{place}" for place in places]
    steps, objects = [], []
    for number, source in enumerate(sources.foreign):
        objects.append(str(scratch / f"{number}.o"))
        compiling = [*cc, *sources.flags, "-w", "-c", str(source), "-o", objects[-1]]
        steps.append(Step(command=compiling, environment=tool.environment))
    linking = [*cc, *C_LINK_FLAGS, *sources.flags, "-o", str(made), *map(str, sources.files), *objects]
    return [*steps, Step(command=linking, environment=tool.environment)]


def zig_steps(sources: Sources, scratch: Path, made: Path, tell: Tell) -> list[Step]:
    """Compile Zig: the first source is the root, the SDK is the module `gw1`."""
    tool = toolchains.zig(tell)
    modules = ["--dep", "gw1", f"-Mroot={sources.files[0]}", f"-Mgw1={sources.sdk / 'gw1.zig'}"]
    command = [*tool.command, "build-exe", *ZIG_FLAGS, *ZIG_STACK, *sources.flags, *modules, f"-femit-bin={made}"]
    return [Step(command=command, environment=tool.environment, cwd=scratch)]


def go_steps(sources: Sources, scratch: Path, made: Path, tell: Tell) -> list[Step]:
    """Compile Go: plugin and SDK are the modules of a workspace that exists for this build only."""
    tool = toolchains.go(tell)
    workspace = scratch / "go.work"
    workspace.write_text(f'go 1.24\n\nuse "{sources.folder}"\nuse "{sources.sdk}"\n')
    files = [str(path.relative_to(sources.folder)) for path in sources.files]
    command = [*tool.command, "build", *GO_FLAGS, *sources.flags, "-o", str(made), *files]
    return [Step(command=command, environment={**tool.environment, "GOWORK": str(workspace)}, cwd=sources.folder)]


def assemblyscript_steps(sources: Sources, scratch: Path, made: Path, tell: Tell) -> list[Step]:  # noqa: ARG001
    """Compile AssemblyScript: the SDK is the library `gw1`, and its file of exports is an entry of its own."""
    tool = toolchains.assemblyscript(tell)
    files = [str(path.relative_to(sources.folder)) for path in sources.files]
    library = ["--lib", str(sources.sdk / "lib")]
    entries = [*files, str(sources.sdk / "exports.ts")]
    command = [*tool.command, *entries, *library, *ASC_FLAGS, *sources.flags, "--outFile", str(made)]
    return [Step(command=command, environment=tool.environment, cwd=sources.folder)]


def rust_steps(sources: Sources, scratch: Path, made: Path, tell: Tell) -> list[Step]:
    """Compile Rust: the SDK as a library, then the plugin's crate, whose root is the first source."""
    tool = toolchains.rust(tell)
    rustc = [*tool.command, *RUST_FLAGS]
    # Panic messages name their source: without these, by the machine's paths.
    rustc += [f"--remap-path-prefix={place}=." for place in (sources.folder, sources.sdk, scratch)]
    library = scratch / "libgw1.rlib"
    sdk = [*rustc, "--crate-type", "rlib", "--crate-name", "gw1", "-o", str(library)]
    plugin = [*rustc, *RUST_LINK_FLAGS, *sources.flags, "--crate-type", "cdylib", "--crate-name", "plugin"]
    plugin += ["--extern", f"gw1={library}", "-o", str(made), str(sources.files[0])]
    return [
        Step(command=[*sdk, str(sources.sdk / "src" / "lib.rs")], environment=tool.environment),
        Step(command=plugin, environment=tool.environment),
    ]


COMPILERS: Final[Mapping[Language, Compiler]] = {
    "c": Compiler(
        sdk="c",
        sdk_file="gw1.h",
        suffixes=(".h",),
        version=toolchains.zig_version,
        recipe=(C_FLAGS, C_LINK_FLAGS, C_FREESTANDING, C_LIBC),
        steps=c_steps,
    ),
    "zig": Compiler(
        sdk="zig",
        sdk_file="gw1.zig",
        suffixes=(".zig",),
        version=toolchains.zig_version,
        recipe=(ZIG_FLAGS, ZIG_STACK),
        steps=zig_steps,
    ),
    "go": Compiler(
        sdk="go",
        sdk_file="go.mod",
        suffixes=(".go", "go.mod", "go.sum"),
        version=lambda: toolchains.pinned_version("go"),
        recipe=(GO_FLAGS,),
        steps=go_steps,
    ),
    "assemblyscript": Compiler(
        sdk="assemblyscript",
        sdk_file="lib/gw1.ts",
        suffixes=(".ts",),
        version=lambda: toolchains.pinned_version("assemblyscript") + toolchains.pinned_version("node"),
        recipe=(ASC_FLAGS,),
        steps=assemblyscript_steps,
    ),
    "rust": Compiler(
        sdk="rust",
        sdk_file="src/lib.rs",
        suffixes=(".rs",),
        version=toolchains.rust_version,
        recipe=(RUST_FLAGS, RUST_LINK_FLAGS),
        steps=rust_steps,
    ),
}
