"""The JT/T 808 plugin and the runtime of JavaScript codecs, built from source and run by the real host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.js_codecs import JsCodecs, runtime_wasm

from gateway.wasm.host import WasmCodec
from gateway.wasm.plugins import PluginHost, WasmConfig
from gateway.workbench.build import build_plugin

PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.fixture(scope="session")
def jt808_folder() -> Path:
    folder = PLUGINS / "jt808"
    build_plugin(folder)
    return folder


@pytest.fixture(scope="session")
def plugin_host(jt808_folder: Path) -> Iterator[PluginHost]:
    host = PluginHost(WasmConfig(), [jt808_folder.parent], None)
    host.load_all()
    yield host
    host.close()


@pytest.fixture
def jt808(plugin_host: PluginHost) -> WasmCodec:
    """The running codec: one instance for all tests, as in the gateway, so that each test uses phones of its own."""
    codec = plugin_host.codec("jt808")
    assert isinstance(codec, WasmCodec)
    return codec


@pytest.fixture(scope="session")
def js_runtime() -> Iterator[JsCodecs]:
    build_plugin(PLUGINS / "lorawan-js")
    codecs = JsCodecs(runtime_wasm(PLUGINS))
    yield codecs
    codecs.close()


@pytest.fixture
def js(js_runtime: JsCodecs) -> Iterator[JsCodecs]:
    """Makes codecs of JavaScript; they end with the test."""
    yield js_runtime
    js_runtime.close_codecs()
