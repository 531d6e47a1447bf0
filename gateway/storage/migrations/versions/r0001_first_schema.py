"""The first schema: identity and audit, things and their history, alarms and automation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_APPEND_ONLY = """
CREATE TRIGGER audit_refuses_{verb} BEFORE {verb} ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
"""


def upgrade() -> None:
    _identity()
    _things()
    _automation()
    op.execute("INSERT INTO tenant (id, name, created_at_ms) VALUES ('default', 'Default', 0)")
    op.execute(_APPEND_ONLY.format(verb="UPDATE"))
    op.execute(_APPEND_ONLY.format(verb="DELETE"))


def _identity() -> None:
    op.create_table(
        "tenant",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
    )
    op.create_table(
        "user_account",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_user_account_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_user_account")),
        sa.UniqueConstraint("username", name=op.f("uq_user_account_username")),
    )
    op.create_table(
        "role",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("permissions", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_role_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_role")),
    )
    op.create_table(
        "revoked_token",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revoked_token")),
    )
    op.create_index(op.f("ix_revoked_token_expires_at_ms"), "revoked_token", ["expires_at_ms"], unique=False)
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_audit_tenant")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_audit_tenant_id_actor"), "audit", ["tenant_id", "actor"], unique=False)
    op.create_index(op.f("ix_audit_tenant_id_entity"), "audit", ["tenant_id", "entity"], unique=False)


def _things() -> None:
    op.create_table(
        "product",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("plugin_id", sa.Text(), nullable=True),
        sa.Column("registration", sa.Text(), nullable=False),
        sa.Column("authentication", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("mapping", sa.Text(), nullable=False),
        sa.Column("retention_days", sa.Float(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_product_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_product")),
    )
    op.create_table(
        "device",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("tags", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("1"), nullable=False),
        sa.Column("credential_digest", sa.Text(), nullable=True),
        sa.Column("credential_source", sa.Text(), nullable=True),
        sa.Column("online", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "product_id"], ["product.tenant_id", "product.id"], name=op.f("fk_device_product")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_device_tenant")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_device")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_device_tenant_id_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_device_tenant_id_product_id"), "device", ["tenant_id", "product_id"], unique=False)
    op.create_table(
        "message",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("device_key", sa.Integer(), nullable=False),
        sa.Column("observed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("values_json", sa.Text(), nullable=False),
        sa.Column("quality_json", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["device_key"], ["device.key"], name=op.f("fk_message_device")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_message")),
    )
    op.create_index(
        op.f("ix_message_device_key_observed_at_ms"), "message", ["device_key", "observed_at_ms"], unique=False
    )
    op.create_table(
        "latest",
        sa.Column("device_key", sa.Integer(), nullable=False),
        sa.Column("points", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["device_key"], ["device.key"], name=op.f("fk_latest_device")),
        sa.PrimaryKeyConstraint("device_key", name=op.f("pk_latest")),
    )
    op.create_table(
        "event",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_event_tenant")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_event_tenant_id_device_id"), "event", ["tenant_id", "device_id"], unique=False)
    op.create_table(
        "dead_letter",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("plugin_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("frame", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_dead_letter_tenant")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_dead_letter")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "ledger",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_ledger")),
    )
    op.create_table(
        "command",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("args", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("timeout_s", sa.Float(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_command_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_command")),
    )
    op.create_index(op.f("ix_command_ended_at_ms"), "command", ["ended_at_ms"], unique=False)
    op.create_index(
        op.f("ix_command_tenant_id_device_id_created_at_ms"),
        "command",
        ["tenant_id", "device_id", "created_at_ms"],
        unique=False,
    )


def _automation() -> None:
    op.create_table(
        "alarm",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("acknowledged", sa.Boolean(), nullable=False),
        sa.Column("acknowledged_by", sa.Text(), nullable=False),
        sa.Column("occurrences", sa.BigInteger(), nullable=False),
        sa.Column("raised_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_raised_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("cleared_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("cleared_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_alarm_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_alarm")),
    )
    op.create_index(op.f("ix_alarm_tenant_id_raised_at_ms"), "alarm", ["tenant_id", "raised_at_ms"], unique=False)
    op.create_index(
        "one_active_alarm",
        "alarm",
        ["tenant_id", "device_id", "rule"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "rule_state",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_rule_state_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "rule", "device_id", name=op.f("pk_rule_state")),
    )
    op.create_index(op.f("ix_rule_state_tenant_id_device_id"), "rule_state", ["tenant_id", "device_id"], unique=False)
    op.create_table(
        "scene_run",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scene", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("args", sa.Text(), nullable=False),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("wakes_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_scene_run_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_scene_run")),
    )
    op.create_index(op.f("ix_scene_run_ended_at_ms"), "scene_run", ["ended_at_ms"], unique=False)
    op.create_index(
        op.f("ix_scene_run_tenant_id_started_at_ms"), "scene_run", ["tenant_id", "started_at_ms"], unique=False
    )
    op.create_table(
        "schedule",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scene", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("args", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_run_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("next_run_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_schedule_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_schedule")),
    )
