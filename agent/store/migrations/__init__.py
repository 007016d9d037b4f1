"""How the edge database came to its shape: Alembic revisions, never edited after a release."""
