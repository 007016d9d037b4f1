"""What people do with calls beside calling: hand on, park, pick up, hold, confer; and what the PBX does by itself."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent.calls.events import (
    AttendedTransferred,
    BlindTransferred,
    BridgeJoined,
    BridgeKind,
    BridgeLeft,
    ChannelClosed,
    ChannelOpened,
    ChannelUp,
    DialBegan,
    DialEnded,
    DialStatus,
    LineLost,
    MusicStarted,
    SnapshotTaken,
)
from tests.unit.agent.captures import is_empty, new_model
from tests.unit.agent.stories import MOBILE, NOON, Story, tell, tell_events
from tests.unit.agent.test_call_model import ringing, told


def blind(story: Story, name: str, exten: str) -> Story:
    return story.say(BlindTransferred(story.at, story.channel(name), story.linked, exten))


def happened(row: dict[str, Any], *events: str) -> list[tuple[str, Any]]:  # Any: values of JSON
    return [(entry["event"], entry.get("who")) for entry in row["timeline"] if entry["event"] in events]


def test_a_call_sent_on_is_answered_first_by_one_and_last_by_another() -> None:
    story = blind(ringing().answers("x").wait(10), "x", "102").parted("x", "a").closes("x")
    story.app("Dial", "PJSIP/102", exten="102").dials("y", "PJSIP/102").wait(5).answers("y").wait(20)

    row = told(story.talk_ends("y", by="y"))

    assert (row["answered_by"], row["last_answered_by"], row["transferred"]) == ("101", "102", True)
    assert (row["talk_seconds"], row["ring_seconds"], row["hangup_source"]) == (30, 4, "callee")
    assert [leg["talk_seconds"] for leg in row["legs"]] == [30, 10, 20]


def test_a_call_sent_on_to_nobody_stays_answered_and_the_pbx_ends_it() -> None:
    story = blind(ringing().answers("x").wait(10), "x", "102").hangs_up("x").parted("x", "a").closes("x")
    story.app("Dial", "PJSIP/102", exten="102").dials("y", "PJSIP/102").wait(30)

    row = told(story.dial_ends("y", DialStatus.NOANSWER).closes("y", cause=0).closes("a", cause=19))

    assert (row["disposition"], row["hangup_source"], row["last_answered_by"]) == ("answered", "pbx", "101")


def test_a_caller_who_tires_of_waiting_for_the_second_phone_ends_the_call() -> None:
    story = blind(ringing().answers("x").wait(10), "x", "102").parted("x", "a").closes("x")
    story.app("Dial", "PJSIP/102", exten="102").dials("y", "PJSIP/102").wait(3)

    row = told(story.hangs_up("a").dial_ends("y", DialStatus.CANCEL).closes("y", "a"))

    assert (row["disposition"], row["hangup_source"]) == ("answered", "caller")


def test_when_the_older_call_is_the_consultation_the_callers_call_goes_on_in_it() -> None:
    """101 speaks with 102; a caller comes in on the second line and is connected with 102: oldest linkedid wins."""
    first = Story().from_phone("102", phone="101").app("Dial", "PJSIP/102").dials("x", "PJSIP/102").answers("x").wait(5)
    second = Story("2", at=first.at).from_trunk().app("Dial", "PJSIP/101").dials("y", "PJSIP/101").answers("y").wait(5)
    model = new_model()
    tell(model, first, second)
    at = second.at

    model.apply(AttendedTransferred(at, "2.y", "2.a", "1.a", "1.x"))
    model.apply(BridgeLeft(at, "2.a", "2.a", "2.b"))
    model.apply(BridgeJoined(at, "2.a", "1.a", "1.b", BridgeKind.TALK, "1.a"))
    (younger,) = tell(model, Story(at=at).parted("a").closes("a"), Story("2", at=at).parted("y").closes("y"))

    assert (younger.native_id, younger.merged_into) == ("2.a", "here:main:1.a")
    (older,) = tell(model, Story(at=at).wait(7).hangs_up("x").closes("x"), Story("2", at=at).wait(7).closes("a"))
    assert (older.native_id, older.transferred, older.talk_seconds) == ("1.a", True, 17)
    assert is_empty(model)


def test_a_call_held_over_a_lost_line_is_held_all_the_same() -> None:
    story = ringing().answers("x").holds("x").wait(10).line_lost().wait(10)
    story.opens("a", "PJSIP/trunk-acme", up=True, bridge="1.b", application="Dial", age_seconds=24.0)
    story.opens("x", "PJSIP/101", up=True, bridge="1.b", application="AppDial", age_seconds=24.0)

    row = told(story.snapshot("a", "x").talk_ends("x"))

    assert row["hold_seconds"] == 20


def test_music_in_a_queue_is_no_hold_and_music_in_a_bridge_is() -> None:
    story = Story().from_trunk().up("a").app("Queue", "sales").queues("sales")
    story.say(MusicStarted(story.at, "1.a", "1.a")).wait(10)
    story.dials("x", "PJSIP/101").answers("x").leaves_queue("sales").wait(5)

    assert told(story.talk_ends("x"))["hold_seconds"] == 5


def test_parked_parties_do_not_talk_with_each_other() -> None:
    model = new_model()
    for ident in ("1", "2"):
        story = Story(ident).from_trunk().app("Dial", "PJSIP/101").dials("x", "PJSIP/101").answers("x").wait(5)
        story.parted("x", "a").closes("x")
        tell(model, story)
        model.apply(BridgeJoined(story.at, f"{ident}.a", f"{ident}.a", "lot", BridgeKind.HOLDING))

    ended = tell(model, *(Story(ident, at=NOON + timedelta(seconds=65)).closes("a") for ident in ("1", "2")))

    assert [(call.talk_seconds, call.hold_seconds) for call in ended] == [(5, 60), (5, 60)]
    assert is_empty(model)


def test_three_in_a_conference_are_a_call_each() -> None:
    model = new_model()
    for ident in ("1", "2", "3"):
        story = Story(ident, at=NOON + timedelta(seconds=int(ident))).from_phone("800", phone=f"10{ident}")
        tell(model, story.app("ConfBridge", "800", exten="800").up("a"))
        model.apply(BridgeJoined(story.at, f"{ident}.a", f"{ident}.a", "room", BridgeKind.CONFERENCE))

    end = NOON + timedelta(seconds=10)
    ended = tell(model, *(Story(ident, at=end).hangs_up("a").parted("a").closes("a") for ident in ("1", "2", "3")))

    assert [call.native_id for call in ended] == ["1.a", "2.a", "3.a"]
    assert [call.to_row()["talk_seconds"] for call in ended] == [9, 8, 7]
    assert {call.to_row()["answered_by"] for call in ended} == {"ConfBridge"}
    assert is_empty(model)


def test_a_caller_who_hangs_up_on_a_busy_tone_found_it_busy() -> None:
    story = ringing().dial_ends("x", DialStatus.BUSY).closes("x", cause=17).up("a").app("Busy", "20").wait(3)

    row = told(story.hangs_up("a").closes("a", cause=17))

    assert (row["status"], row["disposition"], row["hangup_source"]) == ("failed", "busy", "caller")


def test_a_caller_whose_far_end_is_told_that_it_is_busy_did_not_hang_up() -> None:
    row = told(Story().from_trunk().app("Busy").hangs_up("a").closes("a", cause=17))

    assert (row["disposition"], row["hangup_source"]) == ("busy", "pbx")


def test_a_congestion_tone_without_any_attempt_is_congestion() -> None:
    story = Story().from_trunk().app("Congestion").wait(3).hangs_up("a")

    assert told(story.closes("a", cause=16))["disposition"] == "congestion"


def test_a_tone_between_two_attempts_decides_nothing() -> None:
    story = Story().from_trunk().app("Busy", "1").app("Dial", "PJSIP/101").dials("x", "PJSIP/101").wait(9)

    assert told(story.gives_up("x"))["disposition"] == "cancelled"


def clicked() -> Story:
    """Originate of Local/101@phones, as FreePBX's click to call does it: the far half rings the phone."""
    story = Story()
    story.say(ChannelOpened(story.at, "1.a", "1.a", name="Local/101@phones-00000001;1", exten="s"))
    story.say(ChannelOpened(story.at, "1.b", "1.a", name="Local/101@phones-00000001;2", exten="101"))
    story.say(DialBegan(story.at, None, "1.a", "1.a", "101@phones"))
    story.app("Dial", "PJSIP/101", name="b", exten="101")
    return story.dials("p", "PJSIP/101", by="b").rings("p").wait(2)


def test_the_phone_behind_a_local_channel_is_the_caller_of_a_click_to_call() -> None:
    story = clicked().up("p").dial_ends("p", DialStatus.ANSWER).up("b").up("a").bridged("p", "b", bridge="near")
    story.say(DialEnded(story.at, "1.a", "1.a", DialStatus.ANSWER))
    story.app("Dial", "PJSIP/0532@trunk-acme", exten="0532").dials("x", "PJSIP/trunk-acme", string="0532@trunk-acme")
    story.wait(5).up("x").dial_ends("x", DialStatus.ANSWER).bridged("x", "a", bridge="far").wait(30)

    row = told(story.hangs_up("x").parted("x", "a", bridge="far").closes("x", "a", "b").parted("p").closes("p"))

    assert (row["direction"], row["caller_id"], row["callee_id"]) == ("outbound", "101", "0532")
    assert (row["answered_by"], row["pbx_answer_time"], row["talk_seconds"]) == ("0532", None, 30)
    assert [leg["number"] for leg in row["legs"]] == ["101", "0532"]
    assert row["legs"][0]["caller"] is True


def test_a_clicked_phone_that_nobody_picks_up_is_no_answer() -> None:
    story = clicked().wait(20).dial_ends("p", DialStatus.NOANSWER).closes("p", cause=0)

    row = told(story.closes("b", "a", cause=0))

    assert (row["disposition"], row["caller_id"]) == ("no_answer", "101")


def test_who_is_called_back_by_a_click_while_he_speaks_to_somebody_is_called_anew() -> None:
    story = ringing().answers("x").wait(10)
    story.say(ChannelOpened(story.at, "9.a", "9.a", name="PJSIP/101-9a", number="101", exten="s"))
    story.say(DialBegan(story.at, None, "9.a", "9.a", "101", connected=MOBILE))

    clicked, spoken = tell(new_model(), story.say(ChannelClosed(story.at, "9.a", "9.a", 19)).talk_ends("x"))

    assert (clicked.call_sid, clicked.to_row()["caller_id"]) == ("here:main:9.a", "101")
    assert len(spoken.to_row()["legs"]) == 2


def test_phones_rung_over_local_channels_together_are_one_attempt() -> None:
    story = Story().from_trunk().app("Dial", "Local/101@p&Local/102@p")
    for near, far in (("l", "m"), ("n", "o")):
        for half, number in ((near, ";1"), (far, ";2")):
            story.say(ChannelOpened(story.at, story.channel(half), "1.a", name=f"Local/1@p-{near}{number}"))
        story.say(DialBegan(story.at, "1.a", story.channel(near), "1.a", "101@p"))
    story.app("Dial", "PJSIP/101", name="m").dials("x", "PJSIP/101", by="m").rings("x")
    story.app("Dial", "PJSIP/102", name="o").dials("y", "PJSIP/102", by="o")
    story.dial_ends("y", DialStatus.BUSY).closes("y", cause=17).closes("o", "n", cause=17).wait(20)
    story.dial_ends("x", DialStatus.NOANSWER).closes("x", cause=0).closes("m", "l", "a", cause=0)

    assert told(story)["disposition"] == "no_answer"


def test_a_call_that_lasts_for_days_is_told_whole() -> None:
    story = ringing().answers("x").wait(10)
    for _ in range(3):
        story.wait(86_400).snapshot("a", "x")

    row = told(story.wait(5).talk_ends("x"))

    assert (row["talk_seconds"], row["total_seconds"]) == (259_215, 259_219)
    assert not row["end_estimated"]


def test_several_calls_of_one_caller_at_once_are_told_apart() -> None:
    model = new_model()
    stories = [Story(ident).from_trunk().app("Dial").dials("x", f"PJSIP/10{ident}").wait(2) for ident in ("1", "2")]

    ended = tell(model, stories[0].answers("x").wait(9).talk_ends("x"), stories[1].gives_up("x"))

    assert [(call.native_id, call.decision().outcome.disposition) for call in ended] == [
        ("1.a", "answered"),
        ("2.a", "cancelled"),
    ]


def test_local_channels_that_are_optimised_away_change_nothing_people_would_notice() -> None:
    story = Story().from_trunk().app("Dial", "Local/101@p")
    for half, number in (("l", ";1"), ("m", ";2")):
        story.say(ChannelOpened(story.at, story.channel(half), "1.a", name=f"Local/101@p-1{number}"))
    story.say(DialBegan(story.at, "1.a", "1.l", "1.a", "101@p"))
    story.app("Dial", "PJSIP/101", name="m").dials("x", "PJSIP/101", by="m").wait(3)
    story.up("x").dial_ends("x", DialStatus.ANSWER).up("m").bridged("x", "m", bridge="far").up("l").up("a")
    story.say(DialEnded(story.at, "1.l", "1.a", DialStatus.ANSWER)).bridged("a", "l", bridge="near").wait(1)
    story.say(BridgeLeft(story.at, "1.x", "1.a", "1.far")).wait(0.01)
    story.say(BridgeJoined(story.at, "1.x", "1.a", "1.near", BridgeKind.TALK, "1.l"))
    story.parted("l", bridge="near").parted("m", bridge="far").closes("l", "m").wait(10)

    row = told(story.hangs_up("x").parted("x", "a", bridge="near").closes("x", "a"))

    assert row["talk_seconds"] == pytest.approx(11, abs=0.05)
    assert happened(row, "joined", "left", "answered") == [
        ("answered", "101"),
        ("joined", "905300000001"),
        ("joined", "101"),
        ("left", "101"),
        ("left", "905300000001"),
    ]


def test_a_transfer_seen_by_nobody_is_a_call_that_found_another_party() -> None:
    """The line was cut while 101 sent the caller on to 102."""
    story = ringing().answers("x").wait(10).say(LineLost(NOON + timedelta(seconds=14))).wait(20)
    story.opens("a", "PJSIP/trunk-acme", up=True, bridge="1.c", application="Dial", age_seconds=34.0)
    story.opens("y", "PJSIP/102", up=True, bridge="1.c", application="AppDial", age_seconds=5.0, number="102")
    story.say(SnapshotTaken(story.at, frozenset({"1.a", "1.y"}))).wait(6)

    (call,) = tell_events(new_model(), story.talk_ends("y").events)
    row = call.to_row()

    assert (row["answered_by"], row["last_answered_by"], row["hangup_source"]) == ("101", "102", "caller")
    assert [leg["number"] for leg in row["legs"]] == ["905300000001", "101", "102"]


def test_a_number_told_by_the_first_events_is_kept_whatever_the_dialplan_shows_later() -> None:
    story = Story().from_trunk().say(ChannelUp(NOON, "1.a", "1.a"))

    assert told(story.closes("a"))["caller_id"] == "905300000001"


def test_a_list_of_channels_between_the_queue_and_the_agent_begins_no_second_wait() -> None:
    story = Story().from_trunk().up("a").app("Queue", "sales").queues("sales").wait(5).leaves_queue("sales")
    story.opens("a", "PJSIP/trunk-acme", up=True, application="Queue", application_data="sales", age_seconds=5.0)
    story.snapshot("a").dials("x", "PJSIP/101").answers("x").wait(600)

    assert told(story.talk_ends("x"))["queue_wait_seconds"] == 5


def test_who_is_connected_waits_in_no_queue_even_if_the_word_of_it_was_lost() -> None:
    story = Story().from_trunk().up("a").app("Queue", "sales").queues("sales").wait(5)

    row = told(story.dials("x", "PJSIP/101").answers("x").wait(600).talk_ends("x"))

    assert row["queue_wait_seconds"] == 5


def test_sixty_in_a_parking_lot_do_not_talk() -> None:
    model = new_model()
    for number in range(60):
        tell(model, Story(str(number)).from_trunk().up("a").app("BridgeWait"))
        model.apply(BridgeJoined(NOON, f"{number}.a", f"{number}.a", "lot", BridgeKind.HOLDING))

    ended = tell(model, *(Story(str(number), at=NOON + timedelta(seconds=9)).closes("a") for number in range(60)))

    assert {call.talk_seconds for call in ended} == {0.0}
    assert is_empty(model)


def test_sixty_phones_paged_over_local_channels_all_hear_the_caller() -> None:
    story = Story().from_phone("500").up("a").app("Page", "Local/…", exten="500")
    story.say(BridgeJoined(story.at, "1.a", "1.a", "room", BridgeKind.CONFERENCE))
    for number in range(60):
        near, far, phone = (f"{name}{number}" for name in ("n", "f", "p"))
        for half, end in ((near, ";1"), (far, ";2")):
            story.say(ChannelOpened(story.at, story.channel(half), "1.a", name=f"Local/1@p-{number:08x}{end}"))
        story.dials(phone, f"PJSIP/{200 + number}", by=far).up(phone).dial_ends(phone, DialStatus.ANSWER)
        story.bridged(phone, far, bridge=f"b{number}")
        story.say(BridgeJoined(story.at, story.channel(near), "1.a", "room", BridgeKind.CONFERENCE))
    story.wait(10).hangs_up("a").closes("a")
    for number in range(60):
        story.closes(f"n{number}", f"f{number}", f"p{number}")

    row = told(story)

    assert row["hangup_source"] == "caller"
    assert {leg["talk_seconds"] for leg in row["legs"] if not leg.get("caller")} == {10}


def test_an_analog_caller_who_gives_up_is_told_by_all_attempts_being_taken_back() -> None:
    story = Story().opens("a", "DAHDI/3", number="0532", exten="s", context="from-pstn").app("Dial", "PJSIP/101")
    story.dials("x", "PJSIP/101").rings("x").wait(9).dial_ends("x", DialStatus.CANCEL).closes("x", "a", cause=16)

    row = told(story)

    assert (row["status"], row["disposition"], row["hangup_source"]) == ("abandoned", "cancelled", "caller")


def test_the_number_of_an_analog_port_is_nobody_s_extension() -> None:
    story = Story().from_phone("103").app("Dial", "DAHDI/3").dials("x", "DAHDI/3", string="3").answers("x").wait(1)

    story.events = [
        replace(event, number="103") if isinstance(event, ChannelOpened) and "DAHDI" in event.name else event
        for event in story.events
    ]
    assert told(story.talk_ends("x"))["answered_by"] == "103"


def test_channels_that_only_carry_sound_are_nobodys_call() -> None:
    model = new_model()

    tell(model, Story().opens("a", "UnicastRTP/127.0.0.1:9999"), Story("2").opens("a", "CBAnn/800"))

    assert is_empty(model)


def test_who_hands_a_call_on_has_answered_it_although_nobody_heard_that() -> None:
    story = ringing().say(LineLost(NOON + timedelta(seconds=4))).wait(5).snapshot("a", "x")
    blind(story, "x", "102").closes("x").app("Dial", "PJSIP/102").dials("y", "PJSIP/102").wait(9)

    row = told(story.dial_ends("y", DialStatus.NOANSWER).closes("y", cause=0).closes("a", cause=19))

    assert (row["disposition"], row["answered_by"], row["transferred"]) == ("answered", "101", True)


def test_a_call_that_went_on_unheard_says_so() -> None:
    story = ringing().answers("x").say(LineLost(NOON + timedelta(seconds=4))).wait(30).snapshot("a", "x").wait(5)

    row = told(story.talk_ends("x"))

    assert [entry["since"][:19] for entry in row["timeline"] if entry["event"] == "unheard"] == ["2026-11-22T12:00:04"]


def test_the_first_of_three_to_leave_does_not_end_the_call() -> None:
    story = ringing().answers("x").dials("y", "PJSIP/102").up("y").dial_ends("y", DialStatus.ANSWER).bridged("y")
    story.wait(5).hangs_up("x").parted("x").closes("x").wait(5)

    assert told(story.talk_ends("y", by="a"))["hangup_source"] == "caller"


def test_a_phone_that_picked_up_but_never_talked_does_not_end_the_call() -> None:
    story = ringing().dials("y", "PJSIP/102").up("y").answers("x").wait(1).hangs_up("y").closes("y").wait(9)

    assert told(story.talk_ends("x", by="a"))["hangup_source"] == "caller"
