"""The Wasm host: decoding against native code and plain Python, and what a failing plugin costs.

The two plugins of `bench/plugins` decode 64-byte frames into msgpack; the same C is compiled natively, and plain Python
(struct, msgspec's encoder) makes the same bytes. `to messages` adds the decode into `Decoded` that the pipeline uses.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import msgspec
import structlog
import wasmtime

from gateway.wasm.abi import pack_batch
from gateway.wasm.config import WasmConfig
from gateway.wasm.engine import make_engine
from gateway.wasm.host import WasmCodec
from gateway.wasm.loader import Proven
from gateway.wasm.module_cache import ModuleCache
from gateway.wasm.plugins import PluginHost
from gateway.workbench.build import build_plugin, compiler, compiler_environment, sdk_folders

PLUGINS = Path(__file__).parent / "plugins"
BATCHES = (1, 8, 64, 512)
ROUNDS = 5
ROUND_S = 0.06
"""Five interleaved rounds of 60 ms CPU for each of 32 measurements: ten seconds."""

Decode = Callable[[Sequence[bytes]], object]


def rows() -> Iterable[tuple[str, str, str]]:
    """Give (what, figure, note)."""
    with structlog.testing.capture_logs():  # the failing plugin is meant to
        return list(_rows())


def _rows() -> Iterable[tuple[str, str, str]]:
    for name in ("telemetry5", "tlv16"):
        build_plugin(PLUGINS / name)
    with tempfile.TemporaryDirectory() as scratch:
        host = PluginHost(WasmConfig(), [PLUGINS], Path(scratch) / "cache")
        try:
            host.load_all()
            yield "call path", host.path, host.path_reason or "self-test passed"
            yield from _decoding(host, "telemetry5", telemetry_frame, python_telemetry, Path(scratch))
            yield from _decoding(host, "tlv16", tlv_frame, python_tlv, Path(scratch))
        finally:
            host.close()
        yield _single_frame()
        yield from _failing(Path(scratch))
        yield from _loading(Path(scratch))
        yield from _swapping(Path(scratch))


# -- decoding -------------------------------------------------------------------------------------------------------


def telemetry_frame(number: int) -> bytes:
    """A frame of `telemetry5`, as after framing."""
    values = (20 + number / 7, 40.5, 101.325, 229.9 - number / 3, 1 / (number + 1))
    body = b"dev%05d" % (number % 100_000) + struct.pack(">Q5dI", 1_760_000_000_000 + number, *values, number)
    return body + fletcher(body)


def fletcher(body: bytes) -> bytes:
    """Fletcher-16, as fast as plain Python has it."""
    return bytes((sum(accumulate(body)) % 255, sum(body) % 255))


_TELEMETRY = struct.Struct(">8sQ5dIH")
_NAMES = ("temperature", "humidity", "pressure", "voltage", "current")
_encode = msgspec.msgpack.Encoder().encode


def python_telemetry(frames: Sequence[bytes]) -> bytes:
    """What the plugin does, in plain Python."""
    items: list[object] = []
    for frame in frames:
        if len(frame) != 62:
            items.append(1)
        elif fletcher(frame[:60]) != frame[60:]:
            items.append(3)
        else:
            device, at, *values, _sequence, _check = _TELEMETRY.unpack(frame)
            points = [{"at": at, "values": dict(zip(_NAMES, values, strict=True))}]
            items.append({"kind": "report", "device": device.rstrip(b"\0").decode("ascii"), "points": points})
    return _encode(items)


def tlv_frame(number: int) -> bytes:
    """A frame of `tlv16`."""
    return b"".join(struct.pack(">BBh", tag, tag % 7, (number * 37 + tag * 911) % 60000 - 30000) for tag in range(16))


_READINGS = struct.Struct(">" + "BBh" * 16)
_SCALES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_TAGS = tuple(f"v{tag:02}" for tag in range(16))


def python_tlv(frames: Sequence[bytes]) -> bytes:
    """What the plugin does, in plain Python."""
    items: list[object] = []
    for frame in frames:
        values = {}
        fields = iter(_READINGS.unpack(frame))
        for tag, decimals, value in zip(fields, fields, fields, strict=True):
            values[_TAGS[tag]] = value * _SCALES[decimals]
        items.append({"kind": "report", "points": [{"values": values}]})
    return _encode(items)


class Native:
    """A plugin's C compiled as a shared library, called as the Wasm host calls the module."""

    def __init__(self, name: str, scratch: Path) -> None:
        folder = PLUGINS / name
        library = scratch / f"{name}.so"
        command = [*compiler(), "-shared", "-fPIC", "-std=c11", "-O3", *(f"-I{place}" for place in sdk_folders(folder))]
        subprocess.run(
            [*command, "-o", str(library), str(folder / f"{name}.c")], env=compiler_environment(), check=True
        )
        loaded = ctypes.CDLL(str(library))
        loaded.gw_buf.restype = ctypes.c_size_t
        loaded.gw_native_base.restype = ctypes.c_size_t
        self._call = loaded.gw_decode_batch
        self._call.argtypes = (ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint32)
        self._call.restype = ctypes.c_uint64
        self._input = loaded.gw_buf(1 << 17)
        self._base = loaded.gw_native_base()

    def decode(self, frames: Sequence[bytes]) -> bytes:
        data = pack_batch(frames, None)
        ctypes.memmove(self._input, data, len(data))
        packed = self._call(self._input, len(data), len(frames))
        return ctypes.string_at(self._base + (packed >> 32), packed & 0xFFFF_FFFF)


def _decoding(
    host: PluginHost, name: str, make: Callable[[int], bytes], python: Decode, scratch: Path
) -> Iterable[tuple[str, str, str]]:
    codec = host.codec(name)
    assert isinstance(codec, WasmCodec)
    instance = codec.program._instance
    assert instance is not None
    native = Native(name, scratch)

    def wasm(frames: Sequence[bytes]) -> bytes:
        return instance.call("gw_decode_batch", pack_batch(frames, None), len(frames), 1.0)[1]

    contenders: dict[str, Decode] = {
        "wasm": wasm,
        "native": native.decode,
        "python": python,
        "messages": codec.decode_batch,
    }
    everything = [make(number) for number in range(BATCHES[-1])]
    made = [msgspec.msgpack.decode(decode(everything)) for decode in (wasm, native.decode, python)]
    assert made[0] == made[1] == made[2], f"{name}: the contenders disagree"
    for size in BATCHES:
        best = race(contenders, everything[:size])
        wasm_us = best["wasm"]
        goal = " (goals 14 and 0.5)" if size == 64 else ""
        messages = f"to messages {best['messages']:.2f} us"
        yield (
            f"{name}, batch {size}",
            f"{1 / wasm_us:.2f} M frames/s ({wasm_us:.2f} us)",
            f"{best['python'] / wasm_us:.1f} x Python, {best['native'] / wasm_us:.2f} of native{goal}; {messages}",
        )


def race(contenders: dict[str, Decode], batch: Sequence[bytes]) -> dict[str, float]:
    """Best CPU microseconds per frame of each contender, over interleaved rounds."""
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(ROUNDS):
        for name, decode in contenders.items():
            calls = max(1, int(ROUND_S / _once_s(decode, batch)))
            began = process_time()
            for _ in range(calls):
                decode(batch)
            best[name] = min(best[name], (process_time() - began) / calls / len(batch) * 1e6)
    return best


def _once_s(decode: Decode, batch: Sequence[bytes]) -> float:
    began = perf_counter()
    decode(batch)
    return max(perf_counter() - began, 1e-6)


def _single_frame() -> tuple[str, str, str]:
    """A frame alone, as at idle: the host's own way into the guest against wasmtime's public API, to raw msgpack."""
    rounds = {}
    with ExitStack() as stack:
        for path in ("auto", "public"):
            host = PluginHost(WasmConfig(call_path=path), [PLUGINS], None)
            stack.callback(host.close)
            host.load_all()
            codec = host.codec("telemetry5")
            assert isinstance(codec, WasmCodec)
            instance = codec.program._instance
            assert instance is not None
            packed = pack_batch([telemetry_frame(1)], None)
            rounds[path] = lambda instance=instance, packed=packed: instance.call("gw_decode_batch", packed, 1, 1.0)
        best = dict.fromkeys(rounds, float("inf"))
        for _ in range(ROUNDS):
            for path, call in rounds.items():
                began, calls = process_time(), 0
                while process_time() - began < ROUND_S:
                    call()
                    calls += 1
                best[path] = min(best[path], (process_time() - began) / calls * 1e6)
    return "single frame", f"{best['auto']:.2f} us", f"{best['public'] / best['auto']:.1f} x the public API; goal 4"


# -- failing --------------------------------------------------------------------------------------------------------

HOSTILE = """(module (memory (export "memory") 8)
  (func (export "gw_abi") (result i32) (i32.const 0x10000))
  (func (export "gw_buf") (param i32) (result i32) (i32.const 65536))
  (func (export "gw_decode_batch") (param $p i32) (param i32 i32) (result i64)
    (if (i32.eqz (i32.load8_u (i32.add (local.get $p) (i32.const 8)))) (then (loop $l (br $l))))
    unreachable))"""


def _failing(scratch: Path) -> Iterable[tuple[str, str, str]]:
    folder = scratch / "hostile"
    folder.mkdir()
    (folder / "plugin.toml").write_text('id = "hostile"\nversion = "1"\nlicense = "MIT"\n')
    (folder / "hostile.wasm").write_bytes(wasmtime.wat2wasm(HOSTILE))
    host = PluginHost(WasmConfig(), [scratch, PLUGINS], None)
    try:
        host.load_all()
        hostile, neighbour = host.codec("hostile"), host.codec("telemetry5")
        assert isinstance(hostile, WasmCodec)
        kills, neighbours, spawns, traps = [], [], [], []
        frame = telemetry_frame(1)
        neighbour.decode_batch([frame])
        for number in range(30):  # no frame twice: the second time it is refused without running it
            loops = b"\0%d" % number
            kills.append(_wall_ms(lambda loops=loops: hostile.decode_batch([loops])))
            neighbours.append(_wall_ms(lambda: neighbour.decode_batch([frame])))
            spawns.append(_wall_ms(hostile.program._live))
        for number in range(200):
            poison = b"x%d" % number
            hostile.program._live()
            traps.append(_wall_ms(lambda poison=poison: hostile.decode_batch([poison])))
            spawns.append(_wall_ms(hostile.program._live))
        yield "endless loop, 20 ms deadline", f"{median(kills):.1f} ms", f"worst {max(kills):.1f} of 30; goal 35"
        yield (
            "neighbour's next call after a kill",
            f"{median(neighbours) * 1000:.0f} us",
            f"worst {max(neighbours):.2f} ms",
        )
        yield "trap", f"{median(traps) * 1000:.0f} us", f"worst {max(traps):.2f} ms of 200"
        yield "respawn", f"{median(spawns) * 1000:.0f} us", f"worst {max(spawns):.2f} ms of 230; goal 1 ms"
    finally:
        host.close()


def _loading(scratch: Path) -> Iterable[tuple[str, str, str]]:
    module = (PLUGINS / "telemetry5" / "telemetry5.wasm").read_bytes()
    engine = make_engine()
    uncached = ModuleCache(engine, None)
    compiled = [_wall_ms(lambda: uncached.load(module)) for _ in range(5)]
    cached = ModuleCache(engine, scratch / "modules")
    cached.load(module)
    loaded = [_wall_ms(lambda: cached.load(module)) for _ in range(20)]
    yield f"compile a module of {len(module) / 1024:.1f} KB", f"{min(compiled):.1f} ms", ""
    yield "load it from the cache", f"{median(loaded):.2f} ms", "authenticated"


def _swapping(scratch: Path) -> Iterable[tuple[str, str, str]]:
    """What a swap costs the loop: the version was read, compiled and proven on another thread before."""
    host = PluginHost(WasmConfig(), [PLUGINS], scratch / "cache")
    try:
        host.load_all()
        slot = host._shelf.known("telemetry5")
        assert slot.survey is not None
        proven = host._shelf.loader.judge(slot.survey.found[0])
        assert isinstance(proven, Proven)
        frames = [telemetry_frame(number) for number in range(64)]
        swaps = []
        for _ in range(200):
            host.codec("telemetry5").decode_batch(frames)
            swaps.append(_wall_ms(lambda: slot.use(proven)))
        yield "swap of a cached small module", f"{median(swaps):.2f} ms", f"worst {max(swaps):.2f} ms of 200; goal 5 ms"
    finally:
        host.close()


def _wall_ms(action: Callable[[], object]) -> float:
    began = perf_counter()
    action()
    return (perf_counter() - began) * 1000
