"""The tables, as SQLAlchemy Core describes them; the migrations make them, and a test holds the two together.

Every row that belongs to a customer carries `tenant_id`. The two tables of the hot path, `message` and `latest`, name
their device by `device.key` instead, whose row carries the tenant. Knows no query.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from typing_extensions import override

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Json(sa.types.TypeDecorator[Any]):
    """A JSON document, kept as text: SQLite's own JSON column would turn a text of digits into a number."""

    impl = sa.Text
    cache_ok = True

    @override
    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else _encode(value).decode()

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else _decode(value)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _int(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _time(name: str) -> sa.Column[int | None]:
    return sa.Column(name, sa.BigInteger)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, Json, nullable=False)


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenant.id"), nullable=False)


tenant = sa.Table("tenant", metadata, sa.Column("id", sa.Text, primary_key=True), _text("name"), _int("created_at_ms"))

user_account = sa.Table(
    "user_account",
    metadata,
    _tenant(),
    _text("id"),
    sa.Column("username", sa.Text, nullable=False, unique=True),
    _text("password_hash"),
    _json("roles"),
    _flag("enabled"),
    _int("created_at_ms"),
    _int("updated_at_ms"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
)

role = sa.Table(
    "role", metadata, _tenant(), _text("id"), _json("permissions"), sa.PrimaryKeyConstraint("tenant_id", "id")
)

revoked_token = sa.Table(
    "revoked_token",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("expires_at_ms", sa.BigInteger, nullable=False, index=True),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    _tenant(),
    _int("at_ms"),
    _text("actor"),
    _text("action"),
    _text("entity"),
    _text("entity_id"),
    sa.Column("before", Json),
    sa.Column("after", Json),
    _text("digest"),
    sa.Index(None, "tenant_id", "entity"),
    sa.Index(None, "tenant_id", "actor"),
    sqlite_autoincrement=True,
)

product = sa.Table(
    "product",
    metadata,
    _tenant(),
    _text("id"),
    _text("name"),
    sa.Column("plugin_id", sa.Text),
    _text("registration"),
    _text("authentication"),
    _json("model"),
    _json("mapping"),
    sa.Column("retention_days", sa.Float),
    _flag("enabled"),
    _text("source"),
    _int("created_at_ms"),
    _int("updated_at_ms"),
    sa.Column("stages", Json, nullable=False, server_default=sa.text("'[]'")),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
)

device = sa.Table(
    "device",
    metadata,
    sa.Column("key", sa.Integer, primary_key=True),
    _tenant(),
    _text("id"),
    _text("product_id"),
    sa.Column("name", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("tags", Json, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("credential_digest", sa.Text),
    sa.Column("credential_source", sa.Text),
    sa.Column("online", sa.Boolean, nullable=False, server_default=sa.false()),
    _time("last_seen_ms"),
    _int("created_at_ms"),
    _int("updated_at_ms"),
    sa.UniqueConstraint("tenant_id", "id"),
    sa.ForeignKeyConstraint(["tenant_id", "product_id"], ["product.tenant_id", "product.id"]),
    sa.Index(None, "tenant_id", "product_id"),
    # A key is never given twice: codes and history that name it must not pass to another device.
    sqlite_autoincrement=True,
)

message = sa.Table(
    "message",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("device_key", sa.ForeignKey("device.key"), nullable=False),
    _int("observed_at_ms"),
    _int("received_at_ms"),
    _text("values_json"),
    sa.Column("quality_json", sa.Text),
    sa.Index(None, "device_key", "observed_at_ms"),
)

latest = sa.Table(
    "latest",
    metadata,
    sa.Column("device_key", sa.ForeignKey("device.key"), primary_key=True),
    _json("points"),
)

event = sa.Table(
    "event",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    _tenant(),
    _text("type"),
    sa.Column("device_id", sa.Text),
    _int("at_ms"),
    _json("data"),
    sa.Index(None, "tenant_id", "device_id"),
    sqlite_autoincrement=True,
)

dead_letter = sa.Table(
    "dead_letter",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    _tenant(),
    _text("product_id"),
    _text("plugin_id"),
    sa.Column("device_id", sa.Text),
    _text("reason"),
    sa.Column("frame", sa.LargeBinary, nullable=False),
    _int("at_ms"),
    sqlite_autoincrement=True,
)

ledger = sa.Table("ledger", metadata, sa.Column("name", sa.Text, primary_key=True), _int("count"))

command = sa.Table(
    "command",
    metadata,
    _tenant(),
    _text("id"),
    _text("device_id"),
    _text("name"),
    _json("args"),
    _text("status"),
    _text("error"),
    sa.Column("result", Json),
    _text("requested_by"),
    sa.Column("timeout_s", sa.Float, nullable=False),
    _int("created_at_ms"),
    _time("sent_at_ms"),
    _time("ended_at_ms"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.Index(None, "tenant_id", "device_id", "created_at_ms"),
    sa.Index(None, "ended_at_ms"),
)

alarm = sa.Table(
    "alarm",
    metadata,
    _tenant(),
    _text("id"),
    _text("device_id"),
    _text("rule"),
    _text("severity"),
    _text("message"),
    _json("data"),
    _text("state"),
    _flag("acknowledged"),
    _text("acknowledged_by"),
    _int("occurrences"),
    _int("raised_at_ms"),
    _int("last_raised_at_ms"),
    _time("acknowledged_at_ms"),
    _time("cleared_at_ms"),
    _text("cleared_by"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.Index(None, "tenant_id", "raised_at_ms"),
    sa.Index(
        "one_active_alarm", "tenant_id", "device_id", "rule", unique=True, sqlite_where=sa.text("state = 'active'")
    ),
)

rule_state = sa.Table(
    "rule_state",
    metadata,
    _tenant(),
    _text("rule"),
    _text("device_id"),
    _json("data"),
    sa.PrimaryKeyConstraint("tenant_id", "rule", "device_id"),
    sa.Index(None, "tenant_id", "device_id"),
)

scene_run = sa.Table(
    "scene_run",
    metadata,
    _tenant(),
    _text("id"),
    _text("scene"),
    _text("status"),
    _json("args"),
    _text("started_by"),
    _int("started_at_ms"),
    _time("ended_at_ms"),
    _time("wakes_at_ms"),
    _text("error"),
    _json("log"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.Index(None, "tenant_id", "started_at_ms"),
    sa.Index(None, "ended_at_ms"),
)

schedule = sa.Table(
    "schedule",
    metadata,
    _tenant(),
    _text("id"),
    _text("scene"),
    _text("cron"),
    _text("timezone"),
    _json("args"),
    _flag("enabled"),
    _int("created_at_ms"),
    _time("last_run_at_ms"),
    _time("next_run_at_ms"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
)

notification = sa.Table(
    "notification",
    metadata,
    _tenant(),
    _text("id"),
    _text("channel"),
    _text("title"),
    _text("text"),
    _text("severity"),
    sa.Column("device_id", sa.Text),
    _text("link"),
    _text("requested_by"),
    _text("status"),
    _int("attempts"),
    _text("last_error"),
    _int("created_at_ms"),
    _time("ended_at_ms"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.Index(None, "tenant_id", "created_at_ms"),
    sa.Index(None, "ended_at_ms"),
    # What a channel takes next, whatever lies beside it.
    sa.Index("queued_notification", "channel", "id", sqlite_where=sa.text("status = 'queued'")),
)

report = sa.Table(
    "report",
    metadata,
    _tenant(),
    _text("id"),
    _text("plugin_id"),
    _text("plugin_version"),
    _text("device_id"),
    _text("property_id"),
    _int("from_ms"),
    _int("to_ms"),
    _json("args"),
    _int("points"),
    _json("columns"),
    _json("rows"),
    _int("row_count"),
    _json("summary"),
    _text("requested_by"),
    _int("created_at_ms"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.Index(None, "tenant_id", "created_at_ms"),
    sa.Index(None, "created_at_ms"),
)
