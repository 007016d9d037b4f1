"""Numbers that come out of order, and a clock that shows an hour twice."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources.table_clock import RowClock
from agent.sources.table_ids import LATE_NUMBERS, IdPlace

BERLIN = ZoneInfo("Europe/Berlin")


def behind(numbers: list[int], place: IdPlace) -> IdPlace:
    for number in numbers:
        place = place.after(number)
    return place.pruned()


@given(order=st.permutations(range(1, 30)), cuts=st.sets(st.integers(1, 28)))
def test_numbers_that_come_in_any_order_are_asked_for_until_they_have_come(order: list[int], cuts: set[int]) -> None:
    place, told, start = IdPlace(), list[int](), 0
    for cut in [*sorted(cuts), len(order)]:
        shown = set(order[:cut])
        new = sorted(n for n in shown if n > place.last or n in place.missing)
        told += new
        place = IdPlace.from_json(json.loads(json.dumps(behind(new, place).as_json())))
        start = cut
    first = min(order[: min(cuts, default=len(order))])

    assert start == len(order)
    assert sorted(told) == [n for n in range(1, 30) if n >= first]


def test_numbers_that_never_come_are_given_up_after_a_while() -> None:
    place = behind([1, 3, 4], IdPlace())
    assert place.missing == {2}

    assert behind(list(range(5, LATE_NUMBERS + 10)), place).missing == frozenset()
    assert len(behind([10**9], place).missing) <= LATE_NUMBERS


def test_an_event_of_a_channel_that_had_not_begun_in_the_first_hour_is_of_the_second() -> None:
    began = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    clock = RowClock(BERLIN)

    assert clock.told("2026-10-25 02:10:01", f"pbx-{began.timestamp():.0f}.7") == "2026-10-25T01:10:01+00:00"


def test_every_event_of_both_hours_is_its_moment_if_they_come_in_order() -> None:
    clock = RowClock(BERLIN)
    begins = datetime(2026, 10, 24, 23, 0, tzinfo=UTC)
    for minute in range(240):
        moment = begins + timedelta(minutes=minute)
        shown = moment.astimezone(BERLIN).strftime("%Y-%m-%d %H:%M:%S")
        assert clock.told(shown, "old-id") == moment.isoformat()


@pytest.mark.parametrize(
    "text", ["1795348800.123456", "", "0000-00-00 00:00:00", "no time", "2026-11-22T12:00:00+03:00"]
)
def test_what_is_no_local_time_is_left_as_it_is(text: str) -> None:
    assert RowClock(BERLIN).told(text, "1.1") == text
