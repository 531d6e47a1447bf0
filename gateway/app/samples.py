"""Every room's figures together, with the bus's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.core.bus import Bus
from gateway.core.metrics import Sample, Samples


class Figures:
    """What `/metrics` shows."""

    def __init__(self, rooms: Iterable[Samples], bus: Bus) -> None:
        """Ask these rooms and the bus."""
        self._rooms = tuple(rooms)
        self._bus = bus

    def samples(self) -> Iterator[Sample]:
        """Every figure as it stands now."""
        for room in self._rooms:
            yield from room()
        for topic, subscriptions in (
            ("messages", self._bus.messages.subscriptions),
            ("events", self._bus.events.subscriptions),
        ):
            waiting: dict[str, int] = {}
            shed: dict[str, int] = {}
            for subscription in subscriptions:
                waiting[subscription.name] = waiting.get(subscription.name, 0) + len(subscription)
                shed[subscription.name] = shed.get(subscription.name, 0) + subscription.shed
            for name, count in waiting.items():
                labels = {"topic": topic, "subscriber": name}
                yield Sample("gateway_bus_waiting", "Items that wait for a subscriber.", "gauge", labels, count)
                text = "Items a slow subscriber lost."
                yield Sample("gateway_bus_shed_total", text, "counter", labels, shed[name])
