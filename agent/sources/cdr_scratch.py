"""CDRs of any number laid down on disk and taken up call by call: those of one call need not stand together."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple, Self

import orjson

from agent.pbx.asterisk.cdr import CdrRow, digest_of
from agent.pbx.asterisk.cdr_calls import MAX_ROWS

_AT_ONCE: Final = 5000
_PRAGMAS: Final = ("synchronous = OFF", "cache_size = -16384", "temp_store = FILE")
_NAMELESS: Final = "~"  # before the key of CDRs that bear no id; no uniqueid begins so
_Staged = tuple[str, int, int, bytes]


@contextmanager
def scratch_database() -> Iterator[sqlite3.Connection]:
    """An empty database that vanishes with us; on a disk, not in memory as /tmp may be."""
    directory = os.environ.get("TMPDIR") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else None)  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="edge-calls-", dir=directory) as place:
        database = sqlite3.connect(Path(place) / "scratch.db", isolation_level=None)
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE opened (at)")  # a file is made by the first write
        database.execute("DROP TABLE opened")
    # The file has no name any more, so that nothing is left of it however this process ends.
    with closing(database):
        for pragma in _PRAGMAS:
            database.execute(f"PRAGMA {pragma}")
        yield database


class StagedCall(NamedTuple):
    """The CDRs of one call; `native_id` is its name. `lines`: how many lines were taken up for it."""

    native_id: str
    cdrs: list[bytes]
    lines: int

    def rows(self) -> list[CdrRow]:
        """The CDRs."""
        return [_row(data) for data in self.cdrs]


class Scratch:
    """A file of our own that vanishes with us."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._waiting: list[_Staged] = []
        self.count = 0

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Where `scratch_database` is."""
        with scratch_database() as database:
            database.execute("CREATE TABLE line (key TEXT, file INTEGER, number INTEGER, data BLOB)")
            yield cls(database)

    def add(self, row: CdrRow, *, file: int, number: int) -> None:
        """Lay down a CDR."""
        key = row.linkedid or row.uniqueid or _NAMELESS + digest_of(row)
        self._waiting.append((key, file, number, orjson.dumps(tuple(row))))
        self.count += 1
        if len(self._waiting) >= _AT_ONCE:
            self._flush()

    def calls(self) -> Iterator[StagedCall]:
        """The CDRs of each call, roughly in the order of the calls. A line that stands twice counts once."""
        self._flush()
        lines = self._database.execute("SELECT key, file, data FROM line ORDER BY key, file, number")
        for key, group in groupby(lines, key=itemgetter(0)):
            if key.startswith(_NAMELESS):
                yield from _of_nameless(key, group)
                continue
            count, seen = 0, dict[bytes, None]()
            for _, _, data in group:
                count += 1
                if len(seen) < MAX_ROWS:
                    seen[data] = None
            yield StagedCall(key, list(seen), count)

    def _flush(self) -> None:
        if self._waiting:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO line VALUES (?, ?, ?, ?)", self._waiting)
            self._database.execute("COMMIT")
            self._waiting.clear()


def _of_nameless(key: str, group: Iterator[tuple[str, int, bytes]]) -> Iterator[StagedCall]:
    """Equal lines of one file are as many calls; the same in a second file (a copy, an overlap) are the same ones."""
    most, cdr = 0, b""
    for _, lines in groupby(group, key=itemgetter(1)):
        count = 0
        for _, _, cdr in lines:  # noqa: B007 - they are equal
            count += 1
        most = max(most, count)
    for ordinal in range(most):
        yield StagedCall(f"{key.removeprefix(_NAMELESS)}-{ordinal}", [cdr], 1)


def _row(data: bytes) -> CdrRow:
    start, answer, end, *rest = orjson.loads(data)
    moments = datetime.fromisoformat(start), answer and datetime.fromisoformat(answer), datetime.fromisoformat(end)
    return CdrRow._make((*moments, *rest))
