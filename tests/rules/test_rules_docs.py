"""The examples in docs/rules.md and the shipped rule do what the text says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes.rules_fakes import RuleRoom, event, message, until
from test_rules_scenes import SceneRoom

from gateway.core.flow import Message, Quality, StateDelta

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "rules.md").read_text()
EXAMPLES = {
    name: (kind, block)
    for block, kind, name in re.findall(r"```lua\n(-- (rule|scene): (\w+)\n.*?)```", TEXT, re.DOTALL)
}


def test_every_example_has_a_name_and_a_test() -> None:
    assert len(re.findall("```lua", TEXT)) == len(EXAMPLES)
    assert set(EXAMPLES) == {"overheated", "came_back", "vibration", "blink"}


async def test_the_rule_with_hysteresis(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write("file", EXAMPLES["overheated"][1])
    doubtful = message("b", 9, "boiler", temperature=500)
    doubtful.quality = {"temperature": Quality.OUT_OF_RANGE}
    async with room:
        room.publish(*(message("b", at, "boiler", temperature=t) for at, t in enumerate((70, 81, 90, 78, 74, 81))))
        room.publish(doubtful)
        status = await room.evaluated("overheated", 7)
        await until(lambda: len(room.effects.changes) == 3)
    assert (status.errors, status.last_error) == (0, "")
    assert [change.what for change in room.effects.changes] == ["raise", "clear", "raise"]


async def test_the_rule_with_events(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write("came_back", EXAMPLES["came_back"][1])
    late = event("device.online")
    late.at_ms = 1_000_000
    async with room:
        room.bus.events.publish([event("device.offline"), late])
        await until(lambda: room.effects.commands)
    assert room.effects.commands[0][:2] == ("d1", "locate")


async def test_the_rule_with_a_plugin(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write("vibration", EXAMPLES["vibration"][1])
    room.effects.plugins["fft"] = lambda args: {"rms": max(args["samples"]), "energies": [1.0]}
    async with room:
        room.publish(message(product="pump", samples=[1.0, 2.0]), message(product="pump", samples=[8.0]))
        status = await room.evaluated("vibration", 2)
        await until(lambda: room.effects.changes)
        assert (status.errors, status.last_error) == (0, "")
    assert [change.data for change in room.effects.changes] == [{"rms": 8.0}]
    assert room.effects.plugin_calls[0][1] == {"samples": [1.0, 2.0], "rate_hz": 1000, "bands": [[10, 100]]}


async def test_the_scene(tmp_path: Path) -> None:
    room = SceneRoom(tmp_path)
    (tmp_path / "blink.lua").write_text(EXAMPLES["blink"][1])
    async with room:
        run = await room.ended(await room.run("blink", device="lamp"))
    assert (run.status, run.log) == ("succeeded", ["switch true acknowledged", "switch false acknowledged"])


def position(
    at: int, speed: float, quality: Quality = Quality.GOOD, device: str = "013912345678", late: int = 10
) -> Message:
    values = {"latitude": 31.2, "longitude": 121.5, "speed_km_h": speed, "direction_deg": 90, "altitude_m": 4}
    listed = None if quality is Quality.GOOD else {"speed_km_h": quality}
    return Message("default", "jt808-terminal", device, 1, at, at + late, values, listed)


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ([79, 80], []),
        ([80.1], ["raise"]),
        ([90, 100, 81], ["raise"]),
        ([90, 76, 75, 90], ["raise"]),
        ([90, 74.9, 60], ["raise", "clear"]),
        ([90, 60, 90], ["raise", "clear", "raise"]),
        ([60, 50], []),
    ],
)
async def test_overspeed_raises_once_above_80_and_clears_below_75(
    tmp_path: Path, speeds: list[float], expected: list[str]
) -> None:
    room = RuleRoom(tmp_path)
    room.write("overspeed", (ROOT / "scripts" / "rules" / "overspeed.lua").read_text())
    async with room:
        room.publish(*(position(at, speed) for at, speed in enumerate(speeds, start=1)))
        status = await room.evaluated("overspeed", len(speeds))
        await until(lambda: len(room.effects.changes) == len(expected))
    assert status.errors == 0
    assert [change.what for change in room.effects.changes] == expected
    assert all(change.severity == "major" for change in room.effects.changes if change.what == "raise")


async def test_overspeed_ignores_doubtful_and_late_points_and_tells_terminals_apart(tmp_path: Path) -> None:
    room = RuleRoom(tmp_path)
    room.write("overspeed", (ROOT / "scripts" / "rules" / "overspeed.lua").read_text())
    async with room:
        room.publish(position(1000, 200, Quality.OUT_OF_RANGE), position(1000, 50), position(999, 120, late=20))
        await room.evaluated("overspeed", 3)
        assert room.effects.changes == []
        room.publish(position(1001, 90), position(500, 10, late=1000), position(1, 90, device="other"))
        await until(lambda: len(room.effects.changes) == 2)
        await room.evaluated("overspeed", 6)
    assert [(change.what, change.device_id) for change in room.effects.changes] == [
        ("raise", "013912345678"),
        ("raise", "other"),
    ]
    assert room.effects.changes[0].data == {"speed_km_h": 90, "latitude": 31.2, "longitude": 121.5}


@pytest.mark.parametrize("wrong_ms", [946_684_800_000, 4_070_908_800_000], ids=["2000", "2099"])
async def test_overspeed_outlives_a_point_of_another_century(tmp_path: Path, wrong_ms: int) -> None:
    now_ms = 1_800_000_000_000
    room = RuleRoom(tmp_path)
    room.write("overspeed", (ROOT / "scripts" / "rules" / "overspeed.lua").read_text())
    wrong = position(wrong_ms, 60)
    wrong.received_at_ms = now_ms + 1000
    async with room:
        room.publish(position(now_ms, 60), wrong, position(now_ms + 5000, 90), position(now_ms + 6000, 60))
        status = await room.evaluated("overspeed", 4)
        await until(lambda: len(room.effects.changes) == 2)
    assert status.errors == 0
    assert [change.what for change in room.effects.changes] == ["raise", "clear"]


async def test_overspeed_forgets_a_time_ahead_of_the_gateway_that_it_once_kept(tmp_path: Path) -> None:
    kept = [StateDelta("default", "overspeed", "013912345678", {"seen": 4_070_908_800_000})]
    room = RuleRoom(tmp_path, state=kept)
    room.write("overspeed", (ROOT / "scripts" / "rules" / "overspeed.lua").read_text())
    async with room:
        room.publish(position(1_800_000_000_000, 90))
        await until(lambda: room.effects.changes)
