"""What an extension's listener does wrong costs that listener, and neither the others nor the figures of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import structlog
from fakes.traffic import FakeClock

from gateway.app.listeners import ListenerFleet
from gateway.core.errors import ConfigError
from gateway.core.metrics import Sample
from gateway.core.tasks import Supervisor
from gateway.extensions.hookspecs import ListenerKind


class DoorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A listener that opens nothing."""

    type: str
    product: str
    fails: str = ""
    port: int = 0
    framing: dict[str, Any] | None = None
    bind: str | None = None


@dataclass
class Door:
    """Fails at what its configuration says."""

    name: str
    config: DoorConfig
    open: bool = False
    connections: int = 3

    def _maybe_fail(self, at: str) -> None:
        if self.config.fails == at:
            raise RuntimeError(f"a bug at {at}")

    async def start(self, host: str) -> tuple[str, int]:
        self._maybe_fail("start")
        self.open = True
        return host, 4711

    async def stop(self) -> None:
        self._maybe_fail("stop")
        self.open = False

    def samples(self) -> list[Sample]:
        self._maybe_fail("samples")
        return [Sample("gateway_listener_frames_total", "Frames.", "counter", {"listener": self.name}, 7)]


@pytest.fixture
def made() -> list[Door]:
    return []


@pytest.fixture
def fleet(made: list[Door]) -> ListenerFleet:
    def make(name: str, config: DoorConfig, **_: Any) -> Door:
        made.append(Door(name, config))
        return made[-1]

    clock = FakeClock()
    kinds = {"door": ListenerKind(DoorConfig, make)}
    return ListenerFleet(kinds, lambda _product: None, None, Supervisor(clock), clock)  # type: ignore[arg-type]


def declared(fails: str) -> dict[str, dict[str, Any]]:
    return {"bad": {"type": "door", "product": "p", "fails": fails}, "good": {"type": "door", "product": "p"}}


async def test_a_listener_that_fails_to_start_is_named_with_why(fleet: ListenerFleet) -> None:
    with structlog.testing.capture_logs(), pytest.raises(ConfigError, match=r"listeners\.bad: .* a bug at start; see"):
        await fleet.reconcile(declared("start"), "127.0.0.1")


async def test_a_listener_that_fails_to_stop_keeps_no_other_running(fleet: ListenerFleet, made: list[Door]) -> None:
    await fleet.reconcile(declared("stop"), "127.0.0.1")
    with structlog.testing.capture_logs() as lines:
        await fleet.stop()
    assert {door.name: door.open for door in made} == {"bad": True, "good": False}
    assert [(line["event"], line["listener"]) for line in lines] == [("a listener does not stop", "bad")]


async def test_a_listener_without_figures_hides_no_others(fleet: ListenerFleet) -> None:
    await fleet.reconcile(declared("samples"), "127.0.0.1")
    with structlog.testing.capture_logs():
        assert [sample.labels for sample in fleet.samples()] == [{"listener": "good"}]
        assert {one.name: (one.connections, one.counters) for one in fleet.listeners()} == {
            "bad": (0, {}),
            "good": (3, {"frames": 7}),
        }
