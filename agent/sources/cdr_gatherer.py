"""CDRs of a file or a table, gathered by call. A call of which nothing more came for a while has been told wholly."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Final

from agent.calls.rules import CallRules
from agent.calls.tenancy import CallFacts
from agent.pbx.asterisk.cdr import CdrFault, CdrReader, CdrRow, UnknownColumns
from agent.pbx.asterisk.cdr_calls import MAX_ROWS, call_of
from agent.pbx.text import decoded
from agent.sources.gathering import GatheredCall, Mark
from agent.sources.source import Content

log = logging.getLogger(__name__)

MAX_GATHERED: Final = 20_000  # calls; beyond it the oldest are taken to be told wholly
NO_ID: Final = (
    "it tells no id of its call, so it cannot be joined with what was heard; "
    "in cdr.conf, section [csv], write loguniqueid = yes and newcdrcolumns = yes"
)


@dataclass(slots=True)
class _Gathered:
    first: Mark
    last_seconds: float
    last_end: datetime
    start: datetime
    rows: list[CdrRow] = field(default_factory=list)


class CdrGatherer:
    """Implements `agent.sources.gathering.Gatherer`."""

    tells_every_call = True

    def __init__(
        self,
        *,
        site: str,
        pbx: str,
        rules: Callable[[], CallRules],
        tenant_of: Callable[[CallFacts], str | None],
        zone: tzinfo,
        encoding: str,
        columns: Sequence[str] | None,
        settle_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._site = site
        self._pbx = pbx
        self._rules = rules
        self._tenant_of = tenant_of
        self._encoding = encoding
        self._zone = zone
        self._reader = CdrReader(zone, columns)
        self._row_columns: tuple[str, ...] | None = None  # of a table, which `_reader` knows
        self._settle = timedelta(seconds=settle_seconds)
        self._clock = clock
        self._calls: dict[str, _Gathered] = {}  # in the order in which they were first told of
        self._newest_end: datetime | None = None
        self.last_at: datetime | None = None

    def begin(self, mark: Mark) -> None:
        """Nothing is to be known beforehand."""

    def take(self, data: Content, mark: Mark) -> str | None:
        """The next line, lines of one record, or a table's row."""
        reason = self._take(data, mark)
        if reason is not None and isinstance(data, bytes) and b"\n" in data:
            # A quotation that was never closed took the next lines for its own.
            reasons = [self._take(line, mark) for line in data.split(b"\n")]
            return next((each for each in reasons if each is not None), None)
        return reason

    def _take(self, data: Content, mark: Mark) -> str | None:
        try:
            row = self._row(data)
        except UnknownColumns:
            return 'its columns cannot be told; say them in the settings: columns = ["start", "answer", …]'
        except CdrFault as exc:
            return str(exc)
        if row is None:
            return None
        if not row.key:
            return NO_ID
        self.last_at = row.end
        if isinstance(data, bytes):  # written when its call ended, unlike rows of a table that are read by the ledger
            self._newest_end = row.end if self._newest_end is None else max(row.end, self._newest_end)
        call = self._calls.get(row.key)
        if call is None:
            call = self._calls[row.key] = _Gathered(mark, 0.0, row.end, row.start)
        call.last_seconds = self._clock()
        call.last_end, call.start = max(call.last_end, row.end), min(call.start, row.start)
        if len(call.rows) < MAX_ROWS and row not in call.rows:
            call.rows.append(row)
        return None

    def _row(self, data: Content) -> CdrRow | None:
        if isinstance(data, bytes):
            return self._reader.row(decoded(data.replace(b"\0", b""), self._encoding))
        columns = tuple(data)
        if columns != self._row_columns:
            self._reader, self._row_columns = CdrReader(self._zone, columns), columns
        return self._reader.row_of(list(data.values()))

    def take_calls(self, *, seconds: float, is_at_end: bool) -> Iterator[GatheredCall]:
        """Calls that are quiet: for the source's own clock while it is caught up with, else for ours.

        Each is made when it is asked for, so that there may be thousands.
        """
        quiet = [key for key, call in self._calls.items() if self._is_quiet(call, seconds, is_at_end=is_at_end)]
        if len(self._calls) - len(quiet) > MAX_GATHERED:
            quiet = list(self._calls)[: len(self._calls) - MAX_GATHERED // 2]
        for key in quiet:
            if (call := self._told(key, self._calls.pop(key))) is not None:
                yield call

    def _is_quiet(self, call: _Gathered, seconds: float, *, is_at_end: bool) -> bool:
        if is_at_end:
            return seconds - call.last_seconds >= self._settle.total_seconds()
        return self._newest_end is not None and self._newest_end - call.last_end > self._settle

    def _told(self, key: str, call: _Gathered) -> GatheredCall | None:
        rules = self._rules()
        try:
            told = call_of(call.rows, site=self._site, pbx=self._pbx, rules=rules, native_id=key)
            return GatheredCall(told.row, self._tenant_of(told.facts(rules)), call.first)
        except Exception:  # CDRs that ended the agent once must not do so at every start
            facts = {"pbx": self._pbx, "native_id": key}
            log.exception("the CDRs of a call cannot be told and are left out; please report this", extra=facts)
            return None

    @property
    def first_unsettled(self) -> Mark | None:
        """That of the call that was told of first."""
        return next((call.first for call in self._calls.values()), None)

    @property
    def unsettled_since(self) -> datetime | None:
        """When the earliest began."""
        return min((call.start for call in self._calls.values()), default=None)

    def __len__(self) -> int:
        return len(self._calls)
