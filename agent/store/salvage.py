"""Reads a damaged database into a new one: whatever stands on a page that is still whole, unsent calls first.

The tables' b-trees are walked from their roots; leaves that no tree reaches any more are given to the table whose shape
their rows have. A row counts only if every value is one that its column can hold.
"""

import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.errors import SalvageStopped, StoreUnavailable
from agent.store import schema
from agent.store.engine import new_database, problems_of
from agent.store.faults import faults_of
from agent.store.files import discard, wal_file
from agent.store.pages import LEAF, Pages, Value
from config import failpoints

# What an unsent call needs comes first: should the disk fill up, it is the rest that is missing.
_ORDER: Final = (
    "tenant", "outbox", "quarantine", "dropped_call", "call", "task", "interaction", "live_call", "part_of_call",
    "journal_segment", "gap", "source_place", "counter", "centre", "call_receipt", "horizon", "account",
    "context_operation", "erasure", "erased_call", "service", "user", "coverage", "source_reject",
)  # fmt: skip
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
REPORT_FORMAT: Final = 1
_AT_ONCE: Final = 500
_LOOK_EVERY: Final = 100_000  # of SQLite's virtual machine's steps: some milliseconds
_LOOK_EVERY_PAGES: Final = 256
# Every unsent call is sent again, whatever became of its outbox entry: the centre knows one that it has.
_REQUEUE: Final = """
INSERT INTO outbox (call_id, revision, enqueued_at)
SELECT id, revision, updated_at FROM call
WHERE id NOT IN (SELECT call_id FROM outbox) AND id NOT IN (SELECT call_id FROM quarantine)
AND id NOT IN (SELECT call_id FROM call_receipt)
AND NOT EXISTS (SELECT 1 FROM dropped_call WHERE dropped_call.call_sid = call.call_sid
                AND dropped_call.revision = call.revision)
ORDER BY id
"""


@dataclass(slots=True)
class Salvaged:
    """What came over, and what is known to be lost."""

    rows: Counter[str] = field(default_factory=Counter)  # saved, by table
    unreadable: Counter[str] = field(default_factory=Counter)  # rows that were damaged themselves
    parentless: Counter[str] = field(default_factory=Counter)  # rows whose call is lost
    lost_ranges: dict[str, list[tuple[int | None, int | None]]] = field(default_factory=dict)
    damaged_pages: int = 0
    requeued: int = 0  # calls whose outbox entry was lost or never known: they are sent again

    @property
    def has_losses(self) -> bool:
        """Whether anything is known not to have come over."""
        return bool(self.unreadable or self.parentless or self.lost_ranges or self.damaged_pages)

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For a report."""
        return {
            "format": REPORT_FORMAT,
            "at": datetime.now(UTC).isoformat(),
            "saved": dict(self.rows),
            "unreadable_rows": dict(self.unreadable),
            "rows_without_their_call": dict(self.parentless),
            "lost_row_ids": {name: [list(each) for each in found] for name, found in self.lost_ranges.items()},
            "damaged_pages": self.damaged_pages,
            "calls_sent_again": self.requeued,
        }


class _Column:
    def __init__(self, name: str, declared: str, *, may_be_null: bool, is_row_id: bool) -> None:
        self.name = name
        self.may_be_null = may_be_null
        self.is_row_id = is_row_id
        self._fits: Callable[[Value], bool] = _FITS.get(declared.partition("(")[0].upper(), _is_text)

    def fits(self, value: Value) -> bool:
        if self.is_row_id:
            return value is None
        return self.may_be_null if value is None else self._fits(value)


@dataclass(slots=True)
class _Table:
    name: str
    columns: list[_Column]
    root: int | None  # None: not known any more

    def fits(self, values: list[Value]) -> bool:
        # Rows from before a column was added are shorter.
        return 0 < len(values) <= len(self.columns) and all(
            column.fits(value) for column, value in zip(self.columns, values, strict=False)
        )

    def is_whole(self, values: list[Value]) -> bool:
        return len(values) == len(self.columns)


def salvage(damaged: Path, into: Path, *, is_stopped: Callable[[], bool] = lambda: False) -> Salvaged:
    """Write to the new file `into` what can be read of `damaged`; its directory entry and bytes are synced.

    Raises StoreUnavailable if a file cannot be read or written at all, or was written by a newer program;
    SalvageStopped soon after `is_stopped` says so. Then there is no new file.
    """
    try:
        result = _salvaged(damaged, into, is_stopped)
    except BaseException:
        discard(into)
        raise
    failpoints.hit("salvage.written")
    return result


def _salvaged(damaged: Path, into: Path, is_stopped: Callable[[], bool]) -> Salvaged:
    with faults_of(damaged), ExitStack() as stack:
        stream = stack.enter_context(damaged.open("rb"))
        wal = stack.enter_context(wal_file(damaged).open("rb")) if wal_file(damaged).exists() else None
        pages = Pages(stream, size=damaged.stat().st_size, wal=wal)
        into.unlink(missing_ok=True)
        with faults_of(into), closing(new_database(into)) as target:
            target.set_progress_handler(is_stopped, _LOOK_EVERY)
            try:
                result = _Salvage(pages, target, damaged, is_stopped).run()
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                raise SalvageStopped(f"{damaged} is not salvaged yet") from exc
        with into.open("rb") as written:
            os.fsync(written.fileno())
    return result


class _Salvage:
    def __init__(
        self, pages: Pages, target: sqlite3.Connection, path: Path, is_stopped: Callable[[], bool]
    ) -> None:  # fmt: skip
        self._is_stopped = is_stopped
        self._pages = pages
        self._target = target
        self._path = path
        self._seen = bytearray(pages.count + 1)
        self._sequences: dict[str, int] = {}
        self._result = Salvaged()
        self._tables = self._described()
        self._leaves: dict[str, list[int]] = {name: [] for name in self._tables}

    def run(self) -> Salvaged:
        self._find_leaves()
        self._refuse_newer()
        self._target.execute("PRAGMA foreign_keys = OFF")
        for name in _ORDER:
            if name in self._tables:
                self._copy(self._tables[name])
        self._target.execute("BEGIN")
        self._drop_parentless()
        self._keep_sequences()
        self._result.requeued = self._target.execute(_REQUEUE).rowcount
        self._target.execute("COMMIT")
        problems = problems_of(self._target)
        if problems:
            raise StoreUnavailable(f"what was salvaged of {self._path} is not sound: {problems[0]}")
        self._target.execute("PRAGMA journal_mode = DELETE")
        return self._result

    def _described(self) -> dict[str, _Table]:
        """The tables with their roots, of the file's own description as far as it can be read, else of ours."""
        found = {}
        for name, sql in self._target.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
            if not name.startswith("sqlite_"):
                found[name] = _Table(name, _columns(sql, name), None)
        for page in self._pages.walk(1, bytearray(self._pages.count + 1)).leaves:
            self._seen[page] = 1
            for row in self._pages.rows(page):
                match row:
                    case (_, ["table", "sqlite_sequence", _, int(root), _]):
                        self._read_sequences(root)
                    case (_, ["table", str(name), _, int(root), str(sql)]) if name in found:
                        columns = _columns(sql, name)
                        found[name] = _Table(name, columns or found[name].columns, root)
        if self._pages.count:
            self._seen[1] = 1
        return found

    def _read_sequences(self, root: int) -> None:
        for page in self._pages.walk(root, self._seen).leaves:
            for row in self._pages.rows(page):
                match row:
                    case (_, [str(name), int(number)]):
                        self._sequences[name] = number

    def _keep_sequences(self) -> None:
        """No number is given twice: live calls, for one, name the segment from which they are replayed."""
        (anchor,) = self._target.execute("SELECT coalesce(max(journal_id), 0) FROM live_call").fetchone()
        self._sequences["journal_segment"] = max(self._sequences.get("journal_segment", 0), anchor)
        for name, number in self._sequences.items():
            if self._target.execute(
                "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (number, name)
            ).rowcount:
                continue
            self._target.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))

    def _find_leaves(self) -> None:
        for table in self._tables.values():
            if table.root is not None:
                walk = self._pages.walk(table.root, self._seen)
                self._leaves[table.name] = walk.leaves
                if walk.lost:
                    self._result.lost_ranges[table.name] = walk.lost
        for number in range(2, self._pages.count + 1):
            self._look_up(number)
            if not self._seen[number] and self._pages.kind(number) == LEAF:
                name = self._table_of(number)
                if name is not None:
                    self._leaves[name].append(number)
                else:
                    self._result.damaged_pages += 1

    def _look_up(self, number: int) -> None:
        if number % _LOOK_EVERY_PAGES == 0 and self._is_stopped():
            raise SalvageStopped(f"{self._path} is not salvaged yet")

    def _table_of(self, number: int) -> str | None:
        """Whose rows these are: the table that the most of them fit, and of several the one they fill."""
        votes: Counter[str] = Counter()
        for row in self._pages.rows(number):
            if row is not None:
                for table in self._tables.values():
                    if table.fits(row[1]):
                        votes[table.name] += 2 if table.is_whole(row[1]) else 1
        return votes.most_common(1)[0][0] if votes else None

    def _refuse_newer(self) -> None:
        for page in self._leaves.get("alembic_version", []):
            for row in self._pages.rows(page):
                if row is not None and isinstance(row[1][0], str):
                    schema.check_known(row[1][0], self._target, self._path)

    def _rows(self, table: _Table) -> Iterator[dict[str, Value]]:
        for number in self._leaves[table.name]:
            self._look_up(0)
            for row in self._pages.rows(number):
                if row is None or not table.fits(row[1]):
                    self._result.unreadable[table.name] += 1
                    continue
                row_id, values = row
                yield {
                    column.name: row_id if column.is_row_id else value
                    for column, value in zip(table.columns, values, strict=False)
                }

    def _copy(self, table: _Table) -> None:
        known = {str(row[1]) for row in self._target.execute(f'PRAGMA table_info("{table.name}")')}
        self._target.execute("BEGIN")
        try:
            for count, row in enumerate(self._rows(table), start=1):
                # What triggers count is counted again; only how far the spill was taken up is nobody else's.
                if table.name == "counter" and not str(row["name"]).startswith("spill_"):
                    continue
                self._insert(table.name, {name: value for name, value in row.items() if name in known})
                if count % _AT_ONCE == 0:
                    self._target.execute("COMMIT")
                    self._target.execute("BEGIN")
            self._target.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # an interrupted statement has undone it itself
                self._target.execute("ROLLBACK")
            raise
        failpoints.hit("salvage.table")

    def _insert(self, table: str, row: dict[str, Value]) -> None:
        names = ", ".join(f'"{name}"' for name in row)
        # Of two rows of one key the one that its tree reached came first.
        statement = f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(row))})'  # noqa: S608 - our names
        try:
            self._target.execute(statement, list(row.values()))
        except sqlite3.IntegrityError:
            self._result.unreadable[table] += 1
        else:
            self._result.rows[table] += 1

    def _drop_parentless(self) -> None:
        for table, column, parent in self._references():
            condition = f'"{column}" IS NOT NULL AND "{column}" NOT IN (SELECT id FROM "{parent}")'  # noqa: S608
            # Whose tenant is not known any more is nobody's, and no reason to lose a call.
            nullable = column == "tenant_id" and table != "user"
            statement = (  # names of our schema
                f'UPDATE "{table}" SET "{column}" = NULL WHERE {condition}'  # noqa: S608
                if nullable
                else f'DELETE FROM "{table}" WHERE {condition}'  # noqa: S608
            )
            count = self._target.execute(statement).rowcount
            if count and not nullable:
                self._result.parentless[table] += count

    def _references(self) -> list[tuple[str, str, str]]:
        return [
            (name, str(row[3]), str(row[2]))
            for name in _ORDER
            for row in self._target.execute(f'PRAGMA foreign_key_list("{name}")')
        ]


def _columns(sql: str, name: str) -> list[_Column]:
    """A table's columns, by the statement that made it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(sql)
        except sqlite3.Error:
            return []
        rows = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
    keys = [row for row in rows if row[5]]
    return [
        _Column(
            str(column),
            str(declared),
            may_be_null=not not_null,
            is_row_id=bool(key) and len(keys) == 1 and str(declared).upper() == "INTEGER",
        )
        for _, column, declared, not_null, _, key in rows
    ]


def _is_text(value: Value) -> bool:
    return isinstance(value, str)


def _is_integer(value: Value) -> bool:
    return isinstance(value, int)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float)


def _is_truth(value: Value) -> bool:
    return value in (0, 1)


def _is_moment(value: Value) -> bool:
    return isinstance(value, str) and _MOMENT.match(value) is not None


def _is_bytes(value: Value) -> bool:
    return isinstance(value, bytes)


def _is_json(value: Value) -> bool:
    if not isinstance(value, str):
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


_FITS: Final[dict[str, Callable[[Value], bool]]] = {
    "INTEGER": _is_integer,
    "FLOAT": _is_number,
    "BOOLEAN": _is_truth,
    "DATETIME": _is_moment,
    "BLOB": _is_bytes,
    "JSON": _is_json,
}
