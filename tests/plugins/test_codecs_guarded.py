"""The shipped meter and sensor codecs read nothing but their frame and stay inside their own arrays."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import msgspec
import pytest
from fakes.plugin_codecs import PLUGINS

from gateway.framing.spec import framer_for, framing_spec
from gateway.wasm.manifest import load_manifest, load_vectors
from gateway.workbench.build import compiler, compiler_environment

HERE = Path(__file__).parent
ROUNDS = 200_000

SEALS = {
    "cbor-senml": ["-DSEAL=0", "-DNO_ENCODER"],
    "cjt188": ["-DSEAL=1", "-DLENGTH_AT=10", "-DSTARTS"],
    "modbus-meter": ["-DSEAL=2", "-DSTARTS"],
    "dlt645": ["-DSEAL=1", "-DLENGTH_AT=9", "-DSTARTS"],
}
"""How each codec's envelope is made sound again after damage."""


def guarded(plugin_id: str, folder: Path) -> Path:
    """The codec natively, with undefined behaviour (array bounds included) turned into a crash."""
    program = folder / "guarded"
    source = PLUGINS / plugin_id
    flags = ["-std=gnu11", "-O1", "-fsanitize=undefined", "-fsanitize-trap=all", f"-I{PLUGINS / 'sdk' / 'c'}"]
    sources = [str(HERE / "codecs_guarded.c"), *(str(source / name) for name in load_manifest(source).build.sources)]
    command = [*compiler(), *flags, *SEALS[plugin_id], "-o", str(program), *sources]
    subprocess.run(command, check=True, env=compiler_environment())
    return program


def seeds(plugin_id: str) -> tuple[bytes, int]:
    """Every sound vector as a seed, and how many of them are frames; the last seed starts the codec."""
    manifest = load_manifest(PLUGINS / plugin_id)
    frames: list[bytes] = []
    requests: list[bytes] = []
    for vector in load_vectors(manifest, PLUGINS / plugin_id):
        if vector.error is not None:
            continue
        if vector.encode is not None:
            requests.append(msgspec.msgpack.encode(vector.encode))
        elif vector.wire:
            assert manifest.framing is not None
            frames += framer_for(framing_spec(manifest.framing, plugin_id)).feed(vector.frame_bytes or b"")
        else:
            frames.append(vector.frame_bytes or b"")
    start = msgspec.msgpack.encode({"config": manifest.config, "host": "guarded", "plugin_id": plugin_id})
    return b"".join(struct.pack("<I", len(seed)) + seed for seed in [*frames, *requests, start]), len(frames)


@pytest.mark.parametrize("plugin_id", SEALS)
def test_damaged_input_makes_a_codec_read_or_write_nowhere_else(plugin_id: str, tmp_path: Path) -> None:
    program = guarded(plugin_id, tmp_path)
    data, frames = seeds(plugin_id)
    (tmp_path / "seeds").write_bytes(data)

    for start in (1, 20_070_645):
        done = subprocess.run(
            [str(program), str(tmp_path / "seeds"), str(frames), str(ROUNDS), str(start)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

        assert done.returncode == 0, f"ended by signal {-done.returncode}"
        # Enough damage leaves something to decode: a harness that only met early refusals would prove nothing.
        assert int(done.stdout) > ROUNDS / 8
