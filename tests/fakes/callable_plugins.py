"""Shipped plugins that answer requests, built from source and run in the real sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from gateway.core.clock import SystemClock
from gateway.core.errors import CodecError, PluginTrapped
from gateway.wasm.caller import WasmCaller
from gateway.wasm.config import WasmConfig
from gateway.wasm.release import Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.vectors import run_vectors
from gateway.workbench.build import build_plugin

PLUGINS = Path(__file__).parents[2] / "plugins"
ALLOWED_S = 30.0
"""No test is about time: what takes this long hangs."""


class CallablePlugin:
    """One instance of a plugin; `call` answers, `refusal` gives the code and the text of a refusal."""

    def __init__(self, release: Release, caller: WasmCaller) -> None:
        self.release = release
        self.caller = caller

    def call(self, **args: Any) -> Any:
        return self.caller.call(args, ALLOWED_S)

    def refusal(self, **args: Any) -> tuple[int, str]:
        with pytest.raises(CodecError) as refused:
            self.call(**args)
        assert not isinstance(refused.value, PluginTrapped)
        return refused.value.number, str(refused.value)

    def outcome(self, args: Any) -> Any:
        """The answer, or the code of the refusal; a trap or a malformed answer fails the test."""
        return self.outcome_of_bytes(msgspec.msgpack.encode(args))

    def outcome_of_bytes(self, packed: bytes) -> Any:
        """The same for arguments that may be no msgpack at all."""
        try:
            return self.caller.unpacked(self.caller.call_packed(packed, ALLOWED_S))
        except PluginTrapped:
            raise
        except CodecError as failure:
            refused = failure
        assert refused.number > 0, refused
        return refused.number

    def memory(self) -> bytes:
        """All of the instance's memory, as it was left by the last call."""
        instance = self.caller.program._instance
        assert instance is not None
        return instance._memory.read(0, instance.memory_bytes) or b""

    def broken_promises(self) -> list[str]:
        results = run_vectors(self.release.vectors, caller=self.caller)
        assert results
        return [f"{result.name}: {result.detail}" for result in results if not result.ok]


@contextmanager
def callable_plugin(plugin_id: str) -> Iterator[CallablePlugin]:
    """A plugin of `plugins/`, built if its sources changed, with what its manifest asks for granted."""
    build_plugin(PLUGINS / plugin_id)
    config = WasmConfig()
    sandbox = Sandbox(config)
    starter = Starter(config, SystemClock(), lambda _: frozenset(config.default_grants))
    release = read_release(PLUGINS / plugin_id, config, _no_runtime)
    caller = WasmCaller(starter.start(release, sandbox))
    yield CallablePlugin(release, caller)
    caller.close()
    sandbox.close()


def _no_runtime(plugin_id: str) -> Release:
    raise AssertionError(f"no plugin here runs scripts, but {plugin_id} was asked for")


# Arguments of any kind, for tests that no argument makes a plugin trap.

_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
any_value = st.recursive(
    _scalars | st.text(max_size=20) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)
