"""Sessions: which device speaks on which connection, and whether it is online.

Owns the binding of devices to connections. Does not know what frames mean, nor how bytes travel.
"""

from __future__ import annotations

from typing import Protocol

from gateway.core.clock import Clock
from gateway.core.flow import Commit, Event, Seen
from gateway.things.model import Device

SEEN_EVERY_MS = 30_000
"""How stale a stored `last_seen` may get while a device keeps reporting: bounds writes, not knowledge."""


class Line(Protocol):
    """The side of a connection that a session needs."""

    peer: str
    listener: str

    def send(self, data: bytes) -> None:
        """Queue bytes for the peer."""
        ...

    def close(self, reason: str) -> None:
        """Close the connection."""
        ...


class Session:
    """One device on one connection. `proven` is None until the device presents a credential."""

    __slots__ = ("device", "line", "proven", "seen_stored_ms", "served")

    def __init__(self, device: Device, line: Line) -> None:
        """Start unproven; `served` once the device was reached by it."""
        self.device = device
        self.line = line
        self.proven: bool | None = None
        self.served = False
        self.seen_stored_ms = 0


class SessionRegistry:
    """The session by which each online device is reached. The newest binding wins, unless only the older is proven."""

    def __init__(self, clock: Clock) -> None:
        """Start with every device offline."""
        self._clock = clock
        self._by_key: dict[int, Session] = {}

    def __len__(self) -> int:
        """Devices online."""
        return len(self._by_key)

    def of(self, device: Device) -> Session | None:
        """The session of a device, None while it is offline."""
        return self._by_key.get(device.key)

    def bind(self, session: Session, commit: Commit) -> Session | None:
        """Reach the device by this session from now on; return the session it replaces, if any.

        A device that was offline goes online: state and event are added to `commit`.
        """
        device = session.device
        present = self._by_key.get(device.key)
        if present is session or (present is not None and present.proven and not session.proven):
            return None
        self._by_key[device.key] = session
        session.served = True
        now = self._clock.now_ms()
        self._store_seen(session, now, commit)
        if present is None:
            device.online = True
            data = {"listener": session.line.listener, "peer": session.line.peer}
            commit.events.append(Event(device.tenant_id, "device.online", now, device.id, data))
        return present

    def touch(self, session: Session, now_ms: int, commit: Commit) -> None:
        """The device was heard; store that now and then."""
        session.device.last_seen_ms = now_ms
        if now_ms - session.seen_stored_ms >= SEEN_EVERY_MS and self._by_key.get(session.device.key) is session:
            self._store_seen(session, now_ms, commit)

    def release(self, session: Session, reason: str, commit: Commit) -> bool:
        """The session is over; False when another one serves the device.

        After a refused commit `served` is set again, and a device that is offline still is written again.
        """
        device = session.device
        present = self._by_key.get(device.key)
        if present is not session and (present is not None or not session.served):
            return False
        self._by_key.pop(device.key, None)
        session.served = False
        device.online = False
        now = self._clock.now_ms()
        commit.seen[device.key] = Seen(device.key, online=False, at_ms=device.last_seen_ms or now)
        commit.events.append(Event(device.tenant_id, "device.offline", now, device.id, {"reason": reason}))
        return True

    def forget(self, session: Session) -> None:
        """Undo a binding whose commit was refused: the device was never durably online by it."""
        if self._by_key.get(session.device.key) is session:
            del self._by_key[session.device.key]
            session.device.online = False
            session.served = False

    def _store_seen(self, session: Session, now_ms: int, commit: Commit) -> None:
        session.device.last_seen_ms = now_ms
        session.seen_stored_ms = now_ms
        commit.seen[session.device.key] = Seen(session.device.key, online=True, at_ms=now_ms)


def left_online(devices: list[Device], clock: Clock) -> Commit:
    """Set devices offline that a crash left online, as a commit for the start."""
    commit = Commit()
    now = clock.now_ms()
    for device in devices:
        if device.online:
            device.online = False
            commit.seen[device.key] = Seen(device.key, online=False, at_ms=device.last_seen_ms or now)
            commit.events.append(
                Event(device.tenant_id, "device.offline", now, device.id, {"reason": "gateway_restarted"})
            )
    return commit
