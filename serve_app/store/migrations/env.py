"""Run by Alembic: migrates over the connection that `serve_app.store.schema` hands in."""

from __future__ import annotations

from alembic import context

from serve_app.store.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    # SQLite can change tables inside a transaction, and ours has begun it already.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
