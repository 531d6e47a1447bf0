"""What the sandbox refuses to load, and what a plugin may not do while it starts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import closing
from itertools import count
from time import perf_counter

import psutil
import pytest
import wasmtime
from guests_gw1 import MakeCodec, Sandbox, guest, well_behaved

from gateway.core.errors import CodecError, ConfigError, NotReady, PluginTrapped
from gateway.wasm import instance
from gateway.wasm.abi import IMPORTS
from gateway.wasm.codec import TRAPPED
from gateway.wasm.manifest import Caps, Limits
from gateway.wasm.watchdog import Watchdog

_ALL = Caps(log=True, clock=True, random=True, kv=True, config=True, wasi=True)
_BATCH = '(func (export "gw_decode_batch") (param i32 i32 i32) (result i64) (i64.const 0))'
_BUF = '(func (export "gw_buf") (param i32) (result i32) (i32.const 65536))'
_VERSION = '(func (export "gw_abi") (result i32) (i32.const 0x10000))'
_MEMORY = '(memory (export "memory") 8)'

REFUSED = {
    "no memory": (f"{_VERSION}{_BUF}{_BATCH}", "does not export its memory"),
    "memory is a function": (f'{_VERSION}{_BUF}{_BATCH}(func (export "memory"))', "does not export its memory"),
    "no batch": (f"{_MEMORY}{_VERSION}{_BUF}", "does not export gw_decode_batch"),
    "no buffer": (f"{_MEMORY}{_VERSION}{_BATCH}", "does not export gw_buf"),
    "no version": (f"{_MEMORY}{_BUF}{_BATCH}", "does not export gw_abi"),
    "batch of two parameters": (
        f'{_MEMORY}{_VERSION}{_BUF}(func (export "gw_decode_batch") (param i32 i32) (result i64) (i64.const 0))',
        r"gw_decode_batch must be \(i32, i32, i32\) -> \(i64\)",
    ),
    "batch with a float": (
        f'{_MEMORY}{_VERSION}{_BUF}(func (export "gw_decode_batch") (param i32 i32 f32) (result i64) (i64.const 0))',
        "gw_decode_batch must be",
    ),
    "batch is a global": (
        f'{_MEMORY}{_VERSION}{_BUF}(global (export "gw_decode_batch") i32 (i32.const 1))',
        "gw_decode_batch must be",
    ),
    "encoder of another signature": (
        f'{_MEMORY}{_VERSION}{_BUF}{_BATCH}(func (export "gw_encode") (param i64))',
        "gw_encode must be",
    ),
    "next major version": (
        f'{_MEMORY}{_BUF}{_BATCH}(func (export "gw_abi") (result i32) (i32.const 0x20000))',
        "speaks ABI 2.0",
    ),
    "next minor version": (
        f'{_MEMORY}{_BUF}{_BATCH}(func (export "gw_abi") (result i32) (i32.const 0x10001))',
        "speaks ABI 1.1",
    ),
    "no room for input": (
        f'{_MEMORY}{_VERSION}{_BATCH}(func (export "gw_buf") (param i32) (result i32) (i32.const 0))',
        "no input buffer",
    ),
    "input buffer past the end": (
        f'{_MEMORY}{_VERSION}{_BATCH}(func (export "gw_buf") (param i32) (result i32) (i32.const 524280))',
        "no input buffer",
    ),
    "input buffer at minus one": (
        f'{_MEMORY}{_VERSION}{_BATCH}(func (export "gw_buf") (param i32) (result i32) (i32.const -1))',
        "no input buffer",
    ),
    "import from nowhere": (
        f'(import "env" "printf" (func (param i32))){_MEMORY}{_VERSION}{_BUF}{_BATCH}',
        "imports env.printf, which no host offers",
    ),
    "unknown import of ours": (
        f'(import "gw1" "open_socket" (func)){_MEMORY}{_VERSION}{_BUF}{_BATCH}',
        "imports gw1.open_socket, which no host offers",
    ),
    "import of another signature": (
        f'(import "gw1" "log" (func (param i64))){_MEMORY}{_VERSION}{_BUF}{_BATCH}',
        r"import gw1.log must be \(i32, i32, i32\) -> \(\)",
    ),
    "an imported memory": (
        f'(import "gw1" "log" (memory 1)){_VERSION}{_BUF}{_BATCH}',
        "does not export its memory",
    ),
    "a name meant for a terminal": (
        f'(import "e\\1b[2Jv" "x" (func)){_MEMORY}{_VERSION}{_BUF}{_BATCH}',
        r"imports e\?\[2Jv.x,",
    ),
    "too many tables": (
        f"{_MEMORY}{_VERSION}{_BUF}{_BATCH}" + "(table 1 funcref)" * 5,
        "cannot be instantiated",
    ),
    "a huge table": (f"{_MEMORY}{_VERSION}{_BUF}{_BATCH}(table 9000000 funcref)", "cannot be instantiated"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_module_that_breaks_the_abi_is_refused(make_codec: MakeCodec, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_codec(bytes(wasmtime.wat2wasm(f"(module {text})")), caps=_ALL)


@pytest.mark.parametrize(
    "text",
    ["(memory i64 1)", "(memory 1 2 shared)", "(memory 1) (memory 1)", "(tag)", "(type (struct))"],
    ids=["memory64", "threads", "two memories", "exceptions", "garbage collection"],
)
def test_a_proposal_that_the_sandbox_leaves_out_does_not_compile(sandbox: Sandbox, text: str) -> None:
    wasm = bytes(wasmtime.wat2wasm(f"(module {text})"))
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(sandbox.engine, wasm)


_LOGS = guest(more='(import "gw1" "log" (func (param i32 i32 i32)))')


def test_an_import_needs_the_manifests_word(make_codec: MakeCodec) -> None:
    with pytest.raises(ConfigError, match=r"manifest does not say `caps.log = true`"):
        make_codec(_LOGS, granted=frozenset({"log"}))


def test_an_import_needs_the_operators_grant(make_codec: MakeCodec) -> None:
    with pytest.raises(ConfigError, match="`log` is not granted"):
        make_codec(_LOGS, caps=Caps(log=True), granted=frozenset())


def test_wasi_needs_word_and_grant_and_reaches_nothing(make_codec: MakeCodec) -> None:
    # fd_prestat_get(3) answers 8 (bad descriptor) where no folder is open to the plugin.
    wasm = guest(
        "(i64.extend_i32_u (call $prestat (i32.const 3) (i32.const 0)))",
        more='(import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))',
    )
    with pytest.raises(ConfigError, match=r"caps.wasi"):
        make_codec(wasm)
    with pytest.raises(ConfigError, match="`wasi` is not granted"):
        make_codec(wasm, caps=Caps(wasi=True), granted=frozenset())
    assert make_codec(wasm, caps=Caps(wasi=True)).decode_batch([b"a"]) == [8]


def test_a_plugin_that_exits_is_a_plugin_that_trapped(make_codec: MakeCodec) -> None:
    wasm = guest(
        "(call $exit (i32.const 3)) (i64.const 0)",
        more='(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))',
    )
    codec = make_codec(wasm, caps=Caps(wasi=True))
    assert codec.decode_batch([b"a"]) == [TRAPPED]
    assert codec.decode_batch([b"a"]) == [TRAPPED]


_SPIN = "(loop $l (br $l))"
STARTS = {
    "start function traps": f"(func $s unreachable) (start $s){_BUF}{_VERSION}",
    "start function loops": f"(func $s {_SPIN}) (start $s){_BUF}{_VERSION}",
    "_initialize loops": f'(func (export "_initialize") {_SPIN}){_BUF}{_VERSION}',
    "gw_abi loops": f'(func (export "gw_abi") (result i32) {_SPIN} (i32.const 0)){_BUF}',
    "gw_buf loops": f'(func (export "gw_buf") (param i32) (result i32) {_SPIN} (i32.const 0)){_VERSION}',
    "gw_init loops": f'(func (export "gw_init") (param i32 i32) (result i32) {_SPIN} (i32.const 0)){_BUF}{_VERSION}',
    "gw_init traps": f'(func (export "gw_init") (param i32 i32) (result i32) unreachable){_BUF}{_VERSION}',
}


@pytest.mark.parametrize("abi", STARTS.values(), ids=STARTS.keys())
def test_a_plugin_that_fails_while_starting_is_refused(make_codec: MakeCodec, abi: str) -> None:
    with pytest.raises(PluginTrapped, match=r"failed while starting: (unreachable|interrupt)"):
        make_codec(guest(abi=abi))


def test_gw_init_sees_its_configuration_and_may_refuse_it(make_codec: MakeCodec) -> None:
    # The code is the first byte of the msgpack map; the text is the configuration as it came.
    abi = f"""{_BUF}{_VERSION}
      (func (export "gw_init") (param i32 i32) (result i32) (i32.load8_u (local.get 0)))
      (func (export "gw_last_error") (result i64) (i64.const {(65536 + 8) << 32 | 11}))"""
    with pytest.raises(CodecError, match=r"refused to start \(code 129\): .*pressure") as refused:
        make_codec(guest(abi=abi), settings={"pressure": 1})
    assert refused.value.number == 0x81


_ENCODER = """(func (export "gw_encode") (param i32 i32 i32) (result i64)
  (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1))))"""


def test_the_steps_of_a_start_share_one_time(make_codec: MakeCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[float] = []
    begin = Watchdog.begin

    def recording(watchdog: Watchdog, deadline: float) -> None:
        deadlines.append(deadline)
        begin(watchdog, deadline)

    looks = count()
    began = perf_counter()
    monkeypatch.setattr(Watchdog, "begin", recording)
    monkeypatch.setattr(instance, "perf_counter", lambda: began + next(looks) / 10)  # every look costs time
    steps = '(func (export "_initialize")) (func (export "gw_init") (param i32 i32) (result i32) (i32.const 0))'
    make_codec(guest(abi=f"{_BUF}{_VERSION}{steps}"), limits=Limits(memory_mib=2, start_deadline_ms=2000))
    assert len(deadlines) == 5
    assert max(deadlines) - deadlines[0] == pytest.approx(0.1)


def starts_once(batch: str) -> bytes:
    """A guest whose gw_init succeeds only while the key-value store, which outlives the instance, is empty."""
    return guest(
        batch,
        more="""(import "gw1" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))
                (import "gw1" "kv_set" (func $set (param i32 i32 i32 i32) (result i32)))""",
        abi=f"""{_BUF}{_VERSION}
          (func (export "gw_init") (param i32 i32) (result i32)
            (if (i32.ge_s (call $get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 8)) (i32.const 0))
              (then (return (i32.const 7))))
            (call $set (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1))) {_ENCODER}""",
    )


def test_a_plugin_that_is_down_encodes_nothing_and_blames_no_request(make_codec: MakeCodec) -> None:
    codec = make_codec(starts_once("unreachable"), caps=Caps(kv=True))
    assert codec.encode(b"\x80") == b"\x80"
    codec.decode_batch([b"a"])
    with pytest.raises(NotReady, match="does not start again"):
        codec.encode(b"\x80")
    assert codec.stats.strikes == 2  # the frame that trapped, and the start


def test_a_batch_whose_trap_leaves_the_plugin_down_blames_none_of_its_frames(make_codec: MakeCodec) -> None:
    codec = make_codec(starts_once("unreachable"), caps=Caps(kv=True))
    with pytest.raises(NotReady):
        codec.decode_batch([b"a", b"b"])
    assert (codec.stats.frames, codec.stats.strikes) == (0, 1)
    assert codec.program.strikes.own == 1  # it did not start, and no connection is to blame for that


def test_what_was_decoded_before_the_plugin_went_down_is_given(make_codec: MakeCodec) -> None:
    # One call of many frames gives nils; the next, of the rest of them, traps.
    nils = """(if (i32.eq (local.get $n) (i32.const 1)) (then unreachable))
      (i32.store8 (i32.const 131072) (i32.const 0xdc))
      (i32.store8 (i32.const 131073) (i32.shr_u (local.get $n) (i32.const 8)))
      (i32.store8 (i32.const 131074) (local.get $n))
      (memory.fill (i32.const 131075) (i32.const 0xc0) (local.get $n))
      (i64.or (i64.const 0x2000000000000) (i64.extend_i32_u (i32.add (local.get $n) (i32.const 3))))"""
    codec = make_codec(starts_once(nils), caps=Caps(kv=True))
    assert codec.decode_batch([b""] * 1024 + [b"x"]) == [None] * 1024 + [TRAPPED]
    with pytest.raises(NotReady):
        codec.decode_batch([b"x"])


def test_a_frame_left_without_its_own_call_is_left_to_the_caller(make_codec: MakeCodec) -> None:
    # Two frames: the second did not fit and traps when it is alone; of three, the third finds the plugin down.
    too_large = """(if (i32.eq (local.get $n) (i32.const 1)) (then unreachable))
      (i32.store (i32.const 131072) (i32.const 0x0404c093))
      (i64.const 0x2000000000004)"""
    codec = make_codec(starts_once(too_large), caps=Caps(kv=True))
    assert codec.decode_batch([b"a", b"b", b"c"]) == [None, TRAPPED]


def test_a_plugin_that_does_not_start_again_is_tried_ever_more_rarely(make_codec: MakeCodec) -> None:
    clock = HandClock()
    codec = make_codec(starts_once("unreachable"), caps=Caps(kv=True), clock=clock)
    assert codec.decode_batch([b"a"]) == [TRAPPED]
    calls = codec.stats.calls
    for frames in ([b"a"], [b"a", b"b"], [b"a"] * 2000):
        with pytest.raises(NotReady, match="does not start again"):
            codec.decode_batch(frames)
    assert codec.stats.calls == calls
    assert codec.stats.strikes == 2
    assert codec.program.strikes.failed_starts == 1
    assert codec.stats.errors == {TRAPPED: 1}
    first_wait = codec.program._retry_at - clock.monotonic_s()
    clock.seconds += first_wait
    with pytest.raises(NotReady):
        codec.decode_batch([b"a"])
    assert codec.program._retry_at - clock.monotonic_s() == pytest.approx(2 * first_wait)


class HandClock:
    """A clock that moves by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic_s(self) -> float:
        return self.seconds


def test_strikes_are_forgotten_after_their_window(make_codec: MakeCodec) -> None:
    clock = HandClock()
    codec = make_codec(well_behaved(), clock=clock)
    codec.decode_batch([b"T1"])
    clock.seconds += 59
    codec.decode_batch([b"T2"])
    assert codec.strikes_in() == 2
    clock.seconds += 2
    assert codec.strikes_in() == 1
    assert codec.stats.strikes == 2


def test_closing_a_codec_twice_is_allowed_and_a_closed_codec_decodes_nothing(make_codec: MakeCodec) -> None:
    codec = make_codec(well_behaved())
    codec.close()
    codec.close()
    with pytest.raises(NotReady):
        codec.decode_batch([b"a"])


def test_many_respawns_do_not_grow_the_process(sandbox: Sandbox) -> None:
    def churn() -> None:
        with closing(sandbox.codec(well_behaved())) as codec:
            for number in range(200):
                codec.decode_batch([b"T%d" % number])
        sandbox.codecs.pop()

    assert _grown(churn, 5) < 12 << 20  # 1000 respawns of 0.5 MiB


def test_plugins_that_are_gone_leave_no_linker_behind(sandbox: Sandbox) -> None:
    imports = "".join(
        f'(import "gw1" "{name}" (func (param {" ".join(params)}) (result {" ".join(results)})))'
        for name, (_, params, results) in IMPORTS.items()
    )
    wasm = guest(more=imports)

    def churn() -> None:
        for _ in range(100):
            with closing(sandbox.codec(wasm, caps=_ALL)) as codec:
                codec.decode_batch([b"a"])
            sandbox.codecs.pop()

    assert _grown(churn, 5) < 3 << 20  # 500 plugins; a linker that stays takes 14 KB


def _grown(churn: Callable[[], None], times: int) -> int:
    """Bytes by which the process grows in so many rounds after the first."""
    process = psutil.Process()
    churn()
    gc.collect()
    before = process.memory_info().rss
    for _ in range(times):
        churn()
    gc.collect()
    return process.memory_info().rss - before
