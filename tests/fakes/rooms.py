"""One implementation of every storage port beside another, for the contract suites."""

from __future__ import annotations

from dataclasses import dataclass

from fakes import memory, notify_fakes
from fakes.traffic import FakeClock

from gateway.alarms.model import AlarmRepository
from gateway.core.scope import Scope, system_scope
from gateway.identity.model import AuditRepository, TokenRepository, UserRepository
from gateway.notify.model import NotificationRepository
from gateway.rules.model import SceneRepository
from gateway.storage.alarms import SqlAlarmRepository
from gateway.storage.audit import SqlAuditRepository
from gateway.storage.commands import SqlCommandRepository
from gateway.storage.database import Database
from gateway.storage.devices import SqlDeviceRepository
from gateway.storage.notifications import SqlNotificationRepository
from gateway.storage.products import SqlProductRepository
from gateway.storage.scenes import SqlSceneRepository
from gateway.storage.users import SqlTokenRepository, SqlUserRepository
from gateway.things.ports import CommandRepository, DeviceRepository, ProductRepository

SCOPE = system_scope("ann")
OTHER = Scope("other", "oscar", frozenset({"*"}))


@dataclass
class Rooms:
    """One implementation of every port, over one store."""

    clock: FakeClock
    products: ProductRepository
    devices: DeviceRepository
    commands: CommandRepository
    alarms: AlarmRepository
    scenes: SceneRepository
    users: UserRepository
    tokens: TokenRepository
    audit: AuditRepository
    notifications: NotificationRepository


def over_database(database: Database, clock: FakeClock) -> Rooms:
    return Rooms(
        clock,
        SqlProductRepository(database),
        SqlDeviceRepository(database),
        SqlCommandRepository(database),
        SqlAlarmRepository(database),
        SqlSceneRepository(database),
        SqlUserRepository(database),
        SqlTokenRepository(database),
        SqlAuditRepository(database),
        SqlNotificationRepository(database),
    )


def in_memory(clock: FakeClock) -> Rooms:
    store = memory.MemoryStore(clock)
    audit = memory.MemoryAudit(store)
    return Rooms(
        clock,
        memory.MemoryProducts(store),
        memory.MemoryDevices(store),
        memory.MemoryCommands(store),
        memory.MemoryAlarms(store),
        memory.MemoryScenes(store),
        memory.MemoryUsers(store),
        memory.MemoryTokens(),
        audit,
        notify_fakes.MemoryNotifications(audit),
    )
