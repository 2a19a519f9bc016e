"""Runs the revisions on the connection and in the transaction that `storage/schema.py` hands over."""

from alembic import context

from stellwerk.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table: a revision rewrites it instead.
    render_as_batch=True,
)
context.run_migrations()
