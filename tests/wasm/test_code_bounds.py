"""What a module may cost the compiler: bombs are refused by their sizes, and what people build passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.wasm import code_bounds
from gateway.wasm.code_bounds import MOST_FUNCTION_BYTES, MOST_LOCALS, check_code

PLUGINS = Path(__file__).parents[2] / "plugins"


def module(body: str, *, functions: int = 1) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {f'(func {body})' * functions})"))


def test_a_function_of_the_longest_length_passes_and_a_longer_one_does_not() -> None:
    most = MOST_FUNCTION_BYTES - 2  # a count of locals and an end
    check_code(module("nop " * most))
    with pytest.raises(ConfigError, match="function 0 of the module has 131073 bytes"):
        check_code(module("nop " * (most + 1)))


def test_locals_are_counted_over_their_groups() -> None:
    check_code(module("(local i32 i64) " * (MOST_LOCALS // 2)))
    with pytest.raises(ConfigError, match="locals"):
        check_code(module("(local i32 i64) " * (MOST_LOCALS // 2) + "(local i32)"))


def test_many_functions_and_much_code_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_bounds, "MOST_FUNCTIONS", 3)
    check_code(module("", functions=3))
    with pytest.raises(ConfigError, match="4 functions"):
        check_code(module("", functions=4))
    monkeypatch.setattr(code_bounds, "MOST_CODE_BYTES", 50)
    with pytest.raises(ConfigError, match="bytes of code"):
        check_code(module("nop " * 50))


@pytest.mark.parametrize("wasm", sorted(PLUGINS.glob("*/*.wasm")), ids=lambda path: path.stem)
def test_a_shipped_module_passes(wasm: Path) -> None:
    check_code(wasm.read_bytes())


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(noise: bytes) -> None:
    for wasm in (noise, b"\0asm\1\0\0\0" + noise, b"\0asm\1\0\0\0\x0a" + noise):
        try:
            check_code(wasm)
        except ConfigError:
            continue
