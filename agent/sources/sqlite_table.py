"""Reads the rows of a table of CDRs in a SQLite file (`cdr_sqlite3_custom`), each once, and takes no lock for it.

Asterisk gives up writing a CDR after a second, older versions after a thousandth of one: a reader's shared lock would
cost calls. So the file is read as if nobody wrote (`immutable`), and what was read counts only if nobody did: no
rollback journal before and after, and the file's change counter, size and time the same. In WAL mode readers are in
nobody's way, and SQLite does all that itself.
"""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote

import orjson

from agent.pbx.text import DEFAULT_ENCODING, decoded
from agent.sources.table_layout import TableKind, known_columns, lacking
from agent.sources.tail import trouble_with

BATCH_ROWS: Final = 1000
_TRIES: Final = 40
_TRY_AGAIN_SECONDS: Final = 0.005  # a commit takes some milliseconds
_BUSY_SECONDS: Final = 1.0  # in WAL mode
_UNFINISHED_SECONDS: Final = 60.0
_HEADER_BYTES: Final = 100
_MAGIC: Final = b"SQLite format 3\0"
_WAL_VERSIONS: Final = b"\x02\x02"

_Value = int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Behind a row: its number, and by what it is known again. All zero: before the first."""

    rowid: int = 0
    inode: int = 0
    key: str = ""

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        """The same, for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:  # Any: JSON
        """What `as_json` told."""
        return cls(**told)


@dataclass(frozen=True, slots=True)
class SqliteRow:
    """One row; implements `agent.sources.source.Record`."""

    data: dict[str, str]  # the texts of its columns by their names in lower case, "" for NULL
    at: RowPlace
    after: RowPlace
    fault: str | None = None

    @property
    def raw(self) -> bytes:
        """Its columns as JSON."""
        return orjson.dumps(self.data)

    @property
    def position(self) -> str:
        """For people."""
        return f"row {self.after.rowid}"


@dataclass(frozen=True, slots=True)
class SqliteRows:
    """What one look gave; implements `agent.sources.source.Look`."""

    place: RowPlace
    records: tuple[SqliteRow, ...] = ()
    is_at_end: bool = False
    trouble: str | None = None
    notes: tuple[str, ...] = ()
    rest_seconds: float = 0.0


class _Stamp(NamedTuple):
    """By what a change of the file shows."""

    inode: int
    size: int
    changed_ns: int
    header: bytes  # with the counter of commits


class _NoTable(Exception):
    """The file holds no table that can be read; the text says why."""


class SqliteTable:
    """One table and the place in it; implements `agent.sources.source.Source`."""

    def __init__(
        self,
        path: Path,
        table: str,
        place: RowPlace | None = None,
        *,
        encoding: str = DEFAULT_ENCODING,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._journal = path.with_name(f"{path.name}-journal")
        self._wal = path.with_name(f"{path.name}-wal")
        self._table = table
        self._place = place or RowPlace()
        self._encoding = encoding
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._busy_since: float | None = None

    def read(self) -> SqliteRows:
        """The next rows; never raises for the world's faults. Runs in a thread."""
        with self._lock:
            try:
                found = self._read_undisturbed()
            except OSError as exc:
                return SqliteRows(self._place, trouble=trouble_with(self._path, exc))
            except sqlite3.Error as exc:
                return SqliteRows(self._place, trouble=f"{self._path} cannot be read: {exc}")
            except _NoTable as exc:
                return SqliteRows(self._place, trouble=str(exc))
            if found is None:
                return SqliteRows(self._place, trouble=self._busy())
            self._busy_since = None
            self._place = found.place
            return found

    def close(self) -> None:
        """Nothing is held between two looks."""

    def _busy(self) -> str | None:
        """Why nothing is read, once that lasts."""
        now = self._monotonic()
        self._busy_since = now if self._busy_since is None else self._busy_since
        if now - self._busy_since < _UNFINISHED_SECONDS:
            return None
        return f"{self._journal} shows a write that was never finished; Asterisk mends that when it writes again"

    def _read_undisturbed(self) -> SqliteRows | None:
        """None if somebody wrote all the time."""
        for _ in range(_TRIES):
            before = self._stamp()
            if self._is_wal(before):
                return self._read(before, "mode=ro")
            if not self._is_being_written():
                try:
                    found = self._read(before, "mode=ro&immutable=1")
                except sqlite3.Error:
                    if self._is_untouched(before):
                        raise
                else:
                    if self._is_untouched(before):
                        return found
            self._sleep(_TRY_AGAIN_SECONDS)
        return None

    def _is_untouched(self, since: _Stamp) -> bool:
        return not self._is_being_written() and self._stamp() == since

    def _is_wal(self, stamp: _Stamp) -> bool:
        return stamp.header[18:20] == _WAL_VERSIONS and self._wal.exists()

    def _stamp(self) -> _Stamp:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            told = os.fstat(fd)
            if not stat.S_ISREG(told.st_mode):
                raise IsADirectoryError
            return _Stamp(told.st_ino, told.st_size, told.st_mtime_ns, os.pread(fd, _HEADER_BYTES, 0))
        finally:
            os.close(fd)

    def _is_being_written(self) -> bool:
        """A rollback journal that has a header; some modes of SQLite leave an empty one behind."""
        with suppress(FileNotFoundError), self._journal.open("rb") as journal:
            return any(journal.read(8))
        return False

    def _read(self, stamp: _Stamp, options: str) -> SqliteRows:
        if stamp.size == 0:
            return SqliteRows(self._place, is_at_end=True)  # just made
        if not stamp.header.startswith(_MAGIC):
            raise _NoTable(f"{self._path} is no SQLite 3 database")
        uri = f"file:{quote(str(self._path))}?{options}"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.text_factory = bytes
            columns = self._columns(connection)
            selected = ", ".join(["rowid", *(_quoted(name) for name in columns)])
            query = f"SELECT {selected} FROM {_quoted(self._table)} WHERE rowid"  # noqa: S608 - quoted
            notes: tuple[str, ...] = ()
            start = self._place
            if start.rowid and (lost := self._lost(connection, query, start, stamp)):
                start, notes = RowPlace(), (lost,)
            rows = connection.execute(f"{query} > ? ORDER BY rowid LIMIT {BATCH_ROWS}", (start.rowid,)).fetchall()
        told, place = [], start
        names = [name.lower() for name in columns]
        for rowid, *values in rows:
            at, place = place, RowPlace(rowid, stamp.inode, _key(values))
            told.append(SqliteRow(dict(zip(names, map(self._text, values), strict=True)), at, place))
        return SqliteRows(place, tuple(told), is_at_end=len(rows) < BATCH_ROWS, notes=notes)

    def _lost(self, connection: sqlite3.Connection, query: str, at: RowPlace, stamp: _Stamp) -> str | None:
        """Why reading cannot go on behind a row, a sentence."""
        found = connection.execute(f"{query} = ?", (at.rowid,)).fetchone()
        if found is not None and _key(found[1:]) == at.key:
            return None
        if found is None and stamp.inode == at.inode:
            (highest,) = connection.execute(f"SELECT MAX(rowid) FROM {_quoted(self._table)}").fetchone()  # noqa: S608 - quoted
            if highest is not None and highest > at.rowid:
                return None  # somebody deleted old rows
        return (
            f"the table {self._table} in {self._path} is not the one that was read before; it is read from its "
            f"beginning, and what was written to the other behind row {at.rowid} is not known"
        )

    def _columns(self, connection: sqlite3.Connection) -> list[str]:
        told = connection.execute(f"PRAGMA table_info({_quoted(self._table)})").fetchall()
        names = [name.decode("utf-8", "replace") for _, name, *_ in told]
        if not names:
            raise _NoTable(f"{self._path} has no table {self._table}")
        if lacks := lacking({name.lower() for name in names}, TableKind.CDR):
            raise _NoTable(f"the table {self._table} in {self._path} has no column {lacks}; is it a table of CDR?")
        return [name for name in names if name.lower() in known_columns(TableKind.CDR)]

    def _text(self, value: _Value) -> str:
        match value:
            case None:
                return ""
            case bytes():
                return decoded(value, self._encoding)
            case _:
                return str(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _key(values: list[_Value]) -> str:
    return blake2b(repr(list(values)).encode(), digest_size=8).hexdigest()
