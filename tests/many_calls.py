"""A database with very many calls, made fast: the tables' own statements, without a store around them."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.store import rows
from agent.store.moments import moment_text
from agent.store.rows import json_text
from agent.store.writer import enqueue
from tests.fakes_sync import a_record

NOW: Final = datetime.now(UTC)
_WEEK: Final = timedelta(days=7)
_AT_ONCE: Final = 10_000
_KINDS: Final = 200  # of calls, as to what they hold


def fill(path: Path, calls: int, *, are_confirmed: bool = False) -> None:
    """Put calls of the last week into a database that no agent has; they wait, or the centre has confirmed them."""
    templates = [_template(number) for number in range(_KINDS)]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("INSERT INTO tenant (name, is_active) VALUES ('acme', 1) ON CONFLICT DO NOTHING")
        tenant_id, first_id = connection.execute(
            "SELECT (SELECT id FROM tenant WHERE name = 'acme'), (SELECT coalesce(max(id), 0) + 1 FROM call)"
        ).fetchone()
        for first in range(0, calls, _AT_ONCE):
            numbers = range(first, min(calls, first + _AT_ONCE))
            made = [_row(templates, number, calls, tenant_id, first_id, is_old=are_confirmed) for number in numbers]
            connection.execute("BEGIN")
            connection.executemany(rows.INSERT_CALL, [rows.call_values(row) for row in made])
            if are_confirmed:
                connection.executemany(
                    "INSERT INTO call_receipt (call_id, number) VALUES (?, 1)", [(row["id"],) for row in made]
                )
            else:
                enqueue(
                    connection,
                    [(first_id + number, 1) for number in numbers],
                    at=str(made[0]["created_at"]),
                    known=False,
                )
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _template(number: int) -> rows.EncodedCall:
    told = a_record(number)._asdict()
    said = [
        {"who": "caller", "at": at, "text": "arama fatura randevu teşekkürler " * 4} for at in range(2 + number % 10)
    ]
    leg = {
        "channel": f"PJSIP/trunk-{number:08x}",
        "number": f"+90532{number:07}",
        "start": told["start_time"].isoformat(),
    }
    told |= {"legs": json_text([leg] * 2), "timeline": json_text([leg] * 4), "full_transcript": json_text(said)}
    row: rows.EncodedCall = {name: value for name, value in told.items() if name in rows.TOLD}
    for name in rows.MOMENTS:
        if told[name] is not None:
            row[name] = moment_text(told[name])
    return {**rows.with_defaults(row), "site": "bench", "pbx": "main"}


def _row(
    templates: Sequence[rows.EncodedCall], number: int, calls: int, tenant_id: int, first_id: int, *, is_old: bool
) -> rows.EncodedCall:
    began = NOW - _WEEK * (1 - number / calls)
    ended = moment_text(began + timedelta(seconds=64))
    return {
        **templates[number % len(templates)], "call_sid": f"bench:main:{began.timestamp():.6f}.{number}",
        "trace_id": f"{number:032x}", "start_time": moment_text(began), "end_time": ended,
        "id": first_id + number, "tenant_id": tenant_id, "revision": 1,
        "created_at": ended, "updated_at": moment_text(NOW - _WEEK) if is_old else ended,
    }  # fmt: skip
