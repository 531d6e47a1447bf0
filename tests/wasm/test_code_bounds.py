"""What a module may cost the compiler: bombs are refused by their sizes, and what people build passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


class Counted(bytes):
    """Bytes of a module that count how often one of them is looked at, in their slices too."""

    looked = 0

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        if isinstance(at, slice):
            return Counted(found)
        Counted.looked += 1
        return found


LYING_SECTION = b"\x0a\x00\x80\x80\x02" + b"\0" * 256
"""A code section of no bytes that claims 32,768 functions; what follows reads as empty ones, and as a section."""


def test_sections_that_lie_about_their_size_are_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "looked", 0)
    wasm = Counted(b"\0asm\1\0\0\0" + LYING_SECTION * 8 + b"\0" * 40_000)
    check_code(wasm)
    assert 0 < Counted.looked < len(wasm)


def test_a_function_whose_locals_go_on_in_the_next_one_is_refused() -> None:
    functions = b"\x02" + b"\x03\x02\x00\x7f" * 2
    with pytest.raises(ConfigError, match="function 0 of the module ends among its locals"):
        check_code(b"\0asm\1\0\0\0\x0a" + bytes([len(functions)]) + functions)


def test_a_second_code_section_is_refused_by_the_compiler() -> None:
    wasm = module("nop")
    code = wasm[wasm.rindex(b"\x0a") :]
    check_code(wasm + code)
    with pytest.raises(wasmtime.WasmtimeError, match="section"):
        wasmtime.Module(wasmtime.Engine(), wasm + code)


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
