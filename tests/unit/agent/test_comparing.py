"""Two accounts of one call held against each other: what counts as different, and what none of them can tell."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agent.calls.comparing import COLUMNS, LENGTH_SECONDS, MOMENT_SECONDS, differences
from sync.models import Direction, Disposition, Status
from tests.unit.agent.captures import events, frames, played
from tests.unit.agent.cel_files import STAGE, cel_rows, ended, lines, new_calls

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
Row = dict[str, Any]  # Any: columns

moments = some.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=some.just(UTC))  # noqa: DTZ001
lengths = some.floats(0, 5000)
numbers = some.none() | some.from_regex(r"\+?\d{2,14}", fullmatch=True)
accounts = some.fixed_dictionaries(
    {
        "direction": some.sampled_from(Direction), "caller_id": numbers, "callee_id": numbers,
        "last_answered_by": numbers, "status": some.sampled_from(Status), "start_time": moments, "end_time": moments,
        "disposition": some.none() | some.sampled_from(Disposition), "answer_time": some.none() | moments,
        "talk_seconds": lengths, "hold_seconds": lengths, "transferred": some.booleans(),
        "merged_into": some.none() | some.just("s:main:1.2"), "source": some.sampled_from(["cdr", "cel"]),
    }
)  # fmt: skip


def account(**changes: Any) -> Row:  # Any: columns
    told = {
        "direction": Direction.INBOUND, "caller_id": "05321111011", "callee_id": "902165551011",
        "last_answered_by": "101", "status": Status.COMPLETED, "disposition": Disposition.ANSWERED, "start_time": NOON,
        "answer_time": NOON + timedelta(seconds=5), "end_time": NOON + timedelta(seconds=65), "talk_seconds": 60.0,
        "hold_seconds": 0.0, "transferred": False, "merged_into": None, "source": "cdr",
    }  # fmt: skip
    return told | changes


def columns(ours: Row, theirs: Row) -> set[str]:
    return {each.column for each in differences(ours, theirs)}


@given(accounts)
def test_an_account_differs_in_nothing_from_itself(row: Row) -> None:
    assert differences(row, row) == []


@given(accounts, some.floats(-MOMENT_SECONDS, MOMENT_SECONDS), some.floats(-LENGTH_SECONDS, LENGTH_SECONDS))
def test_what_whole_seconds_hide_is_no_difference(row: Row, off: float, longer: float) -> None:
    by = timedelta(seconds=max(-0.999, min(0.999, off)))
    shifted = {name: row[name] + by for name in ("start_time", "end_time", "answer_time") if row[name] is not None}
    talk = max(0.0, row["talk_seconds"] + longer * 0.999)

    assert differences(row, row | shifted | {"talk_seconds": talk}) == []


@given(accounts, accounts)
def test_only_columns_that_can_be_compared_are_told_and_each_once(ours: Row, theirs: Row) -> None:
    found = [each.column for each in differences(ours, theirs)]

    assert len(set(found)) == len(found)
    assert set(found) <= set(COLUMNS)
    for each in differences(ours, theirs):
        assert (each.ours, each.theirs) == (ours[each.column], theirs[each.column])


@given(accounts, accounts)
def test_a_cdr_s_silence_about_what_it_cannot_tell_is_no_difference(ours: Row, theirs: Row) -> None:
    untold = {"callee_id": None, "last_answered_by": None, "hold_seconds": 0.0, "status": Status.FAILED}
    cdr = theirs | {"source": "cdr"}

    assert columns(ours, cdr) == columns(ours, cdr | untold)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"start_time": NOON - timedelta(seconds=3)}, {"start_time"}),
        ({"end_time": NOON + timedelta(seconds=90)}, {"end_time"}),
        ({"disposition": Disposition.BUSY, "answer_time": None}, {"disposition"}),
        ({"disposition": Disposition.VOICEMAIL}, set()),
        ({"talk_seconds": 30.0}, {"talk_seconds"}),
        ({"caller_id": "5321111011"}, set()),
        ({"caller_id": "+905321111011"}, set()),
        ({"caller_id": "05329999999"}, {"caller_id"}),
        ({"caller_id": None}, set()),
        ({"direction": Direction.OUTBOUND}, {"direction"}),
    ],
)
def test_what_a_cdr_tells_otherwise(changes: Row, told: set[str]) -> None:
    assert columns(account(), account(**changes)) == told


def test_of_a_call_that_was_joined_with_another_a_cdr_tells_only_the_beginning() -> None:
    other = account(end_time=NOON + timedelta(seconds=600), direction=Direction.INTERNAL, talk_seconds=500.0)

    assert differences(account(), other, is_joined=True) == []
    assert columns(account(merged_into="s:main:1.2"), other) == set()
    assert columns(account(), other) == {"end_time", "direction", "talk_seconds"}


def test_who_answered_and_what_became_of_the_call_is_compared_with_cel() -> None:
    cel = account(source="cel", last_answered_by="102", transferred=True)

    assert columns(account(), cel) == {"last_answered_by", "transferred"}


@pytest.mark.parametrize("name", [name for name in STAGE if name.startswith("stage/22/")])
def test_a_real_asterisk_s_cel_differs_in_nothing_from_what_was_heard(name: str) -> None:
    heard = {call.call_sid: call.to_row() for call in played(events(frames(name))).take_ended()}

    told = ended(new_calls(), cel_rows(lines(name)))

    assert heard.keys() == told.keys()
    assert [each for sid, row in told.items() for each in differences(heard[sid], row)] == []
