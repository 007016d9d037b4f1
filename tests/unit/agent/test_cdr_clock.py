"""Times on the PBX's own clock, on both days on which such a clock is changed."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from agent.pbx.asterisk.cdr_clock import CdrClock, CdrTimes

BERLIN = ZoneInfo("Europe/Berlin")  # clocks go back on 2025-10-26 at 3:00 (1:00 UTC), forward on 2025-03-30 at 2:00


def times(
    start: str, answer: str = "", end: str = "", *, duration: float | None = None, billsec: float | None = None,
    uniqueid: str = "", clock: CdrClock | None = None,
) -> CdrTimes:  # fmt: skip
    return (clock or CdrClock(BERLIN)).times(
        start=start, answer=answer, end=end, duration=duration, billsec=billsec, uniqueid=uniqueid
    )


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]  # year to second


def test_local_times_are_those_of_the_zone_at_that_day() -> None:
    assert times("2025-07-01 12:00:00", "2025-07-01 12:00:05", "2025-07-01 12:01:00") == (
        utc(2025, 7, 1, 10), utc(2025, 7, 1, 10, 0, 5), utc(2025, 7, 1, 10, 1), "",
    )  # fmt: skip
    assert times("2025-12-01 12:00:00", "", "2025-12-01 12:01:00").start == utc(2025, 12, 1, 11)


@pytest.mark.parametrize("text", ["1764586800", "1764586800.000000", "2025-12-01T12:00:00+01:00"])
def test_an_epoch_needs_no_zone(text: str) -> None:
    assert times(text, "", text).start == utc(2025, 12, 1, 11)


def test_a_time_with_a_zone_of_its_own_is_read_by_it_whatever_the_lines_before_were() -> None:
    clock = CdrClock(BERLIN)
    assert times("2025-12-01 12:00:00", clock=clock).start == utc(2025, 12, 1, 11)
    assert times("2025-12-01 12:00:00+03:00", clock=clock).start == utc(2025, 12, 1, 9)


def test_microseconds_are_kept_to_the_last() -> None:
    assert times("1764586800.123457", "", "1764586801.000001").start == utc(2025, 12, 1, 11, 0, 0, 123457)


def test_what_an_export_does_not_tell_follows_from_the_lengths() -> None:
    told = times("2025-07-01 12:00:00", duration=65, billsec=60)
    assert (told.answer, told.end) == (utc(2025, 7, 1, 10, 0, 5), utc(2025, 7, 1, 10, 1, 5))
    assert times("2025-07-01 12:00:00", duration=20, billsec=0).answer is None


def test_the_channels_id_tells_which_of_two_equal_hours_it_is() -> None:
    first, second = utc(2025, 10, 26, 0, 30), utc(2025, 10, 26, 1, 30)
    for moment in (first, second):
        told = times(
            "2025-10-26 02:30:00", "", "2025-10-26 02:30:20", duration=20, uniqueid=f"pbx1-{int(moment.timestamp())}.7"
        )
        assert (told.start, told.guessed) == (moment, "")


def test_the_duration_tells_which_hour_an_end_is_in() -> None:
    told = times("2025-10-26 01:50:00", "2025-10-26 01:50:10", "2025-10-26 02:20:00", duration=5400, billsec=5390)
    assert (told.end, told.guessed) == (utc(2025, 10, 26, 1, 20), "")
    assert told.answer == utc(2025, 10, 25, 23, 50, 10)


def test_a_call_that_lasts_from_one_equal_hour_into_the_other_is_as_long_as_it_says() -> None:
    told = times("2025-10-26 02:50:00", "", "2025-10-26 02:10:00", duration=1200)
    assert (told.start, told.end, told.guessed) == (utc(2025, 10, 26, 0, 50), utc(2025, 10, 26, 1, 10), "")


def test_a_clock_that_goes_back_from_line_to_line_tells_the_second_hour() -> None:
    clock = CdrClock(BERLIN)
    before = times("2025-10-26 02:50:00", "", "2025-10-26 02:50:10", duration=10, clock=clock)
    after = times("2025-10-26 02:05:00", "", "2025-10-26 02:05:10", duration=10, clock=clock)
    assert (before.start, after.start) == (utc(2025, 10, 26, 0, 50), utc(2025, 10, 26, 1, 5))
    assert after.guessed == ""


def test_where_nothing_tells_it_is_taken_for_the_first_hour_and_marked() -> None:
    told = times("2025-10-26 02:30:00", "", "2025-10-26 02:30:20", duration=20)
    assert told.start == utc(2025, 10, 26, 0, 30)
    assert told.guessed == "2025-10-26 02:30:00 2025-10-26 02:30:20"


def test_an_hour_that_does_not_exist_is_moved_forward_and_marked() -> None:
    told = times("2025-03-30 02:30:00", "", "2025-03-30 02:31:00", duration=60)
    assert told.start == utc(2025, 3, 30, 1, 30)  # 3:30 on the clock
    assert told.guessed != ""
    assert times("2025-03-30 03:30:00", "", "2025-03-30 03:31:00").guessed == ""


def test_a_zone_whose_offset_changed_for_good_needs_no_guess_but_in_that_hour() -> None:
    clock = CdrClock(ZoneInfo("Europe/Istanbul"))  # summer time ever since September 2016
    assert times("2016-01-10 12:00:00", "", "2016-01-10 12:00:10", clock=clock).start == utc(2016, 1, 10, 10)
    assert times("2017-01-10 12:00:00", "", "2017-01-10 12:00:10", clock=clock).start == utc(2017, 1, 10, 9)


@pytest.mark.parametrize("text", ["", "0000-00-00 00:00:00", "yesterday", "2025-13-01 00:00:00"])
def test_without_a_start_it_is_no_cdr(text: str) -> None:
    with pytest.raises(ValueError, match=r"start|time|month|iso"):
        times(text)
