"""The trace context of a call: accepted from the PBX in W3C's form, once and in time, else minted from its name."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.context import CallContext
from agent.calls.events import AppStarted, CallEvent, ChannelClosed, ChannelOpened
from agent.calls.live_call import LiveCall
from agent.calls.merging import told_again, with_account
from agent.calls.model import CallModel
from agent.calls.span import is_sampled, span_of
from agent.calls.traces import TraceParent, minted_trace_id, parse_traceparent, span_id, traceparent
from agent.pbx.asterisk.condition import trace_findings
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from config.settings import AsteriskSettings
from tests.unit.agent.captures import new_model
from tests.unit.agent.stories import NOON, Story, tell

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TEXT = f"00-{TRACE}-{SPAN}-01"
ACCEPTED = TraceParent(TRACE, SPAN, sampled=True)
OTHER = TraceParent("f" * 32, "e" * 16, sampled=True)


# The form


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (TEXT, True),
        (f" {TEXT}\t", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-02", False),  # a flag that is not known
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"01-{TRACE}-{SPAN}-01", True),  # a later version begins as this one does
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", True),
    ],
)
def test_a_traceparent_is_understood(text: str, is_sampled: bool) -> None:
    assert parse_traceparent(text) == TraceParent(TRACE, SPAN, sampled=is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<unknown>",
        TEXT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",  # this version has no more
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE.replace('0', '٠')}-{SPAN}-01",
        f"{TEXT}\n",
        f"{TEXT},{TEXT}",
    ],
)
def test_what_is_no_traceparent_is_as_if_it_had_not_been_sent(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.text(alphabet="0123456789abcdefF- \n", max_size=70) | st.text(max_size=70))
def test_whatever_is_accepted_can_be_handed_on(text: str) -> None:
    parent = parse_traceparent(text)
    if parent is not None:
        handed_on = parse_traceparent(traceparent("s:p:1", parent.trace_id, sampled=parent.sampled))
        assert handed_on == TraceParent(parent.trace_id, span_id("s:p:1"), parent.sampled)


# What Asterisk says


def meant(*lines: str, variable: str = "TRACEPARENT") -> TraceParent | None:
    """The trace context of one message."""
    event = event_of(*lines, interpreter=AsteriskInterpreter(trace_variable=variable))
    assert isinstance(event, ChannelOpened | AppStarted)
    return event.trace


def event_of(*lines: str, interpreter: AsteriskInterpreter) -> CallEvent | None:
    return interpreter.interpret("\r\n".join([*lines, "Uniqueid: 1.0", "Linkedid: 1.0"]).encode(), NOON)


@pytest.mark.parametrize("name", ["TRACEPARENT", "_TRACEPARENT", "__TRACEPARENT"])
def test_the_dialplans_set_tells_the_trace_context(name: str) -> None:
    assert meant("Event: Newexten", "Application: Set", f"AppData: {name}={TEXT}") == ACCEPTED


@pytest.mark.parametrize(
    "data", ["TRACEPARENT=", "TRACEPARENT", f"OTHER={TEXT}", f"traceparent={TEXT}", "TRACEPARENT=x"]
)
def test_what_else_is_set_tells_none(data: str) -> None:
    assert meant("Event: Newexten", "Application: Set", f"AppData: {data}") is None
    assert meant("Event: Newexten", "Application: NoOp", f"AppData: TRACEPARENT={TEXT}") is None


@pytest.mark.parametrize("name", ["Newchannel", "CoreShowChannel", "Newexten"])
def test_channelvars_tell_it_with_every_event(name: str) -> None:
    variables = ("ChanVariable: OTHER=1", f"ChanVariable: TRACEPARENT={TEXT}", "DestChanVariable: TRACEPARENT=x")
    assert meant(f"Event: {name}", *variables) == ACCEPTED
    assert meant(f"Event: {name}", f"DestChanVariable: TRACEPARENT={TEXT}") is None


def test_the_variable_has_the_name_that_the_settings_give_it() -> None:
    lines = ("Event: Newchannel", f"ChanVariable: CHANNEL(userfield)={TEXT}")
    assert meant(*lines, variable="CHANNEL(userfield)") == ACCEPTED
    assert meant(*lines) is None
    assert meant(*lines, variable="") is None
    AsteriskSettings(name="main", username="x", trace_variable="CHANNEL(userfield)")
    with pytest.raises(ValueError, match="name of a channel variable"):
        AsteriskSettings(name="main", username="x", trace_variable="A\r\nB")


def test_a_setting_that_no_call_answers_to_is_told() -> None:
    interpreter = AsteriskInterpreter(trace_variable="TP")
    settings = AsteriskSettings(name="main", username="x", trace_variable="TP")

    def told() -> dict[str, str]:
        return trace_findings(settings, untraced_calls=interpreter.untraced_calls)

    for _ in range(99):
        event_of("Event: Newchannel", interpreter=interpreter)
    assert told() == {}
    event_of("Event: Newchannel", interpreter=interpreter)
    assert "Set(TP=${PJSIP_HEADER(read,traceparent)})" in told()["trace"]
    event_of("Event: Newexten", "Application: Set", f"AppData: TP={TEXT}", interpreter=interpreter)
    for _ in range(200):
        event_of("Event: Newchannel", interpreter=interpreter)
    assert told() == {}
    assert trace_findings(AsteriskSettings(name="main", username="x"), untraced_calls=1000) == {}


# The call


def ringing(trace: TraceParent | None = ACCEPTED) -> Story:
    story = Story().from_trunk().app("Set", "…", trace=trace)
    return story.app("Dial", "PJSIP/101,30").dials("x", "PJSIP/101").rings("x").wait(4)


def row_of(story: Story, model: CallModel | None = None) -> dict[str, Any]:  # Any: columns
    (call,) = tell(model or new_model(), story)
    return call.to_row()


def context_of(story: Story) -> tuple[LiveCall, CallContext]:
    model = new_model()
    tell(model, story)
    (call,) = model.live_calls()
    return call, call.context(NOON)


def test_a_call_that_brings_a_trace_is_part_of_it() -> None:
    call, context = context_of(ringing())
    assert context.trace_id == TRACE
    assert context.traceparent == f"00-{TRACE}-{span_id(call.call_sid)}-01"

    row = row_of(ringing().gives_up("x"))
    assert row["trace_id"] == TRACE
    span = span_of(row, None)
    assert (span["traceId"], span["spanId"], span["parentSpanId"]) == (TRACE, span_id(call.call_sid), SPAN)


def test_a_call_without_one_mints_its_own_and_has_no_parent() -> None:
    call, context = context_of(ringing(None))
    assert context.trace_id == minted_trace_id(call.call_sid)
    assert context.traceparent == f"00-{context.trace_id}-{span_id(call.call_sid)}-01"
    row = row_of(ringing(None).gives_up("x"))
    assert "parentSpanId" not in span_of(row, None)
    assert is_sampled(row)


def test_what_the_caller_did_not_sample_is_not_sampled_here() -> None:
    unsampled = replace(ACCEPTED, sampled=False)
    _, context = context_of(ringing(unsampled))
    assert context.traceparent is not None
    assert context.traceparent.endswith("-00")
    assert not is_sampled(row_of(ringing(unsampled).gives_up("x")))


def test_the_first_trace_counts() -> None:
    assert row_of(ringing().app("Set", "…", trace=OTHER).gives_up("x"))["trace_id"] == TRACE


def test_a_trace_that_comes_after_the_answer_is_too_late() -> None:
    story = ringing(None).answers("x").wait(1).app("Set", "…", trace=ACCEPTED).wait(60).talk_ends("x")
    row = row_of(story)
    assert row["trace_id"] == minted_trace_id(row["call_sid"])


def test_a_menu_is_no_answer() -> None:
    story = Story().from_trunk().app("Answer").up("a").wait(2).app("Set", "…", trace=ACCEPTED)
    assert row_of(story.hangs_up("a").closes("a", cause=0))["trace_id"] == TRACE


def test_an_answering_service_is_told_the_trace_with_the_call() -> None:
    story = Story().from_trunk().app("Answer").up("a").app("Stasis", "bot", trace=ACCEPTED).wait(9)
    assert row_of(story.hangs_up("a").closes("a"))["trace_id"] == TRACE


def test_a_call_that_is_found_answered_brings_its_trace_all_the_same() -> None:
    found: dict[str, Any] = {"age_seconds": 30.0, "up": True, "bridge": "b"}
    story = Story().opens("x", "PJSIP/101", application="AppDial", **found)
    story.opens("a", "PJSIP/trunk-acme", application="Dial", trace=ACCEPTED, **found).snapshot("a", "x")
    assert row_of(story.wait(60).talk_ends("x"))["trace_id"] == TRACE


def test_a_leg_that_is_found_in_a_call_known_to_be_answered_is_too_late() -> None:
    story = ringing(None).answers("x").wait(9).line_lost().wait(9)
    story.opens("y", "PJSIP/102", trace=ACCEPTED, age_seconds=3.0, up=True, bridge="b")
    row = row_of(story.snapshot("a", "x", "y").wait(1).closes("x", "y", "a"))
    assert row["trace_id"] == minted_trace_id(row["call_sid"])


def test_of_two_calls_that_become_one_the_older_keeps_its_trace() -> None:
    """The leg that comes over bears the younger one's, whether or not the older has one."""
    for older, expected in ((ACCEPTED, TRACE), (None, None)):
        first = ringing(older).answers("x").wait(10)
        younger = Story("2", at=first.at).from_phone("102", phone="101").app("Set", "…", trace=OTHER).wait(1)
        moved = AppStarted(younger.at, "2.a", "1.a", "c", "s", "Dial", "", OTHER)
        back = Story("1", at=younger.at).say(moved).closes("x", "a").say(ChannelClosed(younger.at, "2.a", "1.a", 16))

        rows = {call.native_id: call.to_row() for call in tell(new_model(), first, younger, back)}

        assert rows["1.a"]["trace_id"] == (expected or minted_trace_id(rows["1.a"]["call_sid"]))
        assert (rows["2.a"]["trace_id"], rows["2.a"]["merged_into"]) == (OTHER.trace_id, rows["1.a"]["call_sid"])


# Several sources


def accounts() -> tuple[dict[str, Any], dict[str, Any]]:
    """A live feed that heard the trace but not the end, and CEL that knows all but the trace."""
    heard = row_of(ringing().gives_up("x")) | {"end_estimated": True}
    cel = row_of(ringing(None).gives_up("x")) | {"source": "cel"}
    return heard, cel


def test_a_source_that_does_not_know_the_trace_does_not_take_it_away() -> None:
    heard, cel = accounts()
    one, _ = with_account(heard, {}, cel)
    other, _ = with_account(cel, {}, heard)
    assert one == other
    assert one["trace_id"] == TRACE
    assert span_of(one, None)["parentSpanId"] == SPAN
    again, _ = with_account(one, {"ami": heard, "cel": cel}, cel)
    assert again == one


def test_the_same_source_telling_it_again_without_the_trace_keeps_it() -> None:
    told = row_of(ringing().gives_up("x"))
    again = told_again(told, row_of(ringing(None).gives_up("x")) | {"caller_name": "Ayşe"})
    assert (again["trace_id"], again["caller_name"]) == (TRACE, "Ayşe")
    assert span_of(again, None)["parentSpanId"] == SPAN


def test_the_trace_of_a_call_is_the_same_whenever_the_line_breaks_before_it_is_told_again() -> None:
    """After a break the list of channels tells the variable once more; it is no second trace."""
    story = ringing().line_lost().wait(3)
    story.opens("a", "PJSIP/trunk-acme", age_seconds=9.0, trace=OTHER).snapshot("a")
    assert story.events[-1].at - NOON == timedelta(seconds=7)
    assert row_of(story.wait(1).closes("a"))["trace_id"] == TRACE
