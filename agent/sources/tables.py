"""Reads the rows of a `cdr` or `cel` table of a PBX's MariaDB, each once, from a place that outlives the reader.

A table whose rows are numbered (`auto_increment`) is read by the numbers; FreePBX numbers those of `cel`, others also
those of `cdr`. Where CDRs have no number, they are read by a ledger of what was seen (`agent.sources.table_ledger`).
After a crash a row may come again; none is left out, but for one that is written so late that its number was given up.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from agent.pbx.text import DEFAULT_ENCODING
from agent.sources.mariadb import ConnectionGone, ReadOnly, TableAddress, TableTrouble
from agent.sources.table_clock import RowClock
from agent.sources.table_layout import Layout, TableKind
from agent.sources.table_ledger import DAY_CHARS
from agent.sources.table_reading import ByLedger, ByNumber, Found, TablePlace, TableRow

WINDOW: Final = timedelta(hours=24)  # so long a call may last and be found at its end; a longer one is an hour late
_SHARE: Final = 20  # reading takes no more than one part of so many of the server's time
_FIRST_DAY: Final = "1970-01-02"  # what is older has no time


@dataclass(frozen=True, slots=True)
class Batch:
    """What one look at the table gave."""

    place: TablePlace | None  # None: the table could never be looked at, and what was kept stays
    records: tuple[TableRow, ...] = ()
    is_at_end: bool = False  # all that had been written when this look began was told
    trouble: str | None = None  # why nothing can be read, a sentence
    notes: tuple[str, ...] = ()  # what happened to the table
    rest_seconds: float = 0.0  # the PBX's database gets rest in between


class Table:
    """One table and the place in it; implements `agent.sources.source.Source`."""

    def __init__(
        self,
        address: TableAddress,
        kind: TableKind,
        place: dict[str, Any] | None = None,  # Any: JSON, as a place told itself
        *,
        zone: tzinfo,
        encoding: str = DEFAULT_ENCODING,
        since: datetime | None = None,
        window: timedelta = WINDOW,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`zone` is that of the PBX's clock; rows from before `since` are left out when it is read the first time."""
        self._address = address
        self._kind = kind
        self._told = place
        self._zone = zone
        self._encoding = encoding
        self._since = since
        self._window = window
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._asked_at: float | None = None  # since when the server works for us
        self._connection: ReadOnly | None = None
        self._layout: Layout | None = None
        self._reader: ByNumber | ByLedger | None = None

    def read(self) -> Batch:
        """The next rows; never raises for the world's faults. May take a minute."""
        with self._lock:
            self._asked_at = None
            try:
                found, trouble = self._read(), None
            except TableTrouble as exc:
                self._disconnect()
                found, trouble = Found(), str(exc)
            except (ValueError, OverflowError) as exc:  # a count that is no number, a day that is none
                self._disconnect()
                found, trouble = Found(), f"{self._address.server} tells what no table can hold: {exc}"
            place = self._reader.place if self._reader is not None and self._reader.is_begun else None
            seconds = self._monotonic() - self._asked_at if self._asked_at is not None else 0.0
            rest = seconds if found.rows else _SHARE * seconds
            return Batch(place, tuple(found.rows), found.is_at_end, trouble, tuple(found.notes), rest)

    def close(self) -> None:
        """Let go of the server; waits for a read that is under way."""
        with self._lock:
            self._disconnect()

    def _read(self) -> Found:
        if self._connection is not None:
            self._asked_at = self._monotonic()
            try:
                return self._next(self._connection)
            except ConnectionGone:
                self._disconnect()  # perhaps only because it was idle, or the server began anew
        self._asked_at = None  # who cannot connect keeps the server from nothing
        self._connection = ReadOnly(self._address)
        self._asked_at = self._monotonic()
        layout = Layout.of(self._connection, self._address, self._kind, self._encoding)
        if self._reader is None or layout != self._layout:
            self._reader, self._layout = self._reader_of(layout), layout
        return self._next(self._connection)

    def _next(self, connection: ReadOnly) -> Found:
        assert self._reader is not None  # noqa: S101 - made with the connection
        with connection.transaction():
            return self._reader.read(connection)

    def _reader_of(self, layout: Layout) -> ByNumber | ByLedger:
        zone = UTC if layout.is_utc else self._zone
        since = _local(self._since, zone) if self._since is not None else None
        clock = RowClock(zone)
        told = self._reader.place.as_json() if self._reader is not None else self._told
        if layout.number is not None:
            return ByNumber(layout, clock, told=told if told and "id" in told else None, since=since)
        return ByLedger(
            layout,
            clock,
            told=told if told and "begun" in told else None,
            begun=(since or _FIRST_DAY)[:DAY_CHARS],
            floor=lambda: _local(self._now() - self._window, zone)[:DAY_CHARS],
            monotonic=self._monotonic,
        )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _local(moment: datetime, zone: tzinfo) -> str:
    """As a table's clock shows it."""
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
