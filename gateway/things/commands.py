"""Commands: functions invoked on devices, from request to the device's answer.

Owns time-outs, correlation and the way through the states. Does not know protocols: an encoder turns a request into
bytes, and the codec's `reply_to` finds the command again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

import msgspec
import structlog

from gateway.core.clock import Clock
from gateway.core.errors import CodecError, Conflict, NotFound, Rejected
from gateway.core.ids import new_id
from gateway.core.scope import Scope, system_scope
from gateway.core.tasks import Supervisor
from gateway.things.model import Command, Device, Product, ThingModel
from gateway.things.ports import CommandRepository, Page, PageRequest
from gateway.things.sessions import Session, SessionRegistry

log = structlog.get_logger(__name__)

Encoder = Callable[[Product, dict[str, Any]], bytes]
"""Turns `{command, args, device, serial}` into bytes by the product's codec; raises CodecError."""

_ENDED = frozenset({"acknowledged", "failed", "timeout", "expired"})


class Directory(Protocol):
    """Where devices and products are looked up (the catalog)."""

    def device(self, scope: Scope, device_id: str) -> Device:
        """Raises NotFound."""
        ...

    def product(self, scope: Scope, product_id: str) -> Product:
        """Raises NotFound."""
        ...


class CommandConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of commands.

    most_waiting: open commands of one device; a device that is offline must not gather them for ever.
    most_timeout_s: the longest time a caller may ask for.
    """

    most_waiting: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100
    most_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] = 86_400.0


class _Open:
    """A command that has not ended, with what is needed to end it."""

    __slots__ = ("command", "done", "serial", "timer")

    def __init__(self, command: Command, done: asyncio.Future[Command]) -> None:
        self.command = command
        self.done = done
        self.serial: int | None = None
        self.timer: asyncio.TimerHandle | None = None


class CommandService:
    """Sends commands to devices: at once when online, on connecting when not, never after their time is over."""

    def __init__(
        self,
        config: CommandConfig,
        repository: CommandRepository,
        directory: Directory,
        sessions: SessionRegistry,
        encoder: Encoder,
        clock: Clock,
        supervisor: Supervisor,
    ) -> None:
        """Start without open commands; `load` brings those of the last run."""
        self._config = config
        self._repository = repository
        self._directory = directory
        self._sessions = sessions
        self._encode = encoder
        self._clock = clock
        self._supervisor = supervisor
        self._open: dict[tuple[str, str], dict[str, _Open]] = {}
        self._serials: dict[tuple[str, str], int] = {}
        self.ended: dict[str, int] = {}

    async def load(self) -> None:
        """Take up what the last run left: what was sent can no longer be answered, what waits goes on waiting."""
        now = self._clock.now_ms()
        for command in await self._repository.open_commands():
            left_s = command.timeout_s - (now - command.created_at_ms) / 1000
            entry = self._enter(command)
            if command.status == "sent":
                self._end(entry, "timeout", "the gateway restarted before the device answered")
            elif left_s <= 0:
                self._end(entry, "expired", "not delivered in time")
            else:
                self._arm(entry, left_s)

    async def send(
        self, scope: Scope, device_id: str, name: str, args: dict[str, Any], timeout_s: float = 10.0
    ) -> Command:
        """Invoke a function: returns once it is sent, or queued for a device that is offline.

        Raises NotFound, Rejected for arguments that cannot be encoded, Conflict when the device is disabled or too
        many commands wait.
        """
        device = self._directory.device(scope, device_id)
        product = self._directory.product(scope, device.product_id)
        self._admit(device, product, name, timeout_s)
        command = Command(
            id=new_id(self._clock),
            tenant_id=scope.tenant_id,
            device_id=device_id,
            name=name,
            args=args,
            requested_by=scope.actor,
            timeout_s=timeout_s,
            created_at_ms=self._clock.now_ms(),
        )
        self._try_encode(product, command)
        entry = self._enter(command)
        self._arm(entry, timeout_s)
        await self._repository.save_command(scope, command)
        session = self._sessions.of(device)
        if session is not None:
            await self._deliver(entry, session, product)
        return command

    async def get(self, scope: Scope, command_id: str) -> Command:
        """Raises NotFound."""
        return await self._repository.get_command(scope, command_id)

    async def list(self, scope: Scope, device_id: str, page: PageRequest) -> Page[Command]:
        """Commands of a device, newest first; raises NotFound."""
        self._directory.device(scope, device_id)
        return await self._repository.list_commands(scope, device_id, page)

    async def wait(self, command: Command) -> Command:
        """Wait until a command of this process ended."""
        entry = self._open.get((command.tenant_id, command.device_id), {}).get(command.id)
        return command if entry is None else await asyncio.shield(entry.done)

    def session_bound(self, session: Session) -> None:
        """A device came online: deliver what waited for it, oldest first."""
        device = session.device
        waiting = [
            entry
            for entry in self._open.get((device.tenant_id, device.id), {}).values()
            if entry.command.status == "queued"
        ]
        if not waiting:
            return
        try:
            product = self._directory.product(system_scope(tenant_id=device.tenant_id), device.product_id)
        except NotFound:
            return
        self._supervisor.spawn("commands.deliver", self._deliver_all(waiting, session, product))

    def answered(self, device: Device, serial: int, result: dict[str, Any] | None, *, ok: bool) -> bool:
        """The device answered a serial; False when no command waits for it (late, or not ours)."""
        for entry in self._open.get((device.tenant_id, device.id), {}).values():
            if entry.serial == serial and entry.command.status == "sent":
                entry.command.result = result
                self._end(entry, "acknowledged" if ok else "failed", "" if ok else "the device refused")
                return True
        return False

    def close(self) -> None:
        """Withdraw the timers; open commands stay in the database for the next start."""
        for entries in self._open.values():
            for entry in entries.values():
                if entry.timer is not None:
                    entry.timer.cancel()
                entry.done.cancel()
        self._open.clear()

    def _admit(self, device: Device, product: Product, name: str, timeout_s: float) -> None:
        if not device.enabled or not product.enabled:
            raise Conflict(f"device {device.id} is disabled; enable it to send commands")
        if not 0 < timeout_s <= self._config.most_timeout_s:
            raise Rejected(f"timeout_s must be above 0 and at most {self._config.most_timeout_s:.0f}")
        if product.plugin_id is None:
            raise Rejected(f"product {product.id} has no codec plugin that could encode a command")
        _require_function(product.model, name)
        if len(self._open.get((device.tenant_id, device.id), {})) >= self._config.most_waiting:
            raise Conflict(f"{self._config.most_waiting} commands of device {device.id} are open; wait for their end")

    def _try_encode(self, product: Product, command: Command) -> None:
        """Refuse what the codec cannot encode before it is stored or queued."""
        try:
            self._encode(product, _request(command, serial=1))
        except CodecError as failure:
            raise Rejected(f"command {command.name}: {failure}") from failure

    def _enter(self, command: Command) -> _Open:
        done: asyncio.Future[Command] = asyncio.get_running_loop().create_future()
        entry = _Open(command, done)
        self._open.setdefault((command.tenant_id, command.device_id), {})[command.id] = entry
        return entry

    def _arm(self, entry: _Open, timeout_s: float) -> None:
        entry.timer = asyncio.get_running_loop().call_later(timeout_s, self._time_out, entry)

    async def _deliver_all(self, waiting: Sequence[_Open], session: Session, product: Product) -> None:
        for entry in waiting:
            await self._deliver(entry, session, product)

    async def _deliver(self, entry: _Open, session: Session, product: Product) -> None:
        """Send a command that waits: `sent` is durable before the bytes leave, so that no restart sends it again."""
        command = entry.command
        if command.status != "queued":
            return
        serial = self._next_serial(command)
        try:
            frame = self._encode(product, _request(command, serial))
        except CodecError as failure:
            self._end(entry, "failed", str(failure))
            return
        entry.serial = serial
        command.status = "sent"
        command.sent_at_ms = self._clock.now_ms()
        await self._repository.save_command(
            system_scope(command.requested_by, command.tenant_id), msgspec.structs.replace(command)
        )
        if command.status not in _ENDED:
            session.line.send(frame)

    def _next_serial(self, command: Command) -> int:
        """1..65535 and around, which every protocol's field can carry; per device, whatever the connection.

        Begins anywhere, so that a late answer to a command of the last run meets no command of this one.
        """
        device = (command.tenant_id, command.device_id)
        serial = self._serials.get(device, secrets.randbelow(0xFFFF)) % 0xFFFF + 1
        self._serials[device] = serial
        return serial

    def _time_out(self, entry: _Open) -> None:
        if entry.command.status == "sent":
            self._end(entry, "timeout", f"no answer within {entry.command.timeout_s:g} s")
        else:
            self._end(entry, "expired", f"the device was offline for {entry.command.timeout_s:g} s")

    def _end(self, entry: _Open, status: str, error: str) -> None:
        command = entry.command
        if command.status in _ENDED:
            return
        command.status = status  # type: ignore[assignment]  # one of the ended states, by the callers above
        command.error = error
        command.ended_at_ms = self._clock.now_ms()
        self.ended[status] = self.ended.get(status, 0) + 1
        if entry.timer is not None:
            entry.timer.cancel()
        device = (command.tenant_id, command.device_id)
        entries = self._open.get(device, {})
        entries.pop(command.id, None)
        if not entries:
            self._open.pop(device, None)
        if not entry.done.done():
            entry.done.set_result(command)
        self._save(command)

    def _save(self, command: Command) -> None:
        scope = system_scope(command.requested_by, command.tenant_id)
        snapshot = msgspec.structs.replace(command)
        self._supervisor.spawn("command.save", self._repository.save_command(scope, snapshot))


def _request(command: Command, serial: int) -> dict[str, Any]:
    return {"command": command.name, "args": command.args, "device": command.device_id, "serial": serial}


def _require_function(model: ThingModel, name: str) -> None:
    if name not in model.functions:
        known = ", ".join(sorted(model.functions)) or "none"
        raise Rejected(f"the product's thing model has no function {name!r}; it has: {known}")
