"""The limits of the storage room, with their reasons. Knows nothing else."""

from __future__ import annotations

from typing import Annotated

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Days = Annotated[float, msgspec.Meta(gt=0, le=36_500)]


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the database file.

    readers: connections for reading, a thread each; more only helps when slow history queries meet.
    busy_timeout_s: how long a write waits for another process (`gateway user add`) before it fails.
    cache_bytes: pages kept in memory per connection; holds the hot leaves of the history's index.
    checkpoint_pages: pages of 4 KiB that the log gathers before they go to the file; more costs disk and a longer
        start after a crash, fewer writes hot pages more often.
    log_bytes: size to which the log is cut after a slow reader made it grow.
    """

    readers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    busy_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 5.0
    cache_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024, le=2**36)] = 32 * 1024 * 1024
    checkpoint_pages: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 4000
    log_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024, le=2**40)] = 64 * 1024 * 1024


class JournalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the journal.

    max_waiting_rows: rows queued and not yet durable; over it a commit is refused (policy: reject) and its sender
        sends no acknowledgement. Above `pipeline.waiting_messages`, which holds connections before it comes to that.
        About 1 KiB each in memory for messages of some ten values, and as much more as they carry more: bytes are not
        counted, because looking into every value would cost more than queueing it.
    max_transaction_rows: rows of one transaction, so that others get their turn to write.
    window_ms: least time between the beginnings of two transactions under load; above 10 it would show in latency.
    window_from_rows: rows in the previous transaction from which on it counts as load.
    newest_devices: devices whose newest values are held in memory, some 3 KB each; the others are read when they speak.
    newest_properties: properties of one device that have a newest value; a device may invent names for ever.
    dead_letters: undecodable frames kept, over all tenants; the oldest go first.
    dead_letter_bytes: bytes kept of each such frame; enough to see what it was.
    """

    max_waiting_rows: _Count = 40_000
    max_transaction_rows: _Count = 10_000
    window_ms: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 10.0
    window_from_rows: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 32
    newest_devices: _Count = 10_000
    newest_properties: _Count = 1_000
    dead_letters: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 10_000
    dead_letter_bytes: Annotated[int, msgspec.Meta(ge=1, le=16 * 1024 * 1024)] = 4096


class RetentionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long rows are kept, in days; None keeps them. History is the products' own matter.

    interval_s: seconds between two sweeps.
    slice_rows: rows looked at in one transaction; 2,000 take some 20 ms of the journal's time.
    pause_s: seconds between two slices, so that deleting takes a fraction of the disk and not all of it.
    events_days: also how far back a live stream can resume.
    notifications_days: those that were sent, failed or expired; what is queued stays.
    """

    interval_s: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] = 3600.0
    slice_rows: _Count = 2_000
    pause_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.05
    events_days: _Days | None = 90.0
    dead_letters_days: _Days | None = 30.0
    commands_days: _Days | None = 90.0
    scene_runs_days: _Days | None = 90.0
    cleared_alarms_days: _Days | None = 365.0
    notifications_days: _Days | None = 90.0
    reports_days: _Days | None = 365.0
