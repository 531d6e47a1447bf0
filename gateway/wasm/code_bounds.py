"""What a module may cost the compiler, judged by a look at the sizes in its code section.

Owns the bounds: a compiler's time grows faster than a function's length, and no deadline ends a compiler. Compiles
nothing and looks at no instruction.
"""

from __future__ import annotations

from typing import Final

from gateway.core.errors import ConfigError

MOST_CODE_BYTES: Final = 8 << 20
"""Of all functions together: several times what the largest interpreters and Go programs have."""
MOST_FUNCTIONS: Final = 32_768
MOST_FUNCTION_BYTES: Final = 128 << 10
"""Of one function; interpreters have one of 48 KiB. Up to here, a MB of code compiles in some three seconds."""
MOST_LOCALS: Final = 4096
"""Of one function."""

_HEADER_BYTES: Final = 8
_CODE: Final = 10
_LEB_BYTES: Final = 5


def check_code(wasm: bytes) -> None:
    """Raise ConfigError for a module that would hold the compiler up. What is no module is left to the compiler.

    Takes time in proportion to the module: nothing is looked at twice, whatever its sizes claim.
    Source: WebAssembly Core Specification 2.0, 5.5.2 sections and 5.5.13 code section.
    """
    try:
        at = _HEADER_BYTES
        while at < len(wasm):
            section = wasm[at]
            size, at = _number(wasm, at + 1)
            if section == _CODE:
                _check_section(wasm[at : at + size], size)
                return  # a module has one; the compiler refuses a second before it compiles any
            at += size
    except IndexError:
        return  # it ends in the middle: the compiler says so at once


def _check_section(code: bytes, size: int) -> None:
    if size > MOST_CODE_BYTES:
        raise ConfigError(
            f"the module has {size} bytes of code, at most {MOST_CODE_BYTES} are compiled; make it smaller"
        )
    functions, at = _number(code, 0)
    if functions > MOST_FUNCTIONS:
        raise ConfigError(
            f"the module has {functions} functions, at most {MOST_FUNCTIONS} are compiled; make it smaller"
        )
    for number in range(functions):
        length, at = _number(code, at)
        if length > MOST_FUNCTION_BYTES:
            raise ConfigError(
                f"function {number} of the module has {length} bytes, at most {MOST_FUNCTION_BYTES} are compiled; "
                "split it, or have the compiler inline less"
            )
        _check_locals(code[at : at + length], number)
        at += length


def _check_locals(function: bytes, number: int) -> None:
    count = 0
    try:
        groups, at = _number(function, 0)
        for _ in range(groups):
            more, at = _number(function, at)
            count += more
            if count > MOST_LOCALS or groups > MOST_LOCALS:
                raise ConfigError(f"function {number} of the module has more than {MOST_LOCALS} locals; split it")
            at += 1
    except IndexError:  # said here: the compiler may meet the functions after this one first
        raise ConfigError(f"function {number} of the module ends among its locals; build it again") from None


def _number(wasm: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number and the place after it. Source: the same, 5.2.2. Raises IndexError at the end."""
    value = 0
    for place in range(_LEB_BYTES):
        byte = wasm[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError  # longer than any number of the format
