"""From folders of plugins to running codecs: what is used, what is refused, and that the gateway goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import structlog
from guests_gw1 import answering, guest, well_behaved

from gateway.core.errors import CodecError, ConfigError, NotFound
from gateway.core.flow import Decoded
from gateway.framing.spec import NoneSpec
from gateway.wasm.config import WasmConfig
from gateway.wasm.plugins import PluginHost

_LIMITS = "[limits]\nmemory_mib = 2\nmax_input = 65536\nmax_output = 65536\n"


class Shelf:
    """A folder of plugin folders, and the host that reads it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "plugins"
        self.root.mkdir()
        self.cache = root / "cache"
        self.hosts: list[PluginHost] = []

    def put(self, name: str, wasm: bytes | None, toml: str = "", *, top: str = "") -> Path:
        folder = self.root / name
        folder.mkdir()
        head = f'id = "{name}"\nversion = "1"\nlicense = "MIT"\n{top}\n'
        (folder / "plugin.toml").write_text(head + _LIMITS + toml)
        if wasm is not None:
            (folder / f"{name}.wasm").write_bytes(wasm)
        return folder

    def host(self, **config: object) -> PluginHost:
        made = PluginHost(WasmConfig(**config), [self.root], self.cache)
        self.hosts.append(made)
        made.load_all()
        return made


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    for host in made.hosts:
        host.close()


def states(host: PluginHost) -> dict[str, str]:
    return {status.id: status.state for status in host.plugins()}


def test_a_plugin_whose_vectors_pass_runs(shelf: Shelf) -> None:
    shelf.put(
        "good",
        well_behaved(),
        """
        [[test]]
        name = "an item"
        frame = "61"
        item = { kind = "report", device = "a", reply_to = 1 }
        [[test]]
        frame_hex = "62"
        item = { device = "b", reply_to = 2 }
        [[test]]
        frame = "33"
        error = 3
        [[test]]
        frame = "4E"
        drop = true
        [[test]]
        encode = {}
        hex = "80"
        [[test]]
        encode = {}
        aux = 7
        error = 7
        """,
    )
    host = shelf.host()
    status = host.status("good")
    assert (status.state, status.vectors_passed, status.vectors_failed) == ("running", 6, 0)
    assert status.path == host.path
    assert len(status.sha256) == 64
    assert [result.name for result in host.run_vectors("good")][:2] == ["an item", "test 2"]
    item = host.codec("good").decode_batch([b"z"])[0]
    assert (item.device, item.reply_to) == ("z", 1)  # vectors left no state behind


FAILING = {
    "another device": ('frame = "61"\nitem = { device = "b" }', "item.device: expected 'b', got 'a'"),
    "a missing key": ('frame = "61"\nitem = { colour = "b" }', "item.colour: missing"),
    "no value": ('frame = "61"\nexpect = { a = 1 }', r"value: expected \{'a': 1\}, got None"),
    "another code": ('frame = "33"\nerror = 4', "expected 4, got 3"),
    "an item, not a code": ('frame = "61"\nerror = 4', "expected 4, got an item"),
    "a code, not an item": ('frame = "33"\nexpect = {}', "expected an item, got 3"),
    "an item, not a drop": ('frame = "61"\ndrop = true', "expected None, got an item"),
    "a trap": ('frame = "54"\nexpect = {}', "expected an item, got -1"),
    "other bytes": ('encode = {}\nhex = "81"', "expected 81, got 80"),
    "bytes, not a code": ("encode = {}\nerror = 5", "expected code 5, got 80"),
    "a code, not bytes": ('encode = {}\naux = 7\nhex = "80"', "encode failed with code 7"),
    "no framing": ('frame = "61"\nwire = true\nexpect = {}', r"has no \[framing\]"),
}


@pytest.mark.parametrize(("vector", "says"), FAILING.values(), ids=FAILING.keys())
def test_a_plugin_that_breaks_a_promise_is_refused_and_says_which(shelf: Shelf, vector: str, says: str) -> None:
    shelf.put("liar", well_behaved(), f'[[test]]\nname = "promise"\n{vector}\n')
    shelf.put("good", well_behaved())
    host = shelf.host()
    assert states(host) == {"good": "running", "liar": "refused"}
    with pytest.raises(ConfigError, match=f"1 test vectors fail; promise: .*{says}"):
        host.codec("liar")
    assert isinstance(host.codec("good").decode_batch([b"a"])[0], Decoded)


def test_one_bad_plugin_of_every_kind_leaves_the_good_one_running(shelf: Shelf) -> None:
    shelf.put("good", well_behaved())
    shelf.put("unbuilt", None)
    shelf.put("loops", guest(more="(func $s (loop $l (br $l))) (start $s)"))
    shelf.put("rubbish", b"this is not wasm")
    shelf.put("foreign", guest(more='(import "env" "exit" (func))'))
    shelf.put("typo", well_behaved(), "[framing]\ntype = 'length_feld'\n")
    shelf.put("other-kind", well_behaved(), top='kind = "notify"')
    shelf.put("swapped", well_behaved(), top=f'sha256 = "{"0" * 64}"')
    shelf.put("no-vectors", well_behaved(), '[[test]]\nvectors = "gone.json"\n')
    (shelf.root / "broken").mkdir()
    (shelf.root / "broken" / "plugin.toml").write_text("id = ")
    host = shelf.host()
    reasons = {status.id: status.reason for status in host.plugins()}
    assert [plugin for plugin, state in states(host).items() if state == "running"] == ["good"]
    assert states(host)["unbuilt"] == "not_built"
    assert reasons["unbuilt"] == "run: gateway plugin build unbuilt"
    assert "failed while starting: interrupt" in reasons["loops"]
    assert "not a module" in reasons["rubbish"]
    assert "imports env.exit" in reasons["foreign"]
    assert "did you mean `length_field`" in reasons["typo"]
    assert "gw_call, which a plugin of kind notify needs" in reasons["other-kind"]
    assert "not the manifest's" in reasons["swapped"]
    assert "gone.json: cannot be read" in reasons["no-vectors"]
    assert "not valid TOML" in reasons["broken"]
    assert host.codec("good").decode_batch([b"a"])[0].device == "a"


def test_a_module_over_the_size_limit_is_not_even_read(shelf: Shelf) -> None:
    shelf.put("big", well_behaved() + bytes(5000))
    host = shelf.host(max_module_bytes=4096)
    assert "larger than [wasm] max_module_bytes" in host.status("big").reason


def test_grants_are_the_operators(shelf: Shelf) -> None:
    wasm = guest(more='(import "gw1" "log" (func (param i32 i32 i32)))')
    shelf.put("chatty", wasm, "[caps]\nlog = true\n")
    assert states(shelf.host()) == {"chatty": "running"}
    assert states(shelf.host(grants={"chatty": ()})) == {"chatty": "waiting"}
    assert states(shelf.host(default_grants=(), grants={"chatty": ("log",)})) == {"chatty": "running"}


def test_the_same_id_twice_keeps_the_first(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("good", well_behaved())
    second = tmp_path / "more"
    (second / "good").mkdir(parents=True)
    (second / "good" / "plugin.toml").write_text("rubbish")
    host = PluginHost(WasmConfig(), [shelf.root, second, tmp_path / "absent"], None)
    shelf.hosts.append(host)
    with structlog.testing.capture_logs() as lines:
        host.load_all()
    assert states(host) == {"good": "running"}
    assert any(line["event"] == "plugin ignored" for line in lines)


def test_an_unknown_plugin_is_not_found(shelf: Shelf) -> None:
    host = shelf.host()
    for ask in (host.codec, host.manifest, host.status, host.framing, host.run_vectors):
        with pytest.raises(NotFound, match="no plugin 'nobody'"):
            ask("nobody")


def test_a_manifest_that_cannot_be_read_says_so(shelf: Shelf) -> None:
    (shelf.root / "broken").mkdir()
    (shelf.root / "broken" / "plugin.toml").write_text("id = ")
    with pytest.raises(ConfigError, match=r"plugin broken: .*not valid TOML"):
        shelf.host().manifest("broken")


def trying(shelf: Shelf, framing: str, wasm: bytes | None = None) -> Callable[[bytes], list[dict]]:
    shelf.put("good", wasm or well_behaved(), framing)
    host = shelf.host()
    return lambda data: [msgspec.to_builtins(outcome) for outcome in host.try_decode("good", [data])[0]]


_LENGTH = "[framing]\ntype = 'length_field'\nwidth = 1\nstrip = 1\nmax_frame_bytes = 16\n"


def test_trying_cuts_frames_and_tells_an_unfinished_rest(shelf: Shelf) -> None:
    outcomes = trying(shelf, _LENGTH)(b"\x01a\x01N\x013\x01T\x05ab")
    assert [outcome["ok"] for outcome in outcomes] == [True, True, False, False, False]
    assert outcomes[0]["value"]["device"] == "a"
    assert outcomes[1] == {"ok": True, "value": None}
    assert outcomes[2] == {"ok": False, "code": 3, "error": "checksum"}
    assert outcomes[3] == {"ok": False, "code": -1, "error": "trapped"}
    assert outcomes[4] == {"ok": False, "code": 6, "error": "needs more bytes"}


def test_trying_tells_a_framing_fault_after_the_frames_before_it(shelf: Shelf) -> None:
    outcomes = trying(shelf, _LENGTH)(b"\x01a\xffrest")
    assert outcomes[0]["ok"]
    assert outcomes[1]["code"] == -2
    assert outcomes[1]["error"].startswith("framing: ")


def test_trying_goes_on_after_a_frame_that_loops(shelf: Shelf) -> None:
    outcomes = trying(shelf, _LENGTH)(b"\x01a\x01L\x01b")
    assert [outcome["ok"] for outcome in outcomes] == [True, False, True]


def test_trying_without_framing_takes_each_input_for_a_frame(shelf: Shelf) -> None:
    assert trying(shelf, "")(b"abc")[0]["value"]["device"] == "a"


def test_a_gap_framing_ends_its_frame_at_the_inputs_end(shelf: Shelf) -> None:
    outcomes = trying(shelf, "[framing]\ntype = 'gap'\n")(b"abc")
    assert [outcome["ok"] for outcome in outcomes] == [True]


def test_what_a_plugin_shows_is_its_value(shelf: Shelf) -> None:
    answer = b"\x91\x82\xa4kind\xa6report\xa5value\x81\xa1x\x01"
    assert trying(shelf, "", answering(answer))(b"a") == [{"ok": True, "value": {"x": 1}}]


def test_a_value_that_json_has_not_is_an_error_of_the_frame(shelf: Shelf) -> None:
    answer = b"\x91\x82\xa4kind\xa6report\xa5value\x81\x90\x01"
    outcome = trying(shelf, "", answering(answer))(b"a")[0]
    assert outcome["ok"] is False
    assert "cannot be shown as JSON" in outcome["error"]


def test_trying_leaves_no_trace_in_the_running_codec(shelf: Shelf) -> None:
    shelf.put("good", well_behaved())
    host = shelf.host()
    host.codec("good").decode_batch([b"a"])
    host.try_decode("good", [b"T", b"x", b"y"])
    assert host.try_encode("good", {"command": "locate"}) == msgspec.msgpack.encode({"command": "locate"})
    with pytest.raises(CodecError):
        host.try_encode("good", {}, 9)
    assert host.codec("good").decode_batch([b"a"])[0].reply_to == 2
    assert host.status("good").stats.strikes == 0


def test_vectors_as_on_the_wire_go_through_the_framing(shelf: Shelf) -> None:
    shelf.put("good", well_behaved(), _LENGTH + '[[test]]\nframe = "0161"\nwire = true\nitem = { device = "a" }\n')
    shelf.put("two", well_behaved(), _LENGTH + '[[test]]\nframe = "01610161"\nwire = true\nitem = { device = "a" }\n')
    shelf.put("cut", well_behaved(), _LENGTH + '[[test]]\nframe = "ff61"\nwire = true\nitem = { device = "a" }\n')
    host = shelf.host()
    assert states(host) == {"cut": "refused", "good": "running", "two": "refused"}
    assert "cuts 2 frames, not one" in host.status("two").reason


def test_the_framing_is_there_for_listeners(shelf: Shelf) -> None:
    shelf.put("good", well_behaved(), "[framing]\ntype = 'none'\n")
    shelf.put("plain", well_behaved())
    host = shelf.host()
    assert host.framing("good") == NoneSpec()
    assert host.framing("plain") is None


def test_a_second_start_compiles_nothing(shelf: Shelf) -> None:
    shelf.put("good", well_behaved())
    assert shelf.host().cache.compiled == 1
    second = shelf.host()
    assert (second.cache.compiled, second.cache.hits) == (0, 1)
    assert shelf.host(cache=False).cache.compiled == 1


def test_the_public_path_can_be_asked_for(shelf: Shelf) -> None:
    shelf.put("good", well_behaved())
    host = shelf.host(call_path="public")
    assert host.path == "public"
    assert host.path_reason == "[wasm] call_path asks for it"
    assert host.status("good").path == "public"
    assert host.codec("good").decode_batch([b"a"])[0].device == "a"


def test_status_counts_what_happened(shelf: Shelf) -> None:
    shelf.put("good", well_behaved())
    host = shelf.host()
    host.codec("good").decode_batch([b"a", b"3", b"T"])
    status = host.status("good")
    assert status.strikes == 1
    assert status.memory_bytes == 0 or status.memory_bytes >= 8 * 65536
    assert status.stats.errors == {3: 1, -1: 1}
    assert status.stats.busy_s > 0
