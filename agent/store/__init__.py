"""The agent's SQLite database: calls, outbox, journal, and the one task that writes them."""
