"""A version in shadow sees what the live one sees, is compared with it, and can neither slow nor change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fakes.eventually import eventually
from fakes.nursery import Nursery, counting, echoing, marks
from guests_gw1 import answering, guest, well_behaved

from gateway.core.errors import ConfigError, Conflict, NotFound
from gateway.wasm import shadow as shadow_room
from gateway.wasm.abi import pack_results, unpack_results
from gateway.wasm.area import Decisions
from gateway.wasm.plugins import PluginHost
from gateway.wasm.shadow import MOST_DIFFERENCES, ShadowReport


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


def compared(host: PluginHost, frames: int) -> ShadowReport:
    """The report once so many frames were compared or dropped."""

    def look() -> ShadowReport | None:
        report = host.shadow_report("meter")
        assert report is not None
        return report if report.frames + report.dropped >= frames else None

    report = eventually(look)
    assert report is not None
    return report


async def test_versions_that_agree_show_no_difference(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("a"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    for number in range(40):
        marks(host, "meter", *([b"x"] * (number % 5 + 1)))
    report = compared(host, 120)
    assert (report.version, report.against, report.ended) == ("2.0", "1.0", "")
    assert (report.frames, report.same, report.different, report.dropped) == (120, 120, 0, 0)
    assert report.live_us > 0
    assert report.candidate_us > 0


async def test_differences_are_counted_by_kind_and_shown_with_their_frame(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    host.codec("meter").decode_batch([b"xyz", b"uvw"], [7, 8])
    report = compared(host, 2)
    assert (report.same, report.different, report.kinds) == (0, 2, {"device": 2})
    first = report.differences[0]
    assert (first.frame, first.aux, first.kinds) == (b"xyz".hex(), 7, ("device",))
    assert (first.live["device"], first.candidate["device"]) == ("a", "b")
    summary = host.status("meter").shadow
    assert summary is not None
    assert (summary.frames, summary.different, summary.running) == (2, 2, True)


async def test_codes_and_outcomes_that_differ_are_told_apart(nursery: Nursery) -> None:
    by_first = "(if (result i64) (i32.eq (i32.load8_u (i32.add (local.get $p) (i32.const 8))) (i32.const {})) {} {})"
    dropped = f"(else (i64.const {131072 << 32 | 2}))"  # an array of one nil
    memory = '8) (data (i32.const 131072) "\\91\\c0"'
    live = by_first.format(ord("x"), "(then (i64.const 3))", "(else (i64.const 5))")
    nursery.put("meter", "1.0", guest(live))
    nursery.install("meter", "2.0", guest(by_first.format(ord("x"), "(then (i64.const 1))", dropped), memory=memory))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    for frame in (b"x", b"y"):
        host.codec("meter").decode_batch([frame])
    report = compared(host, 2)
    assert report.kinds == {"code": 1, "outcome": 1}
    assert report.differences[0].live == {"code": 3, "error": "checksum"}
    assert report.differences[1].candidate is None


async def test_only_the_first_differences_are_kept_and_all_are_counted(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    host.codec("meter").decode_batch([b"x"] * 200)
    report = compared(host, 200)
    assert (report.different, len(report.differences)) == (200, MOST_DIFFERENCES)


async def test_the_live_version_keeps_its_state_and_its_store(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    for _ in range(5):
        host.codec("meter").decode_batch([b"x"])
    compared(host, 5)
    assert host.codec("meter").decode_batch([b"x"])[0].reply_to == 6
    status = host.status("meter")
    assert status.stats is not None
    assert (status.version, status.stats.frames, status.stats.strikes) == ("1.0", 6, 0)


async def test_a_candidate_that_traps_costs_itself_alone(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a", trap_on="~"))
    nursery.install("meter", "2.0", counting("a"))
    host = nursery.host(strikes=3)
    await host.shadow("meter", "2.0", 10)
    for number in range(10):
        assert marks(host, "meter", b"T%d" % number) == ["a"]
    report = compared(host, 10)
    assert (report.different, report.kinds, report.traps) == (10, {"outcome": 10}, 10)
    assert host.status("meter").strikes == 0
    assert marks(host, "meter") == ["a"]


async def test_a_candidate_that_hangs_leaves_live_frames_alone(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a", loop_on="~"))
    nursery.install("meter", "2.0", counting("a"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    for number in range(30):
        assert marks(host, "meter", b"L%d" % number) == ["a"]
    report = compared(host, 30)
    status = host.status("meter")
    assert status.stats is not None
    assert (status.stats.kills, status.stats.respawns) == (0, 0)
    assert report.kills > 0
    assert report.kinds.get("outcome", 0) > 0


async def test_what_the_candidate_is_too_slow_for_is_dropped_and_counted(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_room, "MOST_WAITING_FRAMES", 20)
    nursery.put("meter", "1.0", counting("a", loop_on="~"))
    nursery.install("meter", "2.0", counting("a"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    for _ in range(50):
        marks(host, "meter", b"L1", b"L2", b"L3", b"L4", b"L5")
    host.stop_shadow("meter")
    report = host.shadow_report("meter")
    assert report is not None
    assert report.dropped > 0


async def test_a_shadow_ends_when_its_time_is_over_and_its_report_stays(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    started = await host.shadow("meter", "2.0", 3)
    assert started.ends_at_ms - started.started_at_ms == 180_000
    marks(host, "meter")
    compared(host, 1)
    nursery.clock.advance(181)
    eventually(lambda: host.shadow_report("meter").ended)
    await host.attend()
    marks(host, "meter")
    report = host.shadow_report("meter")
    assert report is not None
    assert (report.ended, report.frames) == ("its time is over", 1)
    assert host.codec("meter").tap is None


async def test_a_shadow_can_be_stopped_and_another_begun(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    nursery.install("meter", "3.0", counting("c"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    host.stop_shadow("meter")
    report = host.shadow_report("meter")
    assert report is not None
    assert report.ended == "somebody stopped it"
    assert (await host.shadow("meter", "3.0", 10)).version == "3.0"
    marks(host, "meter")
    assert compared(host, 1).differences[0].candidate["device"] == "c"


async def test_promoting_activates_the_version_in_shadow(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    with pytest.raises(Conflict, match="no version in shadow"):
        await host.promote("meter")
    await host.shadow("meter", "2.0", 10)
    status = await host.promote("meter")
    assert (status.version, status.previous) == ("2.0", "1.0")
    report = host.shadow_report("meter")
    assert report is not None
    assert report.ended == "version 2.0 came into use"


async def test_a_swap_of_the_live_version_ends_the_shadow(nursery: Nursery) -> None:
    for version in ("1.0", "2.0", "3.0"):
        nursery.install("meter", version, counting(version[0]))
    host = nursery.host()
    await host.shadow("meter", "1.0", 10)
    await host.activate("meter", "2.0")
    report = host.shadow_report("meter")
    assert report is not None
    assert report.ended == "version 2.0 came into use"
    assert marks(host, "meter") == ["2"]


async def test_what_cannot_run_in_shadow_says_why(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"), '[[test]]\nframe = "61"\nitem = { device = "x" }\n')
    nursery.install("meter", "3.0", counting("c"), "[caps]\nemit = true\n")
    nursery.install("meter", "4.0", echoing(1), top='kind = "algo"')
    nursery.put("sum", "1.0", echoing(1), top='kind = "algo"')
    nursery.install("sum", "2.0", echoing(2), top='kind = "algo"')
    host = nursery.host()
    for version, error, why in (
        ("1.0", Conflict, "is the version in use"),
        ("2.0", ConfigError, "1 test vectors fail"),
        ("3.0", ConfigError, "asks for emit, which is not granted"),
        ("4.0", Conflict, "is no codec"),
        ("9.0", NotFound, "has no version"),
    ):
        with pytest.raises(error, match=why):
            await host.shadow("meter", version, 10)
    with pytest.raises(ConfigError, match="is no codec"):
        await host.shadow("sum", "2.0", 10)
    for minutes in (0, -1, 1e9, float("nan")):
        with pytest.raises(ConfigError, match="minutes"):
            await host.shadow("meter", "2.0", minutes)
    assert host.shadow_report("meter") is None


async def test_the_candidate_sees_batches_that_the_live_version_had_to_repeat(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("a", trap_on="~"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    assert marks(host, "meter", b"x", b"T", b"y") == ["a", -1, "a"]
    report = compared(host, 3)
    # The live version lost its count with the instance that trapped.
    assert report.kinds == {"outcome": 1, "reply_to": 1}
    assert report.differences[0].live == {"code": -1, "error": "trapped"}


async def test_a_report_in_the_middle_of_a_batch_adds_up(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    nursery.put("meter", "1.0", counting("a", trap_on="~"))
    nursery.install("meter", "2.0", counting("a"))
    host = nursery.host()
    seen: list[ShadowReport | None] = []
    shown = shadow_room._shown
    monkeypatch.setattr(shadow_room, "_shown", lambda item: seen.append(host.shadow_report("meter")) or shown(item))
    await host.shadow("meter", "2.0", 10)
    marks(host, "meter", b"x", b"y", b"T")
    compared(host, 3)
    assert [(report.frames, report.same, report.different) for report in seen if report] == [(2, 2, 0), (2, 2, 0)]


async def test_closing_the_host_ends_the_thread(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("b"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    running = host._shelf._slots["meter"].shadow
    assert running is not None
    host.close()
    nursery.hosts.clear()
    assert not running._thread.is_alive()


def test_results_survive_the_way_to_the_shadow(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a", ack=True))
    results = nursery.host().codec("meter").decode_batch([b"x", b"T", b"y"])
    assert unpack_results(pack_results([*results, None, 7, -2])) == [*results, None, 7, -2]


def fixed(item: bytes) -> bytes:
    """A codec that answers one frame with one item."""
    return answering(b"\x91" + item)


async def shadowed(nursery: Nursery, live: bytes, candidate: bytes) -> ShadowReport:
    nursery.install("meter", "1.0", fixed(live))
    nursery.install("meter", "2.0", fixed(candidate))
    nursery.area.decide("meter", Decisions(active="1.0"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    host.codec("meter").decode_batch([b"a"])
    return compared(host, 1)


@pytest.mark.parametrize(("live", "candidate"), [(b"\x00", b"\xc0"), (b"\x00", b"\x00"), (b"\xc0", b"\x00")])
async def test_a_drop_is_a_drop_whichever_way_it_is_said(nursery: Nursery, live: bytes, candidate: bytes) -> None:
    report = await shadowed(nursery, live, candidate)
    assert (report.same, report.different) == (1, 0)


@pytest.mark.parametrize("value", [b"\x91" * 400 + b"\xc0", b"\xd4\x05\x00", b"\x91" * 30 + b"\xc0"])
async def test_a_value_that_no_report_can_hold_is_shown_as_its_bytes(nursery: Nursery, value: bytes) -> None:
    item = b"\x82\xa4kind\xa9heartbeat\xa5value"
    report = await shadowed(nursery, item + b"\x01", item + value)
    assert report.kinds == {"value": 1}
    assert report.differences[0].candidate["value"] == {"$hex": value.hex()}
    assert not report.ended
    assert msgspec.json.encode(report)


async def test_a_slow_frame_of_the_live_version_does_not_end_the_shadow(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "2.0", counting("a"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    done = len(host.codec("meter").decode_batch([b"a", b"L", b"a", b"a"], [1, 2, 3, 4]))
    report = compared(host, done)
    assert (report.ended, report.frames, report.same) == ("", done, done)


async def test_a_frame_whose_result_was_too_large_beside_others_does_not_end_the_shadow(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", well_behaved())
    nursery.install("meter", "2.0", well_behaved())
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    results = host.codec("meter").decode_batch([b"a", b"4", b"c"], [1, 2, 3])
    assert results[1] == 4
    report = compared(host, 3)
    assert (report.ended, report.frames, report.same) == ("", 3, 3)


async def test_a_version_that_was_changed_since_its_shadow_began_is_not_promoted(nursery: Nursery) -> None:
    nursery.install("meter", "1.0", counting("a"))
    nursery.put("meter", "2.0", counting("b"))
    nursery.area.decide("meter", Decisions(active="1.0"))
    host = nursery.host()
    await host.shadow("meter", "2.0", 10)
    nursery.put("meter", "2.0", counting("c"))
    with pytest.raises(Conflict, match="was changed since its shadow began"):
        await host.promote("meter")
    assert marks(host, "meter") == ["a"]
