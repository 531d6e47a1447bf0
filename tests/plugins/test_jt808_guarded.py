"""The codec reads nothing but its frame and stays inside its own arrays."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import msgspec
import pytest

from gateway.wasm.manifest import load_manifest
from gateway.workbench.build import compiler, compiler_environment

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "plugins" / "jt808"
ROUNDS = 200_000


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The codec natively, with undefined behaviour (array bounds included) turned into a crash."""
    program = tmp_path_factory.mktemp("guarded") / "guarded"
    sources = [str(HERE / "jt808_guarded.c"), *(str(FOLDER / source) for source in load_manifest(FOLDER).build.sources)]
    flags = ["-std=gnu11", "-O1", "-fsanitize=undefined", "-fsanitize-trap=all", f"-I{FOLDER.parent / 'sdk' / 'c'}"]
    subprocess.run([*compiler(), *flags, "-o", str(program), *sources], check=True, env=compiler_environment())
    return program


def seeds() -> tuple[bytes, int]:
    """Every vector as a seed, and how many of them are frames."""
    captured = json.loads((FOLDER / "vectors.json").read_text())["vectors"]
    made = json.loads((FOLDER / "vectors-standard.json").read_text())["vectors"]
    wires = [bytes.fromhex(vector["frame_hex"])[1:-1] for vector in captured]
    frames = [wire.replace(b"\x7d\x02", b"\x7e").replace(b"\x7d\x01", b"\x7d") for wire in wires]
    frames += [bytes.fromhex(vector["frame"]) for vector in made if "frame" in vector]
    requests = [msgspec.msgpack.encode(vector["encode"]) for vector in made if "encode" in vector]
    return b"".join(struct.pack("<I", len(seed)) + seed for seed in [*frames, *requests]), len(frames)


@pytest.mark.parametrize("start", [1, 20_130_808, 20_190_808])
def test_damaged_input_makes_it_read_or_write_nowhere_else(guarded: Path, start: int) -> None:
    data, frames = seeds()
    (guarded.parent / "seeds").write_bytes(data)

    done = subprocess.run(
        [str(guarded), str(guarded.parent / "seeds"), str(frames), str(ROUNDS), str(start)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, f"ended by signal {-done.returncode}"
    # Most damage leaves something to decode: a harness that only met early refusals would prove nothing.
    assert int(done.stdout) > ROUNDS / 2
