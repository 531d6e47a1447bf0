"""How each language becomes a module: the commands, and nothing of when or whether they run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from gateway.workbench.toolchains import zig_command, zig_environment

C_FLAGS = ("-std=c11", "-O2", "-fno-sanitize=undefined", "-Wall", "-Wextra", "-Wno-unused-parameter")
C_LINK_FLAGS = ("-Wl,--strip-all", "-Wl,-z,stack-size=262144")
C_FREESTANDING = ("--target=wasm32-freestanding", "-nostdlib", "-Wl,--no-entry")
C_LIBC = ("--target=wasm32-wasi", "-mexec-model=reactor")


class Sources(Struct, frozen=True, kw_only=True):
    """What a module is made of.

    files: the plugin's own sources. foreign: third-party sources, whose warnings are nobody's concern here.
    includes: folders of headers that the plugin's authors write, the SDK's among them. foreign_includes: of the rest.
    """

    folder: Path
    files: tuple[Path, ...]
    foreign: tuple[Path, ...]
    includes: tuple[Path, ...]
    foreign_includes: tuple[Path, ...]
    flags: tuple[str, ...]
    libc: bool


class Step(Struct, frozen=True, kw_only=True):
    """One command of a build."""

    command: list[str]
    environment: Mapping[str, str]


def c_steps(sources: Sources, scratch: Path, made: Path) -> list[Step]:
    """Compile C: third-party files one by one without warnings, then the plugin's own and the link in one command."""
    environment = zig_environment()
    cc = [*zig_command(), "cc", *C_FLAGS, *(C_LIBC if sources.libc else C_FREESTANDING)]
    # Without these, `__FILE__` would carry the machine's paths into the module.
    places = (*sources.includes, *sources.foreign_includes)
    cc += [f"-ffile-prefix-map={place}=." for place in (scratch, *places)]
    cc += [f"-I{place}" for place in places]
    steps, objects = [], []
    for number, source in enumerate(sources.foreign):
        objects.append(str(scratch / f"{number}.o"))
        compiling = [*cc, *sources.flags, "-w", "-c", str(source), "-o", objects[-1]]
        steps.append(Step(command=compiling, environment=environment))
    linking = [*cc, *C_LINK_FLAGS, *sources.flags, "-o", str(made), *map(str, sources.files), *objects]
    return [*steps, Step(command=linking, environment=environment)]
