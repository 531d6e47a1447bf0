"""Rules and scenes without the rest of a gateway: effects that remember, and a rules host with a real worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.core.bus import Bus
from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import GatewayError, NotFound
from gateway.core.flow import AlarmChange, Event, Message, StateDelta
from gateway.core.tasks import Supervisor
from gateway.rules.config import RulesConfig, SandboxLimits
from gateway.rules.host import RulesHost
from gateway.rules.model import Notice, RuleEffects, RuleStatus, WantedReport

QUICK = SandboxLimits(budget=300_000, cpu_ms=60, kill_after_ms=300)


class SetClock(Clock):
    """A clock that stands until it is set."""

    def __init__(self, at_ms: int = 1_800_000_000_000) -> None:
        self.at_ms = at_ms
        self.at_s = 1000.0

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_s


class RecordingEffects(RuleEffects):
    """Remembers what rules and scenes wanted. `failures` are raised by the next calls of `apply`, one each."""

    def __init__(self) -> None:
        self.applied: list[tuple[list[AlarmChange], list[StateDelta]]] = []
        self.failures: list[GatewayError] = []
        self.commands: list[tuple[str, str, dict[str, Any], str, float]] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.plugins: dict[str, Callable[..., Any]] = {}
        self.plugin_calls: list[tuple[str, dict[str, Any], float]] = []
        self.reports: list[tuple[WantedReport, str]] = []
        self.summary: dict[str, Any] = {"mean": 1.5}
        self.scenes: list[tuple[str, dict[str, Any], str]] = []
        self.notices: list[Notice] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.applied.append((changes, deltas))

    async def command(
        self, tenant_id: str, device_id: str, name: str, args: dict[str, Any], actor: str, timeout_s: float
    ) -> dict[str, Any]:
        self.commands.append((device_id, name, args, actor, timeout_s))
        await self.hold.wait()
        return self.answers.get(name, {"id": "c1", "status": "acknowledged", "error": ""})

    async def call_plugin(self, plugin_id: str, args: dict[str, Any], timeout_s: float, most_bytes: int) -> Any:
        self.plugin_calls.append((plugin_id, args, timeout_s))
        if plugin_id not in self.plugins:
            raise NotFound(f"no plugin {plugin_id!r}")
        answer = self.plugins[plugin_id](args)
        return await answer if isawaitable(answer) else answer

    async def run_report(self, tenant_id: str, wanted: WantedReport, actor: str) -> dict[str, Any]:
        self.reports.append((wanted, actor))
        if wanted.plugin_id == "missing":
            raise NotFound("no plugin 'missing'")
        return {"id": "r1", "points": 2, "row_count": 1, "summary": self.summary}

    async def notify(self, notices: Sequence[Notice]) -> list[str]:
        if self.failures:
            raise self.failures.pop(0)
        taken = [notice for notice in notices if notice.channel != "missing"]
        self.notices += taken
        return ["" if notice in taken else "no channel missing" for notice in notices]

    async def run_scene(self, tenant_id: str, scene: str, args: dict[str, Any], actor: str) -> None:
        if scene == "missing":
            raise NotFound("no scene missing")
        self.scenes.append((scene, args, actor))

    @property
    def changes(self) -> list[AlarmChange]:
        return [change for changes, _ in self.applied for change in changes]

    @property
    def alarms(self) -> list[tuple[str, str, str]]:
        """(what, device, rule) of every change."""
        return [(change.what, change.device_id, change.rule) for change in self.changes]

    def state(self, rule: str, device: str) -> dict[str, Any]:
        """What was last written of a rule's memory."""
        found: dict[str, Any] = {}
        for _, deltas in self.applied:
            for delta in deltas:
                if (delta.rule, delta.device_id) == (rule, device):
                    found = delta.data
        return found


def message(device: str = "d1", at: int = 1000, product: str = "meter", **values: Any) -> Message:
    return Message("default", product, device, 1, at, at + 5, values or {"x": 1})


def event(kind: str, device: str | None = "d1", tenant: str = "default", **data: Any) -> Event:
    return Event(tenant, kind, 1000, device, data)


async def until(look: Callable[[], Any], within_s: float = 15.0) -> Any:
    """Wait for what happens soon; fail with the last answer."""
    ends = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < ends, f"not within {within_s} s; last seen: {seen!r}"
        await asyncio.sleep(0.01)
    return seen


class RuleRoom:
    """A rules host with its worker, a folder of rules, and a bus; `async with` starts and stops it."""

    def __init__(
        self, folder: Path, *, state: list[StateDelta] | None = None, clock: Clock | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.clock = clock or SystemClock()
        self.supervisor = Supervisor(self.clock)
        self.bus = Bus()
        self.effects = RecordingEffects()
        quick = {"poll_s": 0.05, "keep_s": 0.02, "limits": QUICK}
        self.config = RulesConfig(directory=str(folder), **(quick | settings))
        self.host = RulesHost(self.config, self.supervisor, self.clock, self.bus, self.effects, state or [])

    def write(self, name: str, source: str) -> Path:
        path = self.folder / f"{name}.lua"
        path.write_text(source)
        return path

    def handler(self, name: str, body: str) -> Path:
        """A rule that does `body` on every message."""
        return self.write(name, f"on.message{{}}(function(msg, state)\n{body}\nend)")

    async def __aenter__(self) -> Self:
        await self.host.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.host.stop()
        await self.supervisor.stop()

    def publish(self, *messages: Message) -> None:
        self.bus.messages.publish(list(messages))

    def status(self, name: str) -> RuleStatus:
        return next(status for status in self.host.statuses() if status.name == name)

    def figure(self, name: str) -> float:
        return next(sample.value for sample in self.host.samples() if sample.name == name)

    async def evaluated(self, name: str, count: int) -> RuleStatus:
        """Wait until a rule was called so often."""
        await until(lambda: self.status(name).evaluated >= count)
        return self.status(name)
