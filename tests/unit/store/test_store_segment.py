"""The journal's blob: what goes in comes out, and nothing else is taken for one."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.store.segment import Frame, Segment, SegmentDamaged, decode, encode

frames = st.lists(st.builds(Frame, offset_us=st.integers(0, 2**64 - 1), data=st.binary(max_size=300)), max_size=40)


@given(frames)
def test_frames_come_back_as_they_were(told: list[Frame]) -> None:
    assert decode(encode(told)) == told


@given(frames, st.integers(0, 10_000))
def test_a_blob_cut_short_is_never_taken_for_a_whole_one(told: list[Frame], length: int) -> None:
    blob = encode(told)

    with pytest.raises(SegmentDamaged):
        decode(blob[: min(length, len(blob) - 1)])


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused_and_never_crash(noise: bytes) -> None:
    with pytest.raises(SegmentDamaged):
        decode(noise)


@given(frames, st.binary(min_size=1, max_size=1), st.integers(1, 10_000))
def test_a_changed_byte_is_refused_or_gives_frames(told: list[Frame], byte: bytes, at: int) -> None:
    blob = bytearray(encode(told))
    blob[at % len(blob)] = byte[0]

    with suppress(SegmentDamaged):
        assert isinstance(decode(bytes(blob)), list)


def test_a_version_of_the_future_is_named() -> None:
    with pytest.raises(SegmentDamaged, match="version 2 is unknown"):
        decode(b"\x02" + encode([])[1:])


def test_what_a_pbx_says_shrinks_well() -> None:
    event = b"Event: Newstate\r\nChannel: PJSIP/101-0000001a\r\nUniqueid: 1790000000.26\r\n\r\n"

    assert len(encode([Frame(number, event) for number in range(100)])) < len(event) * 100 / 10


def test_a_segment_ends_when_its_last_frame_came() -> None:
    start = datetime(2026, 11, 22, 9, tzinfo=UTC)

    segment = Segment(1, "main", "boot", 1, start, 0, [Frame(0, b"a"), Frame(41_000, b"b")])

    assert segment.last_at == start + timedelta(milliseconds=41)
