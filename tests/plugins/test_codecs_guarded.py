"""The shipped codecs read nothing but their frame and stay inside their own arrays."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes.guarded import guarded, results_of
from fakes.plugin_codecs import PLUGINS

from gateway.framing.spec import framer_for, framing_spec
from gateway.wasm.manifest import load_manifest, load_vectors

ROUNDS = 200_000

SEALS = {
    "cbor-senml": ["-DSEAL=0", "-DNO_ENCODER"],
    "cjt188": ["-DSEAL=1", "-DLENGTH_AT=10", "-DSTARTS"],
    "dlt645": ["-DSEAL=1", "-DLENGTH_AT=9", "-DSTARTS"],
    "jt808": ["-DSEAL=3"],
    "modbus-meter": ["-DSEAL=2", "-DSTARTS"],
}
"""How each codec's envelope is made sound again after damage."""


def seeds(plugin_id: str) -> tuple[list[bytes], int]:
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
    return [*frames, *requests, start], len(frames)


@pytest.mark.parametrize("plugin_id", SEALS)
def test_damaged_input_makes_a_codec_read_or_write_nowhere_else(plugin_id: str, tmp_path: Path) -> None:
    program = guarded(PLUGINS / plugin_id, "codecs_guarded.c", tmp_path, *SEALS[plugin_id])
    data, frames = seeds(plugin_id)

    for start in (1, 20_070_645):
        # Enough damage leaves something to decode: a harness that only met early refusals would prove nothing.
        assert results_of(program, data, frames, ROUNDS, start) > ROUNDS / 8
