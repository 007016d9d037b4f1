"""Rows with something in every column, for tests that want a table filled and do not care with what."""

import sqlite3
from typing import Final

_USUAL: Final = {
    "INTEGER": 1,
    "DATETIME": "2026-11-22 09:00:00.000000",
    "FLOAT": 1.5,
    "BOOLEAN": 1,
    "JSON": "[]",
    "BLOB": b"\x01x",
}


def insert_row(connection: sqlite3.Connection, table: str, number: int) -> None:
    """Insert the row of this number, of the site "here"; its parents are the rows of the same number, or tenant 1."""
    parents = {row[3] for row in connection.execute(f"PRAGMA foreign_key_list({table})")}
    row: dict[str, object] = {}
    for _, name, declared, _, _, key in connection.execute(f"PRAGMA table_info({table})"):
        kind = declared.partition("(")[0]
        if name in parents:
            row[name] = 1 if name == "tenant_id" else number
        elif kind == "VARCHAR":
            row[name] = "here" if name == "site" else f"{name} {number}"
        else:
            row[name] = number if key and kind == "INTEGER" else _USUAL[kind]
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
    connection.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', list(row.values()))
