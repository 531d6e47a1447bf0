"""Repositories and a journal in memory. They pass the same contract suites as the database's (tests/storage)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from typing_extensions import override

from gateway.alarms.model import Alarm, AlarmFilter, AlarmRepository
from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import Conflict, Forbidden, NotFound, NotReady, Rejected, StorageFailed
from gateway.core.flow import AlarmChange, Commit, Event, Message, StateDelta
from gateway.core.journal import Done, Journal
from gateway.core.scope import Scope
from gateway.identity.model import AuditEntry, AuditRepository, Role, TokenRepository, User, UserRepository, name_key
from gateway.rules.model import SceneRepository, SceneRun, Schedule
from gateway.storage.alarms import carry_out, event_of
from gateway.things.model import Command, Device, Product
from gateway.things.ports import (
    CommandRepository,
    DeviceFilter,
    DeviceRepository,
    Page,
    PageRequest,
    ProductRepository,
)

S = TypeVar("S", bound=msgspec.Struct)
Key = tuple[str, str]


def copied(item: S) -> S:
    """A copy that shares nothing, as a row read back."""
    return msgspec.convert(msgspec.to_builtins(item), type(item))


def page_of(items: Iterable[S], page: PageRequest, default: str, allowed: Iterable[str]) -> Page[S]:
    """Sort by a white-listed field and cut a page."""
    if page.page < 1 or page.limit < 1:
        raise Rejected("page and limit count from 1")
    sort = page.sort or default
    name = sort.removeprefix("-")
    field = next((f for f in allowed if name in {f, f.removesuffix("_ms")}), None)
    if field is None:
        raise Rejected("sort: no such field")
    found = sorted(
        items, key=lambda item: (getattr(item, field), getattr(item, "id", "")), reverse=sort.startswith("-")
    )
    start = (page.page - 1) * page.limit
    return Page([copied(item) for item in found[start : start + page.limit]], len(found), page.page, page.limit)


class MemoryStore:
    """What the fakes of one test share: the audit log, the event outbox, devices."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.audit: list[AuditEntry] = []
        self.events: list[Event] = []
        self.products: dict[Key, Product] = {}
        self.devices: dict[Key, Device] = {}
        self.last_device_key = 0
        self.commands: dict[Key, Command] = {}
        self.alarms: dict[Key, Alarm] = {}
        self.states: dict[tuple[str, str, str], dict[str, Any]] = {}

    def note(
        self,
        scope: Scope,
        action: str,
        entity: str,
        entity_id: str,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        entry = AuditEntry(
            seq=len(self.audit) + 1,
            tenant_id=scope.tenant_id,
            at_ms=self.clock.now_ms(),
            actor=scope.actor,
            action=action,
            entity=entity,
            entity_id=entity_id,
            before=before,
            after=after,
        )
        self.audit.append(entry)

    def publish(self, events: list[Event]) -> list[Event]:
        for event in events:
            event.seq = len(self.events) + 1
            self.events.append(event)
        return events

    def put(self, scope: Scope, table: dict[Key, S], entity: str, item: S, secret: tuple[str, ...] = ()) -> S | None:
        """Keep a copy in the scope's tenant, with audit; returns what it replaces."""
        row = msgspec.to_builtins(item)
        if row["tenant_id"] != scope.tenant_id:
            raise Forbidden("the object belongs to another tenant")
        key = (scope.tenant_id, row["id"])
        before = table.get(key)
        table[key] = copied(item)
        self.note(
            scope, "update" if before else "create", entity, row["id"], _public(before, secret), _public(item, secret)
        )
        return before

    def take(self, scope: Scope, table: dict[Key, S], entity: str, item_id: str, secret: tuple[str, ...] = ()) -> S:
        item = table.pop((scope.tenant_id, item_id), None)
        if item is None:
            raise NotFound(f"no {entity} {item_id}")
        self.note(scope, "delete", entity, item_id, _public(item, secret), None)
        return item


def _public(item: msgspec.Struct | None, secret: tuple[str, ...]) -> dict[str, Any] | None:
    if item is None:
        return None
    return {name: value for name, value in msgspec.to_builtins(item).items() if name not in secret}


def _mine(scope: Scope, table: dict[Key, S]) -> list[S]:
    return [item for (tenant_id, _), item in table.items() if tenant_id == scope.tenant_id]


class MemoryProducts(ProductRepository):
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    @override
    async def all_products(self) -> list[Product]:
        return [copied(self.store.products[key]) for key in sorted(self.store.products)]

    @override
    async def save_product(self, scope: Scope, product: Product) -> None:
        self.store.put(scope, self.store.products, "product", product)

    @override
    async def delete_product(self, scope: Scope, product_id: str) -> None:
        if any(device.product_id == product_id for device in _mine(scope, self.store.devices)):
            raise Conflict(f"product {product_id} still has devices")
        self.store.take(scope, self.store.products, "product", product_id)


_DEVICE_SECRET = ("key", "credential_digest", "online", "last_seen_ms")


class MemoryDevices(DeviceRepository):
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    @override
    async def all_devices(self) -> list[Device]:
        return [copied(device) for device in sorted(self.store.devices.values(), key=lambda device: device.key)]

    @override
    async def next_key(self) -> int:
        return max(self.store.last_device_key, *(device.key for device in self.store.devices.values()), 0) + 1

    @override
    async def add_device(self, scope: Scope, device: Device) -> None:
        if scope.tenant_id == device.tenant_id:
            present = self.store.devices.values()
            if any(o.key == device.key or (o.tenant_id, o.id) == (device.tenant_id, device.id) for o in present):
                raise Conflict(f"device {device.id} exists already")
            self._check(device)
        self.store.put(scope, self.store.devices, "device", device, _DEVICE_SECRET)
        self.store.last_device_key = max(self.store.last_device_key, device.key)

    @override
    async def save_device(self, scope: Scope, device: Device) -> None:
        if scope.tenant_id == device.tenant_id:
            present = self.store.devices.get((device.tenant_id, device.id))
            if present is None or present.key != device.key:
                raise NotFound(f"no device {device.id}")
            self._check(device)
        before = self.store.put(scope, self.store.devices, "device", device, _DEVICE_SECRET)
        if before is not None:
            kept = self.store.devices[device.tenant_id, device.id]
            kept.online, kept.last_seen_ms = before.online, before.last_seen_ms

    def _check(self, device: Device) -> None:
        # A store without any product serves tests that do not care for them.
        if self.store.products and (device.tenant_id, device.product_id) not in self.store.products:
            raise Rejected(f"product_id: no product {device.product_id}")

    @override
    async def delete_device(self, scope: Scope, device_id: str) -> None:
        gone = self.store.take(scope, self.store.devices, "device", device_id, _DEVICE_SECRET)
        self.store.last_device_key = max(self.store.last_device_key, gone.key)
        for table in (self.store.commands, self.store.alarms):
            for key, item in list(table.items()):
                if key[0] == scope.tenant_id and item.device_id == device_id:
                    del table[key]  # type: ignore[attr-defined]  # both are dictionaries
        for identity in [key for key in self.store.states if (key[0], key[2]) == (scope.tenant_id, device_id)]:
            del self.store.states[identity]

    @override
    async def list_devices(self, scope: Scope, which: DeviceFilter, page: PageRequest) -> Page[Device]:
        found = [device for device in _mine(scope, self.store.devices) if _fits(device, which)]
        return page_of(found, page, "id", ("id", "name", "product_id", "last_seen_ms", "created_at_ms"))


def _fits(device: Device, which: DeviceFilter) -> bool:
    tag, equals, wanted = (which.tag or "").partition("=")
    search = (which.search or "").lower()
    return (
        which.product_id in {None, device.product_id}
        and which.online in {None, device.online}
        and (which.tag is None or (tag in device.tags and (not equals or device.tags[tag] == wanted)))
        and (search in device.id.lower() or search in device.name.lower())
    )


class MemoryCommands(CommandRepository):
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    @override
    async def save_command(self, scope: Scope, command: Command) -> None:
        if command.tenant_id != scope.tenant_id:
            raise Forbidden("the object belongs to another tenant")
        self.store.commands[scope.tenant_id, command.id] = copied(command)

    @override
    async def get_command(self, scope: Scope, command_id: str) -> Command:
        command = self.store.commands.get((scope.tenant_id, command_id))
        if command is None:
            raise NotFound(f"no command {command_id}")
        return copied(command)

    @override
    async def list_commands(self, scope: Scope, device_id: str, page: PageRequest) -> Page[Command]:
        found = [command for command in _mine(scope, self.store.commands) if command.device_id == device_id]
        return page_of(found, page, "-created_at_ms", ("created_at_ms", "name", "status"))

    @override
    async def open_commands(self) -> list[Command]:
        found = [command for command in self.store.commands.values() if command.status in {"queued", "sent"}]
        return [copied(command) for command in sorted(found, key=lambda command: command.created_at_ms)]


class MemoryAlarms(AlarmRepository):
    """`fail_next` makes the next `apply` fail, as a full disk would."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.fail_next: StorageFailed | None = None

    @override
    async def apply(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> list[Event]:
        failure, self.fail_next = self.fail_next, None
        if failure is not None:
            raise failure
        active = {
            (alarm.tenant_id, alarm.device_id, alarm.rule): alarm
            for alarm in self.store.alarms.values()
            if alarm.state == "active"
        }
        touched, events = carry_out(active, changes, self.store.clock)
        self.store.alarms |= {(alarm.tenant_id, alarm.id): alarm for alarm in touched}
        for delta in deltas:
            identity = (delta.tenant_id, delta.rule, delta.device_id)
            self.store.states[identity] = delta.data
            if not delta.data:
                del self.store.states[identity]
        return self.store.publish(events)

    @override
    async def active_alarms(self) -> list[Alarm]:
        return [copied(alarm) for alarm in self.store.alarms.values() if alarm.state == "active"]

    @override
    async def load_state(self) -> list[StateDelta]:
        return [StateDelta(*identity, data) for identity, data in self.store.states.items()]

    @override
    async def acknowledge(self, scope: Scope, alarm_id: str) -> tuple[Alarm, list[Event]]:
        before = await self.get_alarm(scope, alarm_id)
        if before.acknowledged:
            return before, []
        after = msgspec.structs.replace(
            before, acknowledged=True, acknowledged_by=scope.actor, acknowledged_at_ms=self.store.clock.now_ms()
        )
        return self._by_hand(scope, "acknowledge", "alarm.acknowledged", before, after)

    @override
    async def clear(self, scope: Scope, alarm_id: str) -> tuple[Alarm, list[Event]]:
        before = await self.get_alarm(scope, alarm_id)
        if before.state == "cleared":
            raise Conflict("the alarm is cleared already")
        after = msgspec.structs.replace(
            before, state="cleared", cleared_by=scope.actor, cleared_at_ms=self.store.clock.now_ms()
        )
        self.store.states.pop((scope.tenant_id, before.rule, before.device_id), None)
        return self._by_hand(scope, "clear", "alarm.cleared", before, after)

    def _by_hand(self, scope: Scope, action: str, kind: str, before: Alarm, after: Alarm) -> tuple[Alarm, list[Event]]:
        self.store.alarms[scope.tenant_id, after.id] = copied(after)
        self.store.note(scope, action, "alarm", after.id, _public(before, ()), _public(after, ()))
        return after, self.store.publish([event_of(kind, after, self.store.clock.now_ms())])

    @override
    async def get_alarm(self, scope: Scope, alarm_id: str) -> Alarm:
        alarm = self.store.alarms.get((scope.tenant_id, alarm_id))
        if alarm is None:
            raise NotFound(f"no alarm {alarm_id}")
        return copied(alarm)

    @override
    async def list_alarms(self, scope: Scope, which: AlarmFilter, page: PageRequest) -> Page[Alarm]:
        wanted = {name: value for name, value in msgspec.structs.asdict(which).items() if value is not None}
        found = [
            alarm
            for alarm in _mine(scope, self.store.alarms)
            if all(getattr(alarm, name) == value for name, value in wanted.items())
        ]
        return page_of(found, page, "-raised_at_ms", ("raised_at_ms", "last_raised_at_ms", "severity", "state"))


class MemoryScenes(SceneRepository):
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.runs: dict[Key, SceneRun] = {}
        self.schedules: dict[Key, Schedule] = {}

    @override
    async def save_run(self, run: SceneRun) -> None:
        self.runs[run.tenant_id, run.id] = copied(run)

    @override
    async def fail_open_runs(self, error: str, at_ms: int) -> int:
        open_runs = [run for run in self.runs.values() if run.status in {"running", "sleeping"}]
        for run in open_runs:
            run.status, run.error, run.ended_at_ms, run.wakes_at_ms = "failed", error, at_ms, None
        return len(open_runs)

    @override
    async def get_run(self, scope: Scope, run_id: str) -> SceneRun:
        run = self.runs.get((scope.tenant_id, run_id))
        if run is None:
            raise NotFound(f"no scene run {run_id}")
        return copied(run)

    @override
    async def list_runs(self, scope: Scope, scene: str | None, page: PageRequest) -> Page[SceneRun]:
        found = [run for run in _mine(scope, self.runs) if scene in {None, run.scene}]
        return page_of(found, page, "-started_at_ms", ("started_at_ms", "scene", "status"))

    @override
    async def all_schedules(self) -> list[Schedule]:
        return [copied(self.schedules[key]) for key in sorted(self.schedules)]

    @override
    async def save_schedule(self, scope: Scope, schedule: Schedule) -> None:
        self.store.put(scope, self.schedules, "schedule", schedule)

    @override
    async def note_schedule_run(self, schedule: Schedule) -> None:
        kept = self.schedules.get((schedule.tenant_id, schedule.id))
        if kept is not None:
            kept.last_run_at_ms, kept.next_run_at_ms = schedule.last_run_at_ms, schedule.next_run_at_ms

    @override
    async def delete_schedule(self, scope: Scope, schedule_id: str) -> None:
        self.store.take(scope, self.schedules, "schedule", schedule_id)


class MemoryUsers(UserRepository):
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.users: dict[Key, User] = {}
        self.roles: dict[Key, Role] = {}

    @override
    async def find_user(self, username: str) -> User | None:
        return next(
            (copied(user) for user in self.users.values() if name_key(user.username) == name_key(username)), None
        )

    @override
    async def get_user(self, scope: Scope, user_id: str) -> User:
        user = self.users.get((scope.tenant_id, user_id))
        if user is None:
            raise NotFound(f"no user {user_id}")
        return copied(user)

    @override
    async def list_users(self, scope: Scope, page: PageRequest) -> Page[User]:
        return page_of(_mine(scope, self.users), page, "username", ("username", "created_at_ms"))

    @override
    async def save_user(self, scope: Scope, user: User) -> None:
        same_name = await self.find_user(user.username)
        if same_name is not None and (same_name.tenant_id, same_name.id) != (user.tenant_id, user.id):
            raise Conflict(f"the user name {user.username} is taken")
        self.store.put(scope, self.users, "user", user, ("password_hash",))

    @override
    async def delete_user(self, scope: Scope, user_id: str) -> None:
        self.store.take(scope, self.users, "user", user_id, ("password_hash",))

    @override
    async def list_roles(self, scope: Scope) -> list[Role]:
        return [copied(role) for role in sorted(_mine(scope, self.roles), key=lambda role: role.id)]

    @override
    async def save_role(self, scope: Scope, role: Role) -> None:
        self.store.put(scope, self.roles, "role", role)

    @override
    async def delete_role(self, scope: Scope, role_id: str) -> None:
        if any(role_id in user.roles for user in _mine(scope, self.users)):
            raise Conflict(f"role {role_id} belongs to a user")
        self.store.take(scope, self.roles, "role", role_id)


class MemoryTokens(TokenRepository):
    def __init__(self) -> None:
        self.tokens: dict[str, int] = {}

    @override
    async def revoke(self, token_id: str, expires_at_ms: int) -> None:
        self.tokens.setdefault(token_id, expires_at_ms)

    @override
    async def revoked(self, now_ms: int) -> dict[str, int]:
        self.tokens = {token: at for token, at in self.tokens.items() if at > now_ms}
        return dict(self.tokens)


class MemoryAudit(AuditRepository):
    """Keeps no digests, so `verify` is always content."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    @override
    async def list_audit(
        self, scope: Scope, page: PageRequest, actor: str | None = None, entity: str | None = None
    ) -> Page[AuditEntry]:
        found = [
            entry
            for entry in self.store.audit
            if entry.tenant_id == scope.tenant_id and actor in {None, entry.actor} and entity in {None, entry.entity}
        ]
        return page_of(found, page, "-seq", ("seq", "at_ms"))

    @override
    async def record(
        self, scope: Scope, action: str, entity: str, entity_id: str, detail: dict[str, Any] | None = None
    ) -> None:
        self.store.note(scope, action, entity, entity_id, None, detail)

    @override
    async def verify(self) -> int | None:
        return None


class MemoryJournal(Journal):
    """Commits in the next turn of the loop. `refuses` names commits that fail alone; `full` refuses all."""

    def __init__(self, refuses: Callable[[Commit], bool] = lambda _commit: False) -> None:
        self.refuses = refuses
        self.full = False
        self.messages: list[Message] = []
        self.events: list[Event] = []
        self.ledger: Counter[str] = Counter()
        self._waiting = 0

    @property
    @override
    def waiting(self) -> int:
        return self._waiting

    def totals(self) -> dict[str, int]:
        return dict(self.ledger)

    @override
    def submit(self, commit: Commit, done: Done) -> None:
        if self.full:
            raise NotReady("the journal is full")
        self._waiting += len(commit.messages)
        asyncio.get_running_loop().call_soon(self._keep, commit, done)

    def _keep(self, commit: Commit, done: Done) -> None:
        self._waiting -= len(commit.messages)
        if self.refuses(commit):
            done(StorageFailed("the commit cannot be stored"))
            return
        for message in commit.messages:
            self.messages.append(message)
            message.seq = len(self.messages)
        for event in commit.events:
            self.events.append(event)
            event.seq = len(self.events)
        self.ledger.update(commit.ledger)
        done(None)
