"""CDRs of one call as its record: what a real Asterisk wrote held against the truth, and what it cannot show."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.pbx.configuration import CDR_COLUMNS
from tests.unit.agent.cdrs import NOON, WIRE, call, captured, row

TOWN = json.loads((WIRE / "town.json").read_text())
STAGE = {
    f"{scenario}: {truth['name']}": truth
    for scenario, truths in json.loads((WIRE / "stage.json").read_text()).items()
    for truth in truths
}
# The PBX had answered before, so no CDR says when the agent did, nor what was dialled before a menu.
PBX_ANSWERS_FIRST = {"queue_answered", "queue_answered_agent_hangs_up", "ivr_to_queue", "ivr_answered", "ivr_abandoned"}
FILES = {"town.master.csv": (None, 1.01), "town.custom.csv": (tuple(CDR_COLUMNS), 0.05)}


@pytest.mark.parametrize("truth", TOWN, ids=lambda truth: str(truth["scenario"]))
@pytest.mark.parametrize("file", FILES)
def test_a_call_of_the_town_is_told_as_it_was(file: str, truth: dict[str, Any]) -> None:
    columns, off = FILES[file]
    calls = captured(file, columns)
    assert len(calls) == len(TOWN)
    told = calls[truth["native_id"]].row
    through_pbx = truth["scenario"] in PBX_ANSWERS_FIRST
    for ours, theirs in (
        ("direction", "direction"), ("caller_id", "caller"), ("caller_name", "caller_name"), ("status", "status"),
        ("disposition", "disposition"), ("answered_by", "answered_by"), ("queue", "queue"),
    ):  # fmt: skip
        assert told[ours] == (truth[theirs] or None), ours
    if "ivr" not in truth["scenario"]:
        assert told["callee_id"] == truth["callee"].lstrip("+") or truth["callee"] == told["callee_id"]
    for name in ("start_time", "end_time", "pbx_answer_time", *(() if through_pbx else ("answer_time",))):
        true = datetime.fromisoformat(truth[name]) if truth[name] else None
        assert (told[name] is None) == (true is None), name
        assert true is None or abs((told[name] - true).total_seconds()) <= off, name
    if through_pbx:
        assert told["answer_time"] is None
        assert told["talk_seconds"] >= (truth["talk_seconds"] or 0) - 2 * off
    else:
        assert told["talk_seconds"] == pytest.approx(truth["talk_seconds"] or 0, abs=2 * off)
    assert told["transferred"] is False


# What CDRs do not show: a transfer of which no attempt was written, a consultation that only became part of the call.
NO_ATTEMPT_WRITTEN = {
    "attended_transfer_before_the_answer_and_nobody_answers: the call",
    "blind_transfer_to_voicemail: 05321111121 to 902165551121",
}
ALONE = [name for name, truth in STAGE.items() if truth["merged_into"] is None and name not in NO_ATTEMPT_WRITTEN]


@pytest.mark.parametrize("name", ALONE)
def test_a_call_with_features_is_one_call_and_ends_as_it_did(name: str) -> None:
    truth = STAGE[name]
    began = datetime.fromisoformat(truth["start"])
    calls = [one.row for one in captured("stage.custom.csv", tuple(CDR_COLUMNS)).values()]
    told = min(
        (one for one in calls if one["caller_id"] == truth["caller_id"]), key=lambda one: abs(one["start_time"] - began)
    )
    assert abs(told["start_time"] - began) < timedelta(seconds=0.5)
    for column in (
        "direction",
        "status",
        "disposition",
        "answered_by",
        "last_answered_by",
        "transferred",
        "conference",
    ):
        assert told[column] == truth[column], column
    assert {leg["number"] for leg in told["legs"]} == {leg["number"] for leg in truth["legs"]}
    assert told["legs"][0]["caller"] is True


def test_the_record_of_a_single_pair() -> None:
    told = call(row())
    assert told["call_sid"] == "here:main:1795348800.1"
    assert (told["caller_e164"], told["callee_e164"]) == ("+905321112233", "+902125551001")
    assert (told["start_time"], told["answer_time"]) == (NOON, NOON + timedelta(seconds=5))
    assert (told["ring_seconds"], told["talk_seconds"], told["total_seconds"]) == (5.0, 60.0, 65.0)
    assert (told["source"], told["pbx_answer_time"]) == ("cdr", None)
    assert "hangup_cause" not in told  # not known is not told
    assert [leg["number"] for leg in told["legs"]] == ["905321112233", "101"]


def test_a_did_and_a_recording_of_freepbx_are_kept() -> None:
    read = row(dst="101")._replace(did="902125551001", recordingfile="in-101.wav", cnum="905321112234", cnam="Ayşe Y.")
    told = call(read)
    assert (told["callee_id"], told["recording"]) == ("902125551001", "in-101.wav")
    assert (told["caller_id"], told["caller_name"]) == ("905321112234", "Ayşe Y.")


UNANSWERED = {"answer": "", "billsec": "0", "disposition": "NO ANSWER"}


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ({"end": "2026-11-22 12:00:20"}, True, "no_answer"),  # rang as long as it may
        ({"end": "2026-11-22 12:00:20"}, False, "no_answer"),
        ({"end": "2026-11-22 12:00:07"}, False, "cancelled"),  # the dialplan came no further: the caller hung up
        ({"end": "2026-11-22 12:00:01"}, True, "failed"),  # the phone declined
        ({"end": "2026-11-22 12:00:01", "disposition": "BUSY"}, True, "busy"),
        ({"end": "2026-11-22 12:00:01", "disposition": "CONGESTION"}, True, "congestion"),
        ({"end": "2026-11-22 12:00:01", "disposition": "CANCEL"}, False, "cancelled"),
        ({"end": "2026-11-22 12:00:00", "disposition": "FAILED", "dstchannel": ""}, False, "failed"),
        ({"end": "2026-11-22 12:00:40", "lastdata": "PJSIP/101"}, False, "cancelled"),
        ({"end": "2026-11-22 12:00:40", "lastapp": "Queue", "lastdata": "sales"}, False, "cancelled"),
        ({"end": "2026-11-22 12:00:40", "lastapp": "Queue", "lastdata": "sales,,,,40"}, False, "no_answer"),
    ],
)
def test_why_nobody_answered(first: dict[str, str], then: bool, told: str) -> None:
    attempt = row(**UNANSWERED | first)
    end = f"{attempt.end:%F %T}"
    after = row(**UNANSWERED | {"start": end, "end": end, "dstchannel": "", "lastapp": "Hangup", "sequence": "2"})
    assert call(attempt, *([after] if then else []))["disposition"] == told


def test_voicemail_a_service_and_a_conference_are_told_as_such() -> None:
    solo = {"dstchannel": ""}
    assert call(row(**solo, lastapp="VoiceMail"))["disposition"] == "voicemail"
    robot = call(row(**solo, lastapp="Stasis", lastdata="robot"))
    assert (robot["disposition"], robot["answered_by"], robot["talk_seconds"]) == ("answered", "Stasis", 60.0)
    assert call(row(**solo, lastapp="ConfBridge", lastdata="8001,,x"))["conference"] == "8001"
    menu = call(row(**solo, lastapp="BackGround", lastdata="welcome"))
    assert (menu["status"], menu["answer_time"], menu["talk_seconds"]) == ("abandoned", None, 0.0)
    assert menu["pbx_answer_time"] == NOON + timedelta(seconds=5)


def test_a_time_that_was_guessed_is_marked_and_its_text_kept() -> None:
    told = call(row()._replace(guessed="2026-11-22 12:00:00"))
    assert told["start_estimated"] is True
    assert told["end_estimated"] is True
    assert {"at": "2026-11-22T12:00:00.000000+00:00", "event": "clock_guessed", "text": "2026-11-22 12:00:00"} in told[
        "timeline"
    ]


def test_the_order_of_cdrs_does_not_matter() -> None:
    first = row(**UNANSWERED | {"dstchannel": "PJSIP/102-00000003", "sequence": "2"})
    assert call(row(), first) == call(first, row())
