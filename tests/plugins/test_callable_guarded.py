"""Plugins that answer calls read nothing but their arguments and stay inside their own arrays."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fakes.guarded import guarded, results_of
from fakes.plugin_codecs import PLUGINS

from gateway.wasm.manifest import load_manifest, load_vectors
from gateway.wasm.shown import from_shown

ROUNDS = 100_000
CALLABLE = ["dingtalk", "feishu", "fft", "gb28181-xml", "kalman", "shift-report", "sm3", "sm4", "webhook", "wecom"]


@pytest.mark.parametrize("plugin_id", CALLABLE)
def test_damaged_arguments_make_it_read_or_write_nowhere_else(plugin_id: str, tmp_path: Path) -> None:
    folder = PLUGINS / plugin_id
    calls = [vector.call for vector in load_vectors(load_manifest(folder), folder)]
    seeds = [msgspec.msgpack.encode(from_shown(call)) for call in calls if call is not None]
    flags = [flag for flag in load_manifest(folder).build.flags if flag.startswith("-D")]

    given = results_of(guarded(folder, "callable_guarded.c", tmp_path, *flags), seeds, 0, ROUNDS, 20_260_301)

    # Much damage leaves something to answer: a harness that only met early refusals would prove nothing.
    assert given > ROUNDS / 20
