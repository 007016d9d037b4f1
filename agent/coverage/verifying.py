"""A day of a PBX's calls as its own sources tell it, held against what is kept here."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final, Self

from agent.calls import comparing
from agent.calls.comparing import Difference, differences
from agent.coverage.account import Account, SourceCall, ToldBySources, is_lonely
from agent.coverage.days import Day
from agent.coverage.errors import NotVerifiable
from agent.coverage.reading import Reach, Rest, read_calls
from agent.sources.opening import PbxSources, zone_of
from agent.store import horizon
from agent.store.coverage import DayCounts
from agent.store.moments import moment_of, moment_text
from agent.store.rows import json_text
from config.settings import SourceSettings

SHOWN: Final = 1000  # calls of each kind that are told one by one
_AT_ONCE: Final = 200  # calls, some milliseconds
_SLACK: Final = timedelta(seconds=5)  # a call that ended is kept within a moment
_TEXTS: Final = frozenset(comparing.COLUMNS) - {"start_time", "answer_time", "end_time", "transferred"}


class Untold(StrEnum):
    """Why a source cannot know a call that is held here."""

    MERGED = "went on in another call"
    NOT_HEARD = "told by another source"
    CUT_OFF = "their end was not seen in a gap, and the PBX may have had no time to write them down"
    LONELY = "reached nobody, and the PBX writes no CDR of those (unanswered = no)"


@dataclass(frozen=True, slots=True)
class Finding:
    """A call that is not the same on both sides."""

    call_sid: str
    start_time: datetime
    caller_id: str | None
    callee_id: str | None
    disposition: str | None
    differing: tuple[Difference, ...] = ()

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        told = {
            name: getattr(self, name) for name in ("call_sid", "start_time", "caller_id", "callee_id", "disposition")
        }
        return told | ({"differing": [each.as_dict() for each in self.differing]} if self.differing else {})


@dataclass(slots=True)
class Comparison:
    """What was found of a day."""

    pbx: str
    day: str
    source: str
    until: datetime | None  # the day is not over: only calls that ended before were looked at
    known: int = 0
    held: int = 0
    missing: int = 0
    extra: int = 0
    differing: int = 0
    waiting: int = 0  # calls that go on, or ended just now
    before: int = 0  # ended before the agent was set up, and not held
    gone: int = 0  # not held, and of a time of which calls were deleted once the centre had confirmed them
    untold: Counter[Untold] = field(default_factory=Counter)
    by_column: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[Finding]] = field(default_factory=lambda: {"missing": [], "extra": [], "differing": []})
    nameless: int = 0
    first_extra_end: datetime | None = None

    @property
    def is_equal(self) -> bool:
        """Whether nothing is missing, extra or differing."""
        return not (self.missing or self.extra or self.differing)

    def show(self, kind: str, finding: Finding) -> None:
        """Tell of a call, unless that many were told of already."""
        if len(self.shown[kind]) < SHOWN:
            self.shown[kind].append(finding)

    def counts(self, *, at: datetime) -> DayCounts:
        """What is kept of it."""
        return DayCounts(
            pbx=self.pbx, day=self.day, source=self.source, known=self.known, held=self.held, missing=self.missing,
            extra=self.extra, untold=self.untold.total(), differing=self.differing, trouble=None, at=at,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        names = ("pbx", "day", "source", "until", "known", "held", "missing", "extra", "differing", "waiting", "before",
                 "gone")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "nameless": self.nameless,
            "is_equal": self.is_equal,
            "untold": {reason.name.lower(): count for reason, count in self.untold.items()},
            "differing_by_column": dict(self.by_column),
            "calls": {kind: [each.as_dict() for each in found] for kind, found in self.shown.items()},
        }


def sources_of(of: PbxSources) -> list[SourceSettings]:
    """Those that tell calls, the best first. Raises NotVerifiable if there is none."""
    found = [source for source in of.pbx.sources if source.kind.tells_calls]
    if not found:
        raise NotVerifiable(f"PBX {of.pbx.name} has no second source that tells its calls")
    return sorted(found, key=lambda source: not source.kind.startswith("cel"))


def set_up_at(connection: sqlite3.Connection, pbx: str) -> datetime | None:
    """Since when calls of a PBX are to be held here; None if nothing tells it."""
    found = [
        *connection.execute("SELECT min(since) FROM source_place WHERE pbx = ?", (pbx,)),
        *connection.execute("SELECT created_at FROM call WHERE pbx = ? ORDER BY id LIMIT 1", (pbx,)),
    ]
    return min((moment_of(at) for (at,) in found if at is not None), default=None)


class Verification:
    """One day of one PBX."""

    def __init__(self, of: PbxSources, day: Day, account: Account, *, now: datetime, rest: Rest) -> None:
        self._of = of
        self._day = day
        self._account = account
        self._rest = rest
        self._sources = sources_of(of)
        self._reaches: list[Reach] = []
        settle = max(source.settle_seconds for source in self._sources)
        self._now = now
        self._settled = now - timedelta(seconds=settle) - _SLACK

    @classmethod
    @contextmanager
    def of(cls, of: PbxSources, day: Day, *, now: datetime, rest: Rest) -> Iterator[Self]:
        """Of that day. Raises NotVerifiable."""
        with Account.open() as account:
            yield cls(of, day, account, now=now, rest=rest)

    def read(self) -> None:
        """Read the sources. Raises NotVerifiable; may take minutes."""
        for rank, source in enumerate(self._sources):
            self._reaches.append(
                read_calls(
                    source, self._of, since=self._day.start, until=self._day.end, now=self._now, rest=self._rest,
                    keep=partial(self._account.add, rank=rank),
                )
            )  # fmt: skip
        if not any(reach.is_cut for reach in self._reaches):
            self._refuse_if_later(self._day.end)

    def compare(self, ours: sqlite3.Connection) -> Comparison:
        """Hold it against the local database, in short reads. Raises NotVerifiable."""
        comparison = Comparison(
            self._of.pbx.name, self._day.name, "+".join(source.called for source in self._sources),
            self._settled if self._settled < self._day.end else None,
            nameless=sum(reach.nameless for reach in self._reaches),
        )  # fmt: skip
        self._theirs(ours, comparison, set_up_at=set_up_at(ours, self._of.pbx.name))
        self._ours(ours, comparison)
        first = comparison.first_extra_end
        if first is not None and not any(reach.is_cut for reach in self._reaches):
            self._refuse_if_later(first)
        return comparison

    def wanted(self, *, at_once: int) -> Iterator[list[SourceCall]]:
        """Calls that are missing or differ, as the sources tell them."""
        return self._account.wanted(at_once=at_once)

    def _refuse_if_later(self, moment: datetime) -> None:
        """Raise NotVerifiable if the sources begin after it."""
        firsts = [reach.first_at for reach in self._reaches if reach.first_at is not None]
        names = " and ".join(source.called for source in self._sources)
        if firsts and (first := min(firsts)) > moment:
            raise NotVerifiable(
                f"{names} of PBX {self._of.pbx.name} does not reach back so far: its first record is from "
                f"{first:%Y-%m-%d %H:%M:%S} UTC; from then on: edge-agent verify --day {self._called(first)}"
            )
        if not firsts and moment != self._day.end:
            raise NotVerifiable(
                f"{names} of PBX {self._of.pbx.name} holds no record of that time, though calls were heard; "
                "see that Asterisk writes it (docs/sources.md)"
            )

    def _called(self, moment: datetime) -> str:
        """The day of a moment, as `verify` takes it."""
        zone = zone_of(self._of.pbx.time_zone)
        day = moment.astimezone(zone).date()
        return "today" if day == self._now.astimezone(zone).date() else day.isoformat()

    # What the PBX knows

    def _theirs(self, ours: sqlite3.Connection, comparison: Comparison, *, set_up_at: datetime | None) -> None:
        for part in self._account.calls(self._day.start, self._day.end, at_once=_AT_ONCE):
            self._rest(0.0)
            sids = json_text([call.sid for call in part])
            held = {row["call_sid"]: row for row in _rows(ours, "call_sid IN (SELECT value FROM json_each(?))", sids)}
            live = {sid for (sid,) in ours.execute(_LIVE, (sids,))}
            gone = horizon.gone(ours, [_unknown(call) for call in part if call.sid not in held])
            for call in part:
                if call.sid in gone:
                    comparison.gone += 1
                    continue
                self._hold(call, held.get(call.sid), comparison, is_live=call.sid in live, set_up_at=set_up_at)

    def _hold(
        self, call: ToldBySources, ours: Mapping[str, Any] | None, comparison: Comparison, *, is_live: bool,
        set_up_at: datetime | None,
    ) -> None:  # fmt: skip
        theirs = call.told[0].row
        end = max(told.row["end_time"] for told in call.told)
        if is_live or (ours is None and end > self._settled):
            comparison.waiting += 1
        elif ours is not None:
            comparison.known += 1
            comparison.held += 1
            self._compare(call, ours, comparison)
        elif set_up_at is not None and end < set_up_at:
            comparison.before += 1
        else:
            comparison.known += 1
            comparison.missing += 1
            self._account.want([call.sid])
            comparison.show("missing", _finding(theirs))

    def _compare(self, call: ToldBySources, ours: Mapping[str, Any], comparison: Comparison) -> None:
        found: dict[str, Difference] = {}
        for told in call.told:
            for each in differences(ours, told.row, is_joined=bool(ours["is_joined"])):
                found.setdefault(each.column, each)
        if not found:
            return
        comparison.differing += 1
        comparison.by_column.update(found.keys())
        self._account.want([call.sid])
        comparison.show("differing", _finding(ours, tuple(found.values())))

    # What is held here

    def _ours(self, ours: sqlite3.Connection, comparison: Comparison) -> None:
        tells_lonely = any(source.kind.startswith("cel") for source in self._sources) or (
            self._account.tells_lonely_calls(self._day.start, self._day.end)
        )
        start, end = moment_text(self._day.start), moment_text(self._day.end)
        last: tuple[str, int] = ("", 0)
        while part := _rows(ours, _OF_DAY, self._of.pbx.name, start, end, *last, _AT_ONCE):
            self._rest(0.0)
            last = moment_text(part[-1]["start_time"]), part[-1]["id"]
            known = self._account.knows([row["call_sid"] for row in part])
            for row in part:
                if row["call_sid"] in known:
                    continue
                if row["end_time"] is None or row["end_time"] > self._settled:
                    comparison.waiting += 1
                    continue
                comparison.held += 1
                reason = self._why_untold(row, ours, tells_lonely=tells_lonely)
                if reason is not None:
                    comparison.untold[reason] += 1
                    continue
                comparison.extra += 1
                comparison.show("extra", _finding(row))
                first = comparison.first_extra_end
                comparison.first_extra_end = row["end_time"] if first is None else min(first, row["end_time"])

    def _why_untold(self, row: Mapping[str, Any], ours: sqlite3.Connection, *, tells_lonely: bool) -> Untold | None:
        if row["merged_into"] is not None:
            return Untold.MERGED
        if "ami" not in row["source"].split("+"):
            return Untold.NOT_HEARD
        if not tells_lonely and is_lonely(row, legs=row["legs"]):
            return Untold.LONELY
        if row["end_estimated"] and _touches_a_gap(ours, self._of.pbx.name, row):
            return Untold.CUT_OFF
        return None


_COLUMNS: Final = (
    "id", "call_sid", *comparing.COLUMNS, "pbx_answer_time", "source", "end_estimated",
    "json_array_length(legs) AS legs", "instr(timeline, '\"merged\"') > 0 AS is_joined",
)  # fmt: skip
_READ: Final = f"SELECT {', '.join(_COLUMNS)} FROM call WHERE"  # noqa: S608 - our own words
_OF_DAY: Final = (
    "pbx = ? AND start_time >= ? AND start_time < ? AND (start_time, id) > (?, ?) ORDER BY start_time, id LIMIT ?"
)
_LIVE: Final = "SELECT call_sid FROM live_call WHERE call_sid IN (SELECT value FROM json_each(?))"
_GAP: Final = "SELECT 1 FROM gap WHERE pbx = ? AND from_at <= ? AND (to_at IS NULL OR to_at >= ?) LIMIT 1"
_MOMENTS: Final = frozenset({"start_time", "answer_time", "end_time", "pbx_answer_time"})


def _rows(connection: sqlite3.Connection, where: str, *values: object) -> list[dict[str, Any]]:  # Any: columns
    cursor = connection.execute(f"{_READ} {where}", values)
    names = [column[0] for column in cursor.description]
    return [
        {name: moment_of(value) if name in _MOMENTS and value is not None else value
         for name, value in zip(names, row, strict=True)}
        for row in cursor.fetchall()
    ]  # fmt: skip


def _touches_a_gap(connection: sqlite3.Connection, pbx: str, row: Mapping[str, Any]) -> bool:
    found = connection.execute(_GAP, (pbx, moment_text(row["end_time"]), moment_text(row["start_time"])))
    return found.fetchone() is not None


def _unknown(call: ToldBySources) -> horizon.Unknown:
    row, tenant = call.told[0]
    return horizon.Unknown(call.sid, tenant, row["pbx"], moment_text(row["start_time"]), moment_text(row["end_time"]))


def _finding(row: Mapping[str, Any], differing: Sequence[Difference] = ()) -> Finding:
    who = row["call_sid"], row["start_time"], row["caller_id"], row["callee_id"], row["disposition"]
    return Finding(*who, tuple(differing))
