"""Stages around a codec: what they change and refuse, what a hostile one costs, and that no key is ever shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from fakes.callable_plugins import PLUGINS
from fakes.guests_calls import last_byte, put_caller
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.clock import SystemClock
from gateway.core.errors import CodecError, ConfigError, NotFound, NotReady, PluginTrapped
from gateway.core.flow import Decoded, Point
from gateway.framing.spec import FlagEscapeSpec
from gateway.framing.wrap import unwrapped, wrapped
from gateway.wasm import stages as stages_room
from gateway.wasm.codec import MALFORMED, TRAPPED, DecodeResult
from gateway.wasm.config import WasmConfig
from gateway.wasm.plugins import PluginHost
from gateway.wasm.program import Program
from gateway.wasm.release import Release, Starter, read_release
from gateway.wasm.sandbox import Sandbox
from gateway.wasm.stages import StageConfig, StagedCodec, Stages
from gateway.workbench.build import build_plugin

KEY = "0123456789abcdeffedcba9876543210"
OTHER = "00112233445566778899aabbccddeeff"


class Plugins:
    """Releases that run, on one thread."""

    def __init__(self) -> None:
        config = WasmConfig()
        self.sandbox = Sandbox(config)
        self.starter = Starter(config, SystemClock(), lambda _: frozenset(config.default_grants))
        self.releases: dict[str, Release] = {}
        self.started: list[Program] = []
        self.config = config

    def put(self, folder: Path) -> None:
        release = read_release(folder, self.config, _no_runtime)
        self.releases[release.id] = release

    def running(self, plugin_id: str) -> Release:
        if plugin_id not in self.releases:
            raise NotFound(f"no plugin {plugin_id!r}")
        return self.releases[plugin_id]

    def start_here(self, release: Release) -> Program:
        self.started.append(self.starter.start(release, self.sandbox))
        return self.started[-1]


def _no_runtime(_plugin_id: str) -> Release:
    raise AssertionError


class EchoCodec:
    """Decodes a frame to an item that shows it; encodes a request as its `args`: text as it is, the rest as JSON."""

    plugin_id = "echo"

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.batches: list[tuple[list[bytes], list[int]]] = []

    def decode_batch(self, frames: Sequence[bytes], aux: Sequence[int] | None = None) -> list[DecodeResult]:
        self.batches.append((list(frames), list(aux or ())))
        return [_item(frame) for frame in frames[: self.most]]

    def encode(self, request: bytes, aux: int = 0, *, party: int | None = None) -> bytes:
        args = msgspec.msgpack.decode(request)["args"]
        return args.encode() if isinstance(args, str) else msgspec.json.encode(args)


def _item(frame: bytes) -> DecodeResult:
    shown = {"text": frame.hex(), "kind": "data"}
    return Decoded(
        "report",
        points=[Point(None, dict(shown)), Point(None, {"n": 1})],
        value=msgspec.Raw(msgspec.msgpack.encode(shown)),
    )


def frame_of(result: DecodeResult) -> bytes:
    assert isinstance(result, Decoded)
    return bytes.fromhex(result.points[0].values["text"])


@pytest.fixture(scope="module")
def sm4_folder() -> Path:
    build_plugin(PLUGINS / "sm4")
    return PLUGINS / "sm4"


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[Plugins]:
    made = Plugins()
    made.put(put_caller(tmp_path, "last", kind="crypto", wasm=last_byte()))
    yield made
    made.sandbox.close()


MakeStages = Callable[..., Stages]


@pytest.fixture
def make(plugins: Plugins) -> Iterator[MakeStages]:
    every: list[Stages] = []

    def make_stages(**configs: dict[str, Any]) -> Stages:
        every.append(Stages({name: msgspec.convert(config, StageConfig) for name, config in configs.items()}, plugins))
        return every[-1]

    yield make_stages
    for stages in every:
        stages.close()


def sm4(data: bytes, key: str, *, decrypt: bool = False) -> bytes:
    """Another implementation: ECB without padding."""
    cipher = Cipher(algorithms.SM4(bytes.fromhex(key)), modes.ECB())  # noqa: S305 - what is compared is the stage
    context = cipher.decryptor() if decrypt else cipher.encryptor()
    return context.update(data) + context.finalize()


def ecb(key: str, **more: Any) -> dict[str, Any]:
    return {"plugin": "sm4", "args": {"mode": "ecb", "padding": "none"}, "secrets": {"key": key}, **more}


def test_without_stages_the_codec_is_the_codec(make: MakeStages) -> None:
    codec = EchoCodec()
    assert make().around(codec, ()) is codec


def test_frames_pass_the_stages_in_order_and_what_is_encoded_in_the_opposite_one(
    plugins: Plugins, make: MakeStages, sm4_folder: Path
) -> None:
    plugins.put(sm4_folder)
    staged = make(outer=ecb(KEY), inner=ecb(OTHER)).around(EchoCodec(), ("outer", "inner"))
    plain = b"a frame of 16 B!"
    wire = sm4(sm4(plain, OTHER), KEY)
    assert [frame_of(result) for result in staged.decode_batch([wire, wire])] == [plain, plain]
    encoded = staged.encode(msgspec.msgpack.encode({"args": "sixteen bytes it"}))
    assert sm4(sm4(encoded, KEY, decrypt=True), OTHER, decrypt=True) == b"sixteen bytes it"


@settings(deadline=None, max_examples=25)
@given(frames=st.lists(st.binary(min_size=1, max_size=80), max_size=5))
def test_what_one_side_encrypts_the_other_decrypts(frames: list[bytes]) -> None:
    build_plugin(PLUGINS / "sm4")
    plugins = Plugins()
    plugins.put(PLUGINS / "sm4")
    config = StageConfig(plugin="sm4", args={"mode": "gcm", "iv": "prefix"}, secrets={"key": KEY})
    stages = Stages({"gcm": config}, plugins)
    try:
        stage = stages._stages["gcm"]
        staged = stages.around(EchoCodec(), ("gcm",))
        wire = [stage.turn("encrypt", frame) for frame in frames]
        assert [frame_of(result) for result in staged.decode_batch(wire)] == frames
    finally:
        stages.close()
        plugins.sandbox.close()


def test_a_refused_frame_gets_the_stages_code_and_its_neighbours_live(make: MakeStages) -> None:
    stages = make(s={"plugin": "last"})
    codec = EchoCodec()
    staged = stages.around(codec, ("s",))
    results = staged.decode_batch([b"a", b"3", b"X", b"b"], [1, 2, 3, 4])
    assert [frame_of(results[0]), *results[1:3], frame_of(results[3])] == [b"a", 3, MALFORMED, b"b"]
    assert codec.batches == [([b"a", b"b"], [1, 4])], "the codec sees good frames alone, each with its own aux"
    refused = {sample.labels["reason"]: sample.value for sample in stages.samples() if "refused" in sample.name}
    assert refused == {"checksum": 1, "malformed_result": 1}


def test_frames_that_are_all_refused_do_not_reach_the_codec(make: MakeStages) -> None:
    codec = EchoCodec()
    assert make(s={"plugin": "last"}).around(codec, ("s",)).decode_batch([b"3", b"3"]) == [3, 3]
    assert codec.batches == []


def test_a_frame_that_makes_a_stage_trap_is_lost_and_no_other(make: MakeStages, plugins: Plugins) -> None:
    staged = make(s={"plugin": "last"}).around(EchoCodec(), ("s",))
    results = staged.decode_batch([b"a", b"T", b"b"])
    assert [frame_of(results[0]), results[1], frame_of(results[2])] == [b"a", TRAPPED, b"b"]
    assert plugins.started[0].stats.strikes == 1


def test_frames_that_hang_a_stage_end_the_batch_early_so_that_the_loop_breathes(make: MakeStages) -> None:
    staged = make(s={"plugin": "last"}).around(EchoCodec(), ("s",))
    frames, results = [b"%dL" % number for number in range(6)] + [b"a"], list[DecodeResult]()
    rounds = 0
    while len(results) < len(frames):
        results += staged.decode_batch(frames[len(results) :])
        rounds += 1
    assert results[:6] == [TRAPPED] * 6
    assert frame_of(results[6]) == b"a"
    assert rounds > 1


def test_a_codec_that_stops_short_leaves_the_rest_for_later(make: MakeStages) -> None:
    staged = make(s={"plugin": "last"}).around(EchoCodec(most=1), ("s",))
    assert len(staged.decode_batch([b"3", b"a", b"3", b"b"])) == 3
    assert len(staged.decode_batch([b"b"])) == 1


def test_a_stage_without_its_plugin_is_not_ready_and_blames_no_frame(make: MakeStages, plugins: Plugins) -> None:
    stages = make(s={"plugin": "gone"}, last={"plugin": "last"})
    with pytest.raises(NotReady, match="stage s: no plugin 'gone'"):
        stages.around(EchoCodec(), ("s",))
    with pytest.raises(NotReady, match=r"no stage 'x'; declare it as \[stages.x\]"):
        stages.around(EchoCodec(), ("last", "x"))
    staged = stages.around(EchoCodec(), ("last",))
    del plugins.releases["last"]
    with pytest.raises(NotReady):
        staged.decode_batch([b"a"])
    with pytest.raises(NotReady):
        staged.encode(msgspec.msgpack.encode({"args": {}}))


def test_a_stage_follows_the_version_of_its_plugin(make: MakeStages, plugins: Plugins, tmp_path: Path) -> None:
    stages = make(s={"plugin": "last"})
    staged = stages.around(EchoCodec(), ("s",))
    assert frame_of(staged.decode_batch([b"a"])[0]) == b"a"
    assert len(plugins.started) == 1
    plugins.put(put_caller(tmp_path, "last", kind="crypto", version="2", wasm=last_byte()))
    assert frame_of(staged.decode_batch([b"b"])[0]) == b"b"
    assert len(plugins.started) == 2
    assert plugins.started[0].memory_bytes == 0, "the instance of the version before is freed"


def test_only_crypto_plugins_are_stages(make: MakeStages, plugins: Plugins, tmp_path: Path) -> None:
    plugins.put(put_caller(tmp_path, "algo", kind="algo", wasm=last_byte()))
    with pytest.raises(NotReady, match="of kind algo, not crypto"):
        make(s={"plugin": "algo"}).around(EchoCodec(), ("s",))


def test_a_stage_encrypts_what_stands_inside_of_the_codecs_framing(
    plugins: Plugins, make: MakeStages, sm4_folder: Path
) -> None:
    plugins.put(sm4_folder)
    framing = FlagEscapeSpec()
    staged = make(s=ecb(KEY)).around(EchoCodec(), ("s",), framing)
    plain = [b"a frame of 16 B!", b"sixteen \x7d bytes~"[:16]]
    encoded = staged.encode(msgspec.msgpack.encode({"args": b"".join(wrapped(framing, one) for one in plain).decode()}))
    assert [sm4(frame, KEY, decrypt=True) for frame in unwrapped(framing, encoded)] == plain
    with pytest.raises(CodecError, match=r"cannot be encrypted: .* no whole frames") as caught:
        staged.encode(msgspec.msgpack.encode({"args": "not framed"}))
    assert caught.value.number == MALFORMED


def test_an_encoding_that_a_stage_refuses_or_traps_on_is_an_error(make: MakeStages) -> None:
    staged = make(s={"plugin": "last"}).around(EchoCodec(), ("s",))
    for text, error, number in (("3", CodecError, 3), ("T", PluginTrapped, TRAPPED)):
        with pytest.raises(error, match="stage s does not encrypt") as caught:
            staged.encode(msgspec.msgpack.encode({"args": text}))
        assert caught.value.number == number


# Fields


@pytest.mark.parametrize(
    ("plaintext", "value", "data"),
    [("hex", "00ff", b"\x00\xff"), ("text", "grün", "grün".encode()), ("json", {"t": 21.5}, b'{"t":21.5}')],
)
def test_fields_are_opened_after_decoding_and_closed_before_encoding(
    plugins: Plugins, make: MakeStages, sm4_folder: Path, plaintext: str, value: Any, data: bytes
) -> None:
    plugins.put(sm4_folder)
    field = {"place": "after", "fields": ["text"], "plaintext": plaintext, "args": {"mode": "gcm", "iv": "prefix"}}
    stages = make(f={"plugin": "sm4", "secrets": {"key": KEY}, **field})
    staged = stages.around(EchoCodec(), ("f",))
    (result,) = staged.decode_batch([stages._stages["f"].turn("encrypt", data)])
    assert isinstance(result, Decoded)
    assert result.points[0].values == {"text": value, "kind": "data"}
    assert result.points[1].values == {"n": 1}
    assert msgspec.msgpack.decode(result.value) == {"text": value, "kind": "data"}
    sent = msgspec.json.decode(staged.encode(msgspec.msgpack.encode({"args": {"text": value, "on": True}})))
    assert sent["on"] is True
    assert stages._stages["f"].open_field(sent["text"]) == value


def test_a_field_that_cannot_be_opened_costs_its_frame(make: MakeStages) -> None:
    stages = make(f={"plugin": "last", "place": "after", "fields": ["kind"], "plaintext": "text"})
    assert stages.around(EchoCodec(), ("f",)).decode_batch([b"a"]) == [MALFORMED], "`data` is no hex"
    stages = make(f={"plugin": "last", "place": "after", "fields": ["text"], "plaintext": "json"})
    assert stages.around(EchoCodec(), ("f",)).decode_batch([b"a", b"1"])[0] == MALFORMED, "`a` is no JSON"


@pytest.mark.parametrize(("plaintext", "value"), [("hex", "xyz"), ("hex", 1), ("text", 7)])
def test_an_argument_that_is_not_as_the_stage_says_is_refused(make: MakeStages, plaintext: str, value: Any) -> None:
    stages = make(f={"plugin": "last", "place": "after", "fields": ["x"], "plaintext": plaintext})
    with pytest.raises(CodecError, match=f"a field must be {plaintext}") as caught:
        stages.around(EchoCodec(), ("f",)).encode(msgspec.msgpack.encode({"args": {"x": value}}))
    assert caught.value.number == 7


# Configuration and secrets


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"args": {"data": 1}}, "host's to give"),
        ({"secrets": {"op": "00"}}, "host's to give"),
        ({"args": {"key": "x"}, "secrets": {"key": "00"}}, "both args and secrets"),
        ({"secrets": {"key": "not hex, but a secret"}}, "stages.s.secrets.key: not hexadecimal"),
        ({"args": {"iv": {"$hex": "0g"}}}, "hexadecimal"),
        ({"fields": ["x"]}, "fields"),
        ({"place": "after"}, "fields"),
    ],
)
def test_a_stage_that_cannot_be_is_a_configuration_error(make: MakeStages, config: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        make(s={"plugin": "last", **config})
    assert "but a secret" not in str(caught.value)


def test_a_key_is_shown_nowhere(make: MakeStages, plugins: Plugins) -> None:
    """Its plugin even says the key when it refuses: those words stay with the stage."""
    secret = "0123456789"
    config = StageConfig(plugin="last", secrets={"key": secret}, secrets_as="text")
    stages = Stages({"s": config}, plugins)
    staged = stages.around(EchoCodec(), ("s",))
    said = [repr(config), repr(stages), repr(staged)]
    with structlog.testing.capture_logs() as logs:
        staged.decode_batch([b"3", b"T", b"X"])
        for text in ("3", "T"):
            with pytest.raises(CodecError) as caught:
                staged.encode(msgspec.msgpack.encode({"args": text}))
            said += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    said += [repr(logs), repr(list(stages.samples()))]
    stages.close()
    assert logs
    assert not [text for text in said if secret in text or secret.encode().hex() in text]
    assert isinstance(staged, StagedCodec)


def test_a_stage_that_strikes_out_takes_its_plugin_out_of_service(tmp_path: Path) -> None:
    put_caller(tmp_path / "plugins", "last", kind="crypto", wasm=last_byte())
    host = PluginHost(WasmConfig(strikes=3), [tmp_path / "plugins"], tmp_path / "cache")
    host.load_all()
    stages = Stages({"s": StageConfig(plugin="last")}, host)
    try:
        staged = stages.around(EchoCodec(), ("s",))
        assert staged.decode_batch([b"1T", b"2T"]) == [TRAPPED] * 2
        assert host.status("last").state == "running"
        assert staged.decode_batch([b"3T"]) == [TRAPPED]
        with pytest.raises(NotReady, match="quarantine"):
            staged.decode_batch([b"a"])
        assert host.status("last").state == "quarantined"
    finally:
        stages.close()
        host.close()


def test_the_same_poison_through_a_stage_costs_one_strike_and_one_connection_takes_no_stage_out(tmp_path: Path) -> None:
    put_caller(tmp_path / "plugins", "last", kind="crypto", wasm=last_byte())
    host = PluginHost(WasmConfig(strikes=3), [tmp_path / "plugins"], tmp_path / "cache")
    host.load_all()
    stages = Stages({"s": StageConfig(plugin="last")}, host)
    try:
        staged = stages.around(EchoCodec(), ("s",))
        for number in range(10):
            assert staged.decode_batch([b"T"], [number]) == [TRAPPED]
        assert (host.status("last").state, host.status("last").strikes) == ("running", 1)
        for number in range(10):
            assert staged.decode_batch([b"%dT" % number], [7]) == [TRAPPED]
        assert (host.status("last").state, host.status("last").strikes) == ("running", 2)
        staged.decode_batch([b"otherT"], [8])
        assert host.status("last").strikes == 3
    finally:
        stages.close()
        host.close()


def test_a_field_that_opens_to_more_than_its_bound_is_malformed(
    make: MakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make(s={"plugin": "last", "place": "after", "fields": ["f"], "plaintext": "json"})._stages["s"]
    assert stage.open_field(b"7".hex()) == 7
    monkeypatch.setattr(stages_room, "MOST_FIELD_BYTES", 0)
    with pytest.raises(CodecError) as refused:
        stage.open_field(b"7".hex())
    assert refused.value.number == MALFORMED
