"""The same call from two sources: who is believed in what, and that saying it twice changes nothing."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.calls.merging import told_again, with_account
from tests.unit.agent.cdrs import NOON, call, row

Row = dict[str, Any]  # Any: columns of a call


def ami(**changes: Any) -> Row:
    """What the live feed told of the call that `row()` is the CDR of."""
    told = call(row()) | {"source": "ami", "merged_into": None, "timeline": [{"at": "x", "event": "began"}]}
    told |= {"start_time": NOON + timedelta(microseconds=1), "end_time": NOON + timedelta(seconds=65, microseconds=9)}
    return told | changes


def missed(**changes: Any) -> Row:
    """What the live feed told if it came when the phone rang and went before it was answered."""
    unseen: Row = {"status": "failed", "disposition": "no_answer", "answer_time": None, "answered_by": None}
    unseen |= {"last_answered_by": None, "talk_seconds": 0.0, "end_estimated": True}
    unseen |= {"end_time": NOON + timedelta(seconds=3), "total_seconds": 3.0}
    return ami(**unseen | changes)


# Where a live feed missed something.
UNHEARD = [{"at": f"{NOON:%FT%T.%f}+00:00", "event": "unheard", "since": f"{NOON:%FT%T.%f}+00:00"}]


def changes_of(stored: Row, told: Row) -> Row:
    """What changes in a record that one source told, because another tells of the call."""
    row, _ = with_account(stored, {}, told)
    return {name: value for name, value in row.items() if stored.get(name) != value}


def test_a_call_that_was_heard_whole_stays_as_the_live_feed_told_it() -> None:
    assert changes_of(ami(), call(row())) == {}


def test_what_the_live_feed_does_not_know_is_filled_in() -> None:
    cdr = call(row()._replace(recordingfile="in-101.wav"))
    changes = changes_of(ami(caller_name=None, recording=None), cdr)
    assert changes == {"caller_name": "Ayşe", "recording": "in-101.wav", "source": "ami+cdr"}


def test_how_a_call_went_that_was_heard_whole_is_not_filled_in() -> None:
    declined = ami(status="failed", disposition="failed", answer_time=None, answered_by=None)
    assert changes_of(declined, call(row())) == {}


def test_an_end_that_was_not_seen_is_the_cdrs_to_tell() -> None:
    changes = changes_of(missed(), call(row()))
    assert (changes["status"], changes["disposition"], changes["answered_by"]) == ("completed", "answered", "101")
    assert changes["answer_time"] == NOON + timedelta(seconds=5)
    assert (changes["end_time"], changes["end_estimated"]) == (NOON + timedelta(seconds=65), False)
    assert changes["total_seconds"] == 64.999999
    assert changes["source"] == "ami+cdr"
    assert "start_time" not in changes
    assert "timeline" not in changes


def test_a_beginning_that_was_not_seen_is_the_cdrs_to_tell() -> None:
    late = ami(
        start_estimated=True, start_time=NOON + timedelta(seconds=30), answer_time=NOON + timedelta(seconds=30),
        direction="internal", talk_seconds=35.0, caller_id="903124442000", caller_name="the trunk's own",
    )  # fmt: skip
    true = call(row())
    changes = changes_of(late, true)
    # The dialplan had made it another's by the time it was found.
    assert (changes["caller_id"], changes["caller_name"]) == (true["caller_id"], true["caller_name"])
    assert (changes["start_time"], changes["start_estimated"]) == (NOON, False)
    assert (changes["answer_time"], changes["talk_seconds"]) == (NOON + timedelta(seconds=5), 60.0)
    assert changes["direction"] == "inbound"


def test_a_trunk_dialled_after_the_last_word_is_the_cdrs_to_tell_though_its_seconds_are_whole() -> None:
    begun = NOON + timedelta(seconds=0.8)
    cut_off = missed(start_time=begun, end_time=begun, total_seconds=0.0, direction="internal", ring_seconds=0.0)
    over = call(row(answer="", billsec="0", duration="0", disposition="BUSY", end="2026-11-22 12:00:00"))
    assert changes_of(cut_off, over)["direction"] == "inbound"


def test_an_answer_within_a_gap_is_the_cdrs_to_tell() -> None:
    unseen = missed(end_estimated=False, end_time=NOON + timedelta(seconds=65), total_seconds=65.0)
    assert changes_of(unseen, call(row())) == {}
    assert changes_of(unseen | {"timeline": UNHEARD}, call(row()))["disposition"] == "answered"


def test_an_answer_that_was_seen_is_not_taken_back() -> None:
    half = call(row(answer="", billsec="0", disposition="NO ANSWER"))
    changes = changes_of(ami(end_estimated=True), half)
    assert not changes.keys() & {"status", "disposition", "answer_time", "answered_by", "talk_seconds"}


def test_a_call_that_went_on_in_another_keeps_its_end() -> None:
    changes = changes_of(missed(merged_into="here:main:1.1"), call(row()))
    assert not changes.keys() & {"status", "disposition", "end_time"}


def test_the_same_file_again_changes_nothing_and_a_better_zone_everything() -> None:
    told = call(row())
    assert changes_of(told, call(row())) == {}
    late = row(start="2026-11-22 15:00:00", answer="2026-11-22 15:00:05", end="2026-11-22 15:01:05")
    changes = changes_of(told, call(late))
    assert changes["start_time"] == NOON + timedelta(hours=3)
    assert "source" not in changes


def test_whole_seconds_say_nothing_against_microseconds() -> None:
    exact = call(row(start="1795348800.400000", answer="1795348805.600000", end="1795348865.700000"))
    assert changes_of(exact, call(row())) == {}
    assert changes_of(call(row()), exact)["start_time"] == exact["start_time"]


FIRST = row(answer="", billsec="0", disposition="NO ANSWER", end="2026-11-22 12:00:20", dstchannel="PJSIP/102-00000003")
SECOND = row(start="2026-11-22 12:00:20", answer="2026-11-22 12:00:25", sequence="2")


def test_the_parts_of_a_call_from_two_files_come_to_the_same_in_either_order() -> None:
    one, other = told_again(call(FIRST), call(SECOND)), told_again(call(SECOND), call(FIRST))
    for told in (one, other):
        assert (told["start_time"], told["end_time"]) == (NOON, NOON + timedelta(seconds=65))
        assert (told["disposition"], told["answered_by"], told["total_seconds"]) == ("answered", "101", 65.0)
        assert len(told["legs"]) == 3
        assert told["legs"][0]["caller"] is True
    assert one["timeline"] == other["timeline"]


def test_a_part_of_what_is_known_takes_nothing_away() -> None:
    whole = call(FIRST, SECOND)
    assert changes_of(whole, call(FIRST)) == {}
    assert changes_of(whole, call(SECOND)) == {}


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


@st.composite
def cdrs(draw: st.DrawFn) -> Any:  # Any: a CDR
    begin = NOON + timedelta(seconds=draw(st.integers(0, 60)))
    end = begin + timedelta(seconds=draw(st.integers(0, 60)))
    disposition = draw(st.sampled_from(["ANSWERED", "NO ANSWER", "BUSY", "FAILED"]))
    return row(
        start=_text(begin), end=_text(end), answer=_text(end) if disposition == "ANSWERED" else "",
        disposition=disposition, dstchannel=draw(st.sampled_from(["", "PJSIP/101-2", "PJSIP/102-3", "Local/1@x-4;1"])),
        lastapp=draw(st.sampled_from(["Dial", "Queue", "VoiceMail", "Hangup", "ConfBridge"])),
        clid=draw(st.sampled_from(["", '"Ayşe" <1>'])),
    )  # fmt: skip


groups = st.lists(cdrs(), min_size=1, max_size=4)


@given(first=groups, second=groups, was_live=st.booleans(), estimated=st.booleans(), heard=st.booleans())
def test_to_say_the_same_twice_changes_nothing_the_second_time(
    first: Any, second: Any, was_live: bool, estimated: bool, heard: bool
) -> None:
    stored = call(*first) | {"merged_into": None}
    if was_live:
        stored |= {"source": "ami", "end_estimated": estimated}
    told = call(*second)
    if was_live and not heard:
        stored |= {"timeline": UNHEARD}
    once, accounts = with_account(stored, {}, told)
    twice, still = with_account(stored | once, accounts, told)
    assert _known(twice) == _known(once)
    assert {source: _known(account) for source, account in still.items()} == {
        source: _known(account) for source, account in accounts.items()
    }


def _known(account: Mapping[str, Any]) -> Row:  # Any: as above
    return {name: value for name, value in account.items() if value is not None}


@given(first=groups, second=groups, heard=st.booleans())
def test_nothing_known_becomes_unknown(first: Any, second: Any, heard: bool) -> None:
    stored = call(*first) | {"merged_into": None, "source": "ami", "end_estimated": True}
    changes = changes_of(stored if heard else stored | {"timeline": UNHEARD}, call(*second))
    for name, value in changes.items():
        assert value is not None or stored[name] is None, name
