from __future__ import annotations

import msgspec
import pytest

from gateway.core.errors import ConfigError
from gateway.wasm.config import WasmConfig
from gateway.wasm.manifest import Caps
from gateway.wasm.release import Release, read_release
from gateway.workbench.build import build_plugin
from gateway.workbench.shipped import shipped_plugins


def runtime(name: str) -> Release:
    return read_release(shipped_plugins() / name, WasmConfig(), pytest.fail)


def test_a_script_asks_for_what_its_runtime_imports() -> None:
    build_plugin(shipped_plugins() / "lorawan-js")
    release = read_release(shipped_plugins() / "cayenne-lpp", WasmConfig(), runtime)
    assert release.manifest.caps.asked() == {"log", "clock", "random"}
    assert release.sha256 == runtime("lorawan-js").sha256
    assert release.digest != runtime("lorawan-js").digest


def test_capabilities_of_two_add_up() -> None:
    assert Caps(log=True, kv=True) | Caps(kv=True, emit=True) == Caps(log=True, kv=True, emit=True)
    assert msgspec.to_builtins(Caps() | Caps()) == dict.fromkeys(Caps.__struct_fields__, False)


def test_a_runtime_that_is_not_there_is_named() -> None:
    def missing(name: str) -> Release:
        raise ConfigError(f"its runtime {name!r} is not among the plugins")

    with pytest.raises(ConfigError, match="its runtime 'lorawan-js' is not among the plugins"):
        read_release(shipped_plugins() / "cayenne-lpp", WasmConfig(), missing)
