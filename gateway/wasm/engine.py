"""The Wasm engine: one compiler configuration, made at the right time in the right process.

Owns what every plugin shares: the sandbox's features, and the clock hand that ends overlong calls. Knows no plugin.
"""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import threading
from importlib.metadata import version

import wasmtime

from gateway.core.errors import NotReady

MAX_WASM_STACK_BYTES = 512 << 10
"""Guest recursion deeper than this traps. It must fit the C stack of the thread that calls, with room to spare."""

_STACK_HEADROOM_BYTES = 512 << 10
_forked = False


def _note_fork() -> None:
    global _forked  # noqa: PLW0603 - a fork is a fact of the process, not of any object
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def make_engine() -> wasmtime.Engine:
    """Make an engine with interruption by epoch and without threads, 64-bit memory and proposals we do not need.

    Raises NotReady in a forked child, where compiling would hang: start processes with spawn.
    """
    if _forked:
        raise NotReady("Wasm cannot run in a forked process; start it with the spawn method")
    settle_fault_handler()
    return wasmtime.Engine(_config())


def settings_fingerprint() -> str:
    """What, beside the module, decides the compiled code: part of the cache's key."""
    return f"wasmtime {version('wasmtime')}; gw1 sandbox 1; stack {MAX_WASM_STACK_BYTES}"


def check_thread_stack() -> None:
    """Raise NotReady on a thread whose C stack guest recursion could run through (it would end the process)."""
    size = threading.stack_size()
    if size and threading.current_thread() is not threading.main_thread():
        need = MAX_WASM_STACK_BYTES + _STACK_HEADROOM_BYTES
        if size < need:
            raise NotReady(f"this thread's stack has {size} bytes; plugins need {need} (threading.stack_size)")


def _config() -> wasmtime.Config:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = MAX_WASM_STACK_BYTES
    config.memory_may_move = False  # the host keeps a view of guest memory over growth
    config.wasm_threads = False
    config.shared_memory = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    config.wasm_component_model = False
    config.wasm_gc = False
    config.wasm_exceptions = False
    config.wasm_stack_switching = False
    return config


def settle_fault_handler() -> None:
    """Install faulthandler before wasmtime's own signal handlers, because the later one gets a guest's fault first.

    Once it is enabled, enabling it again changes nothing, so nobody can get in front afterwards by accident.
    """
    if faulthandler.is_enabled():
        return
    for stream in (sys.stderr, sys.__stderr__):
        try:
            if stream is not None:
                faulthandler.enable(stream)
                return
        except (io.UnsupportedOperation, AttributeError, ValueError, RuntimeError):
            continue  # a captured or closed stream has no file descriptor
