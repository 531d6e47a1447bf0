"""How the rooms' objects look to API clients. What is not named here does not leave: no hash, digest or key does."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.alarms.model import Alarm
from gateway.api.plugin_port import TriedWhole
from gateway.core.clock import rfc3339
from gateway.core.flow import DeadLetter, Event
from gateway.identity.model import AuditEntry, Role, User
from gateway.rules.model import RuleStatus, SceneRun, Schedule
from gateway.things.model import Command, Device, FieldMapping, Product, ThingModel
from gateway.things.ports import Bucket, HistoryPoint


class UserShape(msgspec.Struct, frozen=True):
    """A user."""

    id: str
    username: str
    roles: tuple[str, ...]
    enabled: bool
    created_at: str
    updated_at: str


class RoleShape(msgspec.Struct, frozen=True):
    """A role."""

    id: str
    permissions: tuple[str, ...]


class MeShape(msgspec.Struct, frozen=True):
    """The caller."""

    user: UserShape
    tenant_id: str
    permissions: list[str]
    token_expires_at: str


class TokenShape(msgspec.Struct, frozen=True):
    """A fresh token."""

    token: str
    expires_at: str


class ProductShape(msgspec.Struct, frozen=True):
    """A product."""

    id: str
    name: str
    plugin_id: str | None
    stages: tuple[str, ...]
    registration: str
    authentication: str
    model: ThingModel
    mapping: tuple[FieldMapping, ...]
    retention_days: float | None
    enabled: bool
    source: str
    created_at: str | None
    updated_at: str | None


class DeviceShape(msgspec.Struct, frozen=True):
    """A device. `credential` says who chose its credential, null while it has none."""

    id: str
    product_id: str
    name: str
    tags: dict[str, str]
    enabled: bool
    online: bool
    last_seen_at: str | None
    credential: str | None
    created_at: str | None
    updated_at: str | None


class PropertyShape(msgspec.Struct, frozen=True):
    """Latest value of a property."""

    property: str
    value: Any
    unit: str | None
    quality: str
    observed_at: str
    received_at: str


class PropertiesShape(msgspec.Struct, frozen=True):
    """Latest values of a device."""

    items: list[PropertyShape]


class PointShape(msgspec.Struct, frozen=True):
    """One stored point."""

    observed_at: str
    received_at: str
    value: Any
    quality: str


class BucketShape(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """One interval of an aggregate, named by its start."""

    from_: str
    value: Any


class EventShape(msgspec.Struct, frozen=True):
    """One event."""

    seq: int
    type: str
    at: str
    device_id: str | None
    data: dict[str, Any]


class CommandShape(msgspec.Struct, frozen=True):
    """One command."""

    id: str
    device_id: str
    name: str
    args: dict[str, Any]
    status: str
    error: str
    result: dict[str, Any] | None
    requested_by: str
    timeout_s: float
    created_at: str
    sent_at: str | None
    ended_at: str | None


class AlarmShape(msgspec.Struct, frozen=True):
    """One alarm."""

    id: str
    device_id: str
    rule: str
    severity: str
    message: str
    data: dict[str, Any]
    state: str
    acknowledged: bool
    acknowledged_by: str
    occurrences: int
    raised_at: str
    last_raised_at: str
    acknowledged_at: str | None
    cleared_at: str | None
    cleared_by: str


class RuleShape(msgspec.Struct, frozen=True):
    """One rule file."""

    name: str
    path: str
    state: str
    subscriptions: list[dict[str, str]]
    evaluated: int
    errors: int
    strikes: int
    last_error: str
    last_error_at: str | None
    loaded_at: str | None


class SceneRunShape(msgspec.Struct, frozen=True):
    """One run of a scene."""

    id: str
    scene: str
    status: str
    args: dict[str, Any]
    started_by: str
    started_at: str
    ended_at: str | None
    wakes_at: str | None
    error: str
    log: list[str]


class ScheduleShape(msgspec.Struct, frozen=True):
    """One schedule."""

    id: str
    scene: str
    cron: str
    timezone: str
    args: dict[str, Any]
    enabled: bool
    created_at: str | None
    last_run_at: str | None
    next_run_at: str | None


class AuditShape(msgspec.Struct, frozen=True):
    """One entry of the audit log."""

    seq: int
    at: str
    actor: str
    action: str
    entity: str
    entity_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    digest: str


class DeadLetterShape(msgspec.Struct, frozen=True):
    """One frame that no codec could read."""

    at: str
    product_id: str
    plugin_id: str
    device_id: str | None
    reason: str
    frame_hex: str


class ChainShape(msgspec.Struct, frozen=True):
    """Whether the audit log's chain is whole."""

    whole: bool
    first_broken_seq: int | None


class FramesShape(msgspec.Struct, frozen=True):
    """Outcomes of one input. `skipped` is there when the framing passed over bytes or frames as none of its own."""

    frames: list[dict[str, Any]]
    skipped: int | msgspec.UnsetType = msgspec.UNSET


class DecodedShape(msgspec.Struct, frozen=True):
    """Outcomes of a try-decode, one item per input."""

    items: list[FramesShape]


class EncodedShape(msgspec.Struct, frozen=True):
    """Bytes of a try-encode, as on the wire."""

    hex: str


class TriedShape(msgspec.Struct, frozen=True):
    """Inputs on their whole way, one item per input."""

    items: list[TriedWhole]


class CalledShape(msgspec.Struct, frozen=True):
    """What a plugin answered; bytes are `{"$hex": "00ff"}`."""

    result: Any


def when(ms: int | None) -> str | None:
    """A moment; None and zero are "never"."""
    return rfc3339(ms) if ms else None


def user_shape(user: User) -> UserShape:
    """Show a user, without the hash."""
    return UserShape(
        user.id, user.username, user.roles, user.enabled, rfc3339(user.created_at_ms), rfc3339(user.updated_at_ms)
    )


def role_shape(role: Role) -> RoleShape:
    """Show a role."""
    return RoleShape(role.id, role.permissions)


def product_shape(product: Product) -> ProductShape:
    """Show a product."""
    return ProductShape(
        id=product.id,
        name=product.name,
        plugin_id=product.plugin_id,
        stages=product.stages,
        registration=product.registration,
        authentication=product.authentication,
        model=product.model,
        mapping=product.mapping,
        retention_days=product.retention_days,
        enabled=product.enabled,
        source=product.source,
        created_at=when(product.created_at_ms),
        updated_at=when(product.updated_at_ms),
    )


def device_shape(device: Device) -> DeviceShape:
    """Show a device, without its key and digest."""
    return DeviceShape(
        id=device.id,
        product_id=device.product_id,
        name=device.name,
        tags=device.tags,
        enabled=device.enabled,
        online=device.online,
        last_seen_at=when(device.last_seen_ms),
        credential=device.credential_source,
        created_at=when(device.created_at_ms),
        updated_at=when(device.updated_at_ms),
    )


def point_shape(point: HistoryPoint) -> PointShape:
    """Show a stored point."""
    return PointShape(rfc3339(point.observed_at_ms), rfc3339(point.received_at_ms), point.value, point.quality)


def bucket_shape(bucket: Bucket) -> BucketShape:
    """Show an interval."""
    return BucketShape(rfc3339(bucket.from_ms), bucket.value)


def event_shape(event: Event) -> EventShape:
    """Show an event."""
    return EventShape(event.seq, event.type, rfc3339(event.at_ms), event.device_id, event.data)


def command_shape(command: Command) -> CommandShape:
    """Show a command."""
    return CommandShape(
        id=command.id,
        device_id=command.device_id,
        name=command.name,
        args=command.args,
        status=command.status,
        error=command.error,
        result=command.result,
        requested_by=command.requested_by,
        timeout_s=command.timeout_s,
        created_at=rfc3339(command.created_at_ms),
        sent_at=when(command.sent_at_ms),
        ended_at=when(command.ended_at_ms),
    )


def alarm_shape(alarm: Alarm) -> AlarmShape:
    """Show an alarm."""
    return AlarmShape(
        id=alarm.id,
        device_id=alarm.device_id,
        rule=alarm.rule,
        severity=alarm.severity,
        message=alarm.message,
        data=alarm.data,
        state=alarm.state,
        acknowledged=alarm.acknowledged,
        acknowledged_by=alarm.acknowledged_by,
        occurrences=alarm.occurrences,
        raised_at=rfc3339(alarm.raised_at_ms),
        last_raised_at=rfc3339(alarm.last_raised_at_ms),
        acknowledged_at=when(alarm.acknowledged_at_ms),
        cleared_at=when(alarm.cleared_at_ms),
        cleared_by=alarm.cleared_by,
    )


def rule_shape(rule: RuleStatus) -> RuleShape:
    """Show a rule."""
    return RuleShape(
        name=rule.name,
        path=rule.path,
        state=rule.state,
        subscriptions=rule.subscriptions,
        evaluated=rule.evaluated,
        errors=rule.errors,
        strikes=rule.strikes,
        last_error=rule.last_error,
        last_error_at=when(rule.last_error_at_ms),
        loaded_at=when(rule.loaded_at_ms),
    )


def run_shape(run: SceneRun) -> SceneRunShape:
    """Show a scene run."""
    return SceneRunShape(
        id=run.id,
        scene=run.scene,
        status=run.status,
        args=run.args,
        started_by=run.started_by,
        started_at=rfc3339(run.started_at_ms),
        ended_at=when(run.ended_at_ms),
        wakes_at=when(run.wakes_at_ms),
        error=run.error,
        log=run.log,
    )


def schedule_shape(schedule: Schedule) -> ScheduleShape:
    """Show a schedule."""
    return ScheduleShape(
        id=schedule.id,
        scene=schedule.scene,
        cron=schedule.cron,
        timezone=schedule.timezone,
        args=schedule.args,
        enabled=schedule.enabled,
        created_at=when(schedule.created_at_ms),
        last_run_at=when(schedule.last_run_at_ms),
        next_run_at=when(schedule.next_run_at_ms),
    )


def audit_shape(entry: AuditEntry) -> AuditShape:
    """Show an audit entry."""
    return AuditShape(
        entry.seq,
        rfc3339(entry.at_ms),
        entry.actor,
        entry.action,
        entry.entity,
        entry.entity_id,
        entry.before,
        entry.after,
        entry.digest,
    )


def dead_letter_shape(letter: DeadLetter) -> DeadLetterShape:
    """Show a dead letter."""
    return DeadLetterShape(
        rfc3339(letter.at_ms),
        letter.product_id,
        letter.plugin_id,
        letter.device_id,
        letter.reason,
        letter.frame.hex(),
    )
