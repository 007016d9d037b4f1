"""What holds for every order of events, however mangled."""

import random
from datetime import timedelta
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.calls.events import (
    AppStarted,
    AttendedTransferred,
    BlindTransferred,
    BridgeJoined,
    BridgeKind,
    BridgeLeft,
    CallerIdentified,
    CallEvent,
    ChannelClosed,
    ChannelOpened,
    ChannelRenamed,
    ChannelRinging,
    ChannelUp,
    ConferenceJoined,
    CutOff,
    DialBegan,
    DialEnded,
    DialStatus,
    HangupRequested,
    Held,
    LegEvent,
    LineLost,
    MusicStarted,
    MusicStopped,
    Parked,
    ParkingEnd,
    PickedUp,
    QueueJoined,
    QueueLeft,
    SnapshotTaken,
    Unheld,
    Unparked,
)
from agent.calls.live_call import LiveCall
from tests.unit.agent.captures import WIRE, events, frames, is_empty, new_model
from tests.unit.agent.stories import NOON, tell_events

# Independent calls, interleaved

WHOLE_CALLS = sorted(path.stem for path in WIRE.glob("*.json") if path.stem not in {"killed", "live_calls"})
WHOLE_CALLS += sorted(f"stage/22/{path.stem}" for path in (WIRE / "stage" / "22").glob("*.ami"))
TOLD: dict[str, list[CallEvent]] = {name: list(events(frames(name))) for name in WHOLE_CALLS}


def rows(calls: list[LiveCall]) -> dict[str, dict[str, Any]]:  # Any: a row's columns are of many types
    return {call.call_sid: call.to_row() for call in calls}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WHOLE_CALLS), min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_calls_told_in_between_each_other_are_told_as_each_alone(names: list[str], choice: random.Random) -> None:
    alone = {sid: row for name in names for sid, row in rows(tell_events(new_model(), TOLD[name])).items()}
    waiting = [list(reversed(TOLD[name])) for name in names]
    mixed: list[CallEvent] = []
    while waiting:
        told = choice.choice(waiting)
        mixed.append(told.pop())
        waiting = [story for story in waiting if story]

    model = new_model()
    together = rows(tell_events(model, mixed))

    assert together == alone
    assert is_empty(model)


# Mangled stories

CHANNELS = [f"c{number}" for number in range(6)]
channels = st.sampled_from(CHANNELS)
linkeds = st.sampled_from([*CHANNELS, "l1", "l2"])
bridges = st.sampled_from(["b1", "b2"])
texts = st.sampled_from(["", "101", "s", "<x>", "905300000001", "9" * 5000, "Ayşe"])
moments = st.integers(-100, 1000).map(lambda seconds: NOON + timedelta(seconds=seconds))
applications = st.sampled_from(["Dial", "Queue", "Stasis", "VoiceMail", "AppDial", "Hangup", "ConfBridge", ""])
names = st.sampled_from(["PJSIP/trunk-acme-01", "PJSIP/101-02", "Local/101@x-03;1", "", "-", "/", "DAHDI/1"])

mangled: st.SearchStrategy[CallEvent] = st.one_of(
    st.builds(
        ChannelOpened, moments, channels, linkeds, names, texts | st.none(), texts | st.none(), texts, texts, texts,
        st.booleans(), st.none() | st.floats(0, 1e8), bridges | st.none(), applications, texts,
    ),
    st.builds(ChannelRinging, moments, channels, linkeds),
    st.builds(ChannelUp, moments, channels, linkeds),
    st.builds(CallerIdentified, moments, channels, linkeds, texts | st.none(), texts | st.none()),
    st.builds(AppStarted, moments, channels, linkeds, texts, texts, applications, texts | st.just("PJSIP/1@trunk-a")),
    st.builds(DialBegan, moments, channels | st.none(), channels, linkeds, texts),
    st.builds(DialEnded, moments, channels, linkeds, st.sampled_from(DialStatus), st.none() | texts),
    st.builds(
        BridgeJoined, moments, channels, linkeds, bridges, st.sampled_from(BridgeKind), st.none() | channels
    ),
    st.builds(ChannelRenamed, moments, channels, names),
    st.builds(MusicStarted, moments, channels, linkeds),
    st.builds(MusicStopped, moments, channels, linkeds),
    st.builds(BlindTransferred, moments, channels, linkeds, texts),
    st.builds(AttendedTransferred, moments, channels, linkeds, channels | st.just(""), st.none() | channels),
    st.builds(Parked, moments, channels, linkeds, texts, st.none() | texts),
    st.builds(Unparked, moments, channels, linkeds, st.sampled_from(ParkingEnd), texts, st.none() | channels),
    st.builds(PickedUp, moments, channels, linkeds, channels),
    st.builds(ConferenceJoined, moments, channels, linkeds, texts),
    st.builds(BridgeLeft, moments, channels, linkeds, bridges),
    st.builds(Held, moments, channels, linkeds),
    st.builds(Unheld, moments, channels, linkeds),
    st.builds(QueueJoined, moments, channels, linkeds, texts, st.none() | st.integers(0, 9)),
    st.builds(QueueLeft, moments, channels, linkeds, texts),
    st.builds(HangupRequested, moments, channels, linkeds),
    st.builds(CutOff, moments, channels, linkeds),
    st.builds(ChannelClosed, moments, channels, linkeds, st.none() | st.integers(0, 200)),
    st.builds(LineLost, moments),
    st.builds(SnapshotTaken, moments, st.frozensets(channels)),
)  # fmt: skip


def test_every_kind_of_event_means_something_to_the_model() -> None:
    assert new_model()._handlers.keys() == set(get_args(LegEvent))


def check_records(ended: list[LiveCall]) -> None:
    assert len(rows(ended)) == len(ended)
    for call in ended:
        row = call.to_row()
        assert row["end_time"] >= row["start_time"]
        for key in ("ring_seconds", "talk_seconds", "hold_seconds", "total_seconds"):
            assert row[key] >= 0
        assert (row["disposition"] == "answered") == (row["answer_time"] is not None)
        assert call.context(row["end_time"]).state == "ended"


@settings(max_examples=200, deadline=None)
@given(st.lists(mangled, max_size=60))
def test_no_mangled_story_raises_or_leaves_a_call_behind_once_its_channels_closed(story: list[CallEvent]) -> None:
    model = new_model()

    ended = []
    for event in story:
        model.apply(event)
        for call in model.live_calls():
            assert call.context(NOON).call_sid == call.call_sid
            assert call.open_channels or call.native_id not in call.legs
        ended += model.take_ended()
    ended += tell_events(model, [ChannelClosed(NOON, channel, channel, 16) for channel in CHANNELS])
    ended += tell_events(model, [SnapshotTaken(NOON, frozenset())])  # the first channel of a call may bear any name

    assert is_empty(model)
    check_records(ended)


@settings(max_examples=100, deadline=None)
@given(st.lists(mangled, max_size=60))
def test_two_lists_without_a_channel_end_whatever_a_mangled_story_left(story: list[CallEvent]) -> None:
    model = new_model()

    ended = tell_events(model, [*story, SnapshotTaken(NOON, frozenset()), SnapshotTaken(NOON, frozenset())])

    assert is_empty(model)
    check_records(ended)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(WHOLE_CALLS), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=8))
def test_events_lost_doubled_or_moved_end_every_call_all_the_same(name: str, moves: list[tuple[int, int]]) -> None:
    story = list(TOLD[name])
    for number, (source, target) in enumerate(moves):
        event = story[source % len(story)]
        if number % 2:
            story.remove(event)
        story.insert(target % (len(story) + 1), event)
    model = new_model()

    ended = tell_events(model, story)
    ended += tell_events(model, [SnapshotTaken(NOON, frozenset()), SnapshotTaken(NOON, frozenset())])

    assert is_empty(model)
    check_records(ended)
