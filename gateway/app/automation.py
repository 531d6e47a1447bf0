"""Alarms, rules, scenes and schedules, wired to traffic and to those who are to be told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import msgspec

from gateway.alarms.model import Alarm
from gateway.alarms.service import AlarmService
from gateway.app.effects import Effects
from gateway.app.reports import report_service
from gateway.app.traffic import Traffic
from gateway.config import Loaded
from gateway.core.bus import Bus
from gateway.core.clock import Clock
from gateway.core.metrics import Sample
from gateway.core.tasks import Supervisor
from gateway.notify.service import NotificationService
from gateway.rules.host import RulesHost
from gateway.rules.scenes import SceneHost
from gateway.rules.schedule import Scheduler
from gateway.storage.alarms import SqlAlarmRepository
from gateway.storage.database import Database
from gateway.storage.scenes import SqlSceneRepository
from gateway.things.catalog import DeviceChange
from gateway.things.model import Device


class Automation:
    """What acts by itself on stored messages and on time."""

    def __init__(
        self,
        loaded: Loaded,
        database: Database,
        bus: Bus,
        traffic: Traffic,
        notifications: NotificationService,
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        """Build; nothing runs yet."""
        self.notifications = notifications
        self._bus = bus
        self._supervisor = supervisor
        self._clock = clock
        config = loaded.config
        self.alarms = AlarmService(SqlAlarmRepository(database), bus, self._alarm_cleared)
        traffic.catalog.on_device_changed(self._device_changed)
        self.scene_rows = SqlSceneRepository(database)
        self.reports = report_service(config.reports, database, traffic, clock)
        self._effects = Effects(self.alarms, traffic.commands, traffic.plugins, self.reports, notifications)
        self._rules_config = msgspec.structs.replace(config.rules, directory=str(loaded.path(config.rules.directory)))
        scenes = msgspec.structs.replace(config.scenes, directory=str(loaded.path(config.scenes.directory)))
        self.scenes = SceneHost(scenes, supervisor, clock, self._effects, self.scene_rows)
        self._effects.scenes = self.scenes
        self.schedules = Scheduler(self.scenes, self.scene_rows, clock, supervisor)
        self.rules: RulesHost

    async def start(self, stack: AsyncExitStack) -> None:
        """Load what was remembered and run; `stack` stops it in the opposite order."""
        remembered = await self.alarms.load()
        stack.push_async_callback(self.alarms.flush)
        self._supervisor.start("alarms", self.alarms.run)
        self.rules = RulesHost(self._rules_config, self._supervisor, self._clock, self._bus, self._effects, remembered)
        for part in (self.rules, self.scenes, self.schedules):
            await part.start()
            stack.push_async_callback(part.stop)

    def processes(self) -> dict[str, int]:
        """Ids of the worker processes, by name."""
        return self.rules.processes() | self.scenes.processes()

    def samples(self) -> Iterator[Sample]:
        """Figures for `/metrics`."""
        yield from self.alarms.samples()
        yield from self.rules.samples()
        yield from self.scenes.samples()
        yield from self.notifications.samples()
        yield from self.reports.samples()

    def _device_changed(self, device: Device, change: DeviceChange) -> None:
        if change == "deleted":
            self.alarms.device_deleted(device.tenant_id, device.id)
            self.rules.device_deleted(device.tenant_id, device.id)

    def _alarm_cleared(self, alarm: Alarm) -> None:
        self.rules.forget_state(alarm.tenant_id, alarm.rule, alarm.device_id)
