"""The newest value of each property, kept beside the journal in the same transaction.

Owns the rule of what is newer: the later observation, and of two at the same instant the one that arrived later. A late
reading thus never replaces a newer one; and since nothing is observed after it was received, a device whose clock runs
ahead does not pin its values. Devices that were heard lately are held in memory, the others are read when they speak.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.core.flow import Message, Quality

Points = dict[str, tuple[Any, Quality, int, int]]
"""Property -> value, quality, observed_at_ms, received_at_ms."""

_decode = msgspec.json.Decoder(Points).decode


class Newest:
    """Merges messages into the newest points of their devices.

    Bounds: devices in memory, the quietest go; properties of one device, more stand in the history only.
    """

    def __init__(self, most_devices: int, most_properties: int) -> None:
        """Hold nothing yet."""
        self._most_devices = most_devices
        self._most_properties = most_properties
        self._devices: OrderedDict[int, Points] = OrderedDict()

    def merge(self, connection: sqlite3.Connection, messages: Sequence[Message]) -> dict[int, Points]:
        """Take messages in order of arrival; returns the points of every device they concern, to be stored."""
        touched: dict[int, Points] = {}
        last: dict[int, Message] = {}
        taken: dict[int, set[str]] = {}
        for message in reversed(messages):
            key = message.device_key
            later = last.get(key)
            if later is None:
                last[key] = message
                taken[key] = set()
                touched[key] = self._points(connection, key)
            elif message.observed_at_ms <= later.observed_at_ms and message.values.keys() == later.values.keys():
                continue  # the usual case under load: the last message of the batch says it all
            self._take(touched[key], message, taken[key])
        while len(self._devices) > self._most_devices:
            self._devices.popitem(last=False)
        return touched

    def _take(self, points: Points, message: Message, taken: set[str]) -> None:
        """Put in what is newer. `taken`: names that a later arrival has set; it wins at the same instant."""
        received, qualities = message.received_at_ms, message.quality
        observed = min(message.observed_at_ms, received)
        for name, value in message.values.items():
            known = points.get(name)
            if known is None:
                if len(points) >= self._most_properties:
                    continue
            else:
                at = min(known[2], known[3])
                if at > observed or (at == observed and name in taken):
                    continue
            quality = Quality.GOOD if qualities is None else qualities.get(name, Quality.GOOD)
            points[name] = (value, quality, message.observed_at_ms, received)
            taken.add(name)

    def forget(self) -> None:
        """What was merged was not kept: believe the database again."""
        self._devices.clear()

    def _points(self, connection: sqlite3.Connection, key: int) -> Points:
        points = self._devices.get(key)
        if points is None:
            row = connection.execute("SELECT points FROM latest WHERE device_key = ?", (key,)).fetchone()
            points = self._devices[key] = {} if row is None else _decode(row[0])
        else:
            self._devices.move_to_end(key)
        return points
