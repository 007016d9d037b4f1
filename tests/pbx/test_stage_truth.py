"""The stage's comparison itself: does it see whatever is told wrongly?"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.pbx.stage.truth import CallTruth, LegTruth, differences, dump_truths, load_truths

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=5)

TRUTH = CallTruth(
    name="the call",
    direction="inbound",
    caller_id="05321111011",
    caller_name="Gül",
    callee_id="902165551011",
    answered_by="1011",
    last_answered_by="1011",
    status="completed",
    disposition="answered",
    start=NOON,
    answer=NOON,
    end=LATER,
    talk=5.0,
    hangup_cause=16,
    hangup_source="caller",
    legs=[
        LegTruth(number="05321111011", dial_status="", answered=True, talk=5.0),
        LegTruth(number="1011", dial_status="ANSWER", rung=True, answered=True, talk=5.0),
    ],
    timeline=["answered 1011", {"joined 05321111011", "joined 1011"}, {"hangup 05321111011 by=caller", "?left 1011"}],
)


def told(**otherwise: Any) -> dict[str, Any]:  # Any: columns
    """A call told as it was, but for what a test says."""
    columns = {
        "call_sid": "site:main:1", "direction": "inbound", "caller_id": "05321111011", "caller_name": "Gül",
        "caller_presentation": "allowed", "caller_e164": "+905321111011", "callee_id": "902165551011",
        "callee_e164": "+902165551011", "answered_by": "1011", "last_answered_by": "1011", "status": "completed",
        "disposition": "answered", "start_time": NOON, "pbx_answer_time": None, "answer_time": NOON, "end_time": LATER,
        "ring_seconds": 0.0, "talk_seconds": 5.1, "hold_seconds": 0.0, "total_seconds": 5.0, "hangup_cause": 16,
        "hangup_source": "caller", "queue": None, "queue_position": None, "queue_wait_seconds": 0.0, "conference": None,
        "transferred": False, "merged_into": None, "start_estimated": False, "end_estimated": False,
        "legs": [
            {"number": "05321111011", "caller": True, "answer_time": "12:00", "talk_seconds": 5.0},
            {
                "number": "1011", "dial_status": "ANSWER", "ring_time": "12:00", "answer_time": "12:00",
                "talk_seconds": 5.0,
            },
        ],
        "timeline": [
            {"event": "began", "who": "05321111011"},
            {"event": "answered", "who": "1011"},
            {"event": "joined", "who": "1011"},
            {"event": "joined", "who": "05321111011"},
            {"event": "hangup", "who": "05321111011", "by": "caller"},
        ],
    }  # fmt: skip
    return columns | otherwise


def test_what_is_told_as_it_was_differs_in_nothing() -> None:
    assert differences([TRUTH], [told()]) == []


def test_a_truth_is_the_same_after_it_was_written_down_and_read() -> None:
    assert differences(load_truths(dump_truths([TRUTH])), [told()]) == []


@pytest.mark.parametrize("column", sorted(set(told()) - {"call_sid", "legs", "timeline"}))
def test_every_column_that_is_told_wrongly_is_named(column: str) -> None:
    wrong: Any = NOON + timedelta(seconds=0.2) if column.endswith("_time") else 77.0
    (line,) = differences([TRUTH], [told(**{column: wrong})])
    assert line.startswith(f"the call: {column} is ")


@pytest.mark.parametrize(
    "change",
    [
        {"number": "1012"},
        {"dial_status": "BUSY"},
        {"talk_seconds": 4.0},
        {"hold_seconds": 1.0},
        {"caller": True},
    ],
)
def test_a_leg_that_is_told_wrongly_is_named(change: dict[str, Any]) -> None:
    first, second = told()["legs"]
    assert len(differences([TRUTH], [told(legs=[first, second | change])])) == 1


def test_a_leg_too_many_and_a_leg_too_few_are_named() -> None:
    first, second = told()["legs"]
    assert "legs are" in differences([TRUTH], [told(legs=[first])])[0]
    assert "legs are" in differences([TRUTH], [told(legs=[first, second, second])])[0]


def test_a_timeline_in_another_order_is_named() -> None:
    _, answered, joined, joined_too, hangup = told()["timeline"]
    assert "lacks answered 1011" in differences([TRUTH], [told(timeline=[joined, answered, joined_too, hangup])])[0]


def test_an_event_too_many_and_an_event_too_few_are_named() -> None:
    timeline = told()["timeline"]
    transferred = {"event": "transferred", "who": "1011"}
    assert "goes on with transferred 1011" in differences([TRUTH], [told(timeline=[*timeline, transferred])])[0]
    assert "lacks hangup 05321111011" in differences([TRUTH], [told(timeline=timeline[:-1])])[0]


def test_a_call_too_many_and_a_call_too_few_are_named() -> None:
    assert "nobody made" in differences([], [told()])[0]
    assert "no such call was told" in differences([TRUTH], [])[0]


def test_calls_are_known_by_their_numbers_before_their_beginning() -> None:
    other = told(caller_id="1012", call_sid="site:main:2")
    found = differences([TRUTH], [other, told(start_time=NOON + timedelta(seconds=0.1))])
    assert found == ["a call that nobody made was told: 1012 to 902165551011, completed"]


def test_a_moment_may_be_off_by_as_much_as_the_exchange_was_late_and_no_more() -> None:
    late = told(start_time=TRUTH.start + timedelta(seconds=0.4), total_seconds=told()["total_seconds"] - 0.4)
    assert differences([TRUTH], [late], slowest=lambda begin, end: 0.3) == []
    assert len(differences([TRUTH], [late], slowest=lambda begin, end: 0.2)) == 2
