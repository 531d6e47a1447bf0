"""Notifications and their queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notification",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_notification_tenant")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_notification")),
    )
    op.create_index(
        op.f("ix_notification_tenant_id_created_at_ms"), "notification", ["tenant_id", "created_at_ms"], unique=False
    )
    op.create_index(op.f("ix_notification_ended_at_ms"), "notification", ["ended_at_ms"], unique=False)
    op.create_index(
        "queued_notification",
        "notification",
        ["channel", "id"],
        unique=False,
        sqlite_where=sa.text("status = 'queued'"),
    )
