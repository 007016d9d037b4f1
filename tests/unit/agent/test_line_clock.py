"""That a clock was set is noticed by what a PBX stamps, or by our own clock, and a late word is not taken for it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.events import ClockDoubted, ClockStepped
from agent.pbx.clock import LineClock, event_of_mark, mark_of

NOW = 1_795_348_800.0
BOOTED = 1000.0


class Line:
    """One machine with a PBX; `boot` goes on, clocks are what is set."""

    def __init__(self, *, stamps: bool = True, off: float = 0.0) -> None:
        self.clock = LineClock()
        self.boot = BOOTED
        self.set_by = 0.0
        self.theirs_set_by = off
        self.stamps = stamps
        self.steps: list[float] = []

    def says(self, *, after: float = 0.5, late: float = 0.0, stamped: bool = True) -> None:
        self.boot += after
        stamp = NOW + self.boot + self.theirs_set_by - late if self.stamps and stamped else None
        self.clock.arrived(NOW + self.boot + self.set_by, self.boot)
        if self.clock.may_be_set(stamp, self.boot) and (step := self.clock.step_before(stamp, self.boot)):
            self.steps.append(round(step))

    def both_set(self, seconds: float) -> None:
        self.set_by += seconds
        self.theirs_set_by += seconds


@pytest.mark.parametrize("seconds", [-3600, -5, 5, 3600, 1_795_000_000])
def test_a_machine_s_clock_that_is_set_is_noticed_at_the_next_word(seconds: float) -> None:
    for stamps in (True, False):
        line = Line(stamps=stamps)
        line.says()
        line.both_set(seconds)
        line.says()
        line.says()

        assert line.steps == [seconds]


def test_a_word_that_comes_late_is_no_clock_that_was_set_back() -> None:
    line = Line()
    line.says()
    for late in (30.0, 20.0, 10.0, 0.0):
        line.says(late=late)

    assert line.steps == []


def test_words_that_were_under_way_when_the_clock_was_set_are_timed_by_the_clock_as_it_was() -> None:
    line = Line()
    line.says()
    line.set_by = -3600.0
    line.says()  # stamped before
    line.theirs_set_by = -3600.0
    line.says()

    assert line.steps == [-3600]


def test_our_clock_does_not_matter_where_another_machine_stamps() -> None:
    line = Line(off=120.0)
    line.says()
    line.set_by = -3600.0
    line.says()
    line.says(after=100.0)
    line.says(stamped=False)

    assert line.steps == []


def test_another_machine_s_clock_that_is_set_back_is_shown_by_a_ping() -> None:
    line = Line(off=7.0)
    line.says()
    line.theirs_set_by -= 3600.0
    line.says()
    assert line.steps == []

    told = NOW + line.boot + line.theirs_set_by
    assert line.clock.ponged(told, line.boot - 30, line.boot + 30) == 0.0  # too slow an answer to tell
    assert round(line.clock.ponged(told, line.boot - 0.01, line.boot + 0.01)) == -3600
    line.says()
    assert line.steps == []


def test_what_is_slewed_is_followed() -> None:
    line = Line()
    line.says()
    for _ in range(2000):
        line.both_set(-0.005)
        line.says(after=1.0)

    assert line.steps == []


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-1e9, 1e9), st.booleans()), max_size=30))
def test_whatever_clocks_do_the_marks_add_up_to_what_unstamped_words_show(
    words: list[tuple[float, float, bool]],
) -> None:
    line = Line(stamps=False)
    line.says()
    for after, seconds, is_set in words:
        line.both_set(round(seconds) if is_set and abs(seconds) > 2 else 0.0)
        line.says(after=after)

    assert sum(line.steps) == line.set_by


@pytest.mark.parametrize("event", [
    ClockDoubted(datetime.fromtimestamp(NOW, UTC)),
    ClockStepped(datetime.fromtimestamp(NOW, UTC), -3600.25, is_trusted=False),
    ClockStepped(datetime.fromtimestamp(NOW, UTC), 1.8e9, is_trusted=True),
])  # fmt: skip
def test_marks_in_the_journal_are_read_as_they_were_written(event: ClockDoubted | ClockStepped) -> None:
    assert event_of_mark(mark_of(event), event.at) == event
    assert event_of_mark(mark_of(event) + b"\r\n", event.at) is None
