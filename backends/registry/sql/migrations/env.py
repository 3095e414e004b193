"""Run by Alembic: the caller has opened the connection and the transaction, and holds the lock."""

from alembic import context

from tracardi_lite.backends.registry.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
