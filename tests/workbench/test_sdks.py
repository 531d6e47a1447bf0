"""The SDKs: one example sensor in every language, one file of promises for all of them."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import wasmtime
from fakes.plugin_codecs import decode_all
from hypothesis import given, settings
from hypothesis import strategies as st
from made_plugins import Made

from gateway.core.clock import SystemClock
from gateway.core.errors import CodecError
from gateway.core.flow import Decoded
from gateway.wasm.config import WasmConfig
from gateway.wasm.host import WasmCodec
from gateway.wasm.manifest import load_manifest
from gateway.wasm.release import Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox
from gateway.workbench.build import build_plugin
from gateway.workbench.shipped import shipped_plugins
from gateway.workbench.templates import Template, new_plugin

LANGUAGES: tuple[Template, ...] = ("c", "zig", "as", "go", "rust")
CONFORMANCE = json.loads((shipped_plugins() / "sdk" / "conformance.json").read_text())["vectors"]
GRANTED = frozenset({"log", "clock", "random", "wasi"})


def no_runtime(name: str) -> Release:
    raise AssertionError(f"{name} is the runtime of none of these")


class Bench:
    """A sandbox, and codecs of one module in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sandbox = Sandbox(WasmConfig())
        self.codecs: list[WasmCodec] = []

    def codec(self, **config: Any) -> WasmCodec:
        operators = WasmConfig(settings={self.folder.name: config})
        release = read_release(self.folder, operators, no_runtime)
        starter = Starter(operators, SystemClock(), lambda _release: GRANTED)
        made = WasmCodec(starter.start(release, self.sandbox))
        self.codecs.append(made)
        return made

    def close(self) -> None:
        for codec in self.codecs:
            codec.close()
        self.sandbox.close()


@pytest.fixture(scope="module", params=LANGUAGES)
def bench(request: pytest.FixtureRequest, made: Made) -> Iterator[Bench]:
    opened = Bench(made(request.param))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def codec(bench: Bench) -> WasmCodec:
    return bench.codec()


def frames() -> list[bytes]:
    return [bytes.fromhex(vector["frame"]) for vector in CONFORMANCE if "frame" in vector]


def test_the_promises_cover_every_code_and_both_directions() -> None:
    errors = {vector["error"] for vector in CONFORMANCE if "error" in vector}
    assert errors == {1, 2, 3, 4, 5, 6, 7, 256, 257}
    assert any(vector.get("drop") for vector in CONFORMANCE)
    assert any("hex" in vector for vector in CONFORMANCE)


def test_a_new_plugin_keeps_every_promise(bench: Bench) -> None:
    release = read_release(bench.folder, WasmConfig(), no_runtime)
    starter = Starter(WasmConfig(), SystemClock(), lambda _release: GRANTED)
    results = starter.prove(release, bench.sandbox)
    assert [(result.name, result.detail) for result in results if not result.ok] == []
    assert len(results) == len(CONFORMANCE)


def test_a_batch_with_errors_between_gives_what_each_frame_gives_alone(codec: WasmCodec) -> None:
    batch = [frame for frame in frames() if len(frame) < 200]
    random.Random(7).shuffle(batch)
    alone = [codec.decode_batch([frame], [5])[0] for frame in batch]
    assert codec.decode_batch(batch, [5] * len(batch)) == alone
    assert {type(one) for one in alone} == {Decoded, int, type(None)}


def test_a_frame_that_does_not_fit_beside_others_is_decoded_alone_and_they_live(codec: WasmCodec) -> None:
    heavy = sealed(bytes([4]) + struct.pack(">HIHHh", 9, 1_700_000_000, 1, 1000, 215))
    results = decode_all(codec, [heavy] * 50 + [frames()[0]])  # 50 of 49 KB are more than the output holds
    assert [len(one.points) for one in results if isinstance(one, Decoded)] == [1000] * 50 + [1]


def test_settings_reach_the_plugin_and_wrong_ones_refuse_its_start(bench: Bench) -> None:
    codec = bench.codec(prefix="Büro ☀ ")
    (reading,) = codec.decode_batch([frames()[0]])
    assert isinstance(reading, Decoded)
    assert reading.device == "Büro ☀ 7"
    request = {"command": "set_interval", "args": {"seconds": 60}, "device": "Büro ☀ 7", "serial": 1}
    assert codec.encode(msgspec.msgpack.encode(request))[1:4] == b"\x82\x00\x07"
    assert isinstance(bench.codec(prefix="x" * 32).decode_batch([frames()[0]])[0], Decoded)
    for wrong in ("x" * 33, 7, None, ["sensor-"]):
        with pytest.raises(CodecError, match=r"config\.prefix must be a text of at most 32 bytes") as refused:
            bench.codec(prefix=wrong)
        assert refused.value.number == 7


def test_the_words_of_an_error_are_those_of_the_last_call(codec: WasmCodec) -> None:
    def encode(command: str, **args: int) -> str:
        with pytest.raises(CodecError) as refused:
            codec.encode(msgspec.msgpack.encode({"command": command, "args": args, "device": "sensor-1", "serial": 1}))
        return str(refused.value)

    assert encode("set_interval", seconds=0).endswith("args.seconds must be 1 to 65535")
    assert encode("reboot").endswith("commands are ack and set_interval")


def test_it_imports_nothing_but_what_its_language_cannot_do_without(bench: Bench) -> None:
    manifest = load_manifest(bench.folder)
    module = wasmtime.Module(bench.sandbox.engine, (bench.folder / manifest.wasm_name).read_bytes())
    assert {item.module for item in module.imports} == ({"wasi_snapshot_preview1"} if manifest.caps.wasi else set())
    assert manifest.caps.asked() == (frozenset({"wasi"}) if manifest.build.language == "go" else frozenset())


def sealed(body: bytes) -> bytes:
    """A frame whose length and checksum are right, so that what is behind them is reached."""
    frame = bytes([len(body) + 1]) + body
    return frame + bytes([sum(frame) & 0xFF])


_bodies = st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(0, 7), st.binary(max_size=250))


@settings(max_examples=60)
@given(batch=st.lists(st.binary(max_size=300) | _bodies.map(sealed), min_size=1, max_size=40))
def test_any_frames_give_values_or_codes_and_never_a_trap(codec: WasmCodec, batch: list[bytes]) -> None:
    results = codec.decode_batch(batch)
    assert all(one is None or isinstance(one, Decoded) or one in {1, 2, 3, 4, 5, 6, 256, 257} for one in results)
    assert (codec.stats.traps, codec.stats.kills) == (0, 0)


@settings(max_examples=150)
@given(text=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_text_is_taken_exactly_where_it_is_utf_8(codec: WasmCodec, text: bytes) -> None:
    (result,) = codec.decode_batch([sealed(b"\x02\x00\x07" + text)])
    try:
        said = text.decode()
    except UnicodeDecodeError:
        assert result == 257
    else:
        assert isinstance(result, Decoded)
        assert result.event is not None
        assert result.event.data == {"text": said}


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=40) | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "command": st.sampled_from(["ack", "set_interval"]) | _json,
        "args": st.dictionaries(st.sampled_from(["seconds", "sensor", "type"]), _json) | _json,
        "device": st.sampled_from(["sensor-1", "sensor-"]) | _json,
        "serial": st.integers(0, 70_000) | _json,
        "other": _json,
    },
)


@settings(max_examples=150)
@given(request=_requests.map(msgspec.msgpack.encode) | st.binary(max_size=80), cut=st.integers(0, 30))
def test_any_request_gives_a_frame_or_a_code_and_never_a_trap(codec: WasmCodec, request: bytes, cut: int) -> None:
    for data in (request, request[: len(request) - cut]):
        try:
            frame = codec.encode(data)
        except CodecError as refused:
            assert refused.number in {5, 7}  # noqa: PT017 - any of these, or a frame
        else:
            assert sum(frame[:-1]) & 0xFF == frame[-1]
    assert (codec.stats.traps, codec.stats.kills) == (0, 0)


def test_a_giant_count_and_endless_nesting_end_at_the_requests_end(codec: WasmCodec) -> None:
    for data in (b"\xdf\xff\xff\xff\xff\x01", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffabc", b"\x91" * 30_000):
        with pytest.raises(CodecError) as refused:
            codec.encode(data)
        assert refused.value.number == 5
    deep = b"\x82\xa4args" + b"\x91" * 30_000 + b"\xc0" + b"\xa7command\xa3ack"
    with pytest.raises(CodecError) as refused:
        codec.encode(deep)
    assert refused.value.number == 7


def test_memory_does_not_grow_with_the_frames(codec: WasmCodec) -> None:
    batch = frames()[:40]
    for _ in range(20):
        codec.decode_batch(batch)
    before = codec.memory_bytes
    for _ in range(500):
        codec.decode_batch(batch)
    assert codec.memory_bytes == before


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_sources_in_another_folder_give_the_same_module(
    made: Made, language: Template, tmp_path: Path
) -> None:
    folder = made(language)
    other = new_plugin(language, folder.name, tmp_path / "a longer way").folder
    module = build_plugin(other).read_bytes()
    assert module == (folder / f"{folder.name}.wasm").read_bytes()
    assert str(tmp_path).encode() not in module
