"""Up to when calls were deleted here, tenant by tenant: whoever tells of an unknown call of that time may tell of one
that was here, and that the centre knows better than any source does.

Everything is to be run inside a transaction or a short read.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from agent.store.moments import moment_of

NOBODY: Final = 0  # stands for calls of no tenant

_ADVANCE: Final = """INSERT INTO horizon (tenant_id, until, receipt, calls) VALUES (?, ?, ?, ?)
    ON CONFLICT (tenant_id) DO UPDATE SET until = max(until, excluded.until), receipt = max(receipt, excluded.receipt),
    calls = calls + excluded.calls"""
_BY_NAME: Final = "SELECT tenant.name, until FROM horizon LEFT JOIN tenant ON tenant.id = horizon.tenant_id"
_OF_GAP: Final = """SELECT 1 FROM gap WHERE pbx = ? AND backfilled_at IS NULL AND from_at <= ?
    AND (to_at IS NULL OR to_at >= ?) LIMIT 1"""

# Of one tenant: its local key, when the latest of the calls began, the greatest receipt's number, how many.
Deleted = tuple[int, str, int, int]


def advance(connection: sqlite3.Connection, deleted: Sequence[Deleted]) -> None:
    """These calls are deleted in this transaction."""
    connection.executemany(_ADVANCE, deleted)


def by_tenant(connection: sqlite3.Connection) -> dict[str | None, datetime]:
    """When the latest call began that was deleted of each tenant, by its name; None: of no tenant."""
    return {tenant: moment_of(until) for tenant, until in connection.execute(_BY_NAME)}


def lost_for(connection: sqlite3.Connection, *, after: int) -> datetime | None:
    """Whether a call was deleted that only a receipt later than `after` confirmed: when the latest such may have begun.

    A centre that has given no more receipts than `after` may lack it, and cannot get it from here.
    """
    found = connection.execute("SELECT max(until) FROM horizon WHERE receipt > ?", (after,)).fetchone()[0]
    return moment_of(found) if found is not None else None


class Unknown(NamedTuple):
    """A call that is not here, as somebody tells it; moments as they are stored."""

    call_sid: str
    tenant: str | None  # by name
    pbx: str
    start: str
    end: str


def gone(connection: sqlite3.Connection, unknown: Iterable[Unknown]) -> set[str]:
    """Those that may have been deleted here, by name.

    Not those of a gap's time that is not filled yet: nobody could have known them.
    """
    until = dict(connection.execute(_BY_NAME).fetchall())
    if not until:
        return set()
    return {
        call.call_sid
        for call in unknown
        if call.start <= until.get(call.tenant, "")
        and connection.execute(_OF_GAP, (call.pbx, call.end, call.start)).fetchone() is None
    }
