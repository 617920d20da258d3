"""Alembic's environment: it migrates over the connection that `State` hands in."""

from alembic import context

from personas_dagster.state.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
