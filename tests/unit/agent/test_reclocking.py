"""A clock that is set under calls changes neither their durations nor their order, and wrong times are put right."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.events import ClockDoubted, ClockStepped
from agent.calls.live_call import LiveCall
from agent.calls.model import CallModel
from agent.calls.reclocking import move
from tests.unit.agent.captures import new_model
from tests.unit.agent.stories import NOON, Story, tell

HOUR = timedelta(hours=1)
LENGTHS = ("ring_seconds", "talk_seconds", "hold_seconds", "total_seconds", "queue_wait_seconds")


def set_clock(model: CallModel, shown: datetime, by: timedelta, *, is_trusted: bool = False) -> datetime:
    """Set the clock by so much when it shows that; what it shows then."""
    model.apply(ClockStepped(shown + by, by.total_seconds(), is_trusted=is_trusted))
    return shown + by


def a_call(*, by: timedelta = timedelta(), ident: str = "1", at: datetime = NOON) -> Story:
    """Rings 5 s, talks 60 s, of which 20 s on hold; the clock is set by so much in the middle of it."""
    story = Story(ident, at=at).from_trunk().wait(1).dials("b", "PJSIP/101").rings("b").wait(5).answers("b")
    story.wait(20).holds("b").wait(10)
    if by:
        story.at += by
        story.say(ClockStepped(story.at, by.total_seconds(), is_trusted=False))
    return story.wait(10).takes_off_hold("b").wait(20).talk_ends("b")


def ended(model: CallModel, story: Story) -> LiveCall:
    (call,) = tell(model, story)
    return call


@pytest.mark.parametrize("by", [-24 * HOUR, -HOUR, timedelta(seconds=-30), HOUR, 365 * 24 * HOUR])
def test_a_clock_set_in_the_middle_of_a_call_changes_no_duration(by: timedelta) -> None:
    straight, stepping = (ended(new_model(), a_call(by=each)).to_row() for each in (timedelta(), by))

    assert [stepping[name] for name in LENGTHS] == [straight[name] for name in LENGTHS]
    assert stepping["start_time"] == straight["start_time"] + by
    assert stepping["legs"][1]["talk_seconds"] == straight["legs"][1]["talk_seconds"]


def test_the_order_of_what_happened_stays_and_the_timeline_tells_of_the_clock() -> None:
    straight, stepping = (ended(new_model(), a_call(by=each)).timeline for each in (timedelta(), -HOUR))

    assert [entry["event"] for entry in stepping if entry["event"] != "clock_stepped"] == [
        entry["event"] for entry in straight
    ]
    assert [entry["at"] for entry in stepping] == sorted(entry["at"] for entry in stepping)
    assert [entry["seconds"] for entry in stepping if entry["event"] == "clock_stepped"] == [-3600.0]


def test_calls_that_had_ended_by_a_clock_that_was_right_are_left_alone() -> None:
    model = new_model()
    first = ended(model, a_call())
    row = first.to_row()

    set_clock(model, NOON + HOUR, 24 * HOUR)

    assert model.take_repaired() == []
    assert first.to_row() == row


def test_what_ended_by_a_clock_that_was_doubted_is_put_right_once_it_is_set() -> None:
    model = new_model()
    boot = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    model.apply(ClockDoubted(boot))
    early = ended(model, a_call(at=boot))
    assert early.started_at.year == 1970
    told = early.to_row()

    now = set_clock(model, boot + HOUR, NOON - boot, is_trusted=True)
    (repaired,) = model.take_repaired()
    row = repaired.to_row()

    assert (row["start_time"], row["call_sid"]) == (NOON, told["call_sid"])
    assert [row[name] for name in LENGTHS] == [told[name] for name in LENGTHS]
    assert row["timeline"][-1] == {
        "at": row["timeline"][-2]["at"], "event": "clock_set_right", "seconds": (NOON - boot).total_seconds()
    }  # fmt: skip
    assert told["start_time"].year == 1970  # what was told before is not changed under whoever holds it

    set_clock(model, now, HOUR)
    assert (model.take_repaired(), model.doubts_clock) == ([], False)


def test_a_doubt_that_a_step_does_not_end_goes_on_and_nothing_is_lost_of_the_steps() -> None:
    model = new_model()
    boot = datetime(1970, 1, 1, tzinfo=UTC)
    model.apply(ClockDoubted(boot))
    ended(model, a_call(at=boot))

    now = set_clock(model, boot, 24 * HOUR)
    assert (model.take_repaired(), model.doubts_clock) == ([], True)
    set_clock(model, now, NOON - now, is_trusted=True)

    (repaired,) = model.take_repaired()
    assert repaired.started_at == NOON


def test_a_clock_that_was_set_wrong_and_back_leaves_no_wrong_time() -> None:
    model = new_model()
    before = ended(model, a_call(ident="1"))
    now = set_clock(model, NOON + HOUR, 24 * HOUR)
    wrong = ended(model, a_call(ident="2", at=now))

    set_clock(model, now + HOUR, -24 * HOUR - timedelta(seconds=1))

    assert model.take_repaired() == [wrong]
    assert before.started_at == NOON
    assert wrong.started_at == NOON + HOUR - timedelta(seconds=1)


def test_what_is_remembered_of_ended_calls_is_bounded() -> None:
    model = new_model()
    model.apply(ClockDoubted(NOON))
    for number in range(1200):
        tell(model, Story(str(number), at=NOON + timedelta(seconds=number)).from_phone("102").wait(1).closes("a"))

    set_clock(model, NOON + HOUR, HOUR, is_trusted=True)

    assert len(model.take_repaired()) == 1000


def test_times_that_no_calendar_has_are_left() -> None:
    call = ended(new_model(), a_call())
    before = call.to_row()

    move(call, -1e11)

    assert call.to_row() == before


@given(st.lists(st.floats(-1e9, 1e9).filter(lambda seconds: abs(seconds) > 1), max_size=6))
def test_steps_at_any_moments_of_a_call_change_no_duration(steps: list[float]) -> None:
    straight = a_call()
    story, by = Story(), timedelta()
    every = max(1, len(straight.events) // (len(steps) + 1))
    rest = list(steps)
    for number, event in enumerate(straight.events):
        if number and number % every == 0 and rest:
            step = timedelta(seconds=rest.pop())
            by += step
            story.say(ClockStepped(event.at + by, step.total_seconds(), is_trusted=False))
        story.say(type(event)(event.at + by, *(getattr(event, name) for name in event.__slots__[1:])))

    row, expected = ended(new_model(), story).to_row(), ended(new_model(), straight).to_row()

    assert [row[name] for name in LENGTHS] == pytest.approx([expected[name] for name in LENGTHS], abs=1e-4)
