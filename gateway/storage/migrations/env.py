"""Alembic's entry: runs the revisions on the connection that `gateway.storage.schema` hands over. Knows no ini file."""

from __future__ import annotations

from alembic import context

from gateway.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite changes a column by making the table anew.
    render_as_batch=True,
    # The caller owns the transaction, so that an interrupted migration leaves nothing behind.
    transactional_ddl=False,
)
context.run_migrations()
