"""What is said of channels becomes calls with a truthful record."""

from datetime import timedelta
from typing import Any

import pytest

from agent.calls.context import CallState
from agent.calls.events import (
    BridgeJoined,
    CallerIdentified,
    ChannelClosed,
    ChannelOpened,
    ChannelUp,
    DialStatus,
)
from agent.calls.live_call import LiveCall
from agent.calls.model import CallModel
from tests.unit.agent.captures import is_empty, new_model
from tests.unit.agent.stories import DID, MOBILE, NOON, Story, tell


def told(story: Story, model: CallModel | None = None) -> dict[str, Any]:  # Any: a row's columns are of many types
    """The record of the one call of a story that ended; nothing of it is left behind."""
    model = model or new_model()
    (call,) = tell(model, story)
    assert is_empty(model)
    return call.to_row()


def outcome(story: Story) -> tuple[str, str]:
    row = told(story)
    return row["status"], row["disposition"]


def live(story: Story) -> LiveCall:
    model = new_model()
    assert tell(model, story) == []
    (call,) = model.live_calls()
    return call


def ringing() -> Story:
    return Story().from_trunk().app("Dial", "PJSIP/101,30").dials("x", "PJSIP/101").rings("x").wait(4)


# The table of outcomes


def test_a_call_under_way_has_no_outcome_yet() -> None:
    with pytest.raises(ValueError, match="has not ended"):
        live(ringing()).to_row()


def test_an_answered_call_is_completed() -> None:
    assert outcome(ringing().answers("x").wait(60).talk_ends("x")) == ("completed", "answered")


def test_a_call_taken_by_voicemail_is_completed_as_voicemail() -> None:
    story = ringing().dial_ends("x", DialStatus.NOANSWER).closes("x", cause=0).app("VoiceMail", "101@default")

    assert outcome(story.up("a").wait(20).hangs_up("a").closes("a")) == ("completed", "voicemail")


def test_a_caller_who_gives_up_while_it_rings_abandons() -> None:
    assert outcome(ringing().gives_up("x")) == ("abandoned", "cancelled")


def test_a_caller_who_gives_up_in_a_queue_abandons() -> None:
    story = Story().from_trunk().app("Answer").up("a").app("Queue", "sales").queues("sales").wait(30)

    assert outcome(story.hangs_up("a").leaves_queue("sales").closes("a", cause=0)) == ("abandoned", "cancelled")


def test_a_caller_who_gives_up_in_a_menu_abandons() -> None:
    story = Story().from_trunk().app("Answer").up("a").app("Background", "menu").wait(9)

    assert outcome(story.hangs_up("a").closes("a", cause=0)) == ("abandoned", "cancelled")


def test_a_phone_that_rings_in_vain_is_no_answer() -> None:
    story = ringing().dial_ends("x", DialStatus.NOANSWER).closes("x", cause=0).app("Hangup").closes("a")

    assert outcome(story) == ("failed", "no_answer")


def test_a_queue_whose_time_runs_out_is_no_answer() -> None:
    story = Story().from_trunk().app("Queue", "sales,,,,4").queues("sales").dials("x", "PJSIP/101").rings("x").wait(4)
    story.dial_ends("x", DialStatus.NOANSWER).dial_ends("x", DialStatus.CANCEL).closes("x", cause=0)

    assert outcome(story.leaves_queue("sales").app("Hangup").closes("a")) == ("failed", "no_answer")


@pytest.mark.parametrize(
    ("status", "cause", "disposition"),
    [
        (DialStatus.BUSY, 17, "busy"),
        (DialStatus.CONGESTION, 34, "congestion"),
        (DialStatus.CHANUNAVAIL, 20, "failed"),
        (DialStatus.NOANSWER, 21, "failed"),  # declined: Asterisk calls it NOANSWER
        (DialStatus.NOANSWER, 18, "failed"),  # a dead phone, the same
        (DialStatus.NOANSWER, 1, "failed"),
        (DialStatus.NOANSWER, 0, "no_answer"),
        (DialStatus.CANCEL, 16, "failed"),  # hung up by the PBX, as when it stops
        (None, 0, "no_answer"),  # an Originate that Asterisk 16 gave up
    ],
)
def test_a_leg_that_was_not_answered_decides_why_the_call_was_not(
    status: DialStatus | None, cause: int, disposition: str
) -> None:
    story = ringing()
    if status is not None:
        story.dial_ends("x", status)

    assert outcome(story.closes("x", "a", cause=cause)) == ("failed", disposition)


def test_a_call_that_rings_while_the_pbx_stops_is_failed() -> None:
    story = ringing().cut_off("a", "x").dial_ends("x", DialStatus.NOANSWER).closes("x", "a", cause=0)

    assert outcome(story) == ("failed", "failed")


def test_an_answered_call_that_the_pbx_cuts_off_was_answered() -> None:
    row = told(ringing().answers("x").wait(7).cut_off("a", "x").parted("a", "x").closes("a", "x"))

    assert (row["status"], row["hangup_source"], row["talk_seconds"]) == ("completed", "pbx", 7)


def test_a_caller_who_gave_up_before_the_pbx_stopped_gave_up() -> None:
    assert outcome(ringing().hangs_up("a").cut_off("a").closes("x", "a", cause=0)) == ("abandoned", "cancelled")


def test_a_phone_that_is_not_registered_is_failed() -> None:
    story = Story().from_trunk().app("Dial", "PJSIP/108,30").app("Hangup").closes("a", cause=3)

    assert outcome(story) == ("failed", "failed")


def test_a_phone_that_is_not_registered_in_a_dialplan_that_ends_with_dial_is_failed() -> None:
    assert outcome(Story().from_trunk().app("Dial", "PJSIP/108,30").closes("a", cause=0)) == ("failed", "failed")


@pytest.mark.parametrize(
    ("cause", "disposition"), [(17, "busy"), (34, "congestion"), (1, "failed"), (16, "no_answer"), (None, "no_answer")]
)
def test_a_call_that_the_dialplan_ends_without_dialling_is_told_by_its_cause(
    cause: int | None, disposition: str
) -> None:
    assert outcome(Story().from_trunk().app("Hangup").closes("a", cause=cause)) == ("failed", disposition)


def test_a_second_attempt_decides_over_the_first() -> None:
    story = ringing().dial_ends("x", DialStatus.NOANSWER).closes("x", cause=0)
    story.app("Dial", "PJSIP/102,30").dials("y", "PJSIP/102").dial_ends("y", DialStatus.BUSY).closes("y", cause=17)

    assert outcome(story.closes("a", cause=17)) == ("failed", "busy")


# Kinds of calls


def test_an_inbound_call_tells_who_called_whom_and_who_answered() -> None:
    row = told(ringing().answers("x").wait(60).talk_ends("x"))

    assert (row["direction"], row["caller_id"], row["callee_id"]) == ("inbound", MOBILE, DID)
    assert (row["answered_by"], row["hangup_source"], row["hangup_cause"]) == ("101", "caller", 16)
    assert row["start_time"] == NOON
    assert row["answer_time"] == NOON + timedelta(seconds=4)
    assert row["end_time"] == NOON + timedelta(seconds=64)
    assert (row["ring_seconds"], row["talk_seconds"], row["total_seconds"]) == (4, 60, 64)
    assert row["pbx_answer_time"] is None


def test_the_callee_who_hangs_up_first_ends_the_call() -> None:
    assert told(ringing().answers("x").wait(5).talk_ends("x", by="x"))["hangup_source"] == "callee"


def test_an_outbound_call_goes_to_the_number_dialled() -> None:
    story = Story().from_phone("05321112233").app("Dial", "PJSIP/05321112233@trunk-acme,30")
    story.dials("x", "PJSIP/trunk-acme", string="05321112233@trunk-acme").wait(3).answers("x").wait(10).talk_ends("x")

    row = told(story)

    assert (row["direction"], row["caller_id"], row["callee_id"]) == ("outbound", "101", "05321112233")
    assert row["answered_by"] == "05321112233"


def test_an_outbound_call_whose_trunk_is_unreachable_is_outbound_all_the_same() -> None:
    row = told(Story().from_phone("0532").app("Dial", "PJSIP/0532@trunk-acme,30").app("Hangup").closes("a", cause=3))

    assert (row["direction"], row["disposition"]) == ("outbound", "failed")


def test_an_internal_call_is_between_phones() -> None:
    story = Story().from_phone("102").app("Dial", "PJSIP/102").dials("x", "PJSIP/102").answers("x").wait(1)

    row = told(story.talk_ends("x"))

    assert (row["direction"], row["caller_id"], row["callee_id"]) == ("internal", "101", "102")


def test_a_ring_group_is_one_call_with_a_leg_each() -> None:
    story = Story().from_trunk().app("Dial", "PJSIP/101&PJSIP/102&PJSIP/103,30")
    story.dials("x", "PJSIP/101").dials("y", "PJSIP/102").dials("z", "PJSIP/103").rings("x").rings("y").wait(2)
    story.dial_ends("z", DialStatus.BUSY).closes("z", cause=17).wait(3)
    story.answers("y").dial_ends("x", DialStatus.CANCEL).closes("x", cause=26).wait(30)

    row = told(story.talk_ends("y"))

    assert (row["status"], row["answered_by"], row["ring_seconds"]) == ("completed", "102", 5)
    assert {leg["number"]: leg.get("dial_status") for leg in row["legs"]} == {
        MOBILE: None, "101": "CANCEL", "102": "ANSWER", "103": "BUSY",
    }  # fmt: skip


def test_a_phone_that_rang_in_vain_outweighs_those_that_were_busy_or_declined() -> None:
    story = Story().from_trunk().app("Dial", "PJSIP/101&PJSIP/102&PJSIP/103,30")
    story.dials("x", "PJSIP/101").dials("y", "PJSIP/102").dials("z", "PJSIP/103").rings("x")
    story.dial_ends("y", DialStatus.BUSY).closes("y", cause=17).dial_ends("z", DialStatus.NOANSWER).closes(
        "z", cause=21
    )
    story.wait(30).dial_ends("x", DialStatus.NOANSWER).closes("x", cause=0).closes("a", cause=21)

    assert outcome(story) == ("failed", "no_answer")


def test_a_queue_call_tells_its_queue_and_that_the_pbx_answered_before_the_agent() -> None:
    story = Story().from_trunk().app("Answer").up("a").app("Queue", "sales,,,,60").queues("sales").wait(10)
    story.dials("x", "PJSIP/101").rings("x").wait(5).up("x").dial_ends("x", DialStatus.ANSWER)
    story.leaves_queue("sales").bridged("a", "x").wait(20).talk_ends("x")

    row = told(story)

    assert row["queue"] == "sales"
    assert row["pbx_answer_time"] == NOON
    assert row["answer_time"] == NOON + timedelta(seconds=15)
    assert (row["ring_seconds"], row["talk_seconds"]) == (5, 20)


def test_a_queue_is_known_from_the_dialplan_too() -> None:
    assert told(Story().from_trunk().app("Queue", "sales,,,,60").hangs_up("a").closes("a"))["queue"] == "sales"


def test_a_queue_that_tries_one_agent_after_the_other_counts_every_ring() -> None:
    story = Story().from_trunk().app("Queue", "sales").queues("sales")
    for name in ("x", "y"):
        story.dials(name, "PJSIP/101").wait(5).dial_ends(name, DialStatus.NOANSWER).closes(name, cause=0).wait(1)
    story.dials("z", "PJSIP/102").wait(2).answers("z").wait(1).talk_ends("z")

    assert told(story)["ring_seconds"] == 12


def test_a_menu_is_the_pbx_s_answer_and_the_person_s_comes_later() -> None:
    story = Story().from_trunk().app("Answer").up("a").app("Background", "menu").wait(7)
    story.app("Dial", "PJSIP/101,30").dials("x", "PJSIP/101").wait(3).answers("x").wait(10).talk_ends("x")

    row = told(story)

    assert row["pbx_answer_time"] == NOON
    assert row["answer_time"] == NOON + timedelta(seconds=10)
    assert row["talk_seconds"] == 10


def test_a_click_to_call_belongs_to_who_clicked() -> None:
    story = Story().opens("a", "PJSIP/101", number="101", exten="s", context="internal")
    story.dials("a", "PJSIP/101", by=None).wait(2).up("a").dial_ends("a", DialStatus.ANSWER)
    story.app("Dial", "PJSIP/0532@trunk-acme", exten="0532").dials("x", "PJSIP/trunk-acme", string="0532@trunk-acme")
    story.wait(5).answers("x").wait(30).talk_ends("x")

    row = told(story)

    assert (row["direction"], row["caller_id"], row["callee_id"], row["answered_by"]) == (
        "outbound",
        "101",
        "0532",
        "0532",
    )
    assert row["pbx_answer_time"] is None
    assert row["talk_seconds"] == 30


def test_a_click_to_call_whose_callee_is_busy_is_busy() -> None:
    story = Story().dials("a", "PJSIP/101", by=None).up("a").dial_ends("a", DialStatus.ANSWER)
    story.app("Dial", "PJSIP/102", exten="102").dials("x", "PJSIP/102").dial_ends("x", DialStatus.BUSY)

    assert outcome(story.closes("x", cause=17).closes("a", cause=17)) == ("failed", "busy")


def test_who_picks_up_a_wake_up_call_answered_it() -> None:
    story = Story().dials("a", "PJSIP/101", by=None).wait(3).up("a").dial_ends("a", DialStatus.ANSWER)

    row = told(story.app("Playback", "good-morning").wait(8).closes("a"))

    assert (row["status"], row["disposition"], row["answered_by"]) == ("completed", "answered", "101")
    assert row["answer_time"] == NOON + timedelta(seconds=3)
    assert row["talk_seconds"] == 0  # there was nobody to talk with
    assert row["pbx_answer_time"] is None


def test_a_call_the_pbx_makes_to_the_public_network_is_outbound() -> None:
    story = Story().opens("a", "PJSIP/trunk-acme", number="0532", exten="s", context="from-trunk-acme")

    story.dials("a", "PJSIP/trunk-acme", by=None, string="0532@trunk-acme").closes("a", cause=34)

    assert told(story)["direction"] == "outbound"


def test_ringing_may_be_told_before_the_dial_of_an_originated_call() -> None:
    story = Story().opens("a", "PJSIP/101", number="101", exten="s", context="internal").rings("a")

    story.dials("a", "PJSIP/101", by=None).wait(9).closes("a", cause=17)

    assert outcome(story) == ("failed", "busy")


def test_a_service_that_answers_in_a_person_s_stead_answers() -> None:
    row = told(Story().from_trunk().up("a").wait(1).app("Stasis", "assistant").wait(30).hangs_up("a").closes("a"))

    assert (row["status"], row["answered_by"], row["talk_seconds"]) == ("completed", "Stasis", 30)


def test_a_service_that_picks_up_late_answers_then() -> None:
    row = told(Story().from_trunk().app("Stasis", "assistant").wait(5).up("a").wait(30).hangs_up("a").closes("a"))

    assert row["answer_time"] == NOON + timedelta(seconds=5)
    assert row["talk_seconds"] == 30


def test_a_service_that_never_picks_up_is_no_answer() -> None:
    story = Story().from_trunk().app("Stasis", "assistant").wait(5)

    assert outcome(story.closes("a", cause=19)) == ("failed", "no_answer")


def test_a_service_talks_until_it_hands_the_call_over_and_then_the_person_does() -> None:
    story = Story().from_trunk().up("a").app("Stasis", "assistant").wait(30)
    story.app("Dial", "PJSIP/101").dials("x", "PJSIP/101").wait(10).answers("x").wait(60).talk_ends("x")

    row = told(story)

    assert row["answered_by"] == "Stasis"
    assert row["talk_seconds"] == 90


def test_hold_is_counted_apart() -> None:
    story = ringing().answers("x").wait(10).holds("x").wait(5).takes_off_hold("x").wait(5).holds("a").wait(2)

    assert told(story.talk_ends("x"))["hold_seconds"] == 7


def test_two_who_hold_each_other_are_held_once() -> None:
    story = ringing().answers("x").holds("x").wait(1).holds("a").wait(1).takes_off_hold("x").wait(1).takes_off_hold("a")

    assert told(story.talk_ends("x"))["hold_seconds"] == 3


# States while it lasts


def test_a_live_call_tells_where_it_is() -> None:
    menu = Story().from_trunk().app("Answer").up("a").app("Background", "menu")
    queue = Story().from_trunk().up("a").app("Queue", "sales").queues("sales")
    states = [
        live(story).state()
        for story in (
            Story().from_trunk(),
            ringing(),
            menu,
            queue,
            ringing().answers("x"),
            ringing().answers("x").holds("x"),
        )
    ]

    assert states == [
        CallState.RINGING, CallState.RINGING, CallState.MENU, CallState.QUEUED, CallState.ANSWERED, CallState.HELD,
    ]  # fmt: skip


def test_services_are_told_of_the_call_as_it_is() -> None:
    call = live(ringing().answers("x"))

    context = call.context(NOON)

    assert context.call_sid == "here:main:1.a"
    assert len(context.trace_id) == 32
    assert (context.state, context.direction, context.tenant_id) == ("answered", "inbound", "acme")
    assert [(party.role, party.number, party.state) for party in context.participants] == [
        ("caller", MOBILE, "up"), ("callee", "101", "up"),
    ]  # fmt: skip


def test_what_is_new_is_handed_out_once() -> None:
    model = new_model()

    tell(model, Story().from_trunk())

    (call,) = model.take_opened()
    assert model.take_changed() == [call]
    assert (model.take_opened(), model.take_changed(), model.take_ended()) == ([], [], [])


def test_a_call_that_begins_and_ends_between_two_looks_is_opened_and_ended_but_not_changed() -> None:
    model = new_model()

    ended = tell(model, Story().from_trunk().closes("a"))

    assert model.take_opened() == ended
    assert model.take_changed() == []


# Identity


def test_the_call_sid_is_made_of_site_pbx_and_the_pbx_s_own_id() -> None:
    first, again = told(ringing().gives_up("x")), told(ringing().gives_up("x"))

    assert first["call_sid"] == again["call_sid"] == "here:main:1.a"
    assert first["trace_id"] == again["trace_id"]


def test_the_caller_s_first_number_stays_whatever_the_dialplan_shows_later() -> None:
    story = Story().from_phone("0532")
    story.say(CallerIdentified(NOON, "1.a", "1.a", "902125550000", "Acme"))

    row = told(story.closes("a"))

    assert row["caller_id"] == "101"
    assert row["caller_name"] == "Acme"  # nobody had told a name before


def test_a_number_that_is_told_later_is_taken() -> None:
    story = Story().from_trunk(number=None)

    story.say(CallerIdentified(NOON, "1.a", "1.a", "+905300000001", "Ayşe Işık"))

    row = told(story.closes("a"))
    assert (row["caller_id"], row["caller_name"]) == ("+905300000001", "Ayşe Işık")


# Order


def test_the_call_ends_with_its_last_channel_not_with_the_first_hangup() -> None:
    story = ringing().answers("x").wait(5).closes("a")

    assert live(story).ended_at is None
    assert told(story.wait(2).closes("x"))["end_time"] == NOON + timedelta(seconds=11)


def test_ids_are_never_compared_so_a_tenth_channel_is_no_older_than_a_ninth() -> None:
    model = new_model()
    model.apply(ChannelOpened(NOON, "1567.9", "1567.9", "PJSIP/trunk-acme-1", number=MOBILE, exten=DID))
    model.apply(ChannelOpened(NOON, "1567.10", "1567.9", "PJSIP/101-2", number="101"))

    (call,) = model.live_calls()

    assert (call.native_id, call.caller_number) == ("1567.9", MOBILE)


def test_an_answer_that_is_told_before_the_leg_is_up_is_the_same_answer() -> None:
    straight = ringing().up("x").dial_ends("x", DialStatus.ANSWER).up("a").bridged("x", "a").wait(9).talk_ends("x")
    mixed = ringing().dial_ends("x", DialStatus.ANSWER).up("a").bridged("a").up("x").bridged("x").wait(9).talk_ends("x")

    kept = ("status", "answer_time", "talk_seconds", "answered_by", "pbx_answer_time", "ring_seconds")
    assert [told(straight)[key] for key in kept] == [told(mixed)[key] for key in kept]


def test_a_bridge_tells_an_answer_that_no_dial_told() -> None:
    assert outcome(ringing().up("x").bridged("x", "a").wait(3).talk_ends("x")) == ("completed", "answered")


def test_a_cancel_told_twice_changes_nothing() -> None:
    story = ringing().hangs_up("a").dial_ends("x", DialStatus.CANCEL).dial_ends("x", DialStatus.CANCEL)

    row = told(story.closes("x", "a", cause=0))

    assert (row["disposition"], row["legs"][1]["dial_status"]) == ("cancelled", "CANCEL")


def test_a_phone_that_declines_does_not_hang_up_the_call() -> None:
    story = ringing().hangs_up("x").dial_ends("x", DialStatus.NOANSWER).closes("x", cause=21).closes("a", cause=21)

    row = told(story)

    assert (row["disposition"], row["hangup_source"]) == ("failed", "pbx")


def test_a_late_word_about_a_channel_that_is_gone_opens_no_call() -> None:
    model = new_model()
    told(ringing().gives_up("x"), model)

    tell(model, Story().from_trunk().up("a").bridged("a").closes("a"))

    assert is_empty(model)
    assert model.take_ended() == []


def test_a_straggler_of_an_ended_call_does_not_take_its_record() -> None:
    model = new_model()
    told(Story().from_trunk().closes("a"), model)

    row = told(Story().opens("late", "PJSIP/101").closes("late"), model)

    assert row["call_sid"] == "here:main:1.late"


def test_words_about_channels_never_seen_change_nothing() -> None:
    model = new_model()

    assert tell(model, Story().up("a").bridged("a", "x").holds("a").hangs_up("a").queues("q").closes("a", "x")) == []
    assert is_empty(model)


# Two calls become one


def test_a_channel_that_takes_another_linkedid_joins_the_two_calls_into_the_older() -> None:
    first, second = ringing().answers("x"), Story("2", at=NOON + timedelta(seconds=9)).from_phone("102")
    second.app("Dial", "PJSIP/102").dials("y", "PJSIP/102").answers("y")
    model = new_model()
    tell(model, first, second)

    model.apply(ChannelUp(NOON + timedelta(seconds=20), "2.y", first.linked))

    model.apply(ChannelClosed(NOON + timedelta(seconds=21), "2.a", second.linked, 16))
    (younger,) = model.take_ended()
    (older,) = model.live_calls()
    assert (older.native_id, younger.merged_into) == ("1.a", older.call_sid)
    assert set(older.legs) == {"1.a", "1.x", "2.y"}
    assert set(younger.legs) == {"2.a", "2.y"}
    for channel in ("1.a", "1.x", "2.y"):
        model.apply(ChannelClosed(NOON + timedelta(seconds=30), channel, "1.a", 16))
    assert model.take_ended() == [older]
    assert is_empty(model)


def test_joined_calls_keep_talking() -> None:
    first, second = ringing().answers("x"), Story("2", at=NOON + timedelta(seconds=4)).from_phone("102").up("a")
    model = new_model()
    tell(model, first, second)
    at = NOON + timedelta(seconds=14)

    model.apply(BridgeJoined(at, "2.a", first.linked, "1.b"))
    tell(model, Story(at=at).parted("x").closes("x"))
    for channel in ("1.a", "2.a"):
        model.apply(ChannelClosed(at + timedelta(seconds=10), channel, "1.a", 16))

    (older,) = [call for call in model.take_ended() if call.merged_into is None]
    assert older.to_row()["talk_seconds"] == 20


# Blindness


def found(story: Story, name: str, endpoint: str, **facts: Any) -> Story:  # Any: as in Story.opens
    return story.opens(name, endpoint, age_seconds=facts.pop("age", 60.0), **facts)


def found_talking() -> Story:
    story = found(
        Story(), "a", "PJSIP/trunk-acme", number=MOBILE, exten=DID, context="from-trunk-acme", up=True, bridge="1.b",
        application="Dial",
    )  # fmt: skip
    return found(story, "x", "PJSIP/101", number="101", up=True, bridge="1.b", application="AppDial", age=55.0)


def test_a_call_found_under_way_is_told_with_an_estimated_start() -> None:
    row = told(found_talking().snapshot("a", "x").wait(30).talk_ends("x"))

    assert row["start_estimated"]
    assert not row["end_estimated"]
    assert row["start_time"] == NOON - timedelta(seconds=60)
    assert (row["status"], row["answered_by"], row["caller_id"], row["callee_id"]) == ("completed", "101", MOBILE, DID)
    assert row["talk_seconds"] == 30


def test_an_outbound_call_found_under_way_is_outbound_and_its_caller_s() -> None:
    story = found(Story(), "a", "PJSIP/209", number="903124442000", exten="0532", up=True, bridge="1.b")
    found(story, "x", "PJSIP/trunk-x", number="0532", up=True, bridge="1.b", application="AppDial")
    model = new_model()

    (call,) = tell(model, story.talk_ends("x"))

    assert call.to_row()["direction"] == "outbound"
    assert call.assignment.tenant == "globex"


def test_a_caller_found_waiting_in_a_queue_is_queued() -> None:
    story = found(
        Story(), "a", "PJSIP/trunk-acme", number=MOBILE, up=True, application="Queue", application_data="sales,,,,60"
    )

    call = live(story)

    assert (call.state(), call.queue) == (CallState.QUEUED, "sales")


def test_a_call_found_without_its_first_channel_bears_its_linkedid() -> None:
    row = told(found(Story(), "x", "PJSIP/101", number="101", up=True).closes("x"))

    assert row["call_sid"] == "here:main:1.a"
    assert row["caller_id"] is None


def test_a_queue_rings_one_after_the_other_before_its_caller_is_listed_and_it_is_one_call() -> None:
    story = Story().line_lost().opens("x", "PJSIP/101").wait(5).closes("x").opens("y", "PJSIP/102").wait(3)
    unheard = told(story.closes("y").wait(1).snapshot())

    assert (unheard["call_sid"], unheard["end_estimated"]) == ("here:main:1.a", True)
    assert unheard["total_seconds"] == 8


def test_so_it_is_at_the_very_first_start() -> None:
    model = new_model()
    model.await_list()
    story = Story().opens("x", "PJSIP/101").wait(5).closes("x").opens("y", "PJSIP/102").wait(3).closes("y").snapshot()

    assert told(story, model)["call_sid"] == "here:main:1.a"


def test_the_end_of_a_caller_who_was_not_listed_yet_is_the_call_s() -> None:
    last = told(Story().line_lost().opens("x", "PJSIP/101").wait(5).closes("x").wait(1).closes("a"))
    first = told(Story().line_lost().opens("x", "PJSIP/101").wait(5).closes("a").wait(1).closes("x"))

    assert [(row["call_sid"], row["total_seconds"], row["end_estimated"]) for row in (last, first)] == [
        ("here:main:1.a", 6, False)
    ] * 2


def test_a_caller_listed_after_those_who_rang_goes_on_with_the_call() -> None:
    story = Story().line_lost().opens("x", "PJSIP/101").wait(5).closes("x").wait(1)
    found(story, "a", "PJSIP/trunk-acme", up=True, application="Queue", application_data="sales,,,,60").snapshot("a")

    row = told(story.wait(4).closes("a"))

    assert (row["call_sid"], row["queue"], row["end_estimated"]) == ("here:main:1.a", "sales", False)


def test_a_list_of_what_is_known_changes_no_record() -> None:
    plain, listed = ringing().answers("x").wait(30), ringing().answers("x").wait(30)
    found(listed, "a", "PJSIP/trunk-acme", up=True, bridge="1.b", application="Dial", age=34.0)
    found(listed, "x", "PJSIP/101", up=True, bridge="1.b", application="AppDial", age=34.0).snapshot("a", "x")

    assert told(listed.talk_ends("x")) == told(plain.talk_ends("x"))


def test_an_answer_missed_while_the_line_was_cut_is_taken_from_the_list() -> None:
    story = ringing().line_lost().wait(20)
    found(story, "a", "PJSIP/trunk-acme", up=True, bridge="1.b", application="Dial")
    found(story, "x", "PJSIP/101", up=True, bridge="1.b", application="AppDial").snapshot("a", "x").wait(5)

    row = told(story.talk_ends("x"))

    assert (row["status"], row["answered_by"]) == ("completed", "101")
    assert row["talk_seconds"] == 5


def test_talk_goes_on_while_the_line_is_cut() -> None:
    story = ringing().answers("x").wait(10).line_lost().wait(20)
    found(story, "a", "PJSIP/trunk-acme", up=True, bridge="1.b", application="Dial")
    found(story, "x", "PJSIP/101", up=True, bridge="1.b", application="AppDial").snapshot("a", "x").wait(5)

    assert told(story.talk_ends("x"))["talk_seconds"] == 35


def test_a_call_that_ended_while_the_line_was_cut_ends_when_it_was_last_known_alive() -> None:
    story = ringing().answers("x").wait(10).line_lost().wait(60).snapshot()

    row = told(story)

    assert row["end_estimated"]
    assert row["end_time"] == NOON + timedelta(seconds=14)
    assert (row["status"], row["talk_seconds"], row["hangup_source"]) == ("completed", 10, None)


def test_a_call_killed_with_the_pbx_while_ringing_failed() -> None:
    row = told(ringing().line_lost().wait(60).snapshot())

    assert (row["status"], row["disposition"], row["end_estimated"]) == ("failed", None, True)
    assert row["total_seconds"] == 4


def test_one_leg_lost_in_the_dark_does_not_end_the_call() -> None:
    model = new_model()

    tell(model, ringing().answers("x").line_lost().wait(10).snapshot("a"))

    (call,) = model.live_calls()
    assert call.open_channels == {"1.a"}


def test_an_end_that_is_told_late_by_a_busy_pbx_is_waited_for() -> None:
    story = ringing().answers("x").snapshot("a", "x").wait(10).snapshot().wait(2)

    row = told(story.talk_ends("x"))

    assert not row["end_estimated"]
    assert row["end_time"] == NOON + timedelta(seconds=16)


def test_a_ghost_that_two_lists_do_not_know_is_ended() -> None:
    row = told(ringing().answers("x").snapshot("a", "x").wait(300).snapshot().wait(300).snapshot())

    assert row["end_estimated"]
    assert row["end_time"] == NOON + timedelta(seconds=4)


def test_a_listed_channel_whose_end_was_already_told_stays_ended() -> None:
    model = new_model()
    told(ringing().gives_up("x"), model)

    tell(model, found(Story(), "a", "PJSIP/trunk-acme").snapshot("a"))

    assert is_empty(model)


def test_a_channel_listed_before_its_opening_was_told_has_no_estimated_start() -> None:
    story = found(Story(at=NOON + timedelta(seconds=0.4)), "a", "PJSIP/101", number="9", exten="old", age=0.0)
    story.at = NOON

    row = told(story.from_phone("102").wait(9).closes("a"))

    assert not row["start_estimated"]
    assert (row["start_time"], row["caller_id"], row["callee_id"]) == (NOON, "101", "102")


# Bounds


def test_a_pbx_that_opens_channels_without_end_is_not_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.calls.model.MAX_OPEN_CHANNELS", 100)
    model = new_model()

    for number in range(300):
        tell(model, Story(str(number)).from_trunk())

    assert len(model.live_calls()) == 100
    assert model.ignored_channels == 200
    for number in range(300):
        tell(model, Story(str(number)).closes("a"))
    assert is_empty(model)


def test_one_call_of_thousands_of_legs_is_told_by_some_hundred() -> None:
    model, story = new_model(), Story().from_trunk()
    for number in range(2000):
        story.dials(f"x{number}", "PJSIP/101").dial_ends(f"x{number}", DialStatus.BUSY).closes(f"x{number}", cause=17)

    row = told(story.closes("a", cause=17), model)

    assert len(row["legs"]) <= 500
    assert row["legs"][0]["number"] == MOBILE
    assert len(row["timeline"]) <= 500


def test_one_call_of_thousands_of_open_legs_is_bounded_too() -> None:
    model, story = new_model(), Story().from_trunk()
    for number in range(2000):
        story.dials(f"x{number}", "PJSIP/101")
    tell(model, story)

    (call,) = model.live_calls()
    assert len(call.legs) <= 500
    tell(model, Story().closes("a", *(f"x{number}" for number in range(2000))))
    assert is_empty(model)


def test_a_channel_whose_linkedid_changes_without_end_does_not_fill_the_memory() -> None:
    model = new_model()
    tell(model, Story().from_trunk())

    for number in range(5000):
        model.apply(ChannelUp(NOON, "1.a", f"other.{number}"))

    assert len(model._by_linked) <= 1000
    tell(model, Story().closes("a"))
    assert is_empty(model)
