"""The history of the central schema, as Alembic revisions."""
