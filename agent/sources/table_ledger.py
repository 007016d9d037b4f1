"""What was seen of a table of CDRs whose rows have no number: how many rows of each ten minutes, and which.

A row is written when a call ends and bears the time when it began, so one of a call of hours appears far in the past.
Instead of reading all of that again, rows are counted by ten minutes: where the count is not what it was, these ten
minutes are read and the rows that were not seen are told. Older days are counted as a whole, seldom; one with more rows
than before (a call of more than a day, a table that was repaired) is told again. Times are texts on the table's clock.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple

BUCKET_CHARS: Final = 15  # of a time: "2026-11-22 21:3"
DAY_CHARS: Final = 10
SPAN_DAYS: Final = 3  # of the past, looked at in one go
BATCH_ROWS: Final = 1000
MAX_KEYS: Final = 200_000  # of rows seen, some 15 MB; beyond it those of the oldest ten minutes are forgotten
RECENT_KEYS: Final = 200  # of rows told last; a place holds them, as rows of the same seconds come in any order
SWEEP_DAYS: Final = 31  # of older days that are counted

_TRIMMED: Final = 50

Raw = tuple[bytes | None, ...]


class LedgerColumns(NamedTuple):
    """Where in a row its time stands, and what tells the order in which rows of the same time were written."""

    start: int
    duration: int | None = None
    sequence: int | None = None


class Tally(NamedTuple):
    """Rows seen of ten minutes: how many, and their keys mixed by XOR."""

    rows: int = 0
    mix: int = 0


NOTHING: Final = Tally()


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """What had been told up to a row. Shares what it can with the others."""

    begun: str  # earlier days are none of ours
    read_to: str  # a day; what is earlier was read, as many rows as `days` says
    days: Mapping[str, int]
    tallies: Mapping[str, Tally]
    bucket: str = ""  # the ten minutes that are being told
    tally: Tally = NOTHING
    keys: Sequence[int] = ()  # of all rows told lately, by the one process
    key_count: int = 0  # so many of them up to here

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        tallies = {**self.tallies, self.bucket: self.tally} if self.bucket else self.tallies
        seen = {bucket: list(tally) for bucket, tally in tallies.items() if tally.rows}
        recent = list(self.keys[max(0, self.key_count - RECENT_KEYS) : self.key_count])
        return {
            "begun": self.begun,
            "read_to": self.read_to,
            "days": dict(self.days),
            "buckets": seen,
            "recent": recent,
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Ten minutes, one behind the other, to be read at once."""

    first: str
    until: str  # before it
    again: str | None = None  # an older day that is told again
    again_rows: int = 0  # so many it has, if this group is its last


@dataclass(slots=True)
class _Seen:
    tally: Tally
    keys: frozenset[int] | None  # None: forgotten, or seen by an earlier process


@dataclass(frozen=True, slots=True)
class SeenRow:
    """A row that is told, between two places."""

    raw: Raw
    at: LedgerPlace
    after: LedgerPlace


class _Keyed(NamedTuple):
    end: str  # of the call
    sequence: int
    key: int
    raw: Raw


class Ledger:
    """The place in such a table, whose columns of interest are where `columns` says."""

    def __init__(self, columns: LedgerColumns, *, begun: str, told: dict[str, Any] | None = None) -> None:
        self._columns = columns
        told = told or {}
        self.begun: str = told.get("begun", begun)
        self.read_to: str = told.get("read_to", self.begun)
        self._days: dict[str, int] = dict(told.get("days", {}))
        self._seen = {bucket: _Seen(Tally(*tally), None) for bucket, tally in told.get("buckets", {}).items()}
        self._keys: list[int] = list(told.get("recent", []))

    @property
    def place(self) -> LedgerPlace:
        """Behind all that was told."""
        tallies = {bucket: seen.tally for bucket, seen in self._seen.items()}
        return LedgerPlace(
            self.begun, self.read_to, dict(self._days), tallies, keys=self._keys, key_count=len(self._keys)
        )

    def span(self, floor: str) -> tuple[str, str | None]:
        """Which days to count next, by ten minutes; from `floor`, a day, they have no end."""
        if self.read_to >= floor:
            return self.read_to, None
        return self.read_to, min(later(self.read_to, SPAN_DAYS), floor)

    def changed(self, counts: Mapping[str, int], until: str | None) -> list[Group]:
        """What of a span is to be read, the earliest first."""
        for bucket in [each for each in self._seen if each not in counts and (until is None or each < until)]:
            del self._seen[bucket]  # somebody deleted the rows
        groups: list[list[str]] = []
        rows, joined = 0, False
        for bucket in sorted(counts):
            seen = self._seen.get(bucket)
            if seen is not None and seen.tally.rows == counts[bucket]:
                joined = False
                continue
            if not joined or rows + counts[bucket] > BATCH_ROWS:
                groups.append([])
                rows = 0
            groups[-1].append(bucket)
            rows, joined = rows + counts[bucket], True
        return [Group(begin_of(group[0]), end_of(group[-1])) for group in groups]

    def close(self, until: str, floor: str) -> None:
        """A span is known wholly: of its days only the number of rows is kept."""
        oldest = later(floor, -SWEEP_DAYS)
        for bucket in [each for each in self._seen if each < until]:
            day, rows = bucket[:DAY_CHARS], self._seen.pop(bucket).tally.rows
            self._days[day] = self._days.get(day, 0) + rows
        self._days = {day: rows for day, rows in self._days.items() if day >= oldest}
        self.read_to = until

    def swept(self, floor: str) -> tuple[str, str]:
        """Which older days to count."""
        return max(self.begun, later(floor, -SWEEP_DAYS)), self.read_to

    def grown(self, counts: Mapping[str, int]) -> list[str]:
        """Older days that have more rows than were read. That some have fewer is taken note of."""
        grown = [day for day, rows in counts.items() if rows > self._days.get(day, 0)]
        self._days = {day: min(rows, counts.get(day, 0)) for day, rows in self._days.items()}
        return sorted(grown)

    def day_again(self, day: str, counts: Mapping[str, int]) -> list[Group]:
        """All of an older day."""
        fresh = Ledger(self._columns, begun=day)
        groups = [Group(each.first, each.until, again=day) for each in fresh.changed(counts, None)]
        if groups:
            groups[-1] = Group(groups[-1].first, groups[-1].until, again=day, again_rows=sum(counts.values()))
        return groups

    def take(self, group: Group, rows: Iterable[Raw]) -> list[SeenRow]:
        """What of a group's rows was not told yet."""
        if group.again is not None:
            place = self.place
            if group.again_rows:
                self._days[group.again] = group.again_rows
            return [SeenRow(raw, place, place) for raw in rows]
        told: list[SeenRow] = []
        for bucket, found in self._by_bucket(rows).items():
            told += self._take_bucket(bucket, found)
        self._forget()
        return told

    def _take_bucket(self, bucket: str, found: list[_Keyed]) -> list[SeenRow]:
        unseen = self._unseen(self._seen.get(bucket), found)
        new = {each.key for each in unseen}
        tally = _tally([each for each in found if each.key not in new])
        base = self.place
        told = []
        at = replace(base, bucket=bucket, tally=tally)
        for each in unseen:
            tally = Tally(tally.rows + 1, tally.mix ^ each.key)
            self._keys.append(each.key)
            after = LedgerPlace(
                base.begun, base.read_to, base.days, base.tallies, bucket, tally, self._keys, len(self._keys)
            )
            told.append(SeenRow(each.raw, at, after))
            at = after
        self._seen[bucket] = _Seen(tally, frozenset(each.key for each in found))
        return told

    def _unseen(self, seen: _Seen | None, found: list[_Keyed]) -> list[_Keyed]:
        if seen is None:
            return found
        if seen.keys is not None:
            return [each for each in found if each.key not in seen.keys]
        recent = set(self._keys)
        others = [each for each in found if each.key not in recent]
        # Those whose calls ended first were most likely written first; if not, all are told again.
        rows = seen.tally.rows - (len(found) - len(others))
        mix = seen.tally.mix ^ mixed(each.key for each in found if each.key in recent)
        if rows >= 0 and _tally(others[:rows]) == (rows, mix):
            return others[rows:]
        return others

    def _by_bucket(self, rows: Iterable[Raw]) -> dict[str, list[_Keyed]]:
        """In the order in which their calls ended."""
        found: dict[str, list[_Keyed]] = {}
        equal: Counter[int] = Counter()
        for raw in rows:
            start = (raw[self._columns.start] or b"").decode("ascii", "replace")
            key = _key(raw)
            equal[key] += 1
            if equal[key] > 1:  # two rows that are the same are two rows
                key = _key((*raw, b"%d" % equal[key]))
            found.setdefault(start[:BUCKET_CHARS], []).append(_Keyed(*self._ended(start, raw), key, raw))
        for each in found.values():
            each.sort(key=_order)
        return dict(sorted(found.items()))

    def _ended(self, start: str, raw: Raw) -> tuple[str, int]:
        duration, sequence = (
            (raw[column] or b"0") if column is not None else b"0"
            for column in (self._columns.duration, self._columns.sequence)
        )
        number = int(sequence) if sequence.isdigit() else 0
        try:
            return (datetime.fromisoformat(start) + timedelta(seconds=float(duration))).isoformat(), number
        except (ValueError, OverflowError):
            return start, number

    def _forget(self) -> None:
        if len(self._keys) > _TRIMMED * RECENT_KEYS:
            self._keys = self._keys[-RECENT_KEYS:]  # places made before have the longer one
        kept = sum(len(seen.keys) for seen in self._seen.values() if seen.keys)
        for bucket in sorted(self._seen):
            if kept <= MAX_KEYS:
                break
            seen = self._seen[bucket]
            kept -= len(seen.keys or ())
            seen.keys = None


def later(day: str, days: int) -> str:
    """A day so many days later."""
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def begin_of(bucket: str) -> str:
    """The first moment of ten minutes."""
    return f"{bucket}0:00"


def end_of(bucket: str) -> str:
    """The first moment behind them."""
    return (datetime.fromisoformat(begin_of(bucket)) + timedelta(minutes=10)).isoformat(" ")


def mixed(keys: Iterable[int]) -> int:
    """Of several keys one, whatever their order."""
    mix = 0
    for key in keys:
        mix ^= key
    return mix


def _tally(rows: Sequence[_Keyed]) -> Tally:
    return Tally(len(rows), mixed(each.key for each in rows))


def _key(raw: Raw) -> int:
    told = b"\x1f".join(b"\0" if value is None else value for value in raw)
    # JSON in other hands has 53 bits for a number; six bytes are enough to tell the rows of ten minutes apart.
    return int.from_bytes(blake2b(told, digest_size=6).digest(), "big")


def _order(keyed: _Keyed) -> tuple[str, int, int]:
    return keyed[:3]
