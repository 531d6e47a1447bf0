"""Every plugin in the tree is built from its source and keeps its promises, on both call paths."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import get_args

import pytest

from gateway.wasm.config import WasmConfig
from gateway.wasm.manifest import Capability, plugin_folders
from gateway.wasm.plugins import PluginHost
from gateway.workbench.build import build_all

_ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="needs the plugin compiler: pip install ziglang"
)
@pytest.mark.parametrize("call_path", ["auto", "public"])
@pytest.mark.parametrize("root", ["plugins", "bench/plugins"])
def test_shipped_plugins_keep_their_promises(root: str, call_path: str) -> None:
    build_all(_ROOT / root)
    config = WasmConfig(call_path=call_path, default_grants=get_args(Capability))
    host = PluginHost(config, [_ROOT / root], None)
    try:
        statuses = host.load_all()
        assert {status.id for status in statuses} == {folder.name for folder in plugin_folders(_ROOT / root)}
        for status in statuses:
            assert (status.state, status.reason) == ("running", "")
            assert status.vectors_passed > 0
    finally:
        host.close()
