"""Captures of a real Asterisk are told as Asterisk itself tells them."""

import random
import re
from datetime import timedelta

import pytest

from agent.calls.events import BridgeJoined, BridgeLeft, CallEvent, ChannelClosed, ChannelUp, DialEnded
from agent.errors import PbxRefused
from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN
from agent.pbx.asterisk.protocol import AmiFramer, AmiMessage, AmiSession, SessionState
from agent.pbx.feed import LINE_LOST
from tests.unit.agent.captures import (
    WIRE,
    Frame,
    account,
    disagreements,
    events,
    frames,
    is_empty,
    played,
    truths,
)

# Of Asterisk 22, and a handful of them of Asterisk 16.
CAPTURES = sorted(path.stem for path in WIRE.glob("*.json")) + sorted(
    f"asterisk-16/{path.stem}" for path in WIRE.glob("asterisk-16/*.json")
)
# Told apart below, because the agent or the PBX was away for a part of them, or because we mean to know better.
SPECIAL = {"click_to_call", "killed", "live_calls", "asterisk-16/live_calls"}
WHOLE = [name for name in CAPTURES if name not in SPECIAL]


def test_the_captures_are_there() -> None:
    assert len(WHOLE) > 30
    assert set(CAPTURES) >= SPECIAL


@pytest.mark.parametrize("name", WHOLE)
def test_a_captured_call_is_told_as_asterisk_tells_it(name: str) -> None:
    model = played(events(frames(name)))

    told = {call.native_id: account(call) for call in model.take_ended()}

    true = {call["native_id"]: call for call in truths(name)}
    assert told.keys() == true.keys()
    assert [line for native_id in true for line in disagreements(told[native_id], true[native_id])] == []


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_of_a_captured_call_stays_in_memory(name: str) -> None:
    model = played(events(frames(name)))

    assert is_empty(model)


# Between these Asterisk keeps no order, not even from one run of the same call to the next.
LOOSE = (ChannelUp, DialEnded, BridgeJoined, BridgeLeft, ChannelClosed)


def _reordered(told: list[CallEvent], *, seed: int) -> list[CallEvent]:
    """Neighbours within some milliseconds change places, but never two words of one kind about one channel."""
    choice, mixed = random.Random(seed), list(told)
    for first in range(len(mixed) - 1):
        here, there = mixed[first], mixed[first + 1]
        if not isinstance(here, LOOSE) or not isinstance(there, LOOSE):
            continue
        same = _subject(here) == _subject(there) and {type(here), type(there)} != {ChannelUp, DialEnded}
        if not same and there.at - here.at < timedelta(milliseconds=5) and choice.random() < 0.5:
            mixed[first], mixed[first + 1] = there, here
    return mixed


def _subject(event: ChannelUp | DialEnded | BridgeJoined | BridgeLeft | ChannelClosed) -> str:
    return event.dest if isinstance(event, DialEnded) else event.channel


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("seed", range(5))
def test_the_loose_order_of_channels_changes_no_record(name: str, seed: int) -> None:
    told = list(events(frames(name)))

    model = played(_reordered(told, seed=seed))

    ours = {call.native_id: account(call) for call in model.take_ended()}
    straight = {call.native_id: account(call) for call in played(told).take_ended()}
    assert ours.keys() == straight.keys()
    assert [line for key in ours for line in disagreements(ours[key], straight[key])] == []
    assert is_empty(model)


def test_a_click_to_call_is_answered_by_whom_it_reaches_and_not_by_who_clicked() -> None:
    model = played(events(frames("click_to_call")))

    (call,) = model.take_ended()

    (true,) = truths("click_to_call")
    # Asterisk's account knows no trunks, so it calls this call internal.
    ours = account(call)
    assert disagreements(ours, true, but=("direction", "pbx_answer_time")) == []
    assert (ours["direction"], ours["pbx_answer_time"]) == ("outbound", None)  # no PBX but the caller picked up


@pytest.mark.parametrize("name", ["live_calls", "asterisk-16/live_calls"])
def test_calls_found_under_way_are_told_as_far_as_the_pbx_still_knows(name: str) -> None:
    heard = frames(name)
    listed = next(number for number, frame in enumerate(heard) if b"Ping: Pong" in frame.raw)
    heard.insert(listed + 1, Frame(SNAPSHOT_TAKEN, heard[listed].arrived_at))

    model = played(events(heard))

    told = {call.native_id: call for call in model.take_ended()}
    before = min(frame.arrived_at for frame in heard)
    true = {call["native_id"]: call for call in truths(name) if call["end_time"] > before}
    assert told.keys() == true.keys()
    # When they were answered, and what the caller's number was before the dialplan changed it, is told by nobody.
    unknown = ("start_time", "pbx_answer_time", "answer_time", "talk_seconds", "caller")
    assert [line for key in true for line in disagreements(account(told[key]), true[key], but=unknown)] == []
    for key, call in told.items():
        assert call.start_estimated
        assert abs(call.started_at - true[key]["start_time"]) < timedelta(seconds=1.2)
    assert is_empty(model)


def test_calls_cut_by_a_killed_pbx_end_estimated_once_it_lists_no_channel() -> None:
    heard = frames("killed")
    died_at = heard[-1].arrived_at
    back_at = died_at + timedelta(seconds=20)
    empty_list = [
        Frame(b"Event: CoreShowChannelsComplete\r\nEventList: Complete\r\nListItems: 0", back_at),
        Frame(SNAPSHOT_TAKEN, back_at),
    ]

    model = played(events([*heard, Frame(LINE_LOST, died_at), *empty_list]))

    told = {call.native_id: call for call in model.take_ended()}
    true = {call["native_id"]: call for call in truths("killed")}
    assert told.keys() == true.keys()
    unseen = ("status", "disposition", "end_time", "talk_seconds", "hangup_cause")
    for key, call in told.items():
        ours = account(call)
        assert disagreements(ours, true[key], but=unseen) == []
        assert call.end_estimated
        assert call.to_row()["hangup_source"] is None
        assert ours["end_time"] == died_at
        assert (ours["status"] == "completed") == (true[key]["answer_time"] is not None)
    assert is_empty(model)


def _logged_in(name: str, *, md5: bool) -> AmiSession:
    """A session that speaks with the captured PBX; its ActionIDs are put into the captured answers."""
    talk = AmiSession(username="sentiric", secret="gizli-soz", md5=md5, drop_events=())
    banner, newline, stream = (WIRE / f"{name}.ami").read_bytes().partition(b"\n")
    talk.receive(banner + newline)
    for frame in AmiFramer().feed(stream):
        (sent,) = re.findall(rb"ActionID: (.+?)\r\n", talk.outgoing()) or [b"none"]
        talk.receive(re.sub(rb"ActionID: [^\r]+", b"ActionID: " + sent, frame) + b"\r\n\r\n")
        if talk.state is SessionState.READY:
            break
    return talk


@pytest.mark.parametrize(
    ("name", "md5", "version"),
    [("login_plain", False, "11.0.0"), ("login_md5", True, "11.0.0"), ("asterisk-16/login_plain", False, "5.0.4")],
)
def test_a_captured_log_in_is_accepted(name: str, md5: bool, version: str) -> None:
    talk = _logged_in(name, md5=md5)

    assert talk.state is SessionState.READY
    assert talk.version == version


def test_a_captured_refusal_is_one() -> None:
    with pytest.raises(PbxRefused, match="Authentication failed"):
        _logged_in("login_refused", md5=False)


def test_a_captured_late_boot_is_heard_as_an_event() -> None:
    names = [AmiMessage(frame.raw).name for frame in frames("booting")]

    assert "FullyBooted" in names


@pytest.mark.parametrize("name", ["command_new_style", "command_old_style_handmade"])
def test_the_answer_of_a_command_is_one_frame_and_what_follows_is_heard(name: str) -> None:
    messages = [AmiMessage(frame.raw) for frame in frames(name)]

    answers = [message for message in messages if message.all("output") or message.get("response") == "Follows"]
    assert [len({*answer.all("actionid")}) for answer in answers] == [1, 1]
    assert [b"No such command" in answer.raw for answer in answers] == [False, True]
    assert messages[-1].get("response") == "Goodbye"
