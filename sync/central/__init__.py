"""The central PostgreSQL: its schema, its migrations and the only code that writes calls into it."""
