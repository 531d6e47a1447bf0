"""Admission: which device speaks on a connection, whether it may, and how it proves who it is.

Owns registration and authentication policy at run time. Does not know protocols: a codec says what a message is.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import structlog

from gateway.core.errors import NotReady, Rejected
from gateway.core.flow import Commit, CredentialHash, Decoded, Event, NewDevice
from gateway.core.log import safe_text
from gateway.listeners.connection import Connection
from gateway.things.model import Device, Product
from gateway.things.sessions import Session, SessionRegistry

log = structlog.get_logger(__name__)


class Directory(Protocol):
    """The catalog, as far as admission needs it."""

    def device_by_id(self, tenant_id: str, device_id: str) -> Device | None:
        """None when nobody registered it."""
        ...

    def allocate(self, tenant_id: str, product_id: str, device_id: str, at_ms: int) -> Device:
        """Admit an unknown device; raises Rejected for an id that cannot be one, NotReady when there are too many."""
        ...

    def forget(self, device: Device) -> None:
        """Undo `allocate`: its commit was refused."""
        ...


class Credentials(Protocol):
    """Device credentials."""

    def on_register(self, device: Device) -> tuple[bool, str | None]:
        """Whether a registration is admitted, and the credential to issue."""
        ...

    def on_authenticate(self, product: Product, device: Device, presented: str) -> bool:
        """Whether what the device presents is right (or adopted as its first)."""
        ...

    def digest(self, credential: str) -> str:
        """Keyed hash, for storage."""
        ...


class Link:
    """One connection with the devices that speak on it.

    poison: frames of it that made the plugin trap.
    closed: why it was closed, empty while it is open.
    """

    __slots__ = ("closed", "connection", "last", "poison", "sessions")

    def __init__(self, connection: Connection) -> None:
        """No device yet."""
        self.connection = connection
        self.sessions: dict[str, Session] = {}
        self.last: Session | None = None
        self.poison = 0
        self.closed = ""


class Arrivals:
    """What admission adds to one commit, and what must be undone if the commit is refused."""

    __slots__ = ("bound", "commit", "now_ms", "registered", "replaced")

    def __init__(self, now_ms: int) -> None:
        """Nothing yet."""
        self.now_ms = now_ms
        self.commit = Commit()
        self.bound: list[Session] = []
        self.registered: list[Device] = []
        self.replaced: list[tuple[Device, str | None, str | None]] = []


class Admission:
    """Finds, registers, proves and releases the devices of links."""

    def __init__(self, directory: Directory, sessions: SessionRegistry, credentials: Credentials) -> None:
        """Work on the catalog's devices."""
        self._directory = directory
        self._sessions = sessions
        self._credentials = credentials
        self.counts: Counter[str] = Counter()

    def session(self, arrivals: Arrivals, product: Product, link: Link, device_id: str | None) -> Session | str:
        """The session of a device on this link, opened when it speaks for the first time; else why it is refused."""
        if device_id is None:
            return "no_device"
        session = link.sessions.get(device_id)
        if session is None:
            device = self._admitted(arrivals, product, device_id)
            if isinstance(device, str):
                return device
            session = Session(device, link.connection)
            link.sessions[device_id] = session
        link.last = session
        if session.device.enabled and self._sessions.of(session.device) is None:
            self._bind(arrivals, session)
        return session

    def prove(self, arrivals: Arrivals, product: Product, session: Session, item: Decoded) -> tuple[bool, str | None]:
        """Registration or authentication: whether it is accepted, and the credential to tell the device."""
        device = session.device
        issued: str | None = None
        if not device.enabled:
            accepted = False
        elif item.kind == "register":
            accepted, issued = self._credentials.on_register(device)
            self._remember(arrivals, device, issued, "issued")
        else:
            presented = item.credential or ""
            accepted = self._credentials.on_authenticate(product, device, presented)
            session.proven = accepted
            if accepted and device.credential_digest is None:
                self._remember(arrivals, device, presented, "adopted")
        if accepted:
            self._bind(arrivals, session)
            self._sessions.touch(session, arrivals.now_ms, arrivals.commit)
        else:
            self.counts[f"{item.kind}_refused"] += 1
            log.warning("device refused", at=item.kind, device=safe_text(device.id), peer=session.line.peer)
        return accepted, issued

    def leave(self, link: Link, reason: str, commit: Commit) -> None:
        """The connection is gone: its devices go offline unless another serves them."""
        for session in link.sessions.values():
            self._sessions.release(session, reason, commit)

    def undo(self, arrivals: Arrivals, links: list[Link]) -> None:
        """The commit was refused: devices it registered or brought online are as before."""
        for device, digest, source in reversed(arrivals.replaced):
            device.credential_digest = digest
            device.credential_source = source  # type: ignore[assignment]  # what it was before
        for session in arrivals.bound:
            self._sessions.forget(session)
        for device in arrivals.registered:
            self._directory.forget(device)
        gone = {device.key for device in arrivals.registered}
        for link in links:
            for device_id in [name for name, session in link.sessions.items() if session.device.key in gone]:
                del link.sessions[device_id]
            if link.last is not None and link.last.device.key in gone:
                link.last = None

    def _admitted(self, arrivals: Arrivals, product: Product, device_id: str) -> Device | str:
        device = self._directory.device_by_id(product.tenant_id, device_id)
        if device is not None:
            return device if device.product_id == product.id else "wrong_product"
        if product.registration != "auto":
            return "unregistered"
        try:
            device = self._directory.allocate(product.tenant_id, product.id, device_id, arrivals.now_ms)
        except (NotReady, Rejected) as failure:
            self.counts["not_admitted"] += 1
            log.warning("device not admitted", device=safe_text(device_id), why=str(failure))
            return "not_admitted"
        arrivals.registered.append(device)
        now = arrivals.now_ms
        arrivals.commit.devices.append(NewDevice(device.key, device.tenant_id, product.id, device_id, now))
        event = Event(device.tenant_id, "device.registered", now, device_id, {"product": product.id})
        arrivals.commit.events.append(event)
        return device

    def _bind(self, arrivals: Arrivals, session: Session) -> None:
        if self._sessions.of(session.device) is session:
            return
        replaced = self._sessions.bind(session, arrivals.commit)
        if self._sessions.of(session.device) is not session:
            return
        arrivals.bound.append(session)
        if replaced is not None and replaced.line is not session.line:
            self.counts["sessions_replaced"] += 1
            log.warning("device on a second connection; the first is closed", device=safe_text(session.device.id))
            replaced.line.close("replaced")

    def _remember(self, arrivals: Arrivals, device: Device, credential: str | None, source: str) -> None:
        if not credential:
            return
        digest = self._credentials.digest(credential)
        if digest != device.credential_digest:
            arrivals.replaced.append((device, device.credential_digest, device.credential_source))
            device.credential_digest = digest
            device.credential_source = source  # type: ignore[assignment]  # "issued" or "adopted", by the callers
            arrivals.commit.credentials.append(CredentialHash(device.key, digest, source))  # type: ignore[arg-type]  # as above
