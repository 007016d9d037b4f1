"""Calls that the centre refused: sent again, or given up, at an operator's word.

Everything is to be run inside a transaction; what is much is done in several.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.store.outbox_rows import RECORD, record_of
from sync.records import CallRecord
from sync.refusals import UNKNOWN_TENANT

_STEP: Final = 500

_ONE: Final = "SELECT quarantine.call_id FROM quarantine JOIN call ON call.id = call_id WHERE call_sid = ?"
_SOME: Final = f"SELECT call_id FROM quarantine WHERE ?1 IS NULL OR code = ?1 LIMIT {_STEP}"  # noqa: S608 - a number
_OF_TENANTS: Final = f"""SELECT call_id FROM quarantine CROSS JOIN call ON call.id = call_id JOIN tenant ON
    tenant.id = tenant_id WHERE code = '{UNKNOWN_TENANT}' AND tenant.name IN (SELECT value FROM json_each(?))
    LIMIT {_STEP}"""  # noqa: S608 - our own words
_SEND_AGAIN: Final = """INSERT INTO outbox (call_id, revision, enqueued_at) SELECT id, revision, ? FROM call
    WHERE id = ? ON CONFLICT DO NOTHING"""
_GIVE_UP: Final = """INSERT INTO dropped_call (call_sid, tenant, revision, code, reason, refused_at, "by", at)
    SELECT call_sid, tenant.name, quarantine.revision, code, reason, quarantine.at, ?, ? FROM quarantine
    JOIN call ON call.id = call_id LEFT JOIN tenant ON tenant.id = tenant_id WHERE call_id = ?
    ON CONFLICT (call_sid) DO UPDATE SET tenant = excluded.tenant, revision = excluded.revision, code = excluded.code,
    reason = excluded.reason, refused_at = excluded.refused_at, "by" = excluded."by", at = excluded.at"""
_RECORD: Final = f"SELECT {RECORD} FROM call JOIN tenant ON tenant.id = call.tenant_id WHERE call_sid = ?"  # noqa: S608 - our own words


@dataclass(frozen=True, slots=True)
class Chosen:
    """Refused calls: one, those with a code of the centre's, or all."""

    call_sid: str | None = None
    code: str | None = None


def retry(chosen: Chosen, now: str, connection: sqlite3.Connection) -> int:
    """Have some of them wait to be sent again; how many, 0 when there are none any more."""
    return _send_again(connection, _keys(connection, chosen), now)


def readmit(tenants: str, now: str, connection: sqlite3.Connection) -> int:
    """The same for calls that were refused since the centre did not know these tenants, a JSON array of names."""
    return _send_again(connection, connection.execute(_OF_TENANTS, (tenants,)).fetchall(), now)


def drop(chosen: Chosen, by: str, now: str, connection: sqlite3.Connection) -> int:
    """Give some of them up, and keep who did; how many, 0 when there are none any more. The calls themselves stay."""
    keys = _keys(connection, chosen)
    connection.executemany(_GIVE_UP, [(by, now, key) for (key,) in keys])
    _forget(connection, keys)
    return len(keys)


def refused_record(connection: sqlite3.Connection, call_sid: str) -> CallRecord | None:
    """A call as it would be sent now; None if there is none that could.

    What is no text, which may be what is wrong with it, is shown with its bytes as backslashes.
    """
    connection.text_factory = _shown
    try:
        found = connection.execute(_RECORD, (call_sid,)).fetchone()
    finally:
        connection.text_factory = str
    if found is None:
        return None
    return record_of([_shown(value) if isinstance(value, bytes) else value for value in found])


def _shown(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


def _keys(connection: sqlite3.Connection, chosen: Chosen) -> list[Any]:  # Any: rows
    if chosen.call_sid is not None:
        return connection.execute(_ONE, (chosen.call_sid,)).fetchall()
    return connection.execute(_SOME, (chosen.code,)).fetchall()


def _send_again(connection: sqlite3.Connection, keys: Sequence[Any], now: str) -> int:
    # A newer revision may be waiting already; then that one stays in its place.
    connection.executemany(_SEND_AGAIN, [(now, key) for (key,) in keys])
    _forget(connection, keys)
    return len(keys)


def _forget(connection: sqlite3.Connection, keys: Sequence[Any]) -> None:
    connection.executemany("DELETE FROM quarantine WHERE call_id = ?", keys)
