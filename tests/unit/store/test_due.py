"""When upkeep is due: by the calendar across starts, by the time since boot within one, whatever the clock says."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.store.due import Due

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BOOT = 5000.0


def wait(due: Due, last_at: datetime | None, *, now: datetime = NOW, after: timedelta = timedelta()) -> timedelta:
    return due.wait(last_at, now=now, since_boot=BOOT + after.total_seconds())


def test_what_was_never_done_is_due_at_once() -> None:
    assert wait(Due(DAY, since_boot=BOOT), None) <= timedelta()


def test_a_start_neither_repeats_what_was_done_lately_nor_begins_to_count_anew() -> None:
    due = Due(7 * DAY, since_boot=BOOT)
    assert wait(due, NOW - 2 * DAY) == 5 * DAY
    assert wait(Due(7 * DAY, since_boot=BOOT), NOW - 8 * DAY) <= timedelta()


def test_within_a_run_the_clock_does_not_matter() -> None:
    due = Due(DAY, since_boot=BOOT)
    due.done(BOOT)
    years = 3650 * DAY
    for now in (NOW - years, NOW, NOW + years):
        assert wait(due, NOW, now=now, after=23 * HOUR) == HOUR
        assert wait(due, NOW, now=now, after=DAY) <= timedelta()


def test_a_machine_that_boots_in_1970_waits_until_it_knows_the_time() -> None:
    due = Due(DAY, since_boot=BOOT)
    booted = datetime(1970, 1, 1, tzinfo=UTC)
    assert wait(due, NOW, now=booted + HOUR / 2, after=HOUR / 2) == HOUR / 2
    assert wait(due, NOW, now=NOW + 2 * HOUR, after=HOUR / 2) == 22 * HOUR


def test_a_last_time_in_the_future_puts_nothing_off_for_years() -> None:
    due = Due(DAY, since_boot=BOOT)
    assert wait(due, NOW + 3650 * DAY, after=HOUR) <= timedelta()


def test_a_clock_that_never_moves_puts_nothing_off_either() -> None:
    assert wait(Due(DAY, since_boot=BOOT), NOW, after=DAY) <= timedelta()


def test_what_failed_is_tried_again_rather_soon_and_not_at_once() -> None:
    due = Due(DAY, since_boot=BOOT)
    due.failed(BOOT)
    assert timedelta() < wait(due, None) <= HOUR


@given(st.lists(st.tuples(st.integers(0, 6 * 3600), st.integers(-(10**9), 10**9)), max_size=200))
def test_no_setting_of_the_clock_brings_a_storm(steps: list[tuple[int, int]]) -> None:
    due, boot, last_at, turns = Due(DAY, since_boot=0.0), 0.0, NOW, 0
    for passed, set_to in steps:
        boot += passed
        now = NOW + timedelta(seconds=set_to)
        if due.wait(last_at, now=now, since_boot=boot) <= timedelta():
            due.done(boot)
            last_at, turns = now, turns + 1
    assert turns <= 1 + boot / DAY.total_seconds()
