"""Plugins that answer calls read nothing but their arguments and stay inside their own arrays."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.wasm.manifest import load_manifest, load_vectors
from gateway.wasm.shown import from_shown
from gateway.workbench.build import compiler, compiler_environment

HERE = Path(__file__).parent
PLUGINS = HERE.parents[1] / "plugins"
ROUNDS = 100_000


def guarded(folder: Path, scratch: Path) -> Path:
    """The plugin natively, with undefined behaviour (array bounds included) turned into a crash."""
    build = load_manifest(folder).build
    for header, script in build.generated.items():
        printed = subprocess.run([sys.executable, "-I", folder / script], check=True, capture_output=True)
        (scratch / header).write_bytes(printed.stdout)
    program = scratch / "guarded"
    includes = [f"-I{folder.parent / 'sdk' / 'c'}", f"-I{scratch}"]
    flags = ["-std=gnu11", "-O1", "-fsanitize=undefined", "-fsanitize-trap=all", *includes]
    sources = [str(HERE / "callable_guarded.c"), *(str(folder / source) for source in build.sources)]
    command = [*compiler(), *flags, "-o", str(program), *sources]
    subprocess.run(command, check=True, env=compiler_environment())
    return program


def seeds(folder: Path) -> bytes:
    """The arguments of every vector."""
    calls = [vector.call for vector in load_vectors(load_manifest(folder), folder)]
    packed = [msgspec.msgpack.encode(from_shown(call)) for call in calls if call is not None]
    return b"".join(struct.pack("<I", len(one)) + one for one in packed)


@pytest.mark.parametrize("plugin_id", ["fft", "gb28181-xml", "kalman", "shift-report", "sm3", "sm4"])
def test_damaged_arguments_make_it_read_or_write_nowhere_else(plugin_id: str, tmp_path: Path) -> None:
    program = guarded(PLUGINS / plugin_id, tmp_path)
    (tmp_path / "seeds").write_bytes(seeds(PLUGINS / plugin_id))

    done = subprocess.run(
        [program, tmp_path / "seeds", str(ROUNDS), "20260301"], capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode == 0, f"ended by signal {-done.returncode}"
    # Much damage leaves something to answer: a harness that only met early refusals would prove nothing.
    assert int(done.stdout) > ROUNDS / 20
