"""The next rows of a table, by their numbers or by the ledger of what was seen."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from agent.sources.mariadb import ReadOnly
from agent.sources.table_clock import RowClock
from agent.sources.table_ids import LATE_NUMBERS, IdPlace
from agent.sources.table_layout import Layout, number_of, quoted
from agent.sources.table_ledger import (
    BATCH_ROWS,
    BUCKET_CHARS,
    DAY_CHARS,
    Group,
    Ledger,
    LedgerColumns,
    LedgerPlace,
    later,
)

SWEEP_SECONDS: Final = 3600.0  # between two counts of older days

TablePlace = IdPlace | LedgerPlace


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row; implements `agent.sources.source.Record`.

    CEL's `eventtime` has its zone; the times of a CDR are as they stand there, unless they are of type TIMESTAMP.
    """

    data: Mapping[str, str]  # the texts of its columns by their names in lower case, "" for NULL
    at: TablePlace  # reading from here gives it again
    after: TablePlace
    fault: str | None = None

    @property
    def raw(self) -> bytes:
        """Its columns as JSON."""
        return orjson.dumps(self.data)

    @property
    def position(self) -> str:
        """Its number, or what else tells it from others."""
        if isinstance(self.at, IdPlace) and isinstance(self.after, IdPlace):
            late = self.at.missing - self.after.missing
            return f"row {next(iter(late)) if self.after.last == self.at.last and late else self.after.last}"
        return f"the row of uniqueid {self.data.get('uniqueid', '')}, sequence {self.data.get('sequence', '')}"


@dataclass(slots=True)
class Found:
    """What one look gave."""

    rows: list[TableRow] = field(default_factory=list)
    is_at_end: bool = False
    notes: list[str] = field(default_factory=list)


class ByNumber:
    """Reads on from a number. `told` is a place as JSON; without one, from the first row of `since` on."""

    def __init__(
        self,
        layout: Layout,
        clock: RowClock,
        *,
        told: dict[str, Any] | None,  # Any: JSON
        since: str | None,
    ) -> None:
        assert layout.number is not None  # noqa: S101 - else it is not read by number
        self._layout = layout
        self._clock = clock
        self._since = since
        self._number = quoted(layout.number.name)
        self.is_begun = told is not None  # else it is not known yet where that is
        self.place = IdPlace.from_json(told) if told is not None else IdPlace()

    def read(self, connection: ReadOnly) -> Found:
        """The next rows, inside a transaction."""
        notes = []
        layout = self._layout
        highest = number_of(connection.rows(f"SELECT MAX({self._number}) FROM {layout.table}")[0][0])  # noqa: S608 - quoted
        if not self.is_begun or (highest is not None and highest < self.place.last):
            if self.is_begun:
                name = layout.table.replace("`", "")
                notes.append(f"the rows of {name} are numbered anew; it is read from its beginning")
            self.place = IdPlace(self._first(connection, highest or 0) - 1)
            self.is_begun = True
        missing = sorted(self.place.missing)[:LATE_NUMBERS]
        late = f"{self._number} IN ({', '.join(map(str, missing))}) OR " if missing else ""
        rows = connection.rows(
            f"SELECT {self._number}, {layout.selected} FROM {layout.table} "  # noqa: S608 - quoted
            f"WHERE {late}{self._number} > %s ORDER BY {self._number} LIMIT {BATCH_ROWS}",
            self.place.last,
        )
        told = []
        for number, *raw in rows:
            at = self.place
            self.place = at.after(number_of(number) or 0)
            told.append(TableRow(layout.values(tuple(raw), self._clock), at, self.place))
        self.place = self.place.pruned()
        return Found(told, is_at_end=len(rows) < BATCH_ROWS, notes=notes)

    def _first(self, connection: ReadOnly, highest: int) -> int:
        """The number of the first row since then. Looked for by halves, as numbers have an index and times may not."""
        low, high = 0, highest + 1
        if self._since is None:
            return 1
        query = (
            f"SELECT {self._number}, {quoted(self._layout.time.name)} FROM {self._layout.table} "  # noqa: S608 - quoted
            f"WHERE {self._number} >= %s ORDER BY {self._number} LIMIT 1"
        )
        while low < high:
            middle = (low + high) // 2
            found = connection.rows(query, middle)
            if not found or (found[0][1] or b"").decode("ascii", "replace") >= self._since:
                high = middle
            else:
                low = (number_of(found[0][0]) or middle) + 1
        return max(low, 1)


class ByLedger:
    """Reads what was not seen. `floor` is the first day that is counted by ten minutes, at this moment."""

    def __init__(
        self,
        layout: Layout,
        clock: RowClock,
        *,
        told: dict[str, Any] | None,  # Any: JSON
        begun: str,
        floor: Callable[[], str],
        monotonic: Callable[[], float],
    ) -> None:
        start = layout.index(layout.time.name)
        assert start is not None  # noqa: S101 - among the columns
        self._layout = layout
        self._clock = clock
        self._floor = floor
        self._monotonic = monotonic
        columns = LedgerColumns(start, layout.index("duration"), layout.index("sequence"))
        self._ledger = Ledger(columns, begun=begun, told=told)
        self.is_begun = True
        self._time = quoted(layout.time.name)
        self._groups: deque[Group] = deque()
        self._swept_at: float | None = None

    @property
    def place(self) -> LedgerPlace:
        """Behind all that was told."""
        return self._ledger.place

    def read(self, connection: ReadOnly) -> Found:
        """The next rows, inside a transaction."""
        is_fresh = not self._groups
        if is_fresh:
            self._look(connection)
        if not self._groups:
            self._sweep(connection)
            is_fresh = not self._groups
        if not self._groups:
            return Found(is_at_end=True)
        group = self._groups[0]
        rows = connection.rows(
            f"SELECT {self._layout.selected} FROM {self._layout.table} "  # noqa: S608 - quoted
            f"WHERE {self._time} >= %s AND {self._time} < %s",
            group.first,
            group.until,
        )
        self._groups.popleft()  # only now that nothing can fail any more
        told = [
            TableRow(self._layout.values(each.raw, self._clock), each.at, each.after)
            for each in self._ledger.take(group, rows)
        ]
        is_live = self._ledger.read_to >= self._floor()
        return Found(told, is_at_end=is_fresh and not self._groups and is_live)

    def _look(self, connection: ReadOnly) -> None:
        """What has changed, span by span up to the present; nothing if nothing has."""
        floor = self._floor()
        while True:
            first, until = self._ledger.span(floor)
            counts = self._counts(connection, BUCKET_CHARS, first, until)
            self._groups.extend(self._ledger.changed(counts, until))
            if self._groups or until is None:
                return
            if not counts:
                until = max(until, min(self._next_day(connection, until) or floor, floor))
            self._ledger.close(until, floor)

    def _sweep(self, connection: ReadOnly) -> None:
        """Older days that have rows which were not seen."""
        now = self._monotonic()
        if self._swept_at is not None and now - self._swept_at < SWEEP_SECONDS:
            return
        counts = self._counts(connection, DAY_CHARS, *self._ledger.swept(self._floor()))
        for day in self._ledger.grown(counts):
            buckets = self._counts(connection, BUCKET_CHARS, day, later(day, 1))
            self._groups.extend(self._ledger.day_again(day, buckets))
        self._swept_at = now

    def _counts(self, connection: ReadOnly, chars: int, first: str, until: str | None) -> dict[str, int]:
        before = f" AND {self._time} < %s" if until is not None else ""
        rows = connection.rows(
            f"SELECT LEFT({self._time}, {chars}), COUNT(*) FROM {self._layout.table} "  # noqa: S608 - quoted
            f"WHERE {self._time} >= %s{before} GROUP BY 1",
            *([first, until] if until is not None else [first]),
        )
        return {(when or b"").decode("ascii"): number_of(count) or 0 for when, count in rows}

    def _next_day(self, connection: ReadOnly, day: str) -> str | None:
        query = f"SELECT MIN({self._time}) FROM {self._layout.table} WHERE {self._time} >= %s"  # noqa: S608 - quoted
        first = connection.rows(query, day)[0][0]
        return first.decode("ascii")[:DAY_CHARS] if first is not None else None
