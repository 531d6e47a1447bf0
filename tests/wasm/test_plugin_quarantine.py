"""What follows strikes: the version before comes back, or the plugin is held and tried again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from fakes.nursery import Nursery, counting, marks
from guests_gw1 import well_behaved

from gateway.core.errors import NotReady, PluginTrapped
from gateway.wasm.area import Decisions
from gateway.wasm.codec import TRAPPED
from gateway.wasm.plugins import PluginHost
from gateway.wasm.strikes import LONGEST_QUARANTINE_S

TRAPS_ENCODER = 9


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


def strike(host: PluginHost, times: int, *, start: int = 0) -> None:
    """Let different frames trap: the same one counts once."""
    for number in range(start, start + times):
        assert marks(host, "meter", b"T%d" % number) == [TRAPPED]


def about_to_be_probed(nursery: Nursery) -> PluginHost:
    """A host whose plugin struck out and whose quarantine is over: the next call is the probe."""
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3, quarantine_s=10)
    strike(host, 3)
    with pytest.raises(NotReady):
        host.codec("meter")
    nursery.clock.advance(10)
    return host


def test_strikes_below_the_limit_change_nothing(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3)
    strike(host, 2)
    assert marks(host, "meter") == ["a"]
    assert host.status("meter").strikes == 2


def test_strikes_that_are_far_apart_change_nothing(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3, strike_window_s=60)
    for number in range(10):
        strike(host, 1, start=number)
        nursery.clock.advance(31)
    assert marks(host, "meter") == ["a"]


def test_a_plugin_that_strikes_out_is_held_and_says_until_when(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3, quarantine_s=10)
    strike(host, 3)
    with pytest.raises(NotReady, match="plugin meter is quarantined: 3 strikes within 60 s, the last: trapped on one"):
        host.codec("meter")
    status = host.status("meter")
    assert (status.state, status.version) == ("quarantined", "1.0")
    assert status.quarantine is not None
    assert (status.quarantine.until_ms, status.quarantine.times) == (nursery.clock.now_ms() + 10_000, 1)
    assert status.life.quarantines == 1
    assert nursery.told() == ["quarantined"]


def test_after_the_back_off_one_probe_decides(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3, quarantine_s=10)
    strike(host, 3)
    waits = []
    for number in range(12):
        with pytest.raises(NotReady):
            host.codec("meter")
        quarantine = host.status("meter").quarantine
        assert quarantine is not None
        waits.append((quarantine.until_ms - nursery.clock.now_ms()) / 1000)
        nursery.clock.advance(waits[-1])
        strike(host, 1, start=10 + number)  # the probe fails
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == LONGEST_QUARANTINE_S


def test_a_probe_that_goes_well_ends_the_quarantine(nursery: Nursery) -> None:
    host = about_to_be_probed(nursery)
    assert marks(host, "meter") == ["a"]
    strike(host, 2, start=10)
    assert marks(host, "meter") == ["a"]  # strikes count as before again
    status = host.status("meter")
    assert (status.state, status.quarantine, status.life.quarantines) == ("running", None, 1)


async def test_time_alone_brings_a_plugin_back_for_its_probe(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3, quarantine_s=10)
    strike(host, 3)
    await host.attend()
    assert host.status("meter").state == "quarantined"
    nursery.clock.advance(10)
    await host.attend()
    assert host.status("meter").state == "running"
    strike(host, 1, start=10)
    await host.attend()
    assert host.status("meter").state == "quarantined"


async def test_strikes_roll_back_to_the_version_that_ran_well(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    nursery.area.decide("meter", Decisions(active="1.0"))
    host = nursery.host(strikes=3)
    assert marks(host, "meter") == ["a"]
    await host.activate("meter", "2.0")
    strike(host, 3)
    assert marks(host, "meter") == ["a"]  # the very next piece
    status = host.status("meter")
    assert (status.state, status.version) == ("running", "1.0")
    assert status.reason.startswith("version 2.0 was taken out of use: 3 strikes within 60 s")
    assert (status.life.rollbacks, status.life.quarantines) == (1, 0)
    assert nursery.told() == ["swapped", "swapped", "rolled_back"]
    await host.attend()
    assert nursery.area.decisions("meter").active == "1.0"
    for _ in range(3):
        await host.poll()
    assert marks(host, "meter") == ["a"]


async def test_a_version_that_never_worked_is_no_way_back(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    nursery.area.decide("meter", Decisions(active="1.0"))
    host = nursery.host(strikes=3)
    await host.activate("meter", "2.0")
    strike(host, 3)
    with pytest.raises(NotReady):
        host.codec("meter")
    assert host.status("meter").version == "2.0"


async def test_a_version_that_struck_out_is_no_way_back_either(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    nursery.area.decide("meter", Decisions(active="1.0"))
    host = nursery.host(strikes=3, quarantine_s=10)
    assert marks(host, "meter") == ["a"]
    await host.activate("meter", "2.0")
    strike(host, 3)
    assert marks(host, "meter") == ["a"]
    strike(host, 3)
    with pytest.raises(NotReady):
        host.codec("meter")
    status = host.status("meter")
    assert (status.state, status.version) == ("quarantined", "1.0")
    assert (status.life.rollbacks, status.life.quarantines) == (1, 1)


async def test_a_folders_bad_content_stays_out_until_it_changes_or_is_asked_for_by_name(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3)
    assert marks(host, "meter") == ["a"]
    nursery.put("meter", "2.0", counting("b"))
    for _ in range(2):
        await host.poll()
    assert marks(host, "meter") == ["b"]
    strike(host, 3)
    assert marks(host, "meter") == ["a"]
    await host.attend()
    (nursery.root / "meter" / "README.md").write_text("touched")
    for _ in range(3):
        await host.poll()
    assert marks(host, "meter") == ["a"]
    assert "taken out of use before" in host.status("meter").reason
    await host.activate("meter", "2.0")
    assert marks(host, "meter") == ["b"]


async def test_a_fixed_version_ends_a_quarantine(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3)
    strike(host, 3)
    with pytest.raises(NotReady):
        host.codec("meter")
    nursery.put("meter", "1.1", counting("b"))
    for _ in range(2):
        await host.poll()
    assert marks(host, "meter") == ["b"]
    assert host.status("meter").quarantine is None


async def test_a_look_at_the_same_content_ends_no_quarantine(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3)
    strike(host, 3)
    with pytest.raises(NotReady):
        host.codec("meter")
    (nursery.root / "meter" / "README.md").write_text("touched")
    for _ in range(3):
        await host.poll()
    with pytest.raises(NotReady):
        host.codec("meter")


async def test_a_person_may_end_a_quarantine_by_name(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3)
    strike(host, 3)
    with pytest.raises(NotReady):
        host.codec("meter")
    assert (await host.activate("meter", "1.0")).state == "running"
    assert marks(host, "meter") == ["a"]


def test_a_plugin_that_is_held_still_encodes_what_it_owes(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=1)
    codec = host.codec("meter")
    strike(host, 1)
    with pytest.raises(NotReady):
        host.codec("meter")
    assert codec.encode(b"\x80") == b"a"


def test_strikes_of_one_connection_count_once_and_those_of_three_take_a_plugin_out(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host(strikes=3)
    for number in range(20):
        assert host.codec("meter").decode_batch([b"T%d" % number], [7]) == [TRAPPED]
        nursery.clock.advance(1)
    assert (host.status("meter").state, host.status("meter").strikes) == ("running", 1)
    host.codec("meter").decode_batch([b"T-8"], [8])
    assert marks(host, "meter") == ["a"]
    host.codec("meter").decode_batch([b"T-9"], [9])
    with pytest.raises(NotReady, match="3 strikes within 60 s"):
        host.codec("meter")


def test_one_connection_alone_does_not_strike_a_codec_out_by_what_it_answers(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", well_behaved())
    host = nursery.host(strikes=3)
    for _ in range(10):
        with pytest.raises(PluginTrapped):
            host.codec("meter").encode(b"\x80", TRAPS_ENCODER, party=7)
    assert (host.status("meter").state, host.status("meter").strikes) == ("running", 1)


def test_one_connection_alone_does_not_fail_a_probe(nursery: Nursery) -> None:
    host = about_to_be_probed(nursery)
    assert host.codec("meter").decode_batch([b"T-of-7"], [7]) == [TRAPPED]
    assert marks(host, "meter") == ["a"]


ONCE = """(module
  (import "gw1" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))
  (import "gw1" "kv_set" (func $set (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 8)
  (func (export "gw_abi") (result i32) (i32.const 0x10000))
  (func (export "gw_buf") (param i32) (result i32) (i32.const 65536))
  (data (i32.const 100) "k")
  (func (export "gw_init") (param i32 i32) (result i32)
    (if (i32.ge_s (call $get (i32.const 100) (i32.const 1) (i32.const 200) (i32.const 8)) (i32.const 0))
      (then (return (i32.const 7))))
    (drop (call $set (i32.const 100) (i32.const 1) (i32.const 100) (i32.const 1))) (i32.const 0))
  (func (export "gw_decode_batch") (param i32 i32 i32) (result i64) unreachable))"""
"""Starts one time only, and traps on its first frame."""


async def test_a_version_that_does_not_start_again_is_left_however_rarely_it_is_asked(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", bytes(wasmtime.wat2wasm(ONCE)), "[caps]\nkv = true\n")
    nursery.area.decide("meter", Decisions(active="1.0"))
    host = nursery.host(strikes=3)
    assert marks(host, "meter") == ["a"]
    await host.activate("meter", "2.0")
    assert host.codec("meter").decode_batch([b"x"], [1]) == [TRAPPED]
    for number in range(3):
        nursery.clock.advance(40)
        with pytest.raises(NotReady, match="does not start again"):
            host.codec("meter").decode_batch([b"y%d" % number], [number])
    assert marks(host, "meter") == ["a"]
    status = host.status("meter")
    assert (status.version, status.life.rollbacks) == ("1.0", 1)
    assert "3 starts failed in a row" in status.reason


async def test_strikes_of_long_ago_do_not_bar_the_way_back(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    nursery.area.decide("meter", Decisions(active="1.0"))
    host = nursery.host(strikes=3)
    for number in range(5):
        strike(host, 1, start=number)
        nursery.clock.advance(86_400)
        assert marks(host, "meter") == ["a"]
    await host.activate("meter", "2.0")
    strike(host, 3, start=10)
    assert marks(host, "meter") == ["a"]
    assert host.status("meter").version == "1.0"
