"""Versions of a plugin in a running host: activated, swapped, refused, waited for, rolled back, disabled, removed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from fakes.nursery import Nursery, counting, echoing, marks, vector
from fakes.traffic import FakeClock
from guests_gw1 import guest

from gateway.core.errors import CodecError, ConfigError, Conflict, NotFound, NotReady, StorageFailed
from gateway.wasm import loader as loader_room
from gateway.wasm import vectors as vector_room
from gateway.wasm.area import Decisions, PluginArea
from gateway.wasm.config import WasmConfig
from gateway.wasm.host import WasmCodec
from gateway.wasm.plugins import PluginHost
from gateway.wasm.release import Starter, read_release
from gateway.wasm.slot import MOST_RETIRED, RETIRE_S

CARRY = "[state]\ncarry = true\n"


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


async def test_an_installed_version_runs_where_there_is_no_folder(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "1.10", counting("c"))
    nursery.install("meter", "1.9", counting("b"))
    host = nursery.host()
    assert marks(host, "meter") == ["c"]
    assert [version.version for version in host.status("meter").versions] == ["1.0", "1.9", "1.10"]
    assert [version.in_use for version in host.status("meter").versions] == [False, False, True]


async def test_the_folders_version_runs_until_an_installed_one_is_activated(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("f"))
    nursery.install("meter", "2.0", counting("i"))
    host = nursery.host()
    assert marks(host, "meter") == ["f"]
    status = await host.activate("meter", "2.0")
    assert (status.version, status.source, status.state, status.previous) == ("2.0", "installed", "running", "1.0")
    assert marks(host, "meter") == ["i"]
    assert nursery.area.decisions("meter") == Decisions(active="2.0", previous="1.0")
    assert nursery.told() == ["swapped"]


async def test_what_was_activated_runs_after_a_restart(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("f"))
    nursery.install("meter", "2.0", counting("i"))
    await nursery.host().activate("meter", "2.0")
    assert marks(nursery.host(), "meter") == ["i"]


async def test_activating_the_folders_version_names_none(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("f"))
    nursery.install("meter", "2.0", counting("i"))
    host = nursery.host()
    await host.activate("meter", "2.0")
    await host.activate("meter", "1.0")
    assert marks(host, "meter") == ["f"]
    assert nursery.area.decisions("meter") == Decisions(active=None, previous="2.0")


async def test_an_unknown_version_is_not_found(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("f"))
    host = nursery.host()
    with pytest.raises(NotFound, match=r"has no version '9'"):
        await host.activate("meter", "9")
    with pytest.raises(NotFound, match="no plugin 'nobody'"):
        await host.activate("nobody", "1.0")


REFUSED = {
    "vectors": (counting("b"), vector("x"), "1 test vectors fail; test 1: item.device: expected 'x', got 'b'"),
    "start": (guest(abi='(func (export "gw_abi") (result i32) unreachable)'), "", "does not export gw_buf"),
    "not wasm": (b"rubbish", "", "not a module"),
    "imports": (guest(more='(import "env" "exit" (func))'), "", "imports env.exit"),
}


@pytest.mark.parametrize(("wasm", "toml", "why"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_version_that_is_refused_keeps_the_old_one_and_says_why(
    nursery: Nursery, wasm: bytes, toml: str, why: str
) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", wasm, toml)
    host = nursery.host()
    codec = host.codec("meter")
    with pytest.raises(ConfigError, match=r"plugin meter 2\.0: ") as raised:
        await host.activate("meter", "2.0")
    assert why in str(raised.value)
    status = host.status("meter")
    assert (status.state, status.version) == ("running", "1.0")
    assert why in status.reason
    assert status.last_failure is not None
    assert (status.last_failure.version, status.life.refusals) == ("2.0", 1)
    assert host.codec("meter") is codec
    assert nursery.area.decisions("meter") == Decisions()
    assert nursery.told() == ["refused"]


async def test_a_version_that_refuses_the_operators_settings_keeps_the_old_one(nursery: Nursery) -> None:
    # It takes the settings it is shipped with (a map of one key), and no others.
    picky = guest(
        more="""(func (export "gw_init") (param i32 i32) (result i32)
          (if (result i32) (i32.gt_u (local.get 1) (i32.const 60)) (then (i32.const 7)) (else (i32.const 0))))"""
    )
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", picky)
    host = nursery.host(settings={"meter": {"key": "x" * 100}})
    with pytest.raises(CodecError, match="code 7"):
        await host.activate("meter", "2.0")
    assert marks(host, "meter") == ["a"]
    assert nursery.area.decisions("meter") == Decisions()


async def test_a_start_that_takes_longer_than_the_operator_allows_is_refused(nursery: Nursery) -> None:
    for_ever = '(func (export "gw_init") (param i32 i32) (result i32) (loop $l (br $l)) unreachable)'
    nursery.put("meter", "1.0", counting("a"), "start_deadline_ms = 2000\n")
    nursery.put("algo", "1.0", echoing(1), "start_deadline_ms = 2000\n", top='kind = "algo"')
    nursery.install("meter", "2.0", guest(more=for_ever), "start_deadline_ms = 2000\n")
    host = nursery.host(max_start_ms=300)
    assert host.codec("meter").program.start_s == 0.3
    with closing(host.start_here(host.running("algo"))) as program:
        assert program.start_s == 2.0  # it starts on a thread of its own
    with pytest.raises(ConfigError, match="failed while starting"):
        await host.activate("meter", "2.0")
    assert marks(host, "meter") == ["a"]


async def test_state_is_carried_where_both_versions_say_so(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"), CARRY)
    nursery.install("meter", "2.0", counting("b"), CARRY)
    host = nursery.host()
    host.codec("meter").decode_batch([b"x"] * 41)
    status = await host.activate("meter", "2.0")
    assert host.codec("meter").decode_batch([b"x"])[0].reply_to == 42
    assert status.handover is not None
    assert (status.handover.outcome, status.handover.size) == ("carried", 4)


@pytest.mark.parametrize(
    ("old", "old_toml", "new", "new_toml", "why"),
    [
        (counting("a"), "", counting("b"), CARRY, "1.0 carries no state"),
        (counting("a"), CARRY, counting("b"), "", "2.0 carries no state"),
        (counting("a", saves=False), CARRY, counting("b"), CARRY, "1.0 gave none"),
        (counting("a"), CARRY, counting("b", loads=False), CARRY, "2.0 did not take it"),
    ],
)
async def test_state_begins_anew_otherwise_and_the_status_says_why(
    nursery: Nursery, old: bytes, old_toml: str, new: bytes, new_toml: str, why: str
) -> None:
    nursery.put("meter", "1.0", old, old_toml)
    nursery.install("meter", "2.0", new, new_toml)
    host = nursery.host()
    host.codec("meter").decode_batch([b"x"] * 5)
    status = await host.activate("meter", "2.0")
    assert status.handover is not None
    assert (status.handover.outcome, status.handover.reason) == ("fresh", why)
    assert host.codec("meter").decode_batch([b"x"])[0].reply_to == 1


async def test_counters_go_on_over_a_swap_and_the_versions_own_begin_anew(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    host.codec("meter").decode_batch([b"x"] * 5)
    await host.activate("meter", "2.0")
    host.codec("meter").decode_batch([b"x"] * 3)
    status = host.status("meter")
    assert status.stats is not None
    assert status.this_version is not None
    assert (status.stats.frames, status.this_version.frames, status.life.swaps) == (8, 3, 1)


async def test_the_plugins_store_outlives_a_swap(nursery: Nursery) -> None:
    # Answers with code 3 where the store has the key, else writes it and answers 5.
    keeps = """(if (result i64) (i32.lt_s (call $get (i32.const 9) (i32.const 1) (i32.const 100) (i32.const 8))
      (i32.const 0)) (then (drop (call $set (i32.const 9) (i32.const 1) (i32.const 9) (i32.const 1))) (i64.const 5))
      (else (i64.const 3)))"""
    more = """(import "gw1" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))
      (import "gw1" "kv_set" (func $set (param i32 i32 i32 i32) (result i32)))"""
    nursery.put("meter", "1.0", guest(keeps, more=more), "[caps]\nkv = true\n")
    nursery.install("meter", "2.0", guest(keeps, more=more), "[caps]\nkv = true\n")
    host = nursery.host()
    assert host.codec("meter").decode_batch([b"x"]) == [5]
    await host.activate("meter", "2.0")
    assert host.codec("meter").decode_batch([b"x"]) == [3]


async def test_acknowledgements_of_the_old_version_are_encoded_by_it_for_a_while(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    old = host.codec("meter")
    await host.activate("meter", "2.0")
    assert old.encode(b"\x80") == b"a"
    nursery.clock.advance(RETIRE_S + 1)
    await host.attend()
    assert isinstance(old, WasmCodec)
    assert old.memory_bytes == 0
    assert old.encode(b"\x80") == b"b"  # it has left: the version in use answers what it still owes
    await host.disable("meter")
    with pytest.raises(NotReady):
        old.encode(b"\x80")


async def test_a_storm_of_swaps_keeps_few_old_versions(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    codecs = []
    for number in range(20):
        codecs.append(host.codec("meter"))
        await host.activate("meter", "12"[number % 2] + ".0")
    alive = [codec for codec in codecs[:-1] if isinstance(codec, WasmCodec) and codec.memory_bytes]
    assert len(alive) <= MOST_RETIRED
    assert {codec.encode(b"\x80") for codec in codecs} <= {b"a", b"b"}


async def test_rollback_goes_back_and_forth(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("f"))
    nursery.install("meter", "2.0", counting("i"))
    host = nursery.host()
    with pytest.raises(Conflict, match="no version to go back to"):
        await host.rollback("meter")
    await host.activate("meter", "2.0")
    assert (await host.rollback("meter")).version == "1.0"
    assert nursery.area.decisions("meter") == Decisions(active=None, previous="2.0")
    assert (await host.rollback("meter")).version == "2.0"
    assert nursery.area.decisions("meter") == Decisions(active="2.0", previous="1.0")


async def test_rollback_after_a_restart_goes_by_what_was_decided(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    nursery.area.decide("meter", Decisions(active="2.0", previous="1.0"))
    host = nursery.host()
    assert host.status("meter").previous == "1.0"
    assert (await host.rollback("meter")).version == "1.0"


async def test_a_rollback_of_a_folder_stays_until_the_folder_changes_again(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    nursery.put("meter", "1.1", counting("b"))
    for _ in range(2):
        await host.poll()
    assert marks(host, "meter") == ["b"]
    assert (await host.rollback("meter")).version == "1.0"
    for _ in range(3):
        await host.poll()
    assert marks(host, "meter") == ["a"]
    nursery.put("meter", "1.2", counting("c"))
    for _ in range(2):
        await host.poll()
    assert marks(host, "meter") == ["c"]


async def test_a_version_that_cannot_run_at_the_start_leaves_the_field_to_the_one_before(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"), vector("x"))
    nursery.area.decide("meter", Decisions(active="2.0", previous="1.0"))
    host = nursery.host()
    assert marks(host, "meter") == ["a"]
    assert host.status("meter").last_failure is not None


async def test_disabled_is_disabled_over_a_restart_and_enabled_comes_back(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"), "[framing]\ntype = 'none'\n")
    host = nursery.host()
    status = await host.disable("meter")
    assert (status.state, status.reason) == ("disabled", "somebody disabled it")
    with pytest.raises(ConfigError, match="plugin meter is disabled"):
        host.codec("meter")
    again = nursery.host()
    assert again.status("meter").state == "disabled"
    assert again.framing("meter") is not None  # listeners ask for it even so
    assert (await again.enable("meter")).state == "running"
    assert marks(again, "meter") == ["a"]


async def test_removing_the_version_in_use_is_refused_and_another_is_not(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    with pytest.raises(Conflict, match=r"2\.0 is in use"):
        await host.remove("meter", "2.0")
    await host.remove("meter", "1.0")
    assert [version.version for version in host.status("meter").versions] == ["2.0"]
    with pytest.raises(NotFound):
        await host.remove("meter", "1.0")


async def test_removing_all_installed_versions_leaves_the_folders(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("f"))
    nursery.install("meter", "2.0", counting("i"))
    host = nursery.host()
    await host.activate("meter", "2.0")
    await host.remove("meter")
    assert marks(host, "meter") == ["f"]
    assert nursery.area.ids() == []
    with pytest.raises(Conflict, match="comes from a folder"):
        await host.remove("meter")


async def test_a_removed_plugin_is_gone(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    host = nursery.host()
    await host.remove("meter")
    with pytest.raises(NotFound):
        host.status("meter")


# -- grants ---------------------------------------------------------------------------------------------------------

_RANDOM = guest(more='(import "gw1" "random" (func (param i32 i32)))')


async def test_an_update_that_asks_for_more_waits_while_the_old_version_runs(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", _RANDOM, "[caps]\nrandom = true\n")
    host = nursery.host(default_grants=("log",))
    status = await host.activate("meter", "2.0")
    assert (status.state, status.version) == ("running", "1.0")
    assert status.waiting is not None
    assert (status.waiting.version, status.waiting.missing) == ("2.0", ("random",))
    assert nursery.told() == ["waiting"]
    status = await host.grant("meter", ["random"])
    assert (status.state, status.version, status.waiting, status.reason) == ("running", "2.0", None, "")
    assert nursery.area.decisions("meter").granted == ("random",)
    assert status.caps.granted == ("random",)


async def test_an_update_that_waits_over_a_restart_lets_the_old_version_run(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", _RANDOM, "[caps]\nrandom = true\n")
    await nursery.host(default_grants=()).activate("meter", "2.0")
    again = nursery.host(default_grants=())
    status = again.status("meter")
    assert (status.state, status.version) == ("running", "1.0")
    assert (await again.grant("meter", ["random"])).version == "2.0"


async def test_a_first_version_that_asks_for_more_waits(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", _RANDOM, "[caps]\nrandom = true\n")
    host = nursery.host(default_grants=())
    status = host.status("meter")
    assert (status.state, status.caps.asked, status.caps.missing) == ("waiting", ("random",), ("random",))
    assert status.waiting is not None
    with pytest.raises(ConfigError, match="plugin meter is waiting: asks for random, which is not granted"):
        host.codec("meter")
    assert (await host.grant("meter", ["random"])).state == "running"
    assert host.granted("meter") == {"random"}


async def test_grants_of_the_configuration_are_not_changed_from_outside(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", _RANDOM, "[caps]\nrandom = true\n")
    host = nursery.host(grants={"meter": ()})
    with pytest.raises(Conflict, match=r"\[wasm.grants\] says what meter may use"):
        await host.grant("meter", ["random"])


# -- callable plugins -----------------------------------------------------------------------------------------------


async def test_calls_follow_the_version_in_use(nursery: Nursery) -> None:
    nursery.put("sum", "1.0", echoing(1), top='kind = "algo"')
    nursery.install("sum", "2.0", echoing(2), top='kind = "algo"')
    host = nursery.host()
    assert await host.call("sum", {}, timeout_s=10) == 1
    running = host.running("sum")
    await host.activate("sum", "2.0")
    assert await host.call("sum", {}, timeout_s=10) == 2
    assert host.running("sum") is not running
    await host.rollback("sum")
    assert await host.call("sum", {}, timeout_s=10) == 1
    stats = host.status("sum").stats
    assert stats is not None
    assert stats.calls == 3
    await host.disable("sum")
    with pytest.raises(NotReady, match="plugin sum is disabled"):
        await host.call("sum", {}, timeout_s=10)


async def test_a_call_under_way_is_answered_over_a_swap(nursery: Nursery) -> None:
    nursery.put("sum", "1.0", echoing(1), top='kind = "algo"')
    nursery.install("sum", "2.0", echoing(2), top='kind = "algo"')
    host = nursery.host()
    calls = [asyncio.ensure_future(host.call("sum", {}, timeout_s=30)) for _ in range(20)]  # noqa: TID251 - a test's own
    await asyncio.sleep(0)
    await host.activate("sum", "2.0")
    assert await asyncio.gather(*calls) == [1] * 20
    assert await host.call("sum", {}, timeout_s=10) == 2


async def test_callable_plugins_that_trap_strike_out_as_codecs_do(nursery: Nursery) -> None:
    nursery.put("sum", "1.0", echoing(1), top='kind = "algo"')
    host = nursery.host(quarantine_s=10)
    for number in range(3):
        for _ in range(4 if number < 2 else 1):  # the same arguments count once
            with pytest.raises(CodecError, match="trapped"):
                await host.call("sum", {"x": number}, timeout_s=10)
        assert host.status("sum").strikes == number + 1
    with pytest.raises(NotReady, match="plugin sum is quarantined: 3 strikes within 60 s"):
        await host.call("sum", {}, timeout_s=10)
    nursery.clock.advance(11)
    assert await host.call("sum", {}, timeout_s=10) == 1
    assert host.status("sum").state == "running"


# -- runtimes -------------------------------------------------------------------------------------------------------


async def test_a_plugin_that_runs_by_another_ones_module_follows_it(nursery: Nursery) -> None:
    nursery.put("engine", "1.0", counting("a"))
    folder = nursery.put("script", "1.0", None, top='runtime = "engine"\nscript = "codec.js"')
    (folder / "codec.js").write_text("// nothing")
    nursery.install("engine", "2.0", counting("b"))
    host = nursery.host()
    assert marks(host, "script") == ["a"]
    await host.activate("engine", "2.0")
    assert marks(host, "script") == ["b"]
    assert host.status("script").life.swaps == 1


async def test_a_plugin_whose_runtime_comes_later_runs_then(nursery: Nursery) -> None:
    folder = nursery.put("script", "1.0", None, top='runtime = "engine"\nscript = "codec.js"')
    (folder / "codec.js").write_text("// nothing")
    host = nursery.host()
    assert "not among the plugins" in host.status("script").reason
    nursery.install("engine", "1.0", counting("a"))
    for _ in range(2):
        await host.poll()
    assert marks(host, "script") == ["a"]


# -- the end --------------------------------------------------------------------------------------------------------


async def test_a_version_that_is_loaded_while_the_host_closes_is_not_started(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    slot = host._shelf._slots["meter"]
    verdict = await host._shelf.judge(slot, slot.survey.version("2.0"))
    host.close()
    with pytest.raises(NotReady, match="the gateway stops"):
        host._shelf.take(slot, verdict)
    nursery.hosts.clear()


async def test_vectors_without_end_are_given_up_when_the_host_closes(nursery: Nursery) -> None:
    vectors = '[[test]]\nencode = {}\nhex = "62"\n' * 20_000
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"), vectors)
    host = nursery.host()
    slot = host._shelf._slots["meter"]
    judging = asyncio.ensure_future(host._shelf.judge(slot, slot.survey.version("2.0")))  # noqa: TID251 - a test's own
    await asyncio.sleep(0)
    host._shelf.loader._closed = True
    verdict = await judging
    assert "given up" in verdict.reason


async def test_vectors_that_take_too_long_together_refuse_their_version(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_room, "VECTORS_S", -1.0)
    nursery.put("meter", "1.0", counting("a"), vector("a") * 3)
    status = nursery.host().status("meter")
    assert (status.state, status.vectors_failed) == ("refused", 1)
    assert "take more than" in status.reason


async def test_a_host_without_an_area_decides_for_its_own_time(tmp_path: Path) -> None:
    nursery = Nursery(tmp_path)
    nursery.put("meter", "1.0", counting("a"))
    host = PluginHost(WasmConfig(), [nursery.root], None, FakeClock())
    host.load_all()
    try:
        assert (await host.disable("meter")).state == "disabled"
        assert (await host.enable("meter")).state == "running"
        with pytest.raises(Conflict, match="comes from a folder"):
            await host.remove("meter")
    finally:
        host.close()


async def test_a_folder_that_nobody_can_read_keeps_no_other_from_being_followed(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.put("zeta", "1.0", counting("a"))
    host = nursery.host()
    (nursery.root / "meter" / "plugin.toml").write_text("a = " + "[" * 5000)
    nursery.put("zeta", "2.0", counting("b"))
    for _ in range(2):
        await host.poll()
    assert marks(host, "zeta") == ["b"]
    assert marks(host, "meter") == ["a"]
    assert nursery.host().status("meter").state == "refused"


async def test_what_reading_a_folder_raises_unforeseen_is_a_refusal_not_an_end(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.put("zeta", "1.0", counting("z"))

    def reads(folder: Path, *rest: Any) -> Any:
        if folder.name == "meter":
            raise ZeroDivisionError
        return read_release(folder, *rest)

    monkeypatch.setattr(loader_room, "read_release", reads)
    host = nursery.host()
    assert (host.status("meter").state, marks(host, "zeta")) == ("refused", ["z"])
    assert "ZeroDivisionError" in host.status("meter").reason


async def test_a_folder_refused_for_its_signature_is_shown_as_the_folders(nursery: Nursery) -> None:
    folder = nursery.put("meter", "1.0", counting("a"))
    (folder / "plugin.sig").write_text("no signature")
    host = nursery.host()
    assert [(one.version, one.source, bool(one.refused)) for one in host.status("meter").versions] == [
        ("1.0", "folder", True)
    ]


async def test_a_decision_does_not_wait_for_another_plugins_compiler(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.put("zeta", "1.0", counting("z"))
    host = nursery.host()
    compiles, may_end = threading.Event(), threading.Event()

    def slow(_wasm: bytes) -> None:
        compiles.set()
        assert may_end.wait(60)

    nursery.put("meter", "2.0", counting("b"))
    monkeypatch.setattr(loader_room, "check_code", slow)
    activating = asyncio.get_running_loop().create_task(host.activate("meter", "2.0"))
    try:
        await asyncio.to_thread(compiles.wait, 60)
        assert (await host.disable("zeta")).state == "disabled"
        assert not activating.done()
    finally:
        may_end.set()
    assert (await activating).version == "2.0"


async def test_a_rollback_that_cannot_be_kept_or_does_not_start_changes_nothing(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    nursery.area.decide("meter", Decisions(active="1.0"))
    host = nursery.host()
    await host.activate("meter", "2.0")
    decided = nursery.area.decisions("meter")

    def failing(*_args: Any, **_more: Any) -> None:
        raise wasmtime.WasmtimeError("no memory left")

    with monkeypatch.context() as broken:
        broken.setattr(Starter, "start", failing)
        with pytest.raises(ConfigError, match="does not start: no memory left"):
            await host.rollback("meter")
    assert marks(host, "meter") == ["b"]
    assert nursery.area.decisions("meter") == decided

    def full(*_args: Any) -> None:
        raise StorageFailed("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(PluginArea, "decide", full)
        with pytest.raises(StorageFailed):
            await host.rollback("meter")
    assert marks(host, "meter") == ["b"]
    assert (await host.rollback("meter")).version == "1.0"


async def test_a_look_at_all_plugins_does_not_wait_for_one_that_somebody_changes(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.put("other", "1.0", counting("x"))
    host = nursery.host()
    nursery.put("other", "1.1", counting("y"))
    nursery.put("meter", "1.1", counting("b"))
    async with host._shelf.slot("meter").lock:
        await host.poll()
        await host.poll()
        await host.attend()
        assert (marks(host, "meter"), marks(host, "other")) == (["a"], ["y"])
    await host.poll()
    await host.poll()
    assert marks(host, "meter") == ["b"]
