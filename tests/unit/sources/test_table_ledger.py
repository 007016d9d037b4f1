"""Rows without a number are each told, whatever is written, deleted or forgotten between two looks."""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sources import table_ledger
from agent.sources.table_ledger import Ledger, LedgerColumns, LedgerPlace, Raw

COLUMNS = LedgerColumns(start=0, duration=1, sequence=2)
NOON = datetime(2026, 11, 22, 12, 0)  # noqa: DTZ001 - on the table's clock
FLOOR = "2026-11-21"


def row(number: int, start: datetime, seconds: int = 10) -> Raw:
    return start.isoformat(" ").encode(), b"%d" % seconds, b"%d" % number


@dataclass
class Rows:
    """A table, as the server counts and gives it."""

    rows: list[Raw] = field(default_factory=list)

    def counts(self, chars: int, first: str, until: str | None) -> Counter[str]:
        return Counter(when[:chars] for when in self.times() if first <= when and (until is None or when < until))

    def between(self, first: str, until: str) -> list[Raw]:
        return [raw for raw, when in zip(self.rows, self.times(), strict=True) if first <= when < until]

    def times(self) -> list[str]:
        return [(raw[0] or b"").decode() for raw in self.rows]

    def rest(self, ledger: Ledger) -> tuple[list[int], LedgerPlace]:
        """The numbers of the rows that are told until nothing has changed."""
        told: list[int] = []
        while True:
            first, until = ledger.span(FLOOR)
            groups = ledger.changed(self.counts(15, first, until), until)
            for group in groups:
                told += [int(seen.raw[2] or b"") for seen in ledger.take(group, self.between(group.first, group.until))]
            if not groups and until is None:
                return told, ledger.place
            if not groups and until is not None:
                ledger.close(until, FLOOR)


def fresh(place: LedgerPlace | None = None, begun: str = "2026-11-10") -> Ledger:
    return Ledger(COLUMNS, begun=begun, told=json.loads(json.dumps(place.as_json())) if place else None)


moments = st.integers(0, 12 * 1440).map(lambda minutes: NOON - timedelta(minutes=minutes))
# What is written between two looks, and whether the reader is another one at the next.
looks = st.lists(st.tuples(st.lists(moments, max_size=30), st.booleans()), max_size=6)


@settings(deadline=None, max_examples=60)
@given(looks=looks)
def test_every_row_of_the_window_is_told_and_by_one_reader_once(looks: list[tuple[list[datetime], bool]]) -> None:
    table, ledger = Rows(), fresh()
    told: Counter[int] = Counter()
    place = None
    for number, (written, is_other) in enumerate(looks):
        if is_other:
            ledger = fresh(place)
        # After the first look what is older is the sweep's.
        in_window = [at for at in written if number == 0 or at.isoformat() >= FLOOR]
        table.rows += [row(len(table.rows) + n, at) for n, at in enumerate(in_window)]
        numbers, place = table.rest(ledger)
        told.update(numbers)

    assert told.keys() == set(range(len(table.rows)))
    if not any(is_other for _, is_other in looks):
        assert set(told.values()) <= {1}


def test_rows_whose_calls_end_one_after_the_other_come_once_also_to_another_reader() -> None:
    table = Rows()
    told: Counter[int] = Counter()
    place = None
    for number in range(100):
        table.rows.append(row(number, NOON + timedelta(seconds=7 * number)))
        numbers, place = table.rest(fresh(place))
        told.update(numbers)

    assert told == Counter(range(100))


def test_a_row_of_the_same_seconds_that_comes_later_is_told_alone() -> None:
    table = Rows([row(n, NOON + timedelta(seconds=n)) for n in range(100)])
    _, place = table.rest(fresh())
    table.rows.append(row(500, NOON + timedelta(seconds=50)))

    assert table.rest(fresh(place))[0] == [500]


def test_a_row_that_was_written_late_makes_another_reader_tell_its_ten_minutes_again_and_no_others() -> None:
    table = Rows([row(n, NOON + timedelta(seconds=10 * n)) for n in range(60 * 6)])
    _, place = table.rest(fresh())
    table.rows.append(row(500, NOON, seconds=0))

    told, _ = table.rest(fresh(place))

    assert sorted(told) == [*range(60), 500]


def test_a_place_inside_ten_minutes_is_one_from_which_the_rest_is_told() -> None:
    table = Rows([row(n, NOON + timedelta(seconds=n)) for n in range(20)])
    ledger = fresh()
    (group,) = ledger.changed(table.counts(15, "2026-11-21", None), None)

    places = [seen.after for seen in ledger.take(group, table.rows)]

    assert [table.rest(fresh(place))[0] for place in places] == [list(range(n + 1, 20)) for n in range(20)]


def test_what_is_forgotten_to_save_memory_is_told_again_only_where_something_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table_ledger, "MAX_KEYS", 50)
    table = Rows([row(n, NOON - timedelta(minutes=n)) for n in range(200)])
    ledger = fresh()
    table.rest(ledger)
    assert table.rest(ledger)[0] == []

    table.rows.append(row(500, NOON - timedelta(minutes=195), seconds=195 * 60))

    assert 500 in table.rest(ledger)[0]
    assert sum(len(seen.keys or ()) for seen in ledger._seen.values()) <= 60


def test_an_older_day_with_more_rows_is_told_again_and_one_with_fewer_is_not() -> None:
    table = Rows([row(n, NOON - timedelta(days=n)) for n in range(12)])
    ledger = fresh()
    table.rest(ledger)
    assert ledger.grown(table.counts(10, *ledger.swept(FLOOR))) == []

    table.rows.append(row(99, NOON - timedelta(days=5)))
    del table.rows[8]

    assert ledger.grown(table.counts(10, *ledger.swept(FLOOR))) == ["2026-11-17"]
    groups = ledger.day_again("2026-11-17", table.counts(15, "2026-11-17", "2026-11-18"))
    told = [seen for group in groups for seen in ledger.take(group, table.between(group.first, group.until))]
    assert [seen.raw[2] for seen in told] == [b"5", b"99"]
    assert ledger.grown(table.counts(10, *ledger.swept(FLOOR))) == []


def test_a_place_stays_small() -> None:
    table = Rows([row(n, NOON - timedelta(seconds=20 * n)) for n in range(40_000)])

    _, place = table.rest(fresh())

    assert len(json.dumps(place.as_json())) < 16_000
