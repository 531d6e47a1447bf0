"""What rules want to happen, on its way to the database: in order, retried, bounded. Knows no rule."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from gateway.core.errors import GatewayError, NotReady, StorageFailed
from gateway.core.flow import AlarmChange, StateDelta
from gateway.rules.model import Notice, RuleEffects

log = structlog.get_logger(__name__)

_FIRST_RETRY_S = 0.1
_MOST_RETRY_S = 5.0
_STATES_AT_ONCE = 1000
"""State changes written in one transaction, so that alarms never wait long for it."""

Key = tuple[str, str, str]


@dataclass(slots=True, eq=False)
class _Batch:
    """What is written in one transaction: alarm changes with states, or notices."""

    changes: list[AlarmChange] = field(default_factory=list)
    deltas: list[StateDelta] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


class Outbox:
    """Alarm changes leave at once with the state of the same batch, notices after them; state alone waits for company.

    Nothing is dropped: when `most` batches wait, whoever puts waits too.
    """

    def __init__(
        self,
        effects: RuleEffects,
        most: int,
        keep_s: float,
        on_refused: Callable[[Notice, str], None] = lambda _notice, _why: None,
    ) -> None:
        """Be empty; `on_refused` hears of every notice that nobody will be told, and why."""
        self._effects = effects
        self._on_refused = on_refused
        self._keep_s = keep_s
        self._batches: deque[_Batch] = deque()
        self._arriving: list[_Batch] = []
        self._states: dict[Key, StateDelta] = {}
        self._room = asyncio.Semaphore(most)
        self._wake = asyncio.Event()
        self._rest = asyncio.Event()
        self._rest.set()
        self.retries = 0
        self.refused = 0

    def __len__(self) -> int:
        """Batches that wait."""
        return len(self._batches)

    def keep(self, deltas: list[StateDelta]) -> None:
        """Write states some time soon; a newer one of the same rule and device replaces an older."""
        for delta in deltas:
            self._states[delta.tenant_id, delta.rule, delta.device_id] = delta
        if deltas:
            self._busy()

    async def put(self, changes: list[AlarmChange], deltas: list[StateDelta]) -> None:
        """Queue alarm changes with the states that belong to them; waits while full."""
        await self._enter(_Batch(changes, deltas))

    async def tell(self, notices: list[Notice]) -> None:
        """Queue notices; waits while full."""
        await self._enter(_Batch(notices=notices))

    async def _enter(self, batch: _Batch) -> None:
        self._arriving.append(batch)
        try:
            await self._room.acquire()
        finally:
            self._arriving = [each for each in self._arriving if each is not batch]
        for delta in batch.deltas:
            self._states.pop((delta.tenant_id, delta.rule, delta.device_id), None)
        self._batches.append(batch)
        self._busy()

    def forget_states(self, tenant_id: str, device_id: str, rules: list[str]) -> None:
        """Write no state of these rules and this device that waits, but that they remember nothing."""
        gone = {(tenant_id, rule, device_id) for rule in rules}
        for batch in (*self._batches, *self._arriving):
            batch.deltas[:] = [each for each in batch.deltas if (each.tenant_id, each.rule, each.device_id) not in gone]
        self.keep([StateDelta(tenant_id, rule, device_id, {}) for rule in rules])

    def forget_alarms(self, tenant_id: str, device_id: str) -> None:
        """Change no alarm of a device."""
        for batch in (*self._batches, *self._arriving):
            batch.changes[:] = [
                each for each in batch.changes if (each.tenant_id, each.device_id) != (tenant_id, device_id)
            ]

    async def run(self) -> None:
        """Write for ever; a supervised part. A batch leaves the queue after it was written, never before."""
        while True:
            if self._batches:
                await self._write(self._batches[0])
                self._batches.popleft()
                self._room.release()
            elif self._states:
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake_for_alarm(), self._keep_s)
                except TimeoutError:
                    await self._write_states()
            else:
                self._rest.set()
                self._wake.clear()
                await self._wake.wait()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all is written; False when the time was too short."""
        self._keep_s = 0.0
        self._wake.set()
        try:
            await asyncio.wait_for(self._rest.wait(), timeout_s)
        except TimeoutError:
            log.error("effects of rules not written", batches=len(self._batches), states=len(self._states))
            return False
        return True

    def _busy(self) -> None:
        self._rest.clear()
        self._wake.set()

    async def _wake_for_alarm(self) -> None:
        while not self._batches and self._keep_s > 0:
            await self._wake.wait()
            self._wake.clear()

    async def _write_states(self) -> None:
        chosen = dict(list(self._states.items())[:_STATES_AT_ONCE])
        await self._write(_Batch(deltas=list(chosen.values())))
        for key, delta in chosen.items():
            if self._states.get(key) is delta:
                del self._states[key]

    async def _write(self, batch: _Batch) -> None:
        if batch.notices:
            try:
                await self._retried(lambda: self._tell(batch.notices))
            except GatewayError as failure:
                for notice in batch.notices:
                    self._on_refused(notice, str(failure))
                log.error("notifications of rules refused", notices=len(batch.notices), error=str(failure))
            return
        try:
            await self._retried(lambda: self._effects.apply(batch.changes, batch.deltas))
        except GatewayError as failure:
            self.refused += len(batch.changes)
            alarms, states = len(batch.changes), len(batch.deltas)
            log.error("effects of rules refused", alarms=alarms, states=states, error=str(failure))

    async def _tell(self, notices: list[Notice]) -> None:
        for notice, refusal in zip(notices, await self._effects.notify(notices), strict=True):
            if refusal:
                self._on_refused(notice, refusal)

    async def _retried(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write, however long the database refuses."""
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                await write()
            except (StorageFailed, NotReady) as failure:
                self.retries += 1
                log.error("effects of rules wait for the database", retry_in_s=delay_s, error=str(failure))
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _MOST_RETRY_S)
            else:
                return
