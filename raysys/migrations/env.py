"""What Alembic runs, on the connection of `raysys.db.migrate`; logging is not set up here."""

from __future__ import annotations

from alembic import context

from raysys.store.tables import metadata

# MLflow, which may live in the same database, has the default name.
VERSION_TABLE = "raysys_version"


def migrate() -> None:
    """Run the pending revisions in one transaction, on SQLite too."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        transactional_ddl=True,
        compare_type=True,
        version_table=VERSION_TABLE,
    )
    with context.begin_transaction():
        context.run_migrations()


migrate()  # Alembic executes this file, and no other module imports it
