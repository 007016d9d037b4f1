"""Up to where second sources were read, what in them was no record, and the gaps they filled.

Everything here is to be run inside a transaction (`Writer.transact`), so that a place never says more than the calls.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from agent.store.moments import moment_of, moment_text
from agent.store.rows import json_text

MAX_REJECTS: Final = 1000  # kept of each source
MAX_RAW_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class SourceState:
    """How far one source of a PBX was read."""

    pbx: str
    source: str
    kind: str
    since: datetime  # calls that ended earlier are none of ours
    place: dict[str, Any] = field(default_factory=dict)  # Any: what the source's reader makes of it
    read_until: datetime | None = None  # when it was last read to its end
    records: int = 0
    rejects: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """What stands in a source and is no record."""

    position: str
    raw: bytes
    reason: str


def state_of(connection: sqlite3.Connection, pbx: str, source: str) -> SourceState | None:
    """What is kept of a source; None if it was never read."""
    found = connection.execute(f"{_READ} WHERE pbx = ? AND source = ?", (pbx, source)).fetchone()
    return _state(found) if found else None


def states(connection: sqlite3.Connection) -> list[SourceState]:
    """All sources that were ever read."""
    return [_state(row) for row in connection.execute(f"{_READ} ORDER BY pbx, source").fetchall()]


def keep(connection: sqlite3.Connection, state: SourceState, *, now: str) -> None:
    """Advance a source to what `state` says."""
    connection.execute(
        "INSERT INTO source_place (pbx, source, kind, place, since, read_until, records, rejects, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pbx, source) DO UPDATE SET kind = excluded.kind, "
        "place = excluded.place, since = excluded.since, read_until = excluded.read_until, "
        "records = excluded.records, rejects = excluded.rejects, updated_at = excluded.updated_at",
        (
            state.pbx,
            state.source,
            state.kind,
            json_text(state.place),
            moment_text(state.since),
            moment_text(state.read_until) if state.read_until else None,
            state.records,
            state.rejects,
            now,
        ),
    )


def note_rejects(connection: sqlite3.Connection, pbx: str, source: str, rejects: Sequence[Reject], *, now: str) -> None:
    """Keep what was no record, so that somebody can look at it; only the latest of each source stay."""
    if not rejects:
        return
    # After a restart a little is read again.
    connection.executemany(
        "INSERT INTO source_reject (pbx, source, position, raw, reason, at) SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT "
        "EXISTS (SELECT 1 FROM source_reject WHERE pbx = ?1 AND source = ?2 AND position = ?3 AND raw = ?4)",
        [(pbx, source, each.position, each.raw[:MAX_RAW_BYTES], each.reason, now) for each in rejects[-MAX_REJECTS:]],
    )
    connection.execute(
        "DELETE FROM source_reject WHERE pbx = :pbx AND source = :source AND id <= (SELECT id FROM source_reject "
        "WHERE pbx = :pbx AND source = :source ORDER BY id DESC LIMIT 1 OFFSET :kept)",
        {"pbx": pbx, "source": source, "kept": MAX_REJECTS},
    )


@dataclass(frozen=True, slots=True)
class Blindness:
    """A time, over or not, in which a PBX was not heard and which no source has filled."""

    id: int
    from_at: datetime
    to_at: datetime | None


def unfilled(connection: sqlite3.Connection, pbx: str) -> list[Blindness]:
    """The gaps of a PBX that no source has filled, the earliest first."""
    query = "SELECT id, from_at, to_at FROM gap WHERE pbx = ? AND backfilled_at IS NULL ORDER BY from_at"
    return [
        Blindness(key, moment_of(begun), moment_of(ended) if ended else None)
        for key, begun, ended in connection.execute(query, (pbx,)).fetchall()
    ]


def count_found(connection: sqlite3.Connection, gap_ids: Sequence[int], *, calls: int = 1) -> None:
    """So many calls of the time of these gaps were found: count them at each."""
    connection.executemany(
        "UPDATE gap SET calls_found = coalesce(calls_found, 0) + ? WHERE id = ?", [(calls, key) for key in gap_ids]
    )


def fill(
    connection: sqlite3.Connection, pbx: str, *, known_from: datetime, known_until: datetime, by: str, now: str
) -> int:
    """Mark the gaps of a PBX between two moments as filled by a source; how many.

    Not those in which a call began that still goes on: what was missed of it is only told at its end.
    """
    return connection.execute(
        f"UPDATE gap SET backfilled_at = ?, filled_by = ?, calls_found = coalesce(calls_found, 0) {_FILLABLE}",  # noqa: S608 - our own words
        (now, by, pbx, moment_text(known_from), moment_text(known_until)),
    ).rowcount


def can_fill(connection: sqlite3.Connection, pbx: str, *, known_from: datetime, known_until: datetime) -> bool:
    """Whether `fill` would fill any."""
    query = f"SELECT 1 FROM gap {_FILLABLE} LIMIT 1"  # noqa: S608 - our own words
    values = (pbx, moment_text(known_from), moment_text(known_until))
    return connection.execute(query, values).fetchone() is not None


_FILLABLE: Final = (
    "WHERE pbx = ? AND backfilled_at IS NULL AND from_at >= ? AND to_at <= ? AND NOT EXISTS "
    "(SELECT 1 FROM live_call WHERE live_call.pbx = gap.pbx AND live_call.start_time <= gap.to_at)"
)


_READ: Final = "SELECT pbx, source, kind, since, place, read_until, records, rejects FROM source_place"


def _state(row: tuple[Any, ...]) -> SourceState:  # Any: what SQLite holds
    pbx, source, kind, since, place, read_until, records, rejects = row
    return SourceState(
        pbx,
        source,
        kind,
        since=moment_of(since),
        place=json.loads(place),
        read_until=moment_of(read_until) if read_until else None,
        records=records,
        rejects=rejects,
    )
