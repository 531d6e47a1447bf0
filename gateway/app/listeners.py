"""The device listeners that the configuration declares, kept by difference: a changed entry restarts only itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import structlog
from typing_extensions import override

from gateway.api.parts import Listeners, ListenerStatus
from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, GatewayError
from gateway.core.metrics import Sample
from gateway.core.plain import nearest, typed
from gateway.core.scope import DEFAULT_TENANT
from gateway.core.tasks import Supervisor
from gateway.extensions.hookspecs import ListenerKind
from gateway.extensions.wall import ExtensionFailed, wall
from gateway.framing.spec import FramingSpec, NoneSpec, framing_spec
from gateway.listeners.connection import FrameSink

log = structlog.get_logger(__name__)


class Entry(NamedTuple):
    """One `[listeners.NAME]`, read: as it stands in the file, typed, and with its framing."""

    plain: dict[str, Any]
    config: Any
    framing: FramingSpec


def read_entry(
    name: str,
    plain: dict[str, Any],
    kinds: Mapping[str, ListenerKind],
    framing_of: Callable[[str], FramingSpec | None],
) -> Entry:
    """Read an entry without opening a socket. Raises ConfigError naming it."""
    where = f"listeners.{name}"
    kind = kinds.get(str(plain.get("type")))
    if kind is None:
        given = f"unknown type `{plain['type']}`" if "type" in plain else "has no `type`"
        raise ConfigError(f"{where}: {given}; {nearest(str(plain.get('type')), kinds)}")
    config: Any = typed(plain, kind.config, where)
    if config.framing is not None:
        return Entry(plain, config, framing_spec(config.framing, f"{where}.framing"))
    try:
        return Entry(plain, config, framing_of(config.product) or NoneSpec())
    except GatewayError as failure:
        raise ConfigError(f"{where}: {failure}") from failure


class _Running(msgspec.Struct):
    """One listener that accepts."""

    entry: Entry
    listener: Any
    host: str
    port: int


class ListenerFleet(Listeners):
    """Starts, restarts and stops listeners until the running ones are those declared."""

    def __init__(
        self,
        kinds: Mapping[str, ListenerKind],
        framing_of: Callable[[str], FramingSpec | None],
        sink: FrameSink,
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        """`kinds` by the `type` of an entry; `framing_of` gives the framing of a product's plugin, if it names one."""
        self._kinds = kinds
        self._framing_of = framing_of
        self._sink = sink
        self._supervisor = supervisor
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._fallen: dict[str, _Running] = {}
        self._changing = asyncio.Lock()

    async def reconcile(self, declared: Mapping[str, dict[str, Any]], host: str) -> None:
        """Make the running listeners those declared. All entries are read before any socket is touched.

        Raises ConfigError naming the entry; at a start nothing is left listening then.
        """
        async with self._changing:
            wanted = {name: read_entry(name, plain, self._kinds, self._framing_of) for name, plain in declared.items()}
            self._fallen.clear()  # what is declared and does not run is started below
            for name in [name for name, running in self._running.items() if not _same(running.entry, wanted.get(name))]:
                await self._stop(name)
            for name, entry in wanted.items():
                if name not in self._running:
                    await self._start(name, entry, host)

    async def read_framings(self) -> None:
        """Restart the listeners whose product's plugin now cuts frames in another way, on the ports they have.

        Their peers connect again: bytes that were cut the old way cannot go on in the new one. Each is seen to by
        itself, and one that did not start again after its stop is tried anew. Raises ConfigError naming what failed.
        """
        failures: list[str] = []
        async with self._changing:
            for name, running in [*self._running.items(), *self._fallen.items()]:
                try:
                    await self._read_framing(name, running)
                except (GatewayError, OSError) as failure:
                    failures.append(str(failure))
        if failures:
            raise ConfigError("; ".join(failures))

    async def _read_framing(self, name: str, running: _Running) -> None:
        entry = read_entry(name, running.entry.plain, self._kinds, self._framing_of)
        if name in self._running:
            if entry.framing == running.entry.framing:
                return
            log.warning("listener restarts: its plugin cuts frames in another way now", listener=name)
            await self._stop(name)
        self._fallen[name] = running  # until it accepts again: somebody may have taken its port meanwhile
        config = msgspec.structs.replace(entry.config, port=running.port)
        await self._start(name, entry._replace(config=config), running.host)

    async def stop(self) -> None:
        """Stop every listener; peers are told."""
        for name in list(self._running):
            await self._stop(name)

    @property
    def bound(self) -> dict[str, tuple[str, int]]:
        """Address of each running listener, by name."""
        return {name: (running.host, running.port) for name, running in self._running.items()}

    @override
    def listeners(self) -> list[ListenerStatus]:
        return [_status(name, running) for name, running in self._running.items()]

    def samples(self) -> Iterator[Sample]:
        """Figures of every listener for `/metrics`."""
        for name, running in self._running.items():
            yield from _told(name, running.listener)[1]

    async def _start(self, name: str, entry: Entry, host: str) -> None:
        try:
            with wall(f"listener {name}", "start", GatewayError, OSError):
                listener = self._kinds[entry.plain["type"]].make(
                    name,
                    entry.config,
                    tenant_id=DEFAULT_TENANT,
                    framing=entry.framing,
                    sink=self._sink,
                    supervisor=self._supervisor,
                    clock=self._clock,
                )
                bound_host, port = await listener.start(host)
        except ExtensionFailed as failed:
            log.error("a listener does not start", listener=name, exc_info=failed.cause)
            raise ConfigError(f"listeners.{name}: it does not start: {failed.reason}; see its extension") from failed
        self._running[name] = _Running(entry, listener, bound_host, port)
        self._fallen.pop(name, None)

    async def _stop(self, name: str) -> None:
        running = self._running.pop(name)
        try:
            with wall(f"listener {name}", "stop"):
                await running.listener.stop()
        except ExtensionFailed as failed:
            log.error("a listener does not stop", listener=name, exc_info=failed.cause)


def _same(running: Entry, wanted: Entry | None) -> bool:
    return wanted is not None and running.plain == wanted.plain and running.framing == wanted.framing


def _status(name: str, running: _Running) -> ListenerStatus:
    connections, figures = _told(name, running.listener)
    return ListenerStatus(
        name=name,
        type=running.entry.plain["type"],
        state="running",
        host=running.host,
        port=running.port,
        product_id=running.entry.plain["product"],
        connections=connections,
        counters=_totals(figures),
    )


def _told(name: str, listener: Any) -> tuple[int, list[Sample]]:
    """A listener's connections and figures; none where its extension cannot tell them."""
    try:
        with wall(f"listener {name}", "samples"):
            return listener.connections, list(listener.samples())
    except ExtensionFailed as failed:
        log.error("a listener cannot tell its figures", listener=name, error=failed.reason)
        return 0, []


def _totals(samples: Iterable[Sample]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for sample in samples:
        name = sample.name.removeprefix("gateway_listener_").removesuffix("_total")
        if "reason" in sample.labels:
            name = f"{name}_{sample.labels['reason']}"
        totals[name] = sample.value
    return totals
