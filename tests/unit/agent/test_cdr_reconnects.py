"""A line that breaks between any two frames, with CDRs filling in what was not heard: what either knows stands.

CDRs tell much less than CEL (docs/call-record.md). So each column is held to this: where the broken line or the CDRs
alone have it as it was, the record has it too. Every third boundary, or all with SENTIRIC_EVERY_BREAK=1 (some 30 s).
"""

import os
from datetime import UTC, datetime
from functools import cache

import pytest

from agent.pbx.asterisk.cdr import CdrReader, CdrRow
from agent.pbx.asterisk.cdr_calls import call_of
from tests.pbx.configuration import CDR_COLUMNS
from tests.unit.agent.captures import WIRE
from tests.unit.agent.cdrs import RULES
from tests.unit.agent.cel_files import Rows
from tests.unit.agent.reconnects import NOT_COMPARED, Ledger, breaks_of
from tests.unit.agent.test_reconnects import live

NAMES = sorted(str(path.relative_to(WIRE)).removesuffix(".cdr.csv") for path in WIRE.glob("stage/22/*.cdr.csv"))
STEP = 1 if os.environ.get("SENTIRIC_EVERY_BREAK") else 3
NEAR_SECONDS = 1.0  # what whole seconds can hide, and merging takes for the same

# Two who each know a part cannot settle these: whether the PBX picked up first, and who of several was the last.
UNSETTLED = {"pbx_answer_time", "last_answered_by"}
# Who clicked is called first: who did not hear it cannot say who called whom, nor that only the first picked up.
CLICKED = {"answered_by", "direction", "status", "disposition", "answer_time"}
# CDRs take the waiting of who was transferred or put through for talk, or know less of it; a line that missed
# the parking takes it for a transfer; and so on, with what rang before a mailbox or announcement, and rooms.
UNSETTLED_OF = {
    "attended_transfer_by_feature_code_that_comes_back": {"talk_seconds"},
    "attended_transfer_of_a_call_from_a_queue": {"talk_seconds"},
    "blind_transfer_twice": {"talk_seconds"},
    "consultation_by_feature_code_that_nobody_answers": {"talk_seconds"},
    "follow_me_to_the_second_number": {"talk_seconds"},
    "menu_in_which_the_caller_dials_an_extension": {"talk_seconds", "answer_time"},
    "queue_with_a_second_caller_who_waits": {"talk_seconds"},
    "parked_and_the_caller_hangs_up": {"talk_seconds", "transferred"},
    "parked_and_retrieved_by_another": {"transferred"},
    "parked_too_long_and_answered_by_the_parker": {"transferred"},
    "announcement_that_nobody_answered": {"ring_seconds"},
    "group_in_vain_and_then_voicemail": {"ring_seconds"},
    "queue_in_vain_and_then_voicemail": {"ring_seconds"},
    "queue_in_vain_and_then_another": {"queue"},
    "voicemail_after_busy": {"ring_seconds"},
    "voicemail_after_no_answer": {"ring_seconds"},
    "voicemail_whose_greeting_the_caller_does_not_hear_out": {"ring_seconds"},
    "attended_transfer_into_an_older_call": {"direction"},
    "attended_transfer_into_a_conference": {"end_time", "total_seconds"},
    "conference_of_three": {"end_time", "total_seconds"},
    "call_back_to_somebody_outside": CLICKED,
    "click_to_call": CLICKED,
    "click_to_call_of_a_busy_number": CLICKED,
    "click_to_call_over_a_local_channel": CLICKED,
    "click_to_call_over_a_local_channel_and_the_phone_is_not_answered": CLICKED,
    "click_to_call_over_a_local_channel_that_stays": CLICKED,
}
# A transfer that comes back rings with a linkedid of its own; no CDR tells that it was no call.
PHANTOMS = {"attended_transfer_by_feature_code_that_comes_back"}


@cache
def written_down(name: str) -> Rows:
    """What CDRs alone told."""
    reader, groups = CdrReader(UTC, tuple(CDR_COLUMNS)), dict[str, list[CdrRow]]()
    for line in (WIRE / f"{name}.cdr.csv").read_text(encoding="utf-8").splitlines():
        row = reader.row(line)
        if row is not None:
            groups.setdefault(row.key, []).append(row)
    calls = [call_of(rows, site="here", pbx="main", rules=RULES, native_id=key).row for key, rows in groups.items()]
    return {call["call_sid"]: call for call in calls}


def alike(one: object, other: object) -> bool:
    match one, other:
        case datetime(), datetime():
            return abs((one - other).total_seconds()) < NEAR_SECONDS
        case float(), float():
            return abs(one - other) < NEAR_SECONDS
        case _:
            return one == other


def test_the_captures_are_there() -> None:
    assert len(NAMES) > 90


@pytest.mark.parametrize("name", NAMES)
def test_what_was_heard_or_cdrs_tell_stands_after_a_break(name: str) -> None:
    scenario = name.rpartition("/")[2]
    but = NOT_COMPARED | UNSETTLED | UNSETTLED_OF.get(scenario, set())
    ledger, cdrs = Ledger(), written_down(name)
    unbroken, alone = ledger.kept(live(name, None), cdrs), ledger.kept(cdrs)
    wrong = []

    for cut in list(breaks_of(name))[::STEP]:
        part = live(name, cut)
        heard, calls = ledger.kept(part), ledger.kept(part, cdrs)

        if scenario not in PHANTOMS:
            wrong += [f"{cut}: {sid} is none" for sid in calls.keys() - unbroken.keys() - alone.keys()]
        for sid, true in unbroken.items():
            if true["merged_into"] is not None:
                continue  # that two calls became one no CDR tells
            told, known = calls.get(sid, {}), [one[sid] for one in (alone, heard) if sid in one]
            wrong += [
                f"{cut}: {sid}: {column} is {true[column]}, told {told.get(column)}"
                for column in true.keys() - but
                if not alike(true[column], told.get(column)) and any(alike(true[column], one[column]) for one in known)
            ]

    assert not wrong, "\n".join(wrong[:5])
