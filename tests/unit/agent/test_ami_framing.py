"""AMI's bytes become frames and fields, however they are cut and whatever stands in them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pbx.asterisk.protocol import MAX_FRAME_BYTES, AmiFramer, AmiMessage

NEWCHANNEL = b"Event: Newchannel\r\nPrivilege: call,all\r\nChannel: PJSIP/101-00000001\r\nUniqueid: 1795366169.1"
OLD_COMMAND = (
    b"Response: Follows\r\nPrivilege: Command\r\nActionID: 7\r\n"
    b"Line: one\r\n\r\n\r\nEvent: of the log, not of AMI\r\n--END COMMAND--"
)
NEW_COMMAND = (
    b"Response: Success\r\nActionID: 8\r\nMessage: Command output follows\r\nOutput: first\r\nOutput: \r\nOutput: third"
)
HANGUP = b"Event: Hangup\r\nChannel: PJSIP/101-00000001\r\nCause: 16"
STREAM = (
    NEWCHANNEL + b"\r\n\r\n" + OLD_COMMAND + b"\r\n\r\n\r\n" + NEW_COMMAND + b"\r\n\r\n\r\n\r\n" + HANGUP + b"\r\n\r\n"
)
FRAMES = [NEWCHANNEL, OLD_COMMAND, NEW_COMMAND, HANGUP]


def in_pieces(stream: bytes, *cuts: int) -> list[bytes]:
    framer, frames, start = AmiFramer(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        frames += framer.feed(stream[start:cut])
        start = cut
    return frames


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_cut_anywhere_gives_the_same_frames(cut: int) -> None:
    assert in_pieces(STREAM, cut) == FRAMES


def test_a_stream_that_drips_byte_by_byte_gives_the_same_frames() -> None:
    assert in_pieces(STREAM, *range(len(STREAM))) == FRAMES


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_a_stream_in_random_pieces_gives_the_same_frames(cuts: list[int]) -> None:
    assert in_pieces(STREAM, *cuts) == FRAMES


LINE = st.tuples(
    st.text(st.sampled_from("ABCdefgh-"), min_size=1, max_size=12),
    st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]), max_size=40),
)
MESSAGE = st.lists(LINE, min_size=1, max_size=12)


@given(st.lists(MESSAGE, max_size=8), st.lists(st.integers(0, 4000), max_size=20))
def test_whatever_is_written_is_read_again_in_order(written: list[list[tuple[str, str]]], cuts: list[int]) -> None:
    stream = b"".join(
        "".join(f"{key}: {value}\r\n" for key, value in message).encode() + b"\r\n" for message in written
    )

    read = [AmiMessage(frame).fields() for frame in in_pieces(stream, *(cut for cut in cuts if cut < len(stream)))]

    expected = []
    for message in written:
        fields: dict[str, list[str]] = {}
        for key, value in message:
            fields.setdefault(key.lower(), []).append(value)
        expected.append(fields)
    assert read == expected


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_garbage_raises_nothing_and_keeps_at_most_one_frame(pieces: list[bytes]) -> None:
    framer = AmiFramer(max_frame_bytes=100)

    for piece in pieces:
        for frame in framer.feed(piece):
            assert len(frame) <= 100
            assert AmiMessage(frame).all("variable") is not None
        assert len(framer._tail) <= 100


def test_the_order_of_headers_does_not_matter() -> None:
    message = AmiMessage(b"Status: Fully Booted\r\nUptime: 3\r\nevent: FullyBooted\r\nLastReload: 3")

    assert (message.name, message.get("uptime")) == ("FullyBooted", "3")


def test_keys_are_read_without_their_case() -> None:
    message = AmiMessage(b"EVENT: Hangup\r\nUNIQUEID: 1.2\r\nlinkedid: 1.1\r\nCause-Txt: Normal")

    assert message.name == "Hangup"
    assert [message.get(key) for key in ("uniqueid", "linkedid", "cause-txt")] == ["1.2", "1.1", "Normal"]


def test_a_repeated_key_keeps_every_value_and_the_first_counts() -> None:
    message = AmiMessage(b"Event: TestEvent\r\nState: one\r\nType: x\r\nState: two")

    assert message.all("state") == ["one", "two"]
    assert message.get("state") == "one"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"AppData: ", ""),
        (b"AppData:", ""),
        (b"AppData:tight", "tight"),
        (b"AppData: a: b: c", "a: b: c"),
        (b"AppData:  two blanks", " two blanks"),
        (b"AppData: sip:101@192.0.2.1:5060", "sip:101@192.0.2.1:5060"),
    ],
)
def test_a_value_may_be_empty_or_hold_colons(line: bytes, value: str) -> None:
    assert AmiMessage(b"Event: Newexten\r\n" + line + b"\r\nUniqueid: 1.1").get("appdata") == value


def test_a_key_that_ends_like_the_one_asked_for_is_another_key() -> None:
    message = AmiMessage(b"Event: DialBegin\r\nDestUniqueid: 1.2\r\nChannel: x Uniqueid: 9\r\nUniqueid: 1.1")

    assert message.get("uniqueid") == "1.1"
    assert message.get("channel") == "x Uniqueid: 9"


def test_a_missing_key_gives_the_default() -> None:
    message = AmiMessage(b"Event: Hangup")

    assert (message.get("cause"), message.get("cause", "?"), message.all("cause")) == ("", "?", [])


def test_the_old_command_style_keeps_its_raw_lines() -> None:
    message = AmiMessage(b"Response: Follows\r\nActionID: 7\r\nno colon here\r\n--END COMMAND--")

    assert message.get("actionid") == "7"
    assert message.all("output") == ["no colon here", "--END COMMAND--"]


def test_the_new_command_style_keeps_its_lines_in_order() -> None:
    assert AmiMessage(NEW_COMMAND).all("output") == ["first", "", "third"]


def test_a_frame_that_is_too_long_is_dropped_and_counted_and_the_next_is_read() -> None:
    framer = AmiFramer()
    long = b"Event: Big\r\nData: " + b"x" * MAX_FRAME_BYTES

    in_one_read = framer.feed(long + b"\r\n\r\n" + HANGUP + b"\r\n\r\n")
    in_many_reads = [frame for start in range(0, len(long), 4096) for frame in framer.feed(long[start : start + 4096])]
    in_many_reads += framer.feed(b"\r\n") + framer.feed(b"\r\n" + HANGUP + b"\r\n\r\n")

    assert in_one_read == in_many_reads == [HANGUP]
    assert framer.oversized == 2


def test_an_endless_line_is_not_kept() -> None:
    framer = AmiFramer(max_frame_bytes=1000)

    for _ in range(100):
        assert framer.feed(b"x" * 500) == []
        assert len(framer._tail) <= 1000

    assert framer.feed(b"\r\n\r\n" + HANGUP + b"\r\n\r\n") == [HANGUP]


def test_an_old_command_that_never_ends_is_dropped_at_the_bound() -> None:
    framer = AmiFramer(max_frame_bytes=1000)

    for _ in range(50):
        framer.feed(b"Response: Follows\r\nblah\r\n\r\n" + b"y" * 100)
        assert len(framer._tail) <= 1000

    assert framer.oversized >= 1


@pytest.mark.parametrize("read_bytes", [256 * 1024, 40])
def test_an_old_command_full_of_empty_lines_costs_no_more_than_its_length(read_bytes: int) -> None:
    framer, began = AmiFramer(), time.process_time()
    answer = b"Response: Follows" + b"\r\n\r\n" * 60_000
    stream = answer + b"--END COMMAND--\r\n\r\n"

    starts = range(0, len(stream), read_bytes)
    frames = [frame for start in starts for frame in framer.feed(stream[start : start + read_bytes])]

    assert frames == [answer + b"--END COMMAND--"]
    assert time.process_time() - began < 1  # it took 8 s to look through all that came before again and again


def test_a_long_frame_in_small_reads_costs_no_more_than_its_length() -> None:
    framer, began = AmiFramer(), time.process_time()
    stream = b"Event: Long\r\nData: " + b"x" * 250_000 + b"\r\n\r\n"

    frames = [frame for start in range(0, len(stream), 5) for frame in framer.feed(stream[start : start + 5])]

    assert frames == [stream[:-4]]
    assert time.process_time() - began < 1


@pytest.mark.parametrize("cut", range(0, 1800, 7))
def test_an_old_command_that_is_too_long_is_dropped_alike_wherever_it_is_cut(cut: int) -> None:
    framer = AmiFramer(max_frame_bytes=1000)
    stream = b"Response: Follows\r\n\r\n" + b"y" * 1200 + b"\r\n\r\n" + (HANGUP + b"\r\n\r\n") * 10

    assert framer.feed(stream[:cut]) + framer.feed(stream[cut:]) == [HANGUP] * 10
    assert framer.oversized == 1


def test_a_frame_of_the_pbx_never_begins_with_nul() -> None:
    assert AmiFramer().feed(b"\0line lost\r\n\r\n\0\0\r\n\r\n\r\n\0" + HANGUP + b"\r\n\r\n") == [b"line lost", HANGUP]


def test_a_nul_inside_a_value_is_shown_and_the_frame_stays_as_it_came() -> None:
    frame = b"Event: Newchannel\r\nCallerIDName: a\0b\r\nExten: 101"

    message = AmiMessage(frame)

    assert (message.get("calleridname"), message.get("exten")) == ("a\ufffdb", "101")
    assert message.raw == frame


def test_turkish_names_are_read_from_utf8_and_from_latin5() -> None:
    utf8 = "Event: Newchannel\r\nCallerIDName: Ayşe Işık\r\nExten: 101".encode()
    latin5 = "Event: Newchannel\r\nCallerIDName: Ayşe Işık\r\nExten: 101".encode("iso-8859-9")

    messages = AmiMessage(utf8, "cp1254"), AmiMessage(latin5, "cp1254")
    assert [message.get("calleridname") for message in messages] == ["Ayşe Işık"] * 2
    assert messages[1].get("exten") == "101"


def test_one_line_in_another_byte_set_spoils_no_other_line() -> None:
    mixed = "Event: x\r\nName: Çiğdem\r\n".encode() + "Other: Çiğdem".encode("iso-8859-9")

    message = AmiMessage(mixed, "cp1254")

    assert message.get("name") == message.get("other") == "Çiğdem"
    assert message.fields() == {"event": ["x"], "name": ["Çiğdem"], "other": ["Çiğdem"]}


def test_a_message_shows_no_content() -> None:
    assert "101" not in repr(AmiMessage(NEWCHANNEL))
    assert "Newchannel" in repr(AmiMessage(NEWCHANNEL))


@given(MESSAGE, st.sampled_from(["utf-8", "cp1254"]))
def test_a_field_asked_for_alone_is_what_it_is_among_all(written: list[tuple[str, str]], charset: str) -> None:
    raw = "\r\n".join(f"{key}: {value}" for key, value in written).encode(charset, "replace")
    message = AmiMessage(raw)

    assert {key: message.get(key) for key in message.fields()} == {
        key: all_[0] for key, all_ in message.fields().items()
    }


@given(st.binary(max_size=200))
def test_a_field_asked_for_in_garbage_is_what_it_is_among_all(raw: bytes) -> None:
    message = AmiMessage(b"Event: x\r\nUniqueid" + raw)

    assert message.get("uniqueid", "none") == message.fields().get("uniqueid", ["none"])[0]
