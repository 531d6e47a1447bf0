"""What happens to plugins, told as events: durable in the outbox first, then on the bus for rules and live streams.

Knows the journal and the bus. Does not know why a plugin changed.
"""

from __future__ import annotations

import structlog

from gateway.core.bus import Bus
from gateway.core.clock import Clock
from gateway.core.errors import NotReady, StorageFailed
from gateway.core.flow import Commit, Event
from gateway.core.journal import Journal
from gateway.core.scope import DEFAULT_TENANT
from gateway.wasm.slot import Notice

log = structlog.get_logger(__name__)


class PluginNews:
    """Publishes notices of the plugin host. An event that cannot be kept is logged, and lost: the status still says it.

    The machine's plugins belong to its first tenant.
    """

    def __init__(self, journal: Journal, bus: Bus, clock: Clock) -> None:
        """Wire the way out."""
        self._journal = journal
        self._bus = bus
        self._clock = clock

    def tell(self, notice: Notice) -> None:
        """Make an event of a notice; called on the loop's thread."""
        event = Event(DEFAULT_TENANT, notice.type, self._clock.now_ms(), None, notice.data)

        def done(failure: StorageFailed | None) -> None:
            if failure is None:
                self._bus.events.publish([event])
            else:
                log.error("an event of a plugin is lost", type=notice.type, why=str(failure))

        try:
            self._journal.submit(Commit(events=[event]), done)
        except NotReady as failure:
            log.error("an event of a plugin is lost", type=notice.type, why=str(failure))
