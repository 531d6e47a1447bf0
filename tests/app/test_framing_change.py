"""Listeners follow the framing of a plugin's new version, and only the listeners that it concerns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from fakes.traffic import FakeClock

from gateway.app.listeners import ListenerFleet
from gateway.core.errors import ConfigError
from gateway.core.tasks import Supervisor
from gateway.extensions.hookspecs import ListenerKind
from gateway.framing.spec import FramingSpec, framing_spec

HASH = framing_spec({"type": "delimiter", "delimiter": "23"}, "test")
LINE = framing_spec({"type": "delimiter", "delimiter": "0a"}, "test")


class PostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A listener that opens nothing."""

    type: str
    product: str
    port: int = 0
    framing: dict[str, Any] | None = None
    bind: str | None = None


TAKEN: set[int] = set()
"""Ports that another process has."""


@dataclass
class Post:
    """What a listener was made with, and whether it still accepts."""

    name: str
    config: PostConfig
    framing: FramingSpec
    open: bool = False
    connections: int = 0

    async def start(self, host: str) -> tuple[str, int]:
        if self.config.port in TAKEN:
            raise ConfigError(f"port {self.config.port} is in use")
        self.open = True
        return host, self.config.port or 4711

    async def stop(self) -> None:
        self.open = False

    def samples(self) -> list[Any]:
        return []


@dataclass
class Street:
    """A fleet of posts, and the framings that the products' plugins name."""

    framings: dict[str, FramingSpec | None]
    made: list[Post] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = FakeClock()
        kinds = {"post": ListenerKind(PostConfig, self._make)}
        self.fleet = ListenerFleet(kinds, self._framing_of, None, Supervisor(clock), clock)  # type: ignore[arg-type]

    def _framing_of(self, product: str) -> FramingSpec | None:
        framing = self.framings[product]
        if framing is None:
            raise ConfigError("its plugin cannot be read")
        return framing

    def _make(self, name: str, config: PostConfig, *, framing: FramingSpec, **_: Any) -> Post:
        self.made.append(Post(name, config, framing))
        return self.made[-1]

    def running(self) -> dict[str, Post]:
        return {post.name: post for post in self.made if post.open}


@pytest.fixture
async def street() -> Street:
    made = Street({"meter": LINE, "truck": LINE})
    entries = {
        "a": {"type": "post", "product": "meter"},
        "b": {"type": "post", "product": "truck"},
        "own": {"type": "post", "product": "meter", "framing": {"type": "none"}},
    }
    await made.fleet.reconcile(entries, "127.0.0.1")
    return made


async def test_a_changed_framing_restarts_the_listeners_of_that_plugin_on_their_ports(street: Street) -> None:
    before = street.running()
    street.framings["meter"] = HASH
    await street.fleet.read_framings()
    after = street.running()
    assert after["a"].framing == HASH
    assert after["a"].config.port == 4711  # a free port was asked for: the one that it had is kept
    assert after["b"] is before["b"]
    assert after["own"] is before["own"]  # a framing of its own overrides the plugin's
    assert street.fleet.bound["a"] == ("127.0.0.1", 4711)


async def test_the_same_framing_restarts_nothing(street: Street) -> None:
    before = street.running()
    await street.fleet.read_framings()
    assert street.running() == before
    assert len(street.made) == 3


async def test_a_framing_that_cannot_be_read_restarts_nothing(street: Street) -> None:
    street.framings["meter"] = None
    with pytest.raises(ConfigError, match=r"listeners\.a"):
        await street.fleet.read_framings()
    assert set(street.running()) == {"a", "b", "own"}


async def test_a_reload_of_the_configuration_after_it_restarts_nothing_again(street: Street) -> None:
    street.framings["meter"] = HASH
    await street.fleet.read_framings()
    made = len(street.made)
    entries = {"a": {"type": "post", "product": "meter"}, "b": {"type": "post", "product": "truck"}}
    await street.fleet.reconcile(entries, "127.0.0.1")
    assert len(street.made) == made
    assert set(street.running()) == {"a", "b"}


async def test_a_framing_that_cannot_be_read_keeps_no_other_listener_from_its_own(street: Street) -> None:
    street.framings |= {"meter": None, "truck": HASH}
    with pytest.raises(ConfigError, match=r"listeners\.a"):
        await street.fleet.read_framings()
    assert street.running()["b"].framing == HASH


async def test_a_listener_that_does_not_start_after_its_stop_is_tried_again(street: Street) -> None:
    street.framings["meter"] = HASH
    TAKEN.add(4711)
    try:
        with pytest.raises(ConfigError, match="in use"):
            await street.fleet.read_framings()
        assert "a" not in street.running()
    finally:
        TAKEN.clear()
    await street.fleet.read_framings()
    assert street.running()["a"].framing == HASH
    assert street.fleet.bound["a"] == ("127.0.0.1", 4711)
