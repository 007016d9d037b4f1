"""Lists of channels become snapshots, marks in the journal what they stood for."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.calls.events import ChannelOpened, LineLost, SnapshotTaken
from agent.pbx.asterisk import interpreter as interpreting
from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN, AsteriskInterpreter
from agent.pbx.feed import LINE_LOST

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
COMPLETE = b"Event: CoreShowChannelsComplete\r\nEventList: Complete\r\nListItems: 1"


def item(channel: str) -> bytes:
    return f"Event: CoreShowChannel\r\nChannel: PJSIP/1-1\r\nUniqueid: {channel}\r\nDuration: 00:00:05".encode()


def new(channel: str) -> bytes:
    return f"Event: Newchannel\r\nChannel: PJSIP/1-1\r\nUniqueid: {channel}".encode()


def snapshot(*frames: bytes) -> set[str] | None:
    """The channels of the snapshot that the last of the frames completes."""
    interpreter = AsteriskInterpreter()
    for frame in frames:
        interpreter.interpret(frame, AT)
    event = interpreter.interpret(SNAPSHOT_TAKEN, AT)
    assert event is None or isinstance(event, SnapshotTaken)
    return set(event.channels) if event else None


def test_a_complete_list_and_its_mark_make_a_snapshot() -> None:
    assert snapshot(item("1.1"), item("1.2"), COMPLETE) == {"1.1", "1.2"}


def test_an_empty_list_says_that_every_channel_is_gone() -> None:
    assert snapshot(COMPLETE) == set()


def test_each_listed_channel_is_an_event_of_its_own() -> None:
    event = AsteriskInterpreter().interpret(item("1.1"), AT)

    assert isinstance(event, ChannelOpened)
    assert event.age_seconds == 5


def test_a_list_that_was_refused_or_cut_says_nothing() -> None:
    assert snapshot() is None
    assert snapshot(item("1.1")) is None
    assert snapshot(item("1.1"), COMPLETE, LINE_LOST) is None
    assert snapshot(item("1.1"), LINE_LOST, item("1.2"), COMPLETE) == {"1.2"}


def test_a_second_list_does_not_remember_the_first() -> None:
    assert snapshot(item("1.1"), COMPLETE, SNAPSHOT_TAKEN, item("1.2"), COMPLETE) == {"1.2"}
    assert snapshot(item("1.1"), COMPLETE, item("1.2"), COMPLETE) == {"1.2"}
    assert snapshot(item("1.1"), COMPLETE, COMPLETE) == set()


def test_a_channel_that_opens_after_the_list_was_made_is_not_missing_in_it() -> None:
    assert snapshot(item("1.1"), new("1.2"), COMPLETE, new("1.3")) == {"1.1", "1.2", "1.3"}
    assert snapshot(COMPLETE, new("1.3")) == {"1.3"}


def test_channels_that_open_without_a_list_are_not_collected() -> None:
    assert snapshot(new("1.1"), COMPLETE) == set()
    assert snapshot(item("1.1"), COMPLETE, SNAPSHOT_TAKEN, new("1.2"), item("1.3"), COMPLETE) == {"1.3"}


def test_a_lost_line_is_told_with_its_time() -> None:
    assert AsteriskInterpreter().interpret(LINE_LOST, AT) == LineLost(AT)


def test_an_unknown_mark_says_nothing() -> None:
    assert AsteriskInterpreter().interpret(b"\0of a later version", AT) is None


def test_marks_bear_the_time_they_were_made() -> None:
    interpreter = AsteriskInterpreter()
    interpreter.interpret(COMPLETE, AT)

    assert interpreter.interpret(SNAPSHOT_TAKEN, AT + timedelta(seconds=1)) == SnapshotTaken(
        AT + timedelta(seconds=1), frozenset()
    )


def test_a_list_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreting, "MAX_LISTED", 3)

    assert snapshot(*(item(f"1.{number}") for number in range(4)), COMPLETE) is None
    assert snapshot(*(item(f"1.{number}") for number in range(4)), COMPLETE, item("2.1"), COMPLETE) == {"2.1"}
