"""Alembic's entry. `Database.migrate` hands in a connection that is inside its transaction."""

from alembic import context

from server import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    include_name=tables.is_table,
    render_as_batch=True,
)
context.run_migrations()
