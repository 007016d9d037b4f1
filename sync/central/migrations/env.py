"""Runs the revisions on the connection that `sync.central.migrate` passes in."""

from alembic import context

from sync.central.schema import central_metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=central_metadata())
with context.begin_transaction():
    context.run_migrations()
