"""A captured session becomes what the journal would hold of it: frames, times, lost lines and lists of channels."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pbx.asterisk.capture import CaptureReader, Clock, HeardFrame, NotAmi, survey
from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN
from agent.pbx.feed import LINE_LOST
from tests.unit.agent.captures import WIRE, frames

EPOCH = 1_795_366_581
START = datetime.fromtimestamp(EPOCH, UTC)
BANNER = b"Asterisk Call Manager/11.0.0\r\n"
ACCEPTED = b"Response: Success\r\nMessage: Authentication accepted\r\n\r\n"


def event(name: str, *lines: str) -> bytes:
    return "\r\n".join([f"Event: {name}", *lines, "", ""]).encode()


def stamped(name: str, seconds: float, *lines: str) -> bytes:
    return event(name, f"Timestamp: {EPOCH + seconds:.6f}", *lines)


def heard(*data: bytes, clock: Clock = Clock.EVENTS) -> tuple[CaptureReader, list[HeardFrame]]:
    reader = CaptureReader(clock, START)
    return reader, list(reader.read((None, piece) for piece in data))


def names(found: Iterable[HeardFrame]) -> list[bytes]:
    return [one.frame.split(b"\r\n")[0] for one in found]


@pytest.mark.parametrize("name", ["inbound_answered", "live_calls", "caller_latin5", "killed"])
def test_a_capture_is_cut_and_timed_as_the_tests_of_the_model_do(name: str) -> None:
    data = (WIRE / f"{name}.ami").read_bytes()
    found = survey([data])
    assert (found.clock, found.first_at) == (Clock.EVENTS, frames(name)[0].arrived_at)
    reader = CaptureReader(found.clock, frames(name)[0].arrived_at)

    told = [one for one in reader.read([(None, data)]) if one.frame != SNAPSHOT_TAKEN]

    assert [(one.frame, one.at) for one in told] == [(one.raw, one.arrived_at) for one in frames(name)]
    assert (reader.logins, reader.lost_lines, reader.ends_in_a_frame) == (1, 0, False)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_pieces_of_any_size_give_the_same(sizes: list[int]) -> None:
    data = (WIRE / "live_calls.ami").read_bytes() * 2
    pieces, at = [], 0
    for size in sizes * len(data):
        if at >= len(data):
            break
        pieces.append(data[at : at + size])
        at += size

    assert heard(*pieces)[1] == heard(data)[1]


def test_a_second_banner_is_a_lost_line_when_the_pbx_was_last_heard() -> None:
    first, second = stamped("A", 1), stamped("B", 9)

    reader, found = heard(BANNER + ACCEPTED + first + BANNER + ACCEPTED + second)

    assert names(found) == [b"Response: Success", b"Event: A", LINE_LOST, b"Response: Success", b"Event: B"]
    assert [(one.at - START).total_seconds() for one in found] == [0, 1, 1, 1, 9]
    assert (reader.logins, reader.lost_lines) == (2, 1)


@pytest.mark.parametrize(
    "cut", [b"Event: Hangup\r\n", b"Event: Hangup\r\nChan", b"Ev", b"Event: Hangup\r\nChannel: x\r\n"]
)
def test_an_event_that_a_lost_line_cut_off_is_none(cut: bytes) -> None:
    _, found = heard(BANNER + ACCEPTED + stamped("A", 1) + cut + BANNER + BANNER + ACCEPTED + stamped("B", 2))

    assert names(found) == [b"Response: Success", b"Event: A", LINE_LOST, b"Response: Success", b"Event: B"]


def test_a_caller_whose_name_is_a_banner_cuts_no_line() -> None:
    hostile = stamped("Newchannel", 1, "CallerIDName: Asterisk Call Manager/11.0.0", "Uniqueid: 1.1")

    reader, found = heard(BANNER + ACCEPTED + hostile)

    assert (reader.lost_lines, names(found)) == (0, [b"Response: Success", b"Event: Newchannel"])


LIST = stamped("CoreShowChannel", 1, "Uniqueid: 1.1") + event("CoreShowChannelsComplete", "ListItems: 1")
PONG = b"Response: Success\r\nPing: Pong\r\nTimestamp: 1795366583.5\r\n\r\n"


def test_a_list_counts_once_a_ping_behind_it_is_answered() -> None:
    _, found = heard(BANNER + ACCEPTED + LIST + stamped("Late", 2) + PONG + stamped("After", 3))

    assert names(found)[-4:] == [b"Event: Late", b"Response: Success", SNAPSHOT_TAKEN, b"Event: After"]


def test_a_list_without_a_ping_counts_before_the_next_one_or_a_lost_line_or_the_end() -> None:
    _, found = heard(BANNER + ACCEPTED + LIST + LIST + BANNER + ACCEPTED + LIST)

    told = names(found)
    assert told.count(SNAPSHOT_TAKEN) == 3
    assert told[told.index(LINE_LOST) - 1] == SNAPSHOT_TAKEN
    assert told[-1] == SNAPSHOT_TAKEN


def test_a_list_does_not_wait_for_a_ping_for_ever() -> None:
    _, found = heard(BANNER + ACCEPTED + LIST + b"".join(stamped("E", 2) for _ in range(1000)))

    assert names(found)[-1] != SNAPSHOT_TAKEN
    assert SNAPSHOT_TAKEN in names(found)


def test_without_timestamps_the_channels_tell_the_second_in_which_they_were_made() -> None:
    data = BANNER + ACCEPTED + event("Newchannel", f"Uniqueid: pbx1-{EPOCH + 5}.7") + event("Hangup", "Uniqueid: x")

    found = survey([data])

    assert (found.clock, found.first_at) == (Clock.CHANNELS, datetime.fromtimestamp(EPOCH + 5, UTC))
    assert not found.clock.tells_lengths
    _, told = heard(data, clock=found.clock)
    assert (told[-1].at - START).total_seconds() == 5


def test_where_nothing_tells_a_time_there_is_none() -> None:
    assert survey([BANNER + ACCEPTED + event("Hangup", "Uniqueid: x")]).clock is Clock.FILE


def test_a_pong_does_not_make_events_stamped() -> None:
    assert survey([BANNER + ACCEPTED + PONG + event("Hangup", "Uniqueid: x")]).clock is Clock.FILE


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xd4\xc3\xb2\xa1" + bytes(100), "a packet capture; export"),
        (b"\x1f\x8b" + bytes(100), "packed with gzip; unpack"),
        (b"SQLite format 3\0", "edge-agent record"),
        (bytes(100), "neither a recording"),
        (b"hello\r\n\r\n", "neither a recording"),
        ((BANNER + ACCEPTED).replace(b"\r\n", b"\n"), "line ends were changed"),
    ],
)
def test_what_is_no_capture_is_told_with_what_to_do(data: bytes, what: str) -> None:
    with pytest.raises(NotAmi, match=what):
        survey([data])


def test_a_message_longer_than_any_and_an_end_in_the_middle_are_noted() -> None:
    huge = b"Event: Huge\r\nValue: " + b"x" * 400_000 + b"\r\n\r\n"

    reader, found = heard(BANNER + ACCEPTED, huge, stamped("A", 1), b"Event: Cut\r\n")

    assert (names(found), reader.oversized) == ([b"Response: Success", b"Event: A"], 1)
    assert reader.ends_in_a_frame


@given(st.binary(max_size=2000))
def test_noise_never_crashes(noise: bytes) -> None:
    for clock in Clock:
        assert all(isinstance(one.frame, bytes) for one in heard(BANNER + noise, clock=clock)[1])
