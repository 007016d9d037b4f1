"""The table of outcomes, as far as the call model's stories do not tell it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.events import DialStatus
from agent.calls.outcome import ANSWERED, BUSY, CANCELLED, CONGESTION, FAILED, NO_ANSWER, VOICEMAIL, Outcome, decide

Leg = tuple[DialStatus | None, int | None]


def of(*legs: Leg, cause: int | None = 16, reached_nobody: bool = False) -> Outcome:
    return decide(
        answered=False,
        voicemail=False,
        caller_gave_up=False,
        cut_off=False,
        dialled=legs,
        reached_nobody=reached_nobody,
        tone=None,
        cause=cause,
    ).outcome


@pytest.mark.parametrize(
    ("legs", "outcome"),
    [
        ([(DialStatus.BUSY, 17), (DialStatus.CHANUNAVAIL, 20)], BUSY),
        ([(DialStatus.CONGESTION, 34), (DialStatus.CHANUNAVAIL, 20)], CONGESTION),
        ([(DialStatus.CONGESTION, 34), (DialStatus.BUSY, 17)], BUSY),
        ([(DialStatus.NOANSWER, 0), (DialStatus.CONGESTION, 34)], NO_ANSWER),
        ([(DialStatus.NOANSWER, 21), (DialStatus.NOANSWER, 18)], FAILED),
        ([(DialStatus.CANCEL, 0)], NO_ANSWER),
        ([(DialStatus.CANCEL, 26)], NO_ANSWER),
        ([(None, 17)], BUSY),
        ([(None, None)], FAILED),
    ],
)
def test_of_several_legs_the_best_news_counts(legs: list[Leg], outcome: Outcome) -> None:
    assert of(*legs) == outcome
    assert of(*reversed(legs)) == outcome


def test_a_dial_that_reached_nobody_failed_whatever_the_cause() -> None:
    assert of(cause=17, reached_nobody=True) == FAILED


STATUS = st.sampled_from([None, *DialStatus])
CAUSE = st.none() | st.integers(0, 127)


@given(st.lists(st.tuples(STATUS, CAUSE), max_size=4), st.booleans(), CAUSE, st.booleans())
def test_what_happened_first_in_the_table_outweighs_the_rest(
    legs: list[Leg], reached_nobody: bool, cause: int | None, cut_off: bool
) -> None:
    def decided(*, answered: bool = False, voicemail: bool = False, caller_gave_up: bool = False) -> Outcome:
        return decide(
            answered=answered, voicemail=voicemail, caller_gave_up=caller_gave_up, cut_off=cut_off, dialled=legs,
            reached_nobody=reached_nobody, tone=None, cause=cause,
        ).outcome  # fmt: skip

    assert decided(answered=True, voicemail=True, caller_gave_up=True) == ANSWERED
    assert decided(voicemail=True, caller_gave_up=True) == VOICEMAIL
    assert decided(caller_gave_up=True) == CANCELLED
    assert decided() in ({FAILED} if cut_off else {NO_ANSWER, BUSY, CONGESTION, FAILED})
