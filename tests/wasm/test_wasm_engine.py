"""What would kill the process is tried in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import wasmtime
from guests_gw1 import Sandbox, well_behaved

from gateway.wasm.engine import make_engine, settings_fingerprint
from gateway.wasm.fastcall import PATH_VARIABLE, _observe, active_path, path_reason

_HERE = Path(__file__).parent


def run(script: str, **environment: str) -> str:
    """Run a script beside this file; the last line it prints, or a failed test with what it said."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=_HERE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (_HERE, *_HERE.parents[:2]))), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout.strip().splitlines()[-1]


_CODEC = """
    from guests_gw1 import Sandbox, well_behaved
    sandbox = Sandbox("fast")
    codec = sandbox.codec(well_behaved())
"""


def test_enabling_faulthandler_after_the_engine_leaves_guest_faults_to_wasmtime() -> None:
    script = (
        _CODEC
        + """
    import faulthandler
    faulthandler.enable()
    print(codec.decode_batch([b"O"]), faulthandler.is_enabled())
    """
    )
    assert run(script) == "[-1] True"


def test_the_engine_is_made_where_there_is_no_standard_error() -> None:
    script = (
        "import sys; sys.stderr = sys.__stderr__ = None\n"
        + textwrap.dedent(_CODEC)
        + ('print(codec.decode_batch([b"O"]))')
    )
    assert run(script) == "[-1]"


def test_deep_recursion_on_a_thread_with_room_is_a_trap() -> None:
    script = """
    import threading
    from guests_gw1 import Sandbox, guest
    deep = guest("(call $d) (i64.const 0)", abi='''(func (export "gw_abi") (result i32) (i32.const 0x10000))
      (func (export "gw_buf") (param i32) (result i32) (i32.const 65536)) (func $d (call $d) (call $d))''')
    def work():
        sandbox = Sandbox("fast")
        print(sandbox.codec(deep).decode_batch([b"a"]))
    threading.stack_size(2 << 20)
    thread = threading.Thread(target=work); thread.start(); thread.join()
    """
    assert run(script) == "[-1]"


def test_a_thread_whose_stack_recursion_could_run_through_gets_no_plugin() -> None:
    script = """
    import threading
    from gateway.core.errors import NotReady
    from guests_gw1 import Sandbox, well_behaved
    def work():
        try:
            Sandbox("fast").codec(well_behaved())
        except NotReady as error:
            print(error)
    threading.stack_size(256 << 10)
    thread = threading.Thread(target=work); thread.start(); thread.join()
    """
    assert "this thread's stack has 262144 bytes" in run(script)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_refused_instead_of_hanging() -> None:
    script = """
    import os, wasmtime
    from gateway.core.errors import NotReady
    from gateway.wasm.engine import make_engine
    wasmtime.Module(make_engine(), "(module)")
    child = os.fork()
    if child == 0:
        try:
            make_engine()
        except NotReady:
            os._exit(7)
        os._exit(8)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(script) == "7"


def test_a_call_from_another_thread_is_refused_before_it_reaches_the_store(sandbox: Sandbox) -> None:
    codec = sandbox.codec(well_behaved())
    caught: list[BaseException] = []

    def work() -> None:
        try:
            codec.decode_batch([b"a"])
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "does not own it" in str(caught[0])
    assert codec.decode_batch([b"a"])[0].device == "a"


def test_an_armed_store_does_not_trap_at_once_and_an_unarmed_one_does() -> None:
    engine = make_engine()
    store = wasmtime.Store(engine)
    module = wasmtime.Module(engine, '(module (func (export "f") (result i32) (i32.const 1)))')
    with pytest.raises(wasmtime.Trap):  # the trap that arming every store avoids
        wasmtime.Instance(store, module, []).exports(store)["f"](store)
    store.set_epoch_deadline(1)
    assert wasmtime.Instance(store, module, []).exports(store)["f"](store) == 1


def test_the_fast_path_passes_its_self_test_with_the_pinned_wasmtime() -> None:
    assert _observe("fast") == _observe("public")
    assert active_path() == "fast"
    assert path_reason() == ""


def test_the_environment_forces_the_public_path() -> None:
    script = """
    from gateway.wasm.fastcall import active_path, path_reason
    print(active_path(), path_reason())
    """
    assert run(script, **{PATH_VARIABLE: "public"}) == f"public {PATH_VARIABLE} asks for it"


def test_a_wasmtime_without_the_private_names_falls_back_to_the_public_path() -> None:
    script = """
    import wasmtime
    del wasmtime.Store._context
    from gateway.wasm.fastcall import active_path, path_reason
    print(active_path(), path_reason())
    """
    assert run(script).startswith("public the fast path failed its self-test: AttributeError")


def test_a_fast_path_that_computes_something_else_is_not_used() -> None:
    script = """
    import gateway.wasm.fastcall as fastcall
    right = fastcall._fast_function
    fastcall._fast_function = lambda store, function: (lambda *args: right(store, function)(*args) ^ 1)
    print(fastcall.active_path(), fastcall.path_reason())
    """
    assert run(script) == "public the fast path failed its self-test: results differ"


def test_the_fingerprint_names_the_compilers_version() -> None:
    assert "wasmtime 50." in settings_fingerprint()


def test_an_interrupt_from_the_keyboard_in_a_host_function_is_raised_in_the_call_that_caused_it() -> None:
    script = """
    from guests_gw1 import Sandbox, guest, well_behaved
    from gateway.wasm.manifest import Caps
    class Clock:
        def monotonic_s(self): return 1.0
        def now_ms(self): raise KeyboardInterrupt
    sandbox = Sandbox("fast")
    codec = sandbox.codec(guest("(call $n)", more='(import "gw1" "now_ms" (func $n (result i64)))'),
        caps=Caps(clock=True), clock=Clock())
    other = sandbox.codec(well_behaved())
    try:
        codec.decode_batch([b"a"])
    except KeyboardInterrupt:
        print("interrupted", other.decode_batch([b"a"])[0].device)
    """
    assert run(script) == "interrupted a"
