"""The rules host with its real worker: what rules decide takes effect once, whatever becomes of rule or worker."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest
from fakes.rules_fakes import QUICK, RuleRoom, SetClock, event, message, until

from gateway.core.clock import SystemClock
from gateway.core.errors import NotFound, StorageFailed
from gateway.core.flow import StateDelta

COUNT = "state.n = (state.n or 0) + 1"
ALARM_EACH = "alarm.raise{message = tostring(msg.values.x)}"
NEIGHBOUR = "on.message{}(function(msg, state) state.n = (state.n or 0) + 1 alarm.raise{} end)"


async def test_a_rule_raises_and_clears_in_the_order_of_its_messages(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write(
        "hot",
        """rule{name = "too hot", description = "d"}
        on.message{product = "meter", property = "t"}(function(msg)
          if msg.values.t > 50 then alarm.raise{severity = "critical", message = "hot", data = {t = msg.values.t}}
          else alarm.clear{} end
        end)""",
    )
    async with room:
        room.publish(message("a", 1, t=60), message("a", 2, t=40), message("b", 3, t=70), message("b", 4, humidity=1))
        await room.evaluated("too hot", 3)
        await until(lambda: room.effects.changes)
    assert room.effects.alarms == [("raise", "a", "too hot"), ("clear", "a", "too hot"), ("raise", "b", "too hot")]
    first = room.effects.changes[0]
    assert (first.severity, first.message, first.data, first.at_ms) == ("critical", "hot", {"t": 60}, 6)
    assert room.status("too hot").description == "d"


@pytest.mark.parametrize("observed_at_ms", [946_684_800_000, 4_070_908_800_000], ids=["2000", "2099"])
async def test_an_alarm_has_the_gateways_time_whatever_the_devices_clock_says(
    tmp_path: Path, observed_at_ms: int
) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", "if msg.values.x == 1 then alarm.raise{} else alarm.clear{} end")
    async with room:
        for x in (1, 2):
            sent = message(x=x)
            sent.observed_at_ms, sent.received_at_ms = observed_at_ms, 1_800_000_000_000 + x
            room.publish(sent)
        await until(lambda: len(room.effects.changes) == 2)
    assert [change.at_ms for change in room.effects.changes] == [1_800_000_000_001, 1_800_000_000_002]


async def test_state_without_an_alarm_is_written_soon_and_state_with_one_in_its_transaction(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("counter", f"{COUNT} if state.n == 3 then alarm.raise{{}} end")
    async with room:
        room.publish(message(), message())
        await until(lambda: room.effects.state("counter", "d1") == {"n": 2})
        assert room.effects.changes == []
        room.publish(message())
        await until(lambda: room.effects.changes)
        changes, deltas = room.effects.applied[-1]
        assert len(changes) == 1
        assert deltas == [StateDelta("default", "counter", "d1", {"n": 3})]


async def test_what_rules_remember_is_written_at_the_stop(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, keep_s=3600.0)
    room.handler("counter", COUNT)
    async with room:
        room.publish(message())
        await room.evaluated("counter", 1)
    assert room.effects.state("counter", "d1") == {"n": 1}


async def test_a_rule_goes_on_from_what_it_remembered_before_the_restart(tmp_path: Path) -> None:
    room = RuleRoom(
        tmp_path, state=[StateDelta("default", "counter", "d1", {"n": 41, "deep": {"list": [1, 2.5, "x"]}})]
    )
    room.handler("counter", f"{COUNT} assert(state.deep.list[3] == 'x')")
    async with room:
        room.publish(message())
        await until(lambda: room.effects.state("counter", "d1").get("n") == 42)
    assert room.effects.state("counter", "d1")["deep"] == {"list": [1, 2.5, "x"]}


async def test_an_emptied_state_is_forgotten(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, state=[StateDelta("default", "r", "d1", {"n": 1})])
    room.handler("r", "state.n = nil")
    async with room:
        room.publish(message())
        await until(lambda: room.effects.applied)
    assert room.effects.applied[-1][1] == [StateDelta("default", "r", "d1", {})]


ONCE = "if not state.over then state.over = true alarm.raise{message = tostring(msg.values.x)} end"


async def test_a_deleted_device_that_registers_again_is_judged_anew(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, state=[StateDelta("default", "removed_rule", "d1", {"n": 1})])
    room.handler("r", ONCE)
    async with room:
        room.publish(message(), message("d2"))
        await until(lambda: len(room.effects.changes) == 2)
        room.host.device_deleted("another tenant", "d2")
        room.host.device_deleted("default", "d1")
        await until(lambda: room.effects.state("r", "d1") == {})
        room.publish(message(), message("d2"))
        await room.evaluated("r", 4)
        await until(lambda: len(room.effects.changes) == 3)
    assert room.effects.alarms == [("raise", "d1", "r"), ("raise", "d2", "r"), ("raise", "d1", "r")]
    assert room.effects.state("r", "d2") == {"over": True}
    assert StateDelta("default", "removed_rule", "d1", {}) in room.effects.applied[-2][1]


async def test_what_a_rule_answers_for_a_device_deleted_meanwhile_counts_for_nothing(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, limits=QUICK.__class__(budget=10**9, cpu_ms=10**6, kill_after_ms=5000))
    room.handler("r", f"{ONCE} if msg.values.slow then for i = 1, 5000000 do local x = i end end")
    async with room:
        room.publish(message("warm"))
        await until(lambda: room.effects.changes)
        room.publish(message("d1", slow=True))
        await asyncio.sleep(0.02)
        assert room.status("r").evaluated == 1, "it is at work now"
        room.host.device_deleted("default", "d1")
        await room.evaluated("r", 2)
        room.publish(message("d1"))
        await room.evaluated("r", 3)
        await until(lambda: len(room.effects.changes) == 2)
    assert [(change.device_id, change.message) for change in room.effects.changes] == [("warm", "1"), ("d1", "1")]


async def test_a_rule_whose_state_is_forgotten_decides_anew_on_that_device_alone(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", ONCE)
    room.handler("other", ONCE)
    async with room:
        room.publish(message(), message("d2"))
        await until(lambda: len(room.effects.changes) == 4)
        room.host.forget_state("default", "r", "d1")
        room.host.forget_state("another tenant", "other", "d1")
        room.host.forget_state("default", "unknown", "d1")
        await until(lambda: room.effects.state("r", "d1") == {})
        room.publish(message(), message("d2"))
        await room.evaluated("other", 4)
        await until(lambda: len(room.effects.changes) == 5)
    assert room.effects.alarms[-1] == ("raise", "d1", "r")


async def test_a_call_that_fails_changes_nothing_and_shows_its_line(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", f"{COUNT}\nif msg.values.x == 2 then alarm.raise{{}} error('no\\27[31m') end")
    async with room:
        room.publish(message(x=1), message(x=2), message(x=3))
        status = await room.evaluated("r", 3)
        await until(lambda: room.effects.state("r", "d1") == {"n": 2})
    assert (status.errors, status.state, status.strikes) == (1, "running", 0)
    assert status.last_error == "r.lua:3: no?[31m"
    assert status.last_error_at_ms is not None
    assert room.effects.changes == []


async def test_messages_of_other_tenants_products_and_properties_never_reach_a_rule(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write(
        "r", "on.message{product = 'meter', property = 'x'}(function(msg) alarm.raise{message = msg.device} end)"
    )
    async with room:
        stranger = message("stranger")
        stranger.tenant_id = "other"
        room.publish(stranger, message("pump", product="pump"), message("y", y=1), message("mine"))
        await until(lambda: room.effects.changes)
        assert room.status("r").evaluated == 1
    assert [change.message for change in room.effects.changes] == ["mine"]


async def test_a_rule_sees_values_quality_and_times(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler(
        "r",
        """alarm.raise{message = table.concat({msg.device, msg.product, msg.values.a, tostring(msg.values.b),
          tostring(msg.values.none), msg.values.list[2].k, msg.quality.a, msg.quality.b,
          msg.received_at - msg.observed_at, math.type(msg.values.n), math.type(msg.values.f)}, " ")}""",
    )
    async with room:
        sent = message("d", 1000, a="ä", b=True, none=None, list=[1, {"k": "v"}], n=7, f=7.0)
        sent.quality = {"b": "out_of_range"}  # type: ignore[dict-item] - the wire knows only the text
        room.publish(sent)
        await until(lambda: room.effects.changes)
    assert room.effects.changes[0].message == "d meter ä true nil v good out_of_range 5 integer float"


async def test_events_reach_rules_by_type_but_never_a_rules_own_alarms(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write(
        "r",
        """on.event{type = "device.online"}(function(event) alarm.raise{message = event.type .. event.data.ip} end)
        on.event{type = "alarm.*"}(function(event, state) state.n = (state.n or 0) + 1 alarm.clear{} end)""",
    )
    async with room:
        room.bus.events.publish([event("device.online", ip="::1"), event("device.offline")])
        room.bus.events.publish([event("device.online", None, ip="::1")])
        room.bus.events.publish([event("alarm.raised", rule="r"), event("alarm.raised", rule="another")])
        await room.evaluated("r", 3)
        await until(lambda: len(room.effects.changes) == 2)
    assert room.effects.alarms == [("raise", "d1", "r"), ("clear", "d1", "r")]
    assert "this event is of no device" in room.status("r").last_error


async def test_commands_go_to_the_device_and_a_refusal_shows(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.effects.answers["bad"] = {"id": None, "status": "failed", "error": "no such function"}
    room.handler(
        "r",
        "device.command{name = 'locate'} device.command{name = 'bad', device = 'd2', args = {a = {1}}, timeout = 3}",
    )
    async with room:
        room.publish(message())
        await until(lambda: len(room.effects.commands) == 2)
        await until(lambda: room.status("r").errors)
    assert room.effects.commands == [("d1", "locate", {}, "rule:r", 10.0), ("d2", "bad", {"a": [1]}, "rule:r", 3.0)]
    assert room.status("r").last_error == "command bad to d2: no such function"


async def test_a_rule_starts_a_scene_and_one_that_cannot_start_shows(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", "scene.run{name = 'blink', args = {device = msg.device}} scene.run{name = 'missing'}")
    async with room:
        room.publish(message())
        await until(lambda: room.status("r").errors)
    assert room.effects.scenes == [("blink", {"device": "d1"}, "rule:r")]
    assert room.status("r").last_error == "scene missing: no scene missing"


async def test_a_worker_that_dies_while_idle_is_replaced_before_the_next_message(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, poll_s=0.05)
    room.handler("r", "log.info('x')")
    async with room:
        first = room.host.processes()["rules"]
        os.kill(first, signal.SIGKILL)
        await until(lambda: room.host.processes().get("rules", first) != first)
        room.publish(message())
        await until(lambda: room.status("r").evaluated == 1)


async def test_commands_over_the_bound_are_refused_and_counted(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, commands=2)
    room.effects.hold.clear()
    room.handler("r", "for i = 1, 5 do device.command{name = 'n' .. i} end")
    async with room:
        room.publish(message())
        await until(lambda: room.figure("gateway_rules_commands_refused_total") == 3)
        room.effects.hold.set()
    assert len(room.effects.commands) == 2


async def test_an_overrun_is_a_strike_and_three_stop_the_rule(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("bad", f"if msg.values.x == 13 then while true do end end {COUNT}")
    room.write("good", NEIGHBOUR)
    async with room:
        room.publish(*(message(x=x) for x in (1, 13, 2, 13, 3, 13, 4)))
        await room.evaluated("good", 7)
        await until(lambda: room.status("bad").state == "stopped")
        await until(lambda: room.effects.state("bad", "d1") == {"n": 3})
    status = room.status("bad")
    assert (status.strikes, status.errors, status.evaluated) == (3, 3, 6)
    assert "instruction budget spent" in status.last_error
    assert room.host.worker_restarts == 0
    assert room.effects.state("good", "d1") == {"n": 7}


async def test_strikes_outside_the_window_are_forgiven(tmp_path: Path) -> None:
    clock = SetClock()
    room = RuleRoom(tmp_path, clock=clock, strike_window_s=60.0)
    room.handler("bad", "while true do end")
    async with room:
        for strike in range(1, 5):
            room.publish(message())
            await until(lambda strike=strike: room.status("bad").strikes == strike)
            clock.at_s += 40
        assert room.status("bad").state == "running"


async def test_a_script_that_hangs_everything_hangs_nothing_but_itself(tmp_path: Path) -> None:
    """A user's script that never returns took whole gateways down: here its worker dies and its neighbours go on."""
    room = RuleRoom(tmp_path, limits=QUICK.__class__(budget=10**12, cpu_ms=10**6, kill_after_ms=300))
    room.handler("hangs", f"if msg.values.x == 13 then while true do end end {COUNT}")
    room.write("good", NEIGHBOUR)
    async with room:
        room.publish(*(message(x=x) for x in (1, 2, 13, 3)))
        await room.evaluated("good", 4)
        room.publish(message(x=5))
        await until(lambda: room.effects.state("good", "d1") == {"n": 5})
        await until(lambda: room.effects.state("hangs", "d1") == {"n": 3})
        status = room.status("hangs")
    assert (status.strikes, status.state) == (1, "running")
    assert status.last_error == "a call did not end; its worker was killed"
    assert room.host.worker_restarts == 1
    assert len(room.effects.changes) == 5, "each alarm of the neighbour happened once although its batch ran twice"


async def test_three_kills_stop_the_rule_until_it_is_restarted(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, limits=QUICK.__class__(budget=10**12, cpu_ms=10**6, kill_after_ms=200))
    room.handler("hangs", f"if msg.values.x == 13 then while true do end end {COUNT}")
    async with room:
        for strike in (1, 2, 3):
            room.publish(message(x=13))
            await until(lambda strike=strike: room.status("hangs").strikes == strike)
        assert room.status("hangs").state == "stopped"
        room.publish(message(x=1))
        await room.host.restart_rule("hangs")
        assert room.status("hangs").state == "running"
        room.publish(message(x=2))
        await until(lambda: room.effects.state("hangs", "d1") == {"n": 1})
        with pytest.raises(NotFound):
            await room.host.restart_rule("unknown")


async def test_a_file_that_hangs_while_loading_is_broken_and_the_others_run(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, limits=QUICK.__class__(budget=10**12, cpu_ms=10**6, kill_after_ms=200))
    room.write("a_hangs", "while true do end")
    room.write("good", NEIGHBOUR)
    async with room:
        assert (room.status("a_hangs").state, room.status("a_hangs").last_error) == (
            "broken",
            "loading the file does not end",
        )
        room.publish(message())
        await room.evaluated("good", 1)


async def test_a_worker_killed_from_outside_loses_neither_state_nor_messages(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", f"for i = 1, 3000 do local x = i end {COUNT} {ALARM_EACH}")
    async with room:
        room.publish(message(x=0))
        await until(lambda: room.effects.changes)
        room.publish(*(message(x=x) for x in range(1, 301)))
        await asyncio.sleep(0.005)
        os.kill(room.host.processes()["rules"], signal.SIGKILL)
        await room.evaluated("r", 301)
        await until(lambda: len(room.effects.changes) >= 301)
    assert [change.message for change in room.effects.changes] == [str(x) for x in range(301)]
    assert room.effects.state("r", "d1") == {"n": 301}
    assert room.status("r").state == "running"
    assert room.host.shed == 0


async def test_a_worker_killed_while_idle_is_replaced_for_the_next_message(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, state=[StateDelta("default", "r", "d1", {"n": 5})])
    room.handler("r", COUNT)
    async with room:
        os.kill(room.host.processes()["rules"], signal.SIGKILL)
        room.publish(message())
        await until(lambda: room.effects.state("r", "d1") == {"n": 6})
    assert room.status("r").strikes == 0


async def test_a_changed_file_restarts_only_itself_and_keeps_its_state(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("a", COUNT)
    room.write("b", "local runs = 0 on.message{}(function(msg, state) runs = runs + 1 state.runs = runs end)")
    async with room:
        room.publish(message())
        await room.evaluated("b", 1)
        before, loaded = room.status("a").loaded_at_ms, room.status("b").loaded_at_ms
        room.handler("a", "state.n = state.n * 100")
        await until(lambda: room.status("a").loaded_at_ms != before)
        room.publish(message())
        await until(lambda: room.effects.state("a", "d1") == {"n": 100})
        await until(lambda: room.effects.state("b", "d1") == {"runs": 2})
        assert room.status("b").loaded_at_ms == loaded
    assert room.host.worker_restarts == 0


async def test_a_touched_file_changes_nothing(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    path = room.write("a", "local runs = 0 on.message{}(function(msg, state) runs = runs + 1 state.runs = runs end)")
    async with room:
        room.publish(message())
        await room.evaluated("a", 1)
        os.utime(path, (1, 1))
        await asyncio.sleep(0.2)
        room.publish(message())
        await until(lambda: room.effects.state("a", "d1") == {"runs": 2})


async def test_a_broken_new_version_leaves_the_old_one_running_and_says_so(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("a", COUNT)
    async with room:
        room.write("a", "on.message{}(function(msg state) end)")
        await until(lambda: room.status("a").state == "broken")
        assert "a.lua:1:" in room.status("a").last_error
        room.publish(message())
        await until(lambda: room.effects.state("a", "d1") == {"n": 1})
        os.kill(room.host.processes()["rules"], signal.SIGKILL)
        room.publish(message())
        await until(lambda: room.effects.state("a", "d1") == {"n": 2})
        room.handler("a", "state.n = 100")
        await until(lambda: room.status("a").state == "running")
        assert room.status("a").last_error == ""


async def test_rules_come_and_go_with_their_files(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    async with room:
        assert room.host.statuses() == []
        path = room.handler("late", COUNT)
        await until(lambda: room.host.statuses() and room.status("late").state == "running")
        room.publish(message())
        await room.evaluated("late", 1)
        path.unlink()
        await until(lambda: not room.host.statuses())
        room.handler("late", COUNT)
        await until(lambda: room.host.statuses() and room.status("late").state == "running")
        room.publish(message())
        await until(lambda: room.effects.state("late", "d1") == {"n": 2})


async def test_two_files_cannot_share_a_name(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write("a", "rule{name = 'same'}\n" + NEIGHBOUR)
    room.write("b", "rule{name = 'same'}\n" + NEIGHBOUR)
    async with room:
        states = {status.path.rsplit("/", 1)[1]: status for status in room.host.statuses()}
        assert states["a.lua"].state == "running"
        assert states["b.lua"].state == "broken"
        assert "taken by a.lua" in states["b.lua"].last_error
        room.publish(message())
        await until(lambda: room.effects.changes)
    assert len(room.effects.changes) == 1


async def test_effects_that_the_database_refuses_are_tried_again_in_order(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", ALARM_EACH)
    room.effects.failures = [StorageFailed("disk full"), StorageFailed("disk full")]
    async with room:
        room.publish(message(x=1))
        await room.evaluated("r", 1)
        room.publish(message(x=2))
        await until(lambda: len(room.effects.changes) == 2)
    assert [change.message for change in room.effects.changes] == ["1", "2"]


async def test_more_messages_than_the_worker_takes_are_shed_and_counted(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, queue_messages=10)
    room.handler("r", COUNT)
    async with room:
        for batch in range(5):
            room.publish(*(message(x=batch) for _ in range(10)))
        await until(lambda: room.status("r").evaluated + room.host.shed == 50)
        assert room.host.shed >= 30
        assert room.figure("gateway_rules_shed_total") == room.host.shed


async def test_states_over_the_workers_cache_come_back_when_needed(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, cached_states=3, batch_messages=4)
    room.handler("r", COUNT)
    devices = [f"d{number}" for number in range(12)]
    async with room:
        for _ in range(3):
            room.publish(*(message(device) for device in devices))
            room.publish(*(message(device) for device in reversed(devices)))
        await room.evaluated("r", 72)
        await until(lambda: all(room.effects.state("r", device) == {"n": 6} for device in devices))


async def test_a_batch_larger_than_a_frame_is_halved(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, frame_bytes=20_000)
    room.handler("r", f"{COUNT} state.size = #msg.values.text")
    async with room:
        room.publish(*(message(text="x" * 5000) for _ in range(20)), message(text="x" * 30_000))
        await room.evaluated("r", 20)
        await until(lambda: room.host.shed == 1)
        await until(lambda: room.effects.state("r", "d1") == {"n": 20, "size": 5000})


async def test_a_slow_batch_is_answered_in_parts(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, limits=QUICK.__class__(slice_ms=5))
    room.handler("r", f"for i = 1, 20000 do local x = i end {COUNT} {ALARM_EACH}")
    async with room:
        room.publish(*(message(x=x) for x in range(200)))
        await until(lambda: len(room.effects.changes) == 200)
        assert len(room.effects.applied) > 1
    assert [change.message for change in room.effects.changes] == [str(x) for x in range(200)]


async def test_an_idle_host_asks_its_worker_nothing(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, clock=SystemClock())
    room.handler("r", COUNT)
    async with room:
        room.publish(message())
        await room.evaluated("r", 1)
        pid = room.host.processes()["rules"]
        before = psutil.Process(pid).cpu_times()
        await asyncio.sleep(0.5)
        assert psutil.Process(pid).cpu_times() == before


async def test_the_worker_ends_with_the_host(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", COUNT)
    async with room:
        pid = room.host.processes()["rules"]
    assert room.host.processes() == {}
    assert not psutil.pid_exists(pid)


async def test_a_stopped_rule_does_not_come_back_by_a_version_that_does_not_load(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("bad", f"if msg.values.x == 13 then while true do end end {COUNT}")
    async with room:
        room.publish(*(message(x=13) for _ in range(3)))
        await until(lambda: room.status("bad").state == "stopped")
        room.write("bad", "oops oops")
        await until(lambda: room.status("bad").state == "broken")
        room.publish(message(x=1))
        await asyncio.sleep(0.05)
        assert room.status("bad").evaluated == 3
        room.handler("bad", COUNT)
        await until(lambda: room.status("bad").state == "running")
        room.publish(message(x=13))
        await until(lambda: room.effects.state("bad", "d1") == {"n": 1})


async def test_messages_wait_while_no_worker_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", COUNT)
    async with room:
        room.publish(message())
        await room.evaluated("r", 1)
        with monkeypatch.context() as broken:
            broken.setattr("sys.executable", "/nowhere/python")
            os.kill(room.host.processes()["rules"], signal.SIGKILL)
            await asyncio.sleep(0.05)
            room.publish(message(), message())
            await until(lambda: room.supervisor.parts["rules-messages"].restarts)
            room.handler("late", COUNT)
            await until(lambda: room.supervisor.parts["rules-files"].restarts)
        await until(lambda: room.effects.state("r", "d1") == {"n": 3})
        await until(lambda: any(status.name == "late" for status in room.host.statuses()))
        await until(lambda: room.status("late").state == "running")
    assert room.host.shed == 0


async def test_a_worker_that_is_told_to_end_stays_until_the_gateway_ends_it(tmp_path: Path) -> None:
    """A service manager signals the whole group at once; what waits is still to be evaluated."""
    room = RuleRoom(tmp_path)
    room.handler("r", COUNT)
    async with room:
        pid = room.host.processes()["rules"]
        for signalled in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, signalled)
        room.publish(message())
        await room.evaluated("r", 1)
        assert room.host.processes()["rules"] == pid


async def test_the_log_of_a_rule_is_bounded(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, log_lines_per_s=5.0, clock=SetClock())
    room.handler("r", "for i = 1, 50 do log.warn('line', i) end")
    async with room:
        room.publish(message(), message())
        await room.evaluated("r", 2)
        await until(lambda: room.figure("gateway_rules_log_lines_dropped_total") == 95)
