"""The types that travel through the gateway, from socket to rule.

Owns their shape and nothing else. The way they go is `gateway/pipeline.py`:

    bytes --framer--> frame --codec--> Decoded --things--> Message --journal--> stored, then acknowledged,
    then published on the bus to rules, alarms and live streams.

Times are epoch milliseconds UTC on the hot path (`*_ms`) and RFC 3339 at the API.
"""

from __future__ import annotations

import enum
from typing import Any, Literal, TypeAlias

import msgspec

Value: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any] | None"
"""What a property may hold: the JSON types."""


class Quality(enum.StrEnum):
    """How far a point may be trusted. Every stored point has one; anything but GOOD says why."""

    GOOD = "good"
    OUT_OF_RANGE = "out_of_range"
    BAD_TYPE = "bad_type"
    UNKNOWN_PROPERTY = "unknown_property"


Kind = Literal["report", "event", "register", "authenticate", "heartbeat", "logout", "reply"]


class Point(msgspec.Struct, gc=False):
    """Property values that a device observed at one instant; `at` None means "when it arrived"."""

    at: int | None = None
    values: dict[str, Any] = {}


class Notice(msgspec.Struct, gc=False):
    """An event that a device reports: a name of its thing model and free data."""

    name: str
    data: dict[str, Any] = {}


class Decoded(msgspec.Struct, gc=False):
    """One message as a codec plugin returns it (ABI gw1): the whole of what the core knows of a protocol.

    device: the name the protocol gives the device, None on a session that is already bound.
    reply_to, ok: the serial of the command that this message answers, and whether it succeeded.
    credential: what an `authenticate` presents.
    ack: an encode request (`{command, args}`), kept as msgpack; sent to the device after commit.
    value: what try-decode shows, kept as msgpack.
    """

    kind: Kind
    device: str | None = None
    points: list[Point] = []
    event: Notice | None = None
    reply_to: int | None = None
    ok: bool = True
    credential: str | None = None
    ack: msgspec.Raw = msgspec.Raw()
    value: msgspec.Raw = msgspec.Raw()


class Message(msgspec.Struct, gc=False):
    """Normalised property values of one device at one instant: what is stored and what rules see.

    quality: the points that are not good, by property.
    seq: position in the journal, set when stored.
    """

    tenant_id: str
    product_id: str
    device_id: str
    device_key: int
    observed_at_ms: int
    received_at_ms: int
    values: dict[str, Any]
    quality: dict[str, Quality] | None = None
    seq: int = 0


class Event(msgspec.Struct, gc=False):
    """Something that happened once: `device.online`, `device.event`, `alarm.raised`, `scene.failed`, ...

    seq: position in the event outbox, set when stored; the id by which a live stream resumes.
    """

    tenant_id: str
    type: str
    at_ms: int
    device_id: str | None = None
    data: dict[str, Any] = {}
    seq: int = 0


class DeadLetter(msgspec.Struct, gc=False):
    """A frame that no codec could turn into a message, kept so that nothing vanishes silently."""

    tenant_id: str
    product_id: str
    plugin_id: str
    reason: str
    frame: bytes
    at_ms: int
    device_id: str | None = None


class NewDevice(msgspec.Struct, gc=False):
    """A device that registered itself; stored in the same transaction as its first message."""

    key: int
    tenant_id: str
    product_id: str
    device_id: str
    at_ms: int


class Seen(msgspec.Struct, gc=False):
    """A change of a device's session: when it was last heard and whether it is connected."""

    device_key: int
    online: bool
    at_ms: int


class CredentialHash(msgspec.Struct, gc=False):
    """A device credential to remember, hashed. `source` says who chose it."""

    device_key: int
    digest: str
    source: Literal["issued", "adopted"]


class Commit(msgspec.Struct):
    """Everything of one pipeline turn that becomes durable in one transaction, or not at all.

    ledger: what became of this turn's frames, added to the database's ledger: `stored`, and `shed:<reason>`.
    """

    devices: list[NewDevice] = []
    credentials: list[CredentialHash] = []
    messages: list[Message] = []
    seen: dict[int, Seen] = {}
    events: list[Event] = []
    dead_letters: list[DeadLetter] = []
    ledger: dict[str, int] = {}


Severity = Literal["info", "warning", "minor", "major", "critical"]


class AlarmChange(msgspec.Struct, frozen=True, gc=False):
    """Raise or clear an alarm, as a rule asked. `at_ms` is when the message that caused it was received.

    occurrences: how many raises this one stands for; repeats of an active alarm are written together.
    """

    what: Literal["raise", "clear"]
    tenant_id: str
    device_id: str
    rule: str
    at_ms: int
    severity: Severity = "warning"
    message: str = ""
    data: dict[str, Any] = {}
    occurrences: int = 1


class StateDelta(msgspec.Struct, frozen=True, gc=False):
    """What a rule remembers of a device changed; an empty `data` forgets it."""

    tenant_id: str
    rule: str
    device_id: str
    data: dict[str, Any]
