"""`notify` in rules and scenes: durable, in order, bounded, and what is refused shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.rules_fakes import RecordingEffects, RuleRoom, event, message, until
from test_rules_scenes import SceneRoom

from gateway.core.clock import SystemClock
from gateway.core.errors import NotReady, Rejected, StorageFailed
from gateway.core.flow import AlarmChange
from gateway.core.tasks import Supervisor
from gateway.rules.model import Notice
from gateway.rules.outbox import Outbox


async def test_a_rule_notifies_in_its_name_and_of_the_messages_device(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("hot", 'notify { channel = "ops", title = "热", text = "x = " .. msg.values.x, severity = "major" }')
    async with room:
        room.publish(message("d1", x=1), message("d2", x=2))
        await until(lambda: len(room.effects.notices) == 2)
    assert room.effects.notices == [
        Notice("default", "rule:hot", "ops", "热", f"x = {n}", "major", f"d{n}") for n in (1, 2)
    ]


async def test_text_and_severity_may_be_left_out_and_an_event_may_be_of_no_device(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write("r", 'on.event{}(function(event) notify { channel = "ops", title = event.type } end)')
    async with room:
        room.bus.events.publish([event("listener.up", None)])
        await until(lambda: room.effects.notices)
    assert room.effects.notices == [Notice("default", "rule:r", "ops", "listener.up")]


async def test_a_text_of_4000_characters_passes_in_any_language(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", 'notify { channel = "ops", title = "t", text = ("热"):rep(4000) }')
    async with room:
        room.publish(message())
        await until(lambda: room.effects.notices)
    assert room.effects.notices[0].text == "热" * 4000


async def test_what_is_refused_is_the_rules_last_error_and_costs_no_alarm(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", 'alarm.raise { message = "m" } notify { channel = "missing", title = "t" }')
    async with room:
        room.publish(message())
        await until(lambda: room.status("r").last_error)
        assert room.status("r").last_error == "notify missing: no channel missing"
        assert room.status("r").strikes == 0
        assert room.figure("gateway_rules_notifications_refused_total") == 1
        await until(lambda: room.effects.alarms == [("raise", "d1", "r")])


async def test_a_call_that_fails_notifies_nobody(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", 'notify { channel = "ops", title = "t" } error("no")')
    room.handler("s", 'notify { channel = "ops", title = "other" }')
    async with room:
        room.publish(message())
        await until(lambda: room.effects.notices)
        await room.evaluated("r", 1)
    assert [notice.actor for notice in room.effects.notices] == ["rule:s"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("notify {}", "notify: channel must be text"),
        ('notify { channel = "ops" }', "notify: title must be text"),
        ('notify { channel = "ops", title = "t", severity = "loud" }', "severity is one of"),
        ('notify { channel = "ops", title = "t", colour = "red" }', "unknown field 'colour'"),
        ('notify { channel = "ops", title = "t", text = 5 }', "notify: text must be text"),
        ('notify { channel = "ops", title = "t", text = ("x"):rep(4001) }', "at most 4000 characters"),
        ('notify { channel = "ops", title = "t", text = ("热"):rep(4001) }', "at most 4000 characters"),
        ('notify { channel = "ops", title = "t", text = "\\xff" }', "at most 4000 characters"),
        ('for n = 1, 65 do notify { channel = "ops", title = "t" } end', "more than 64 actions"),
        ('for n = 1, 9 do notify { channel = "o", title = "t", text = ("热"):rep(4000) } end', "more than 65536 bytes"),
    ],
)
async def test_misuse_is_an_error_at_the_place_of_the_call(tmp_path: Path, call: str, error: str) -> None:
    room = RuleRoom(tmp_path)
    room.handler("r", call)
    async with room:
        room.publish(message())
        await until(lambda: room.status("r").last_error)
    assert error in room.status("r").last_error
    assert "r.lua:2:" in room.status("r").last_error
    assert room.effects.notices == []


async def test_notices_wait_for_the_database_behind_their_alarms_and_none_is_lost() -> None:
    effects = RecordingEffects()
    effects.failures = [StorageFailed("disk full"), NotReady("locked")]
    refused: list[tuple[str, str]] = []
    outbox = Outbox(effects, 4, 0.02, lambda notice, why: refused.append((notice.title, why)))
    supervisor = Supervisor(SystemClock())
    await outbox.put([AlarmChange("raise", "default", "d1", "r", 1)], [])
    await outbox.tell([Notice("default", "rule:r", "ops", "one"), Notice("default", "rule:r", "missing", "two")])
    assert len(outbox) == 2
    supervisor.start("outbox", outbox.run)
    assert await outbox.drain(10.0)
    await supervisor.stop()
    assert len(effects.changes) == 1
    assert [notice.title for notice in effects.notices] == ["one"]
    assert refused == [("two", "no channel missing")]
    assert outbox.retries == 2


async def test_notices_that_are_refused_whole_are_told_and_do_not_stop_the_outbox() -> None:
    effects = RecordingEffects()
    effects.failures = [Rejected("no such tenant")]
    refused: list[tuple[str, str]] = []
    outbox = Outbox(effects, 4, 0.02, lambda notice, why: refused.append((notice.title, why)))
    supervisor = Supervisor(SystemClock())
    for title in ("one", "two"):
        await outbox.tell([Notice("default", "rule:r", "ops", title)])
    supervisor.start("outbox", outbox.run)
    assert await outbox.drain(10.0)
    await supervisor.stop()
    assert refused == [("one", "no such tenant")]
    assert [notice.title for notice in effects.notices] == ["two"]


async def test_a_storm_of_rules_waits_for_the_outbox_and_holds_only_so_much(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path, outbox=2, batch_messages=4)
    room.effects.failures = [StorageFailed("disk full")] * 3
    room.handler("r", 'for n = 1, 10 do notify { channel = "ops", title = "t" .. n } end')
    async with room:
        room.publish(*(message() for _ in range(40)))
        await room.evaluated("r", 40)
        await until(lambda: len(room.effects.notices) == 400)


async def test_a_scene_notifies_and_learns_what_became_of_it(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.write(
        "s",
        """local one = notify("ops", { title = "begun", text = args.device, severity = "warning" })
        log(one.status, one.error == "")
        local two = notify("missing", { title = "t" })
        log(two.status, two.error)""",
    )
    async with room:
        run = await room.ended(await room.run("s", device="lamp"))
    assert (run.status, run.log) == ("succeeded", ["queued true", "refused no channel missing"])
    assert room.effects.notices == [Notice("default", "scene:s", "ops", "begun", "lamp", "warning")]


async def test_a_scene_learns_that_the_database_refused(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    room.effects.failures = [StorageFailed("disk full")]
    room.write("s", 'local one = notify("ops", { title = "t" }) log(one.status, one.error)')
    async with room:
        run = await room.ended(await room.run("s"))
    assert run.log == ["refused disk full"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("notify('ops')", "takes a channel and a table"),
        ("notify({})", "takes a channel and a table"),
        ("notify('ops', {})", "title is missing"),
        ("notify('ops', { title = 't', device = 'd' })", "unknown field 'device'"),
        ("notify('ops', { title = 5 })", "title must be text"),
        ("notify('ops', { title = 't', severity = 'loud' })", "severity is one of"),
        ("notify('ops', { title = 't', text = ('热'):rep(4001) })", "at most 4000 characters"),
        ("notify('ops', { title = 't', text = '\\xff' })", "at most 4000 characters"),
        ("coroutine.wrap(function() notify('ops', { title = 't' }) end)()", "coroutine of your own"),
    ],
)
async def test_misuse_in_a_scene_fails_the_run(tmp_path: Path, call: str, error: str) -> None:
    room = SceneRoom(tmp_path)
    room.write("s", call)
    async with room:
        run = await room.ended(await room.run("s"))
    assert run.status == "failed"
    assert error in run.error
    assert room.effects.notices == []
