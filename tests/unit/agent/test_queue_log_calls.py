"""What real Asterisks wrote into their queue logs (tests/pbx/stage), with the CDRs and the AMI of the same calls."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.numbers import NumberPlan
from agent.calls.queue_merging import queue_told_again, with_queue
from agent.calls.rules import CallRules
from agent.pbx.asterisk.cdr import CdrReader, CdrRow
from agent.pbx.asterisk.cdr_calls import call_of
from agent.pbx.asterisk.queue_log import QueueEvent
from agent.sources.gathering import GatheredCall, Mark
from agent.sources.queue_log_gatherer import QueueLogGatherer
from config.settings import TenancySettings
from tests.pbx.stage.truth import CallTruth, load_truths
from tests.unit.agent.captures import WIRE, events, frames, new_model

Row = dict[str, Any]  # Any: columns
CAPTURES = sorted((WIRE / "stage").glob("*/*.queue_log"))
every_capture = pytest.mark.parametrize("path", CAPTURES, ids=lambda path: f"{path.stem} {path.parent.name}")
RULES = CallRules(numbers=NumberPlan("TR"))
SECOND = 1.0  # what whole seconds can hide
T = 1795340000


def gatherer() -> QueueLogGatherer:
    return QueueLogGatherer(
        site="here", pbx="main", rules=lambda: RULES, tenant_of=lambda _: "acme", encoding="cp1254", settle_seconds=5.0,
        clock=lambda: 0.0,
    )  # fmt: skip


def gathered(lines: Iterable[bytes]) -> list[GatheredCall]:
    gather = gatherer()
    for number, line in enumerate(lines):
        assert gather.take(line, Mark(number, None, number, 0)) is None
    return gather.take_calls(seconds=1e9, is_at_end=True)


def accounts(*lines: str) -> list[Row]:
    """Lines as `seconds|id|queue|agent|event|…`, the seconds after T, and an id of T's."""
    whole = []
    for line in lines:
        seconds, number, rest = line.split("|", 2)
        whole.append(f"{T + int(seconds)}|{number if number == 'NONE' else f'{T}.{number}'}|{rest}".encode())
    return [call.row for call in gathered(whole)]


def of_capture(path: Path) -> dict[str, Row]:
    return {call.sid: call.row for call in gathered(path.read_bytes().splitlines())}


def of_cdrs(path: Path) -> dict[str, Row]:
    reader, rows = CdrReader(UTC), dict[str, list[CdrRow]]()
    for line in path.read_text(encoding="utf-8").splitlines():
        if (row := reader.row(line)) is not None:
            rows.setdefault(row.key, []).append(row)
    found = [call_of(each, site="here", pbx="main", rules=RULES).row for each in rows.values()]
    return {row["call_sid"]: row for row in found}


def of_live_feed(path: Path) -> dict[str, Row]:
    model = new_model(TenancySettings(), RULES)
    told: list[Row] = []
    for event in events(frames(f"stage/{path.parent.name}/{path.stem}")):
        model.apply(event)
        told += [call.to_row() for call in model.take_ended()]
    return {row["call_sid"]: row for row in told}


def truth_of(path: Path, row: Row) -> CallTruth:
    truths = load_truths(path.with_suffix(".json").read_text(encoding="utf-8"))
    (found,) = [truth for truth in truths if truth.caller_id == row["caller_id"]]
    return found


def of_event(row: Row, event: str) -> list[Row]:
    return [entry for entry in row["timeline"] if entry["event"] == event]


def test_every_queue_of_the_stage_was_captured_on_both_asterisks() -> None:
    assert len(CAPTURES) == 26


@every_capture
def test_a_cdr_and_the_queue_log_tell_the_time_in_the_queue(path: Path) -> None:
    cdrs = of_cdrs(path.with_suffix(".cdr.csv"))
    for sid, account in of_capture(path).items():
        row = cdrs[sid] | with_queue(cdrs[sid], account, heard_whole=False)
        truth = truth_of(path, row)
        for name in ("queue", "queue_position", "answered_by", "last_answered_by", "status", "disposition"):
            assert row[name] == getattr(truth, name), name
        # Of an attended transfer into a queue the log counts the consultation too.
        wait = truth.queue_wait + (SECOND if path.stem.startswith("attended_transfer_into") else 0.0)
        assert truth.queue_wait - SECOND <= row["queue_wait_seconds"] <= wait + SECOND
        assert row["transferred"] == truth.transferred
        assert row.get("hangup_source") in {truth.hangup_source, None}
        for event in ("queued", "left_queue"):
            assert of_event(row, event) == of_event(account, event)
        if any(entry.get("reason") == "connected" for entry in account["timeline"]):
            assert truth.answer is not None
            assert abs((row["answer_time"] - truth.answer).total_seconds()) <= SECOND
            assert abs(row["talk_seconds"] - truth.talk) <= SECOND
            assert abs(row["ring_seconds"] - truth.ring) <= SECOND


@every_capture
def test_to_tell_a_queue_twice_changes_nothing(path: Path) -> None:
    cdrs = of_cdrs(path.with_suffix(".cdr.csv"))
    for sid, account in of_capture(path).items():
        row = cdrs[sid] | with_queue(cdrs[sid], account, heard_whole=False)
        assert with_queue(row, account, heard_whole=False) == {}
        assert queue_told_again(account, account) == account


@every_capture
def test_what_the_live_feed_heard_wholly_is_only_confirmed(path: Path) -> None:
    heard = of_live_feed(path)
    for sid, account in of_capture(path).items():
        assert with_queue(heard[sid], account, heard_whole=True) == {}


@every_capture
def test_a_live_feed_without_the_class_agent_gains_the_queue(path: Path) -> None:
    heard = of_live_feed(path)
    for sid, account in of_capture(path).items():
        told = heard[sid]
        deaf = told | {"queue": None, "queue_position": None, "queue_wait_seconds": 0.0}
        deaf["timeline"] = [entry for entry in told["timeline"] if "queue" not in entry]
        row = deaf | with_queue(deaf, account, heard_whole=True)
        assert (row["queue"], row["queue_position"]) == (told["queue"], told["queue_position"])
        changed = {name for name in row if row[name] != deaf[name]}
        assert changed <= {"queue", "queue_position", "queue_wait_seconds", "timeline"}


@every_capture
def test_alone_it_tells_a_call_without_inventing_anything(path: Path) -> None:
    for row in of_capture(path).values():
        assert row["source"] == "queue_log"
        assert row["start_estimated"]
        assert row["start_time"] <= row["end_time"]
        assert row["talk_seconds"] <= row["total_seconds"]
        assert "callee_id" not in row
        if row["caller_id"] is not None:
            truth = truth_of(path, row)
            assert row["direction"] == truth.direction
            assert row["caller_e164"] == truth.caller_e164
            assert abs((row["start_time"] - truth.start).total_seconds()) <= SECOND


def test_who_abandons_is_told_with_its_number_and_its_wait() -> None:
    (row,) = accounts("1|1|sales|NONE|ENTERQUEUE||05321111011|3", "21|1|sales|NONE|ABANDON|1|3|20")
    assert (row["status"], row["disposition"], row["hangup_source"]) == ("abandoned", "cancelled", "caller")
    assert (row["queue"], row["queue_position"], row["queue_wait_seconds"]) == ("sales", 3, 20.0)
    assert row["start_time"] == datetime.fromtimestamp(T, UTC)
    assert not row["end_estimated"]
    assert [entry.get("reason") for entry in row["timeline"] if entry["event"] == "left_queue"] == ["abandoned"]


def test_who_went_on_in_the_dialplan_has_an_end_that_nobody_saw() -> None:
    (row,) = accounts("1|1|sales|NONE|ENTERQUEUE||05321111011|1", "21|1|sales|NONE|EXITWITHTIMEOUT|1|1|20")
    assert (row["status"], row["disposition"], row["end_estimated"]) == ("failed", None, True)


def test_the_last_queue_is_told_and_the_wait_in_all_of_them() -> None:
    (row,) = accounts(
        "1|1|sales|NONE|ENTERQUEUE||05321111011|2",
        "11|1|sales|PJSIP/101|RINGNOANSWER|4000",
        "11|1|sales|NONE|EXITWITHTIMEOUT|1|2|10",
        "15|1|night|NONE|ENTERQUEUE||05321111011|1",
        "20|1|night|PJSIP/102|CONNECT|5|1795340014.9|3",
        "50|1|night|PJSIP/102|COMPLETEAGENT|5|30|1",
    )
    assert (row["queue"], row["queue_position"], row["queue_wait_seconds"]) == ("night", 1, 15.0)
    assert (row["answered_by"], row["talk_seconds"], row["ring_seconds"]) == ("102", 30.0, 7.0)
    assert [leg.get("dial_status") for leg in row["legs"]] == [None, "NOANSWER", "ANSWER"]


def test_several_who_ring_at_once_are_not_added_up() -> None:
    (row,) = accounts(
        "0|1|sales|NONE|ENTERQUEUE||05321111011|1",
        "10|1|sales|PJSIP/101|RINGNOANSWER|8000",
        "10|1|sales|PJSIP/102|RINGNOANSWER|10000",
        "10|1|sales|NONE|ABANDON|1|1|10",
    )
    assert row["ring_seconds"] == 10.0


def test_a_blind_transfer_by_the_agent_is_told_and_parking_is_none() -> None:
    lines = ("0|1|sales|NONE|ENTERQUEUE||05321111011|1", "5|1|sales|PJSIP/101|CONNECT|5|1795340001.2|4")
    (row,) = accounts(*lines, "20|1|sales|PJSIP/101|BLINDTRANSFER|103|internal|5|15|1")
    (parked,) = accounts(*lines, "20|1|sales|PJSIP/101|BLINDTRANSFER|701|parkedcalls|5|15|1")
    assert (row["transferred"], row["end_estimated"], row["hangup_source"]) == (True, True, None)
    assert [(entry["kind"], entry["to"]) for entry in row["timeline"] if entry["event"] == "transferred"] == [
        ("blind", "103")
    ]
    assert not parked["transferred"]


def test_a_line_under_another_id_is_of_the_visit_that_fits() -> None:
    told = accounts(
        "1|7|sales|NONE|ENTERQUEUE||1271|1",
        "2|9|sales|NONE|ENTERQUEUE||05321111099|2",
        "5|2|sales|PJSIP/101|RINGNOANSWER|2000",
        "9|2|sales|NONE|ABANDON|1|1|8",
        "9|9|sales|NONE|ABANDON|1|2|7",
    )
    calls = {row["call_sid"].rpartition(".")[2]: row for row in told}
    assert calls.keys() == {"2", "9"}
    assert (calls["2"]["caller_id"], calls["2"]["transferred"], calls["2"]["queue_wait_seconds"]) == (None, True, 8.0)
    assert (calls["9"]["caller_id"], calls["9"]["transferred"]) == ("05321111099", False)


def test_two_visits_that_fit_a_line_under_another_id_stay_with_their_callers() -> None:
    told = accounts(
        "1|7|sales|NONE|ENTERQUEUE||1271|1", "1|8|sales|NONE|ENTERQUEUE||1272|1", "9|2|sales|NONE|ABANDON|1|1|8",
    )  # fmt: skip
    assert [row["call_sid"].rpartition(".")[2] for row in told if row["disposition"] == "cancelled"] == ["2"]
    assert not any(row["transferred"] for row in told)


def test_a_leaving_whose_entering_is_lost_is_told_by_what_it_says_itself() -> None:
    (row,) = accounts("30|1|sales|PJSIP/101|COMPLETECALLER|10|15|4")
    assert (row["queue_position"], row["queue_wait_seconds"], row["talk_seconds"]) == (4, 10.0, 15.0)
    assert (row["caller_id"], row["disposition"]) == (None, "answered")


def test_a_start_of_asterisk_ends_what_went_on_before_it() -> None:
    (row,) = accounts("1|1|sales|NONE|ENTERQUEUE||05321111011|1", "60|NONE|NONE|NONE|QUEUESTART|")
    assert (row["end_estimated"], row["disposition"], row["end_time"]) == (
        True, None, datetime.fromtimestamp(T + 1, UTC),
    )  # fmt: skip


def test_a_visit_is_waited_for_until_others_have_told_of_the_call() -> None:
    gather = gatherer()
    for number, line in enumerate((f"{T}|{T}.1|s|NONE|ENTERQUEUE||101|1", f"{T}|{T}.1|s|NONE|ABANDON|1|1|0")):
        gather.take(line.encode(), Mark(number, None, number, 0))
    assert gather.take_calls(seconds=14.0, is_at_end=True) == []
    assert gather.first_unsettled == Mark(0, None, 0, 0)
    assert [call.sid for call in gather.take_calls(seconds=15.0, is_at_end=True)] == [f"here:main:{T}.1"]
    assert len(gather) == 0
    assert gather.first_unsettled is None


def test_two_parts_of_one_call_become_one_account() -> None:
    lines = (
        "1|1|sales|NONE|ENTERQUEUE||05321111011|2", "11|1|sales|NONE|EXITWITHTIMEOUT|1|2|10",
        "300|1|night|NONE|ENTERQUEUE||05321111011|1", "305|1|night|PJSIP/102|CONNECT|5|1795340014.9|3",
        "335|1|night|PJSIP/102|COMPLETEAGENT|5|30|1",
    )  # fmt: skip
    (first,), (second,), (whole,) = accounts(*lines[:2]), accounts(*lines[2:]), accounts(*lines)
    for one, other in ((first, second), (second, first)):
        account = queue_told_again(one, other)
        assert {name for name in whole if whole[name] != account[name]} <= {"legs"}


LINES = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.integers(1, 3),
        st.sampled_from(["sales", "night"]),
        st.sampled_from([event for event in QueueEvent if event is not QueueEvent.QUEUESTART]),
        st.integers(0, 9),
    ),
    max_size=25,
)


@given(LINES)
def test_whatever_order_lines_come_in_the_account_is_sound(lines: list[tuple[int, int, str, QueueEvent, int]]) -> None:
    told = accounts(*(f"{at}|{who}|{queue}|PJSIP/101|{event}|{n}|{n}|{n}" for at, who, queue, event, n in lines))
    assert len({row["call_sid"] for row in told}) == len(told) <= 3
    for row in told:
        assert row["end_time"] >= row["start_time"]
        assert row["end_time"] - row["start_time"] <= timedelta(seconds=60)
        assert min(row["talk_seconds"], row["ring_seconds"], row["queue_wait_seconds"]) >= 0
        assert queue_told_again(row, row) == row


def test_who_is_known_to_have_no_public_number_called_from_inside() -> None:
    (inside,) = accounts("1|1|sales|NONE|ENTERQUEUE||103|1", "3|1|sales|NONE|ABANDON|1|1|2")
    (outside,) = accounts("1|1|sales|NONE|ENTERQUEUE||05321111011|1", "3|1|sales|NONE|ABANDON|1|1|2")
    (withheld,) = accounts("1|1|sales|NONE|ENTERQUEUE|||1", "3|1|sales|NONE|ABANDON|1|1|2")
    assert [row["direction"] for row in (inside, outside, withheld)] == ["internal", "inbound", "inbound"]
