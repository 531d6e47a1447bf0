"""A plugin compiled for this machine, fed with damaged input that ends where a page ends (tests/plugins/guarded.h)."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.wasm.manifest import load_manifest
from gateway.workbench.build import compiler, compiler_environment

_HARNESSES = Path(__file__).parents[1] / "plugins"


def guarded(folder: Path, harness: str, scratch: Path, *flags: str) -> Path:
    """The plugin natively, with undefined behaviour (array bounds included) turned into a crash."""
    build = load_manifest(folder).build
    for header, script in build.generated.items():
        printed = subprocess.run([sys.executable, "-I", folder / script], check=True, capture_output=True)
        (scratch / header).write_bytes(printed.stdout)
    program = scratch / "guarded"
    checks = ["-std=gnu11", "-O1", "-fsanitize=undefined", "-fsanitize-trap=all"]
    includes = [f"-I{place}" for place in (folder.parent / "sdk" / "c", scratch)]
    sources = [str(_HARNESSES / harness), *(str(folder / source) for source in build.sources)]
    command = [*compiler(), *checks, *flags, *includes, "-o", str(program), *sources]
    subprocess.run(command, check=True, env=compiler_environment())
    return program


def results_of(program: Path, seeds: Sequence[bytes], frames: int, rounds: int, start: int) -> int:
    """How many of so many rounds gave a result; fails where a round ended the process."""
    kept = program.parent / "seeds"
    kept.write_bytes(b"".join(struct.pack("<I", len(seed)) + seed for seed in seeds))
    command = [program, kept, str(frames), str(rounds), str(start)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"ended with {done.returncode}: a signal where it is negative"
    return int(done.stdout)
