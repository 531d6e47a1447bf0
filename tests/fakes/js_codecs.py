"""JavaScript codecs written for tests, each run by the shipped runtime in an instance of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.plugin_codecs import decoded, values_of

from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import CodecError
from gateway.wasm.config import WasmConfig
from gateway.wasm.host import WasmCodec
from gateway.wasm.imports import HostServices
from gateway.wasm.manifest import Caps, Limits, Manifest
from gateway.wasm.program import Program
from gateway.wasm.sandbox import Sandbox

_GRANTS = frozenset(("log", "clock", "random"))
# A machine that runs many tests at once is slow: only tests of the deadline set one.
_LIMITS = {"deadline_ms": 1000, "batch_deadline_ms": 2000, "start_deadline_ms": 2000, "max_input": 2 << 20}


class JsCodecs:
    """Makes codecs of scripts; the runtime is compiled once."""

    def __init__(self, wasm: bytes) -> None:
        self._sandbox = Sandbox(WasmConfig(cache=False))
        self._wasm = wasm
        self._sha256 = hashlib.sha256(wasm).hexdigest()
        self._module = self._sandbox.module(self._sha256, wasm)
        self._programs: list[Program] = []

    def __call__(
        self,
        script: str | None,
        config: dict[str, Any] | None = None,
        *,
        clock: Clock | None = None,
        **limits: int,
    ) -> WasmCodec:
        """A codec that runs `script`; raises CodecError where the runtime refuses it."""
        start: dict[str, Any] = {"config": config or {}, "host": "test", "plugin_id": "js"}
        if script is not None:
            start["script"] = script
        clock = clock or SystemClock()
        program = Program(
            Manifest(
                id="js",
                version="1.0.0",
                license="Apache-2.0",
                limits=Limits(**(_LIMITS | limits)),
                caps=Caps(log=True, clock=True, random=True),
            ),
            self._sandbox.module(self._sha256, self._wasm),
            self._sandbox,
            HostServices("js", clock, {}),
            granted=_GRANTS,
            clock=clock,
            start=msgspec.msgpack.encode(start),
        )
        self._programs.append(program)
        return WasmCodec(program)

    def close_codecs(self) -> None:
        """Free the instances made so far."""
        for program in self._programs:
            program.close()
        self._programs.clear()

    def close(self) -> None:
        self.close_codecs()
        self._sandbox.close()


def runtime_wasm(plugins: Path) -> bytes:
    """The runtime's module, which was built before."""
    return (plugins / "lorawan-js" / "lorawan-js.wasm").read_bytes()


def why_refused(codecs: JsCodecs, script: str, config: dict[str, Any] | None = None) -> str:
    """What a script or its settings are refused with; the code must be 7."""
    with pytest.raises(CodecError, match=r"\(code 7\)") as caught:
        codecs(script, config)
    return str(caught.value).partition("(code 7): ")[2]


def js_value(codecs: JsCodecs, expression: str, **limits: int) -> Any:
    """What an expression's value is once it has travelled as a property."""
    codec = codecs(f"function decodeUplink(input) {{ return {{data: {{v: {expression}, present: 1}}}}; }}", **limits)
    return values_of(decoded(codec, b"")).get("v", "absent")
