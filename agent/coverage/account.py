"""The calls that a PBX's sources told, laid down on disk by name, so that a day of any size can be gone through."""

import errno
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple, Self

import orjson

from agent.coverage.errors import NotVerifiable
from agent.sources.cdr_scratch import scratch_database
from agent.store.moments import moment_text
from agent.store.rows import MOMENTS, json_text
from sync.models import Disposition

_AT_ONCE: Final = 1000
_TABLES: Final = (
    "CREATE TABLE told (sid TEXT, rank INTEGER, start TEXT, end TEXT, is_lonely INTEGER, call BLOB, "
    "PRIMARY KEY (sid, rank))",
    "CREATE TABLE wanted (sid TEXT PRIMARY KEY)",
)
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# Faults of the world, by SQLite's primary result code; all others are bugs.
_UNUSABLE: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOMEM,
    }
)  # fmt: skip
_TAKEN: Final = frozenset({Disposition.ANSWERED, Disposition.VOICEMAIL})


class SourceCall(NamedTuple):
    """A call as a source tells it: columns of `Call` by name, and its tenant by the rules."""

    row: dict[str, Any]  # Any: the columns' own types
    tenant: str | None

    @property
    def sid(self) -> str:
        """Its name."""
        return str(self.row["call_sid"])


class ToldBySources(NamedTuple):
    """One call as each source tells it, in the order of the sources."""

    sid: str
    told: list[SourceCall]


class Account:
    """What the sources told."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._waiting: list[tuple[str, int, str, str, bool, bytes]] = []

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """An empty one. Raises NotVerifiable where it cannot be laid down, and says whether room is what lacks."""
        try:
            with scratch_database() as database:
                for statement in _TABLES:
                    database.execute(statement)
                yield cls(database)
        except (sqlite3.Error, OSError) as exc:
            trouble = _trouble(exc)
            if trouble is None:
                raise
            raise NotVerifiable(f"{trouble}, in /var/tmp or TMPDIR: {exc}") from exc

    def add(self, call: SourceCall, *, rank: int) -> None:
        """Lay down a call as the source of that rank tells it."""
        row = call.row
        start, end = moment_text(row["start_time"]), moment_text(row["end_time"])
        told = orjson.dumps(tuple(call))
        self._waiting.append((call.sid, rank, start, end, is_lonely(row, legs=len(row["legs"])), told))
        if len(self._waiting) >= _AT_ONCE:
            self._flush()

    def calls(self, start: datetime, end: datetime, *, at_once: int) -> Iterator[list[ToldBySources]]:
        """Those that began between the two, so many at once."""
        self._flush()
        query = "SELECT sid, call FROM told WHERE start >= ? AND start < ? ORDER BY sid, rank"
        found = self._database.execute(query, (moment_text(start), moment_text(end)))
        groups = groupby(found, key=itemgetter(0))
        while part := [_of(sid, calls) for sid, calls in islice(groups, at_once)]:
            yield part

    def knows(self, sids: Sequence[str]) -> set[str]:
        """Which of these it tells of, whenever they began."""
        query = "SELECT sid FROM told WHERE sid IN (SELECT value FROM json_each(?))"
        return {sid for (sid,) in self._database.execute(query, (json_text(list(sids)),))}

    def tells_lonely_calls(self, start: datetime, end: datetime) -> bool:
        """Whether there is one that reached nobody; an Asterisk with `unanswered = no` writes none."""
        query = "SELECT 1 FROM told WHERE is_lonely AND start >= ? AND start < ? LIMIT 1"
        return self._database.execute(query, (moment_text(start), moment_text(end))).fetchone() is not None

    def want(self, sids: Sequence[str]) -> None:
        """Remember calls that should be taken in."""
        self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(sid,) for sid in sids])

    def overlapping(self, start: datetime, end: datetime, *, at_once: int) -> Iterator[list[SourceCall]]:
        """Calls that went on at some time between the two, as all sources tell them."""
        self._flush()
        query = "SELECT rank, call FROM told WHERE start <= ? AND end >= ? ORDER BY rank, sid"
        return self._told(query, moment_text(end), moment_text(start), at_once=at_once)

    def wanted(self, *, at_once: int) -> Iterator[list[SourceCall]]:
        """Those that were remembered, as all sources tell them."""
        return self._told("SELECT rank, call FROM told JOIN wanted USING (sid) ORDER BY rank, sid", at_once=at_once)

    def _told(self, query: str, *values: object, at_once: int) -> Iterator[list[SourceCall]]:
        # A call stands once in each part, since the store takes one account of it at a time.
        for _, calls in groupby(self._database.execute(query, values), key=itemgetter(0)):
            while part := [_read(call) for _, call in islice(calls, at_once)]:
                yield part

    def _flush(self) -> None:
        if self._waiting:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)", self._waiting)
            self._database.execute("COMMIT")
            self._waiting.clear()


def _trouble(exc: sqlite3.Error | OSError) -> str | None:
    """What the world did; None for a bug."""
    code = getattr(exc, "sqlite_errorcode", -1) & 0xFF
    if code == sqlite3.SQLITE_FULL or (isinstance(exc, OSError) and exc.errno in _NO_ROOM):
        return "there is no room to lay down its calls"
    return "its calls cannot be laid down" if isinstance(exc, OSError) or code in _UNUSABLE else None


def is_lonely(row: Mapping[str, Any], *, legs: int) -> bool:  # Any: columns of a call
    """Whether it was taken by nobody, and nobody was rung; `legs`: how many parties it had."""
    return legs < 2 and row["pbx_answer_time"] is None and row["disposition"] not in _TAKEN


def _of(sid: str, calls: Iterator[tuple[str, bytes]]) -> ToldBySources:
    return ToldBySources(sid, [_read(call) for _, call in calls])


def _read(text: bytes) -> SourceCall:
    row, tenant = orjson.loads(text)
    for name in MOMENTS:
        if row.get(name) is not None:
            row[name] = datetime.fromisoformat(row[name])
    return SourceCall(row, tenant)
