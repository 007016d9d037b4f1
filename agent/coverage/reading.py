"""What a source tells of the calls of a time, read anew from the source itself; nothing of it is kept or followed.

The same pure functions make calls of it as follow the source; what the follower has stored is not looked at.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from agent.coverage.account import SourceCall
from agent.coverage.errors import NotVerifiable
from agent.coverage.files import chain_of, records_of
from agent.pbx.asterisk.cdr import CdrFault, CdrReader, CdrRow, UnknownColumns
from agent.pbx.asterisk.cdr_calls import call_of
from agent.pbx.asterisk.cel import CEL_COLUMNS, CelReader, CelRow
from agent.pbx.asterisk.cel_calls import CelCalls
from agent.pbx.text import decoded
from agent.sources.cdr_scratch import Scratch, StagedCall
from agent.sources.opening import PbxSources, opener, zone_of
from agent.sources.source import Content
from config.settings import SourceKind, SourceSettings

log = logging.getLogger(__name__)

_CEL: Final = frozenset({SourceKind.CEL_CSV, SourceKind.CEL_MARIADB})
# Of a call that began, or was joined with another, so long before or after, all is read.
BEFORE: Final = timedelta(hours=6)
AFTER: Final = timedelta(hours=24)
_STEP: Final = 200  # records, some milliseconds
# A PBX whose clock was wrong for a while wrote times that say nothing, in the middle of others.
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_AHEAD: Final = timedelta(days=1)
_LATER_IN_A_ROW: Final = 1000  # records, until nothing more is expected of the time that is wanted

# Is told now and then, and how many seconds a source wants to be left alone; may raise to end the reading.
Rest = Callable[[float], None]


@dataclass(slots=True)
class Reach:
    """From when to when a source was read."""

    first_at: datetime | None = None  # the time of its first record; None: it has none
    last_at: datetime | None = None
    is_cut: bool = False  # it has older records, which were passed over
    nameless: int = 0  # CDRs that bear no id, so that they cannot be joined with what was heard

    def reaches(self, moment: datetime) -> bool:
        """Whether it goes back so far."""
        return self.is_cut or (self.first_at is not None and self.first_at <= moment)


def read_calls(
    source: SourceSettings,
    of: PbxSources,
    *,
    since: datetime,
    until: datetime,
    now: datetime,
    rest: Rest,
    keep: Callable[[SourceCall], None],
) -> Reach:
    """Tell `keep` of every call that a source knows of that time, and of some around it. Raises NotVerifiable."""
    with Scratch.open() as scratch:
        teller: _Teller = _Cels(source, of) if source.kind in _CEL else _Cdrs(source, of, scratch, since - BEFORE)
        reading = _Reading(teller, until + AFTER, now + _AHEAD, rest, keep)
        if source.kind in {SourceKind.CDR_CSV, SourceKind.CEL_CSV}:
            reading.of_file(source, since - BEFORE)
        else:
            reading.of_table(source, of, since - BEFORE)
        reading.finish()
        return reading.reach


class _Teller(Protocol):
    """What knows one kind of record."""

    nameless: int

    def begin_file(self) -> None:
        """What comes next stands in another file, whose columns may be others."""
        ...

    def moment_of(self, data: bytes) -> datetime | None:
        """When a record was written; None if it is none."""
        ...

    def take(self, data: Content) -> datetime | None:
        """The next record; when it was written, None if it is none."""
        ...

    def take_calls(self, *, is_end: bool) -> Iterator[SourceCall]:
        """Calls that have been told wholly."""
        ...


class _Reading:
    """One source, from some before a time to some after it."""

    def __init__(
        self, teller: _Teller, until: datetime, latest: datetime, rest: Rest, keep: Callable[[SourceCall], None]
    ) -> None:
        """`latest`: a later record was written by a clock that was wrong."""
        self.reach = Reach()
        self._teller = teller
        self._until = until
        self._latest = latest
        self._later = 0  # records in a row that are of no use
        self._rest = rest
        self._keep = keep
        self._count = 0

    def of_file(self, source: SourceSettings, since: datetime) -> None:
        """A file with those that were it."""
        assert source.path is not None  # noqa: S101 - the settings say that a file has one
        chain = chain_of(source.path, since)
        self.reach.is_cut = chain.is_cut
        for path in chain.paths:
            self._teller.begin_file()
            with closing(records_of(path, since=since, moment_of=self._teller.moment_of)) as records:
                for data in records:
                    if data is None:
                        self.reach.is_cut = True
                    elif data and not self._goes_on(data):
                        return

    def of_table(self, source: SourceSettings, of: PbxSources, since: datetime) -> None:
        """The rows of a table."""
        with closing(opener(source, of)(None, since)) as table:
            while True:
                look = table.read()
                if look.trouble is not None:
                    raise NotVerifiable(look.trouble)
                for record in look.records:
                    if record.fault is None and not self._goes_on(record.data):
                        return
                if look.is_at_end:
                    return
                self._rest(look.rest_seconds)

    def _goes_on(self, data: Content) -> bool:
        self._count += 1
        if self._count % _STEP == 0:
            self._rest(0.0)
            self._drain(is_end=False)
        at = self._teller.take(data)
        reach = self.reach
        if at is None or not _EARLIEST <= at <= self._latest:
            return True
        reach.first_at = at if reach.first_at is None else min(reach.first_at, at)
        reach.last_at = at if reach.last_at is None else max(reach.last_at, at)
        self._later = self._later + 1 if at > self._until else 0
        return self._later < _LATER_IN_A_ROW

    def finish(self) -> None:
        """Tell the rest."""
        self._drain(is_end=True)
        self.reach.nameless = self._teller.nameless

    def _drain(self, *, is_end: bool) -> None:
        for number, call in enumerate(self._teller.take_calls(is_end=is_end), start=1):
            self._keep(call)
            if number % _STEP == 0:
                self._rest(0.0)


class _Cdrs:
    """CDRs, laid down on disk until all of them are there."""

    def __init__(self, source: SourceSettings, of: PbxSources, scratch: Scratch, since: datetime) -> None:
        self.nameless = 0
        self._of = of
        self._zone = zone_of(source.time_zone or of.pbx.time_zone)
        self._columns = source.columns or None
        self._reader = CdrReader(self._zone, self._columns)
        self._table_columns: tuple[str, ...] | None = None  # which `_reader` knows
        self._scratch = scratch
        self._since = since
        self._file = 0

    def begin_file(self) -> None:
        self._reader = CdrReader(self._zone, self._columns)
        self._file += 1

    def moment_of(self, data: bytes) -> datetime | None:
        try:
            row = self._row(data)
        except CdrFault:
            return None
        return row.end if row is not None else None

    def take(self, data: Content) -> datetime | None:
        try:
            row = self._row(data)
        except CdrFault:
            # A quotation that was never closed took the next lines for its own.
            lines = data.split(b"\n") if isinstance(data, bytes) and b"\n" in data else []
            return max((at for line in lines if (at := self.take(line)) is not None), default=None)
        if row is None:
            return None
        if not row.key:
            self.nameless += 1
        elif row.end >= self._since:
            self._scratch.add(row, file=self._file, number=self._scratch.count)
        return row.end

    def _row(self, data: Content) -> CdrRow | None:
        try:
            if isinstance(data, bytes):
                return self._reader.row(decoded(data.replace(b"\0", b""), self._of.encoding))
            columns = tuple(data)
            if columns != self._table_columns:
                self._reader, self._table_columns = CdrReader(self._zone, columns), columns
            return self._reader.row_of(list(data.values()))
        except UnknownColumns:
            raise NotVerifiable(
                'the columns of its records cannot be told; say them in the settings: columns = ["start", "answer", …]'
            ) from None

    def take_calls(self, *, is_end: bool) -> Iterator[SourceCall]:
        for staged in self._scratch.calls() if is_end else ():
            if (call := self._call(staged)) is not None:
                yield call

    def _call(self, staged: StagedCall) -> SourceCall | None:
        rules, pbx = self._of.rules(), self._of.pbx.name
        try:
            call = call_of(staged.rows(), site=self._of.site, pbx=pbx, rules=rules, native_id=staged.native_id)
            return SourceCall(call.row, self._of.assign(call.facts(rules)).tenant)
        except Exception:  # CDRs that ended the agent once must not do so every day
            facts = {"pbx": pbx, "native_id": staged.native_id}
            log.exception("the CDRs of a call cannot be told and are left out; please report this", extra=facts)
            return None


class _Cels:
    """Rows of CEL, which tells itself when a call is over."""

    nameless = 0

    def __init__(self, source: SourceSettings, of: PbxSources) -> None:
        self._columns = source.columns or CEL_COLUMNS
        self._zone = zone_of(source.time_zone or of.pbx.time_zone)
        self._encoding = of.encoding
        self._reader = CelReader(self._columns, zone=self._zone, encoding=of.encoding)
        self._calls: CelCalls[None] = CelCalls(site=of.site, pbx=of.pbx.name, rules=of.rules(), assign=of.assign)

    def begin_file(self) -> None:
        self._reader = CelReader(self._columns, zone=self._zone, encoding=self._encoding)

    def moment_of(self, data: bytes) -> datetime | None:
        row = self._reader.read(data)
        return row.at if isinstance(row, CelRow) else None

    def take(self, data: Content) -> datetime | None:
        row = self._reader.read(data.replace(b"\0", b"")) if isinstance(data, bytes) else self._reader.row_of(data)
        if not isinstance(row, CelRow):
            return None
        self._calls.add(row, None)
        return row.at

    def take_calls(self, *, is_end: bool) -> Iterator[SourceCall]:
        for ended in self._calls.take_ended():
            yield SourceCall(ended.row, ended.call.assignment.tenant)
