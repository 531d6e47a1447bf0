"""Decoding JT/T 808 locations: the plugin in Wasm, the same C compiled natively, and plain Python, to the same bytes.

Frames are the captured locations of the plugin's vectors, after framing. `to msgpack` is what all three make; `to
messages` adds the host's one decode of the whole batch into `Decoded`, as the pipeline uses it.
"""

from __future__ import annotations

import calendar
import ctypes
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from gateway.core.flow import Decoded
from gateway.framing.flag_escape import FlagEscapeFramer
from gateway.wasm.abi import pack_batch
from gateway.wasm.manifest import load_manifest
from gateway.wasm.plugins import PluginHost, WasmConfig
from gateway.workbench.build import build_plugin, compiler, compiler_environment

PLUGINS = Path(__file__).parent.parent / "plugins"
BATCHES = (1, 8, 64, 512)
ROUNDS = 5
ROUND_S = 0.08
"""Five interleaved rounds of 80 ms for each of twelve measurements: five seconds."""

BatchDecoder = Callable[[Sequence[bytes]], object]


def rows() -> Iterable[tuple[str, str, str]]:
    """Yield (what, figure, note)."""
    frames = location_frames()
    build_plugin(PLUGINS / "jt808")
    with tempfile.TemporaryDirectory() as scratch:
        native = NativeCodec(Path(scratch))
        host = PluginHost(WasmConfig(), [PLUGINS], None)
        try:
            host.load_all()
            codec = host.codec("jt808")
            instance = codec.program._instance
            contenders: dict[str, BatchDecoder] = {
                "wasm": lambda batch: instance.call("gw_decode_batch", pack_batch(batch, None), len(batch), 1.0),
                "messages": codec.decode_batch,
                "native": native.decode_batch,
                "python": decode_batch,
            }
            check_same(frames, native, codec)
            for size in BATCHES:
                batch = (frames * (size // len(frames) + 1))[:size]
                best = race(contenders, batch)
                yield _row(size, best)
        finally:
            host.close()


def _row(size: int, best: dict[str, float]) -> tuple[str, str, str]:
    wasm, native, python, messages = (best[name] for name in ("wasm", "native", "python", "messages"))
    return (
        f"JT/T 808 locations, batch {size}",
        f"{1e6 / wasm:,.0f} frames/s to msgpack ({wasm:.2f} us each)",
        f"{python / wasm:.1f} x Python, {native / wasm:.2f} of native; to messages {messages:.2f} us",
    )


def race(contenders: dict[str, BatchDecoder], batch: Sequence[bytes]) -> dict[str, float]:
    """Best microseconds per frame of each contender over interleaved rounds."""
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(ROUNDS):
        for name, decode in contenders.items():
            calls = 0
            began = perf_counter()
            while (spent := perf_counter() - began) < ROUND_S:
                decode(batch)
                calls += 1
            best[name] = min(best[name], 1e6 * spent / (calls * len(batch)))
    return best


def check_same(frames: Sequence[bytes], native: NativeCodec, codec: Any) -> None:
    """All contenders must give the same items: a benchmark of different work says nothing."""
    expected = msgspec.msgpack.decode(decode_batch(frames))
    assert msgspec.msgpack.decode(native.decode_batch(frames)) == expected
    for result, item in zip(codec.decode_batch(frames), expected, strict=True):
        assert isinstance(result, Decoded)
        assert msgspec.msgpack.decode(result.value) == item["value"]


def location_frames() -> list[bytes]:
    """The captured 0x0200 frames, unescaped."""
    vectors = json.loads((PLUGINS / "jt808" / "vectors.json").read_text())["vectors"]
    framer = FlagEscapeFramer(0x7E, 0x7D, {1: 0x7D, 2: 0x7E}, 4096)
    return [
        frame
        for vector in vectors
        if "location" in vector["expect"]
        for frame in framer.feed(bytes.fromhex(vector["frame_hex"]))
    ]


# The same C, compiled for this machine.


class NativeCodec:
    """The plugin's sources as a shared library, called through ctypes in the same ABI."""

    def __init__(self, folder: Path) -> None:
        plugin = PLUGINS / "jt808"
        library = folder / "jt808.so"
        sources = [str(plugin / source) for source in load_manifest(plugin).build.sources]
        flags = ["-shared", "-fPIC", "-std=c11", "-O2", "-fno-sanitize=undefined", f"-I{PLUGINS / 'sdk' / 'c'}"]
        subprocess.run([*compiler(), *flags, "-o", str(library), *sources], check=True, env=compiler_environment())
        self._library = ctypes.CDLL(str(library))
        self._library.gw_buf.restype = ctypes.c_void_p
        self._library.gw_native_base.restype = ctypes.c_void_p
        self._decode = self._library.gw_decode_batch
        self._decode.argtypes = (ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint32)
        self._decode.restype = ctypes.c_uint64
        self._input = self._library.gw_buf(64 << 10)
        self._base = self._library.gw_native_base()

    def decode_batch(self, frames: Sequence[bytes]) -> bytes:
        """Decode to the msgpack array of the ABI."""
        packed = pack_batch(frames, None)
        ctypes.memmove(self._input, packed, len(packed))
        result = self._decode(self._input, len(packed), len(frames))
        return ctypes.string_at(self._base + (result >> 32), result & 0xFFFFFFFF)


# Plain Python, as one writes it first.

_encode = msgspec.msgpack.Encoder().encode


def decode_batch(frames: Sequence[bytes]) -> bytes:
    """Decode 0x0200 frames of the 2013 header to the msgpack array of the ABI."""
    return _encode([decode(frame) for frame in frames])


def decode(frame: bytes) -> dict[str, Any] | int:
    """Decode one 0x0200 frame to the item that the plugin gives."""
    sum_ = 0
    for byte in frame:
        sum_ ^= byte
    if sum_:
        return 3
    attributes = int.from_bytes(frame[2:4], "big")
    phone, serial, body = frame[4:10].hex(), int.from_bytes(frame[10:12], "big"), frame[12:-1]
    location, raw = decode_location(body)
    ack = {"phone": phone, "version": None, "message_id": 0x0200, "result": 0, "serial": serial}
    extras = {"extras_raw": raw} if raw else {}
    return {
        "kind": "report",
        "device": phone,
        "ack": {"command": "general_reply", "args": ack},
        "points": [{"at": epoch_ms(body[22:28]), "values": {**location, **extras}}],
        "value": {
            "checksum_ok": True,
            "message_id": 0x0200,
            "version": None,
            "terminal_phone": phone,
            "serial": serial,
            "parts": None,
            "body_length_ok": len(body) == attributes & 0x3FF,
            "location": location,
            **extras,
        },
    }


def decode_location(body: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a location and the extras without a meaning, as hex by id."""
    status = int.from_bytes(body[4:8], "big")
    latitude, longitude = int.from_bytes(body[8:12], "big") / 1e6, int.from_bytes(body[12:16], "big") / 1e6
    at_ms = epoch_ms(body[22:28])
    location: dict[str, Any] = {
        "alarm": int.from_bytes(body[:4], "big"),
        "status": status,
        "acc_on": bool(status & 1),
        "positioned": bool(status & 2),
        "latitude": -latitude if status & 4 else latitude,
        "longitude": -longitude if status & 8 else longitude,
        "altitude_m": int.from_bytes(body[16:18], "big"),
        "speed_km_h": int.from_bytes(body[18:20], "big") / 10,
        "direction_deg": int.from_bytes(body[20:22], "big"),
        "time": None if at_ms is None else rfc3339(at_ms),
    }
    known, raw, rest = decode_extras(body[28:])
    location.update(known)
    location["extras_well_formed"] = not rest
    if rest:
        raw["rest"] = rest.hex()
    return location, raw


def decode_extras(data: bytes) -> tuple[dict[str, Any], dict[str, str], bytes]:
    """Known extras in their order of fields, raw ones by id, and what is no extra."""
    found: dict[str, Any] = {}
    raw: dict[str, str] = {}
    times: dict[int, int] = {}
    while len(data) >= 2 and len(data) >= 2 + data[1]:
        extra, size, value = data[0], data[1], data[2 : 2 + data[1]]
        if extra == 0x01 and size == 4:
            found["mileage_km"] = int.from_bytes(value, "big") / 10
        elif extra == 0x30 and size == 1:
            found["rssi"] = value[0]
        elif extra == 0x31 and size == 1:
            found["satellites"] = value[0]
        else:
            times[extra] = times.get(extra, 0) + 1
            raw[f"0x{extra:02x}" + (f".{times[extra]}" if times[extra] > 1 else "")] = value.hex()
        data = data[2 + size :]
    return {name: found[name] for name in ("mileage_km", "rssi", "satellites") if name in found}, raw, data


def epoch_ms(bcd: bytes) -> int | None:
    """BCD time in GMT+8 as epoch milliseconds; None when it is no date of the calendar."""
    digits = bcd.hex()
    if len(digits) < 12 or not digits.isdecimal():
        return None
    year, month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(0, 12, 2))
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(2000 + year, month)[1]:
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    return 1000 * (calendar.timegm((2000 + year, month, day, hour, minute, second)) - 8 * 3600)


def rfc3339(at_ms: int) -> str:
    """Epoch milliseconds as `2026-02-28T23:59:59Z`."""
    year, month, day, hour, minute, second = time.gmtime(at_ms // 1000)[:6]
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}Z"


if __name__ == "__main__":
    for what, figure, note in rows():
        print(f"{what:32} {figure:48} {note}")
