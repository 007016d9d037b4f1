"""A recording's file: what goes in comes out, a cut costs what comes after it, and nothing else is taken for one."""

import io
import struct
import zlib
from datetime import UTC, datetime, timedelta

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.numbers import NumberPlan
from agent.calls.rules import CallRules
from agent.store.recording import (
    MAGIC,
    RecordedPbx,
    RecordingHeader,
    RecordingReader,
    RecordingUnreadable,
    StoredSegment,
    head_of,
    piece_of,
    told_rules,
)
from agent.store.segment import Frame, Segment, encode
from config.settings import TenancySettings, TenantRule

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RULES = CallRules(trunks=("PJSIP/out-*",), answering_applications=("Stasis",), numbers=NumberPlan("TR", ("9",)))
TENANCY = TenancySettings(default="acme", rules=(TenantRule(tenant="globex", extension_range=(200, 299)),))
HEADER = RecordingHeader(
    program="1.0",
    made_at=NOON,
    site="here",
    tenancy=TENANCY,
    pbx=(RecordedPbx(name="main", encoding="cp1254", rules=told_rules(RULES)), RecordedPbx(name="second")),
)

frames = st.lists(st.builds(Frame, offset_us=st.integers(0, 2**40), data=st.binary(max_size=200)), max_size=20)
segments = st.lists(
    st.builds(
        lambda pbx, boot, number, at, ns, told: Segment(
            0, pbx, boot, number, NOON + timedelta(microseconds=at), ns, told
        ),
        st.sampled_from(["main", "second"]),
        st.text(st.characters(codec="utf-8"), max_size=40),
        st.integers(0, 2**32 - 1),
        st.integers(0, 10**12),
        st.integers(0, 2**62),
        frames,
    ),
    max_size=8,
)


def stored(segment: Segment) -> StoredSegment:
    return StoredSegment(
        segment.pbx, segment.boot_id, segment.connection, segment.first_at, segment.monotonic_ns, encode(segment.frames)
    )


def file_of(*told: Segment) -> bytes:
    return head_of(HEADER) + b"".join(piece_of(stored(segment)) for segment in told)


def facts(segment: Segment) -> tuple[object, ...]:
    return segment.pbx, segment.boot_id, segment.connection, segment.first_at, segment.monotonic_ns, segment.frames


def read(data: bytes) -> tuple[RecordingReader, list[Segment]]:
    reader = RecordingReader(io.BytesIO(data))
    return reader, list(reader.segments())


@given(segments)
def test_what_was_recorded_comes_back_with_its_rules(told: list[Segment]) -> None:
    reader, found = read(file_of(*told))

    assert list(map(facts, found)) == list(map(facts, told))
    assert (reader.was_cut, reader.damaged) == (False, 0)
    assert reader.header.model_dump_json() == HEADER.model_dump_json()
    assert [pbx.call_rules() for pbx in reader.header.pbx] == [RULES, CallRules()]


@given(segments, st.integers(1, 5000))
def test_a_file_that_was_cut_off_is_read_up_to_the_cut(told: list[Segment], missing: int) -> None:
    whole, head = file_of(*told), head_of(HEADER)
    cut = whole[: max(len(head), len(whole) - missing)]

    reader, found = read(cut)

    assert list(map(facts, found)) == list(map(facts, told[: len(found)]))
    ends = [len(head)]
    for segment in told:
        ends.append(ends[-1] + len(piece_of(stored(segment))))
    assert len(found) == sum(end <= len(cut) for end in ends[1:])
    assert reader.was_cut == (len(cut) not in ends)


@given(segments, st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_costs_a_piece_and_never_a_crash(told: list[Segment], at: int, change: int) -> None:
    data = bytearray(file_of(*told))
    data[at % len(data)] ^= change

    try:
        reader, found = read(bytes(data))
    except RecordingUnreadable:
        return
    assert set(map(repr, map(facts, found))) <= set(map(repr, map(facts, told)))
    assert found == [] or reader.damaged or len(found) <= len(told)


@given(st.binary(max_size=300))
def test_noise_is_no_recording(noise: bytes) -> None:
    with pytest.raises(RecordingUnreadable):
        RecordingReader(io.BytesIO(noise))
    with pytest.raises(RecordingUnreadable):
        RecordingReader(io.BytesIO(MAGIC + noise))


def piece(kind: int, body: bytes) -> bytes:
    return struct.pack("<BII", kind, len(body), zlib.crc32(body)) + body


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"made_at": "2026-11-22T12:00:00Z", "site": "UPPER"}',
        b'{"made_at": "9999-12-31T23:59:59-23:00", "site": "here"}',
        b'{"made_at": "2026-11-22T12:00:00Z", "site": "here", "pbx": [{"name": "a", "rules": {"trunks": 5}}]}',
        b'{"made_at": "2026-11-22T12:00:00Z", "site": "here", "pbx": [{"name": "a", "rules": {"numbers": 5}}]}',
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header: bytes) -> None:
    with pytest.raises(RecordingUnreadable, match="damaged"):
        RecordingReader(io.BytesIO(MAGIC + piece(1, header)))


def test_a_newer_format_is_refused_with_what_to_do() -> None:
    with pytest.raises(RecordingUnreadable, match="update this one"):
        RecordingReader(io.BytesIO(MAGIC + piece(1, b'{"format": 2, "things": []}')))


def test_pieces_of_a_kind_unknown_are_passed_over() -> None:
    told = Segment(0, "main", "boot", 1, NOON, 0, [Frame(0, b"Event: X")])

    reader, found = read(head_of(HEADER) + piece(9, b"of tomorrow") + piece_of(stored(told)))

    assert (list(map(facts, found)), reader.damaged) == ([facts(told)], 0)


def _claims(raw: bytes) -> bytes:
    blob = b"\x01" + zstandard.ZstdCompressor().compress(raw)
    return piece_of(StoredSegment("main", "boot", 1, NOON, 0, blob))


@pytest.mark.parametrize(
    "body",
    [bytes(80 << 20), struct.pack("<I", 4_000_000) + bytes(12 * 4_000_000)],
    ids=["more bytes than any segment", "more frames than any segment"],
)
def test_a_few_bytes_that_claim_to_be_very_much_are_left_out(body: bytes) -> None:
    reader, found = read(head_of(HEADER) + _claims(body))

    assert (found, reader.damaged) == ([], 1)


def test_a_segment_of_a_pbx_or_a_time_that_cannot_be_is_left_out() -> None:
    stranger = Segment(0, "stranger", "boot", 1, NOON, 0, [Frame(0, b"Event: X")])
    ancient = Segment(0, "main", "boot", 1, datetime(1601, 1, 1, tzinfo=UTC), 0, [Frame(0, b"Event: X")])
    endless = Segment(0, "main", "boot", 1, NOON, 0, [Frame(2**64 - 1, b"Event: X")])

    reader, found = read(file_of(stranger, ancient, endless))

    assert (found, reader.damaged) == ([], 3)


def test_a_header_tells_nothing_secret() -> None:
    told = head_of(HEADER).decode("utf-8", "replace")

    assert not any(word in told for word in ("secret", "password", "host", "username"))
