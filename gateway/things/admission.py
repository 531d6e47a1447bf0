"""Admission: which device speaks on a connection, whether it may, and how it proves who it is.

Owns registration and authentication policy at run time. Does not know protocols: a codec says what a message is.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from gateway.core.clock import Clock
from gateway.core.errors import NotReady, Rejected
from gateway.core.flow import Commit, CredentialHash, Decoded, Event, NewDevice
from gateway.core.log import safe_text
from gateway.listeners.connection import Connection
from gateway.listeners.quiet_log import QuietLog
from gateway.things.model import Device, Product
from gateway.things.sessions import Session, SessionRegistry

MOST_DEVICES: Final = 1_000
"""Devices that may speak on one connection, a concentrator's; a stranger must not invent devices without end."""


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

    number: distinguishes it from other connections, for codecs that keep something per stream; never 0.
    poison: when frames of it made the plugin trap, lately. refusals: refused registrations and authentications.
    closed: why it was closed, empty while it is open.
    """

    __slots__ = ("closed", "connection", "last", "number", "poison", "refusals", "sessions")

    def __init__(self, connection: Connection, number: int) -> None:
        """No device yet."""
        self.connection = connection
        self.number = number
        self.sessions: dict[str, Session] = {}
        self.last: Session | None = None
        self.poison: list[float] = []
        self.refusals = 0
        self.closed = ""


class Arrivals:
    """What admission adds to one commit, and what must be undone if the commit is refused."""

    __slots__ = ("bound", "commit", "departed", "now_ms", "proofs", "registered", "replaced")

    def __init__(self, now_ms: int) -> None:
        """Nothing yet."""
        self.now_ms = now_ms
        self.commit = Commit()
        self.bound: list[Session] = []
        self.registered: list[Device] = []
        self.departed: list[tuple[Session, str]] = []
        self.proofs: list[tuple[Session, bool | None]] = []
        self.replaced: list[tuple[Device, str | None, str | None]] = []


class Admission:
    """Finds, registers, proves and releases the devices of links."""

    def __init__(self, directory: Directory, sessions: SessionRegistry, credentials: Credentials, clock: Clock) -> None:
        """Work on the catalog's devices."""
        self._directory = directory
        self._sessions = sessions
        self._credentials = credentials
        self._quiet = QuietLog("admission", clock)
        self.counts: Counter[str] = Counter()

    def session(self, arrivals: Arrivals, product: Product, link: Link, device_id: str | None) -> Session | str:
        """The session of a device on this link, opened when it speaks for the first time; else why it is refused."""
        if device_id is None:
            return "no_device"
        session = link.sessions.get(device_id)
        if session is None:
            if len(link.sessions) >= MOST_DEVICES:
                return "too_many_devices"
            device = self._admitted(arrivals, product, device_id, link.connection.peer)
            if isinstance(device, str):
                return device
            session = Session(device, link.connection)
            link.sessions[device_id] = session
        link.last = session
        return session

    @staticmethod
    def refusal(product: Product, session: Session) -> str:
        """Why the device may not report on this session; empty when it may.

        A device whose credential an operator set must prove it, whatever the product says.
        """
        device = session.device
        if not device.enabled:
            return "device_disabled"
        if session.proven is True:
            return ""
        must = product.authentication == "required" or device.credential_source == "operator"
        return "unauthenticated" if must or session.proven is False else ""

    def heard(self, arrivals: Arrivals, session: Session) -> None:
        """A device that may speak did: it is reached by this session unless another one serves it."""
        if self._sessions.of(session.device) is None:
            self._bind(arrivals, session)
        self._sessions.touch(session, arrivals.now_ms, arrivals.commit)

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
            arrivals.proofs.append((session, session.proven))
            session.proven = accepted
            if accepted and device.credential_digest is None:
                self._remember(arrivals, device, presented, "adopted")
        if accepted and not self.refusal(product, session):
            self._bind(arrivals, session)
            self._sessions.touch(session, arrivals.now_ms, arrivals.commit)
        elif not accepted:
            self.counts[f"{item.kind}_refused"] += 1
            self._quiet.warn("device refused", item.kind, session.line.peer, safe_text(device.id))
            if self._sessions.release(session, "unauthenticated", arrivals.commit):
                arrivals.departed.append((session, "unauthenticated"))
        return accepted, issued

    def undo(self, arrivals: Arrivals, links: list[Link]) -> None:
        """The commit was refused: devices it registered or brought online are as before."""
        for device, digest, source in reversed(arrivals.replaced):
            device.credential_digest = digest
            device.credential_source = source  # type: ignore[assignment]  # what it was before
        for session, proven in reversed(arrivals.proofs):
            session.proven = proven
        for session in arrivals.bound:
            self._sessions.forget(session)
        for session, _ in arrivals.departed:
            session.served = True
        for device in arrivals.registered:
            self._directory.forget(device)
        gone = {device.key for device in arrivals.registered}
        for link in links:
            for device_id in [name for name, session in link.sessions.items() if session.device.key in gone]:
                del link.sessions[device_id]
            if link.last is not None and link.last.device.key in gone:
                link.last = None

    def _admitted(self, arrivals: Arrivals, product: Product, device_id: str, peer: str) -> Device | str:
        device = self._directory.device_by_id(product.tenant_id, device_id)
        if device is not None:
            return device if device.product_id == product.id else "wrong_product"
        if product.registration != "auto":
            return "unregistered"
        try:
            device = self._directory.allocate(product.tenant_id, product.id, device_id, arrivals.now_ms)
        except (NotReady, Rejected) as failure:
            self.counts["not_admitted"] += 1
            self._quiet.warn("device not admitted", failure.code, peer, f"{safe_text(device_id)}: {failure}")
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
            self._quiet.warn("first connection closed", "replaced", session.line.peer, safe_text(session.device.id))
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
