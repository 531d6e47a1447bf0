"""`plugin.call` in rules and scenes, with real workers: what a script gets, what it costs, and what a kill repeats."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.memory import MemoryScenes
from fakes.rules_fakes import QUICK, RecordingEffects, RuleRoom, SetClock, message, until

from gateway.core.clock import SystemClock
from gateway.core.errors import NotReady, PluginTrapped
from gateway.core.scope import system_scope
from gateway.core.tasks import Supervisor
from gateway.rules.config import RulesConfig, ScenesConfig
from gateway.rules.sandbox import RuleSandbox
from gateway.rules.scenes import SceneHost

SEEN = (
    "state.answer, state.error = plugin.call('echo', {args}) state.kind = math.type(state.answer) or type(state.answer)"
)


async def answer_of(tmp_path: Path, answer: Any, args: str = "{}") -> dict[str, Any]:
    """What a rule sees of a plugin's answer."""
    room = RuleRoom(tmp_path)
    room.effects.plugins["echo"] = lambda _args: answer
    room.handler("r", SEEN.replace("{args}", args))
    async with room:
        room.publish(message())
        await until(lambda: room.effects.state("r", "d1") or room.status("r").last_error)
        assert not room.status("r").last_error
        return room.effects.state("r", "d1")


async def test_a_rule_goes_on_with_the_plugins_answer_in_the_same_call(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.effects.plugins["double"] = lambda args: {"value": args["value"] * 2}
    room.handler("r", "local a = plugin.call('double', {value = msg.values.x}) state.sum = (state.sum or 0) + a.value")
    async with room:
        room.publish(*(message(x=x) for x in (1, 2, 3)))
        await until(lambda: room.effects.state("r", "d1").get("sum") == 12)
        assert [args for _, args, _ in room.effects.plugin_calls] == [{"value": 1}, {"value": 2}, {"value": 3}]
        assert room.figure("gateway_rules_plugin_calls_total") == 3


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (3, {"answer": 3, "kind": "integer"}),
        (2.5, {"answer": 2.5, "kind": "float"}),
        ("grün", {"answer": "grün", "kind": "string"}),
        ({"a": [1, {"b": True}]}, {"answer": {"a": [1, {"b": True}]}, "kind": "table"}),
        (None, {"kind": "nil"}),
        (b"bytes", {"answer": "bytes", "kind": "string"}),
    ],
)
async def test_an_answer_is_what_lua_has_for_it(tmp_path: Path, answer: Any, seen: dict[str, Any]) -> None:
    assert await answer_of(tmp_path, answer) == seen


@pytest.mark.parametrize("answer", [{None: 1}, {float("nan"): 1}, {"at": msgspec.msgpack.Ext(5, b"x")}])
async def test_an_answer_that_lua_cannot_hold_is_an_error_text(tmp_path: Path, answer: Any) -> None:
    seen = await answer_of(tmp_path, answer)
    assert seen == {"error": "the plugin's answer has keys or values that Lua has not", "kind": "nil"}


async def test_an_answer_that_cannot_be_carried_is_an_error_text(tmp_path: Path) -> None:
    seen = await answer_of(tmp_path, object())
    assert "cannot be carried" in seen["error"]


async def test_strings_that_are_no_text_go_as_bytes_and_all_others_as_text(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.effects.plugins["echo"] = lambda args: args["raw"]
    room.handler("r", r"local back = plugin.call('echo', {raw = '\xff\x00', text = 'gr\u{fc}n'}) state.n = #back")
    async with room:
        room.publish(message())
        await until(lambda: room.effects.state("r", "d1") == {"n": 2})
        assert room.effects.plugin_calls[0][1] == {"raw": b"\xff\x00", "text": "grün"}


@pytest.mark.parametrize(
    "failure", [PluginTrapped(-1, "plugin echo trapped: interrupt"), NotReady("plugin echo is busy")]
)
async def test_a_plugins_failure_is_nil_and_a_text_and_no_strike(tmp_path: Path, failure: Exception) -> None:
    def fail(_args: dict[str, Any]) -> None:
        raise failure

    room = RuleRoom(tmp_path)
    room.effects.plugins["echo"] = fail
    room.handler("r", SEEN.replace("{args}", "{}"))
    async with room:
        room.publish(message())
        await until(lambda: room.effects.state("r", "d1") == {"error": str(failure), "kind": "nil"})
        status = room.status("r")
        assert (status.strikes, status.errors, status.state) == (0, 0, "running")
        assert room.figure("gateway_rules_plugin_failures_total") == 1


async def test_an_unknown_plugin_is_nil_and_a_text(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", "local _, why = plugin.call('nobody') state.why = why")
    async with room:
        room.publish(message())
        await until(lambda: room.effects.state("r", "d1") == {"why": "no plugin 'nobody'"})


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("plugin.call(1)", "takes a plugin's id"),
        ("plugin.call('p', 1)", "arguments must be a table"),
        ("plugin.call('p', {1, 2})", "keys must be text"),
        ("plugin.call('p', {f = print})", "a function cannot be kept"),
        ("plugin.call('p', {x = ('x'):rep(300000)})", "too large"),
        ("for i = 1, 9 do plugin.call('p') end", "more than 8 plugin calls in one call"),
    ],
)
async def test_misuse_is_an_error_of_the_rule_with_its_line(tmp_path: Path, call: str, error: str) -> None:
    room = RuleRoom(tmp_path)
    room.effects.plugins["p"] = lambda _args: 1
    room.handler("r", call)
    async with room:
        room.publish(message(), message())
        await room.evaluated("r", 2)
        status = room.status("r")
        assert error in status.last_error
        assert (
            "r.lua:2" in status.last_error or "keys must" in error or "cannot be kept" in error or "too large" in error
        )
        assert (status.errors, status.strikes) == (2, 0)


async def test_a_plugin_cannot_be_called_while_the_file_loads(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write("r", "plugin.call('p', {})\non.message{}(function() end)")
    async with room:
        assert "belongs into a handler" in room.status("r").last_error
        assert not room.effects.plugin_calls


async def test_a_call_works_in_a_coroutine_and_under_pcall(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.effects.plugins["p"] = lambda args: args["n"] + 1
    room.handler(
        "r",
        "local ok, a = pcall(plugin.call, 'p', {n = 1}) "
        "local b = coroutine.wrap(function() return plugin.call('p', {n = a}) end)() state.b = b",
    )
    async with room:
        room.publish(message())
        await until(lambda: room.effects.state("r", "d1") == {"b": 3})


async def test_waiting_for_plugins_is_bounded_over_all_calls_of_one_call(tmp_path: Path) -> None:
    async def slow(_args: dict[str, Any]) -> int:
        await asyncio.sleep(0.06)
        return 1

    room = RuleRoom(tmp_path, plugin_ms=100)
    room.effects.plugins["slow"] = slow
    room.handler("r", "local n = 0 for i = 1, 4 do n = n + (plugin.call('slow') or 0) end state.n = n")
    async with room:
        room.publish(message())
        await until(lambda: room.effects.state("r", "d1"))
        assert room.effects.state("r", "d1") == {"n": 2}
        timeouts = [timeout_s for _, _, timeout_s in room.effects.plugin_calls]
        assert timeouts[0] == 0.1
        assert timeouts[1] <= 0.04
        assert room.status("r").strikes == 0


async def test_the_time_that_a_plugin_takes_is_not_taken_for_a_hang_of_the_worker(tmp_path: Path) -> None:
    async def slow(_args: dict[str, Any]) -> int:
        await asyncio.sleep(0.6)
        return 1

    limits = msgspec.structs.replace(QUICK, kill_after_ms=100)
    room = RuleRoom(tmp_path, plugin_ms=3000, limits=limits)
    room.effects.plugins["slow"] = slow
    room.handler("r", "state.n = plugin.call('slow')")
    async with room:
        room.publish(message())
        await until(lambda: room.effects.state("r", "d1") == {"n": 1})
        assert (room.status("r").strikes, room.host.worker_restarts) == (0, 0)


async def test_a_plugin_that_keeps_rules_waiting_rests_and_is_tried_again(tmp_path: Path) -> None:
    clock = SetClock()
    calls = 0

    def slow(_args: dict[str, Any]) -> int:
        nonlocal calls
        calls += 1
        clock.at_s += 0.1 if calls < 5 else 0.0
        return calls

    room = RuleRoom(tmp_path, clock=clock, plugin_ms=200)
    room.effects.plugins["slow"] = slow
    room.handler("r", "state.n, state.why = plugin.call('slow')")
    async with room:
        room.publish(*(message() for _ in range(5)))
        await room.evaluated("r", 5)
        await until(lambda: "why" in room.effects.state("r", "d1"))
        assert "kept rules waiting; it is asked again in 10 s" in room.effects.state("r", "d1")["why"]
        assert calls == 3
        clock.at_s += 10
        room.publish(message(), message())
        await room.evaluated("r", 7)
        assert calls == 4, "late once more: it rests again"
        clock.at_s += 10
        room.publish(*(message() for _ in range(4)))
        await until(lambda: room.effects.state("r", "d1") == {"n": 8})


async def test_a_rule_that_hangs_after_a_call_is_killed_all_the_same(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(QUICK, budget=10**12, cpu_ms=10**6, kill_after_ms=200)
    room = RuleRoom(tmp_path, limits=limits)
    room.effects.plugins["p"] = lambda _args: 1
    room.handler("r", "plugin.call('p') while true do end")
    async with room:
        room.publish(message())
        await until(lambda: room.status("r").strikes == 1)
        assert room.status("r").last_error == "a call did not end; its worker was killed"


async def test_a_call_is_made_again_for_a_batch_whose_worker_was_lost_and_effects_happen_once(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    held = asyncio.Event()

    async def hold(_args: dict[str, Any]) -> int:
        await held.wait()
        return 7

    room.effects.plugins["p"] = hold
    room.handler("r", "state.n = plugin.call('p') alarm.raise{}")
    async with room:
        room.publish(message())
        await until(lambda: len(room.effects.plugin_calls) == 1)
        os.kill(room.host.processes()["rules"], signal.SIGKILL)
        held.set()
        await until(lambda: room.effects.state("r", "d1") == {"n": 7})
        assert len(room.effects.plugin_calls) == 2
        assert len(room.effects.alarms) == 1


async def test_a_stop_does_not_wait_for_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.rules.host._STOP_S", 0.1)
    room = RuleRoom(tmp_path)
    room.effects.plugins["p"] = lambda _args: asyncio.Event().wait()
    room.handler("r", "plugin.call('p')")
    async with room:
        room.publish(message())
        await until(lambda: room.effects.plugin_calls)
    assert not room.host.processes()


def test_a_sandbox_without_plugins_says_so_and_hands_out_no_object_of_python() -> None:
    sandbox = RuleSandbox(RulesConfig())
    source = b"on.message{}(function(msg) log.info(tostring(plugin.call), type(plugin.call)) plugin.call('p') end)"
    assert sandbox.load(source, "r.lua")[0] == ""
    outcome, error = (sandbox.on_message(1, message()) or (0, b""))[:2]
    assert outcome == 1
    assert b"more than 8 plugin calls" in (error or b"")


# Scenes


class SceneRoom:
    def __init__(self, folder: Path, **settings: Any) -> None:
        clock = SystemClock()
        self.supervisor = Supervisor(clock)
        self.effects = RecordingEffects()
        self.rows = MemoryScenes()
        config = ScenesConfig(directory=str(folder), poll_s=0.05, limits=QUICK, **settings)
        self.host = SceneHost(config, self.supervisor, clock, self.effects, self.rows)
        self.folder = folder

    async def log_of(self, body: str) -> tuple[str, list[str], str]:
        (self.folder / "s.lua").write_text(f"function run(args)\n{body}\nend")
        await self.host.start()
        try:
            run = await self.host.run(system_scope("ann"), "s", {})
            await until(lambda: not any(scene.running for scene in self.host.scenes()))
            row = await self.rows.get_run(system_scope("ann"), run.id)
            return row.status, row.log, row.error
        finally:
            await self.host.stop()
            await self.supervisor.stop()


async def test_a_scene_waits_for_a_plugin_and_goes_on_with_its_answer(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)

    async def later(args: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"length": len(args["raw"]), "kind": type(args["raw"]).__name__}

    room.effects.plugins["p"] = later
    status, lines, _ = await room.log_of(r"local a = plugin.call('p', {raw = '\xff'}, 2) log(a.length, a.kind)")
    assert (status, lines) == ("succeeded", ["1 bytes"])
    assert room.effects.plugin_calls[0][2] == 2.0


async def test_a_scene_gets_nil_and_a_text_where_the_plugin_gave_nothing(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    status, lines, _ = await room.log_of("local a, why = plugin.call('nobody') log(a, why)")
    assert (status, lines) == ("succeeded", ["nil no plugin 'nobody'"])
    assert room.effects.plugin_calls[0][2] == 10.0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("plugin.call('p', {}, 61)", "timeout is in seconds, up to 60"),
        ("plugin.call('p', 1)", "arguments must be a table"),
        ("coroutine.wrap(function() plugin.call('p') end)()", "not in a coroutine of your own"),
    ],
)
async def test_misuse_fails_the_run_with_its_line(tmp_path: Path, call: str, error: str) -> None:
    status, _, shown = await SceneRoom(tmp_path).log_of(call)
    assert status == "failed"
    assert error in shown
    assert "s.lua:2" in shown


async def test_a_fault_of_the_gateway_ends_the_run_and_not_in_silence(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)

    def broken(_args: dict[str, Any]) -> None:
        raise KeyError("a fault of ours")

    room.effects.plugins["p"] = broken
    status, _, error = await room.log_of("plugin.call('p')")
    assert status == "failed"
    assert "its log says why" in error
