"""How the host reaches into a guest: calls and memory, on a fast path of wasmtime's private names or the public API.

`active_path()` says which one this process uses. The fast path is proven against the public API on a tiny module before
it is first used, and given up when anything differs. Knows no plugin and no ABI beyond "up to three i32 in, one number
out".
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

import wasmtime
from typing_extensions import override

from gateway.wasm.engine import settle_fault_handler

CallPath = Literal["fast", "public"]

PATH_VARIABLE: Final = "GATEWAY_WASM_PATH"
"""Environment variable that forces a path for the whole process; `public` is the way out of a fast path gone wrong."""


class GuestTrap(Exception):
    """The guest trapped, was stopped or exited; its store must not be used again."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        """Carry a word of ours, never the guest's text. `early`: it was stopped before its own deadline."""
        super().__init__(reason)
        self.timed_out = timed_out
        self.early = False


Guest = Callable[..., int]
"""A guest function: i32 arguments in, its i32 or i64 result out as an unsigned number; raises GuestTrap."""


class GuestMemory(Protocol):
    """The guest's linear memory, whose contents and size the guest controls."""

    def read(self, start: int, size: int) -> bytes | None:
        """Copy a range, or None where it is not all inside."""
        ...

    def write(self, start: int, data: bytes) -> None:
        """Overwrite a range that was checked to be inside."""
        ...

    def size(self) -> int:
        """Bytes at present."""
        ...

    def release(self) -> None:
        """Forget the memory; called before its store is closed."""
        ...


def trap_reason(error: BaseException) -> GuestTrap:
    """Restate what wasmtime raised, without the guest's own words."""
    if isinstance(error, wasmtime.Trap):
        code = error.trap_code
        if code is None:
            return GuestTrap("trap")
        return GuestTrap(code.name.lower().replace("_", " "), timed_out=code is wasmtime.TrapCode.INTERRUPT)
    if isinstance(error, wasmtime.ExitTrap):
        return GuestTrap("exit")
    return GuestTrap("call failed")


class PublicMemory(GuestMemory):
    """Memory through the public API: every access asks the store."""

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        """Keep the pair that every access needs."""
        self._store = store
        self._memory = memory

    @override
    def read(self, start: int, size: int) -> bytes | None:
        if start + size > self._memory.data_len(self._store):
            return None
        return bytes(self._memory.read(self._store, start, start + size))

    @override
    def write(self, start: int, data: bytes) -> None:
        self._memory.write(self._store, data, start)

    @override
    def size(self) -> int:
        return self._memory.data_len(self._store)

    @override
    def release(self) -> None:
        return


class FastMemory(GuestMemory):
    """Memory through one cached view. It never moves (see engine.py), so growth only asks for a longer view."""

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        """View all of the memory."""
        self._store = store
        self._memory = memory
        self._view = memoryview(b"")
        self._refresh()

    def _refresh(self) -> None:
        self._view.release()
        self._view = memoryview(self._memory.get_buffer_ptr(self._store)).cast("B")

    @override
    def read(self, start: int, size: int) -> bytes | None:
        end = start + size
        if end > len(self._view):  # a slice would silently be cut short
            self._refresh()
            if end > len(self._view):
                return None
        return bytes(self._view[start:end])

    @override
    def write(self, start: int, data: bytes) -> None:
        end = start + len(data)
        if end > len(self._view):  # gw_buf grew the memory for its buffer
            self._refresh()
        self._view[start:end] = data

    @override
    def size(self) -> int:
        return self._memory.data_len(self._store)

    @override
    def release(self) -> None:
        self._view.release()


def _public_function(store: wasmtime.Store, function: wasmtime.Func) -> Guest:
    def call(*args: int) -> int:
        try:
            result = function(store, *(_signed(arg) for arg in args))
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise trap_reason(error) from None
        return (result or 0) & 0xFFFF_FFFF_FFFF_FFFF

    return call


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _fast_function(store: wasmtime.Store, function: wasmtime.Func) -> Guest:
    """Call through `wasmtime_func_call_unchecked`: the signature must have been checked at load."""
    from wasmtime import _ffi, _func  # noqa: PLC0415 - private: an upgrade may take them away, and the self-test sees it

    native = ctypes.CFUNCTYPE(
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
    )(("wasmtime_func_call_unchecked", _ffi.dll))
    # Three values of 16 bytes; an i32 lies in the low half of the first word, the result replaces the first value.
    values = (ctypes.c_uint64 * 6)()
    trap = ctypes.c_void_p()
    raw_function = function._func  # noqa: SLF001 - private names are this path's nature; the self-test guards them
    context = ctypes.cast(store._context(), ctypes.c_void_p)  # noqa: SLF001 - as above
    pointers: tuple[Any, ...] = (
        context,
        ctypes.c_void_p(ctypes.addressof(raw_function)),
        ctypes.c_void_p(ctypes.addressof(values)),
        ctypes.c_size_t(3),
        ctypes.c_void_p(ctypes.addressof(trap)),
    )

    def failed(error: int | None) -> GuestTrap:
        parked, _func.LAST_EXCEPTION = _func.LAST_EXCEPTION, None
        if isinstance(parked, BaseException) and not isinstance(parked, Exception):
            raise parked  # an interrupt from the keyboard came while a host function ran
        if error:
            raw_error = ctypes.cast(error, ctypes.POINTER(_ffi.wasmtime_error_t))
            return trap_reason(wasmtime.WasmtimeError._from_ptr(raw_error))  # noqa: SLF001 - as above
        raw_trap = ctypes.cast(trap.value or 0, ctypes.POINTER(_ffi.wasm_trap_t))
        trap.value = None
        return trap_reason(wasmtime.Trap._from_ptr(raw_trap))  # noqa: SLF001 - as above

    def call(a: int = 0, b: int = 0, c: int = 0) -> int:
        values[0] = a
        values[2] = b
        values[4] = c
        error = native(*pointers)
        if error or trap.value:
            raise failed(error)
        return values[0]

    # The pointers above are bare addresses: these must live as long as the call does.
    call.keeps = (values, trap, raw_function, store)  # type: ignore[attr-defined]  # an anchor, never read
    return call


def guest_function(store: wasmtime.Store, function: wasmtime.Func, path: CallPath) -> Guest:
    """Bind an exported function whose signature was checked."""
    return _fast_function(store, function) if path == "fast" else _public_function(store, function)


def guest_memory(store: wasmtime.Store, memory: wasmtime.Memory, path: CallPath) -> GuestMemory:
    """Bind the exported memory."""
    return FastMemory(store, memory) if path == "fast" else PublicMemory(store, memory)


_SELF_TEST = """(module (memory (export "memory") 1 4)
  (func (export "mix") (param i32 i32 i32) (result i64)
    (i32.store (i32.const 8) (local.get 2))
    (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1))))
  (func (export "grow") (result i32) (i32.store8 (i32.const 20) (i32.const 9)) (memory.grow (i32.const 2)))
  (func (export "fall") (result i32) unreachable))"""


def _observe(path: CallPath) -> list[Any]:
    """Everything the host relies on, as seen on one path."""
    config = wasmtime.Config()
    config.memory_may_move = False
    seen: list[Any] = []
    with wasmtime.Engine(config) as engine, wasmtime.Store(engine) as store:
        exports = wasmtime.Instance(store, wasmtime.Module(engine, _SELF_TEST), []).exports(store)
        functions = {name: exports[name] for name in ("mix", "grow", "fall")}
        mix, grow, fall = (guest_function(store, f, path) for f in functions.values() if isinstance(f, wasmtime.Func))
        raw = exports["memory"]
        if not isinstance(raw, wasmtime.Memory):
            return []
        memory = guest_memory(store, raw, path)
        memory.write(0, b"0123456789ab")
        seen += [mix(0xDEAD_BEEF, 0xFFFF_FFFE, 0x8000_0001), memory.read(0, 12), memory.read(65530, 7)]
        seen += [grow() & 0xFFFF_FFFF, memory.read(20, 1), memory.read(3 * 65536 - 1, 1), memory.read(3 * 65536, 1)]
        for _ in range(2):
            try:
                fall()
            except GuestTrap as trap:
                seen.append((str(trap), trap.timed_out))
        seen.append(mix(1, 2, 3))
        memory.release()
    return seen


def _choose() -> tuple[CallPath, str]:
    if os.environ.get(PATH_VARIABLE) == "public":
        return "public", f"{PATH_VARIABLE} asks for it"
    settle_fault_handler()
    try:
        if _observe("fast") == _observe("public"):
            return "fast", ""
    except Exception as error:  # noqa: BLE001 - wall: whatever an unknown wasmtime does here, the public API remains
        return "public", f"the fast path failed its self-test: {type(error).__name__}: {error}"
    return "public", "the fast path failed its self-test: results differ"


_settled: tuple[CallPath, str] | None = None


def active_path() -> CallPath:
    """The path this process uses unless a host is told otherwise; settled by the self-test on first use."""
    return _settle()[0]


def path_reason() -> str:
    """Why the fast path is not used; empty when it is."""
    return _settle()[1]


def _settle() -> tuple[CallPath, str]:
    global _settled  # noqa: PLW0603 - the library that was loaded is a fact of the process
    if _settled is None:
        _settled = _choose()
    return _settled
