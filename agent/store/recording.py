"""A recording: what PBXes said, out of a journal, as one file for support, with the rules that make calls of it.

    magic       b"sentiric-edge recording\\n"
    pieces      as `agent.store.pieces` frames them; unknown kinds are passed over

    kind 1      the header, JSON, always the first: `format`, `site`, each PBX with its kind and rules, tenancy; nothing
                secret
    kind 2      a segment: u16 and the PBX's name, u16 and the boot id, u32 connection, i64 microseconds since 1970,
                i64 monotonic nanoseconds, and the blob of `agent.store.segment`

Pieces are whole or worthless, so a file that was cut off is read up to the cut, and one that grows can be copied.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BufferedIOBase
from typing import Annotated, Any, Final, NamedTuple

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.calls.rules import CallRules
from agent.store.pieces import Piece, PieceReader, piece
from agent.store.segment import Segment, SegmentDamaged, decode
from config.settings import Encoding, PlainName, TenancySettings

MAGIC: Final = b"sentiric-edge recording\n"
FORMAT: Final = 1

_HEADER: Final = 1
_SEGMENT: Final = 2
_FACTS: Final = struct.Struct("<Iqq")
_MAX_HEADER_BYTES: Final = 1 << 20
# The agent stops reading a PBX long before so much waits for one commit.
MAX_SEGMENT_BYTES: Final = 64 << 20
_MAX_FRAMES: Final = 1 << 20
_OLDEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NEWEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RecordingUnreadable(ValueError):
    """The file is no recording that this program can read; the text says why, without the file's name."""


class RecordedPbx(BaseModel):
    """One PBX in a recording: what it is, and the rules of its calls, by the names of `CallRules`."""

    model_config = ConfigDict(frozen=True)

    name: PlainName
    kind: str = "asterisk"
    encoding: Encoding | None = None  # of names that are no UTF-8
    rules: dict[str, Any] = Field(default_factory=dict)  # Any: each rule's own type, checked when rules are made of it

    def call_rules(self) -> CallRules:
        """The rules that this program knows; the others' place is taken by its defaults."""
        known = {rule.name: rule.default for rule in fields(CallRules) if rule.init}
        told = {name: value for name, value in self.rules.items() if name in known}
        return CallRules(**{name: _as_rule(value, known[name]) for name, value in told.items()})


class RecordingHeader(BaseModel):
    """What a recording begins with."""

    model_config = ConfigDict(frozen=True)

    format: Annotated[int, Field(ge=1)] = FORMAT
    program: str = ""  # version of the program that made it
    made_at: datetime
    site: PlainName
    tenancy: TenancySettings = TenancySettings()
    pbx: tuple[RecordedPbx, ...] = ()


class StoredSegment(NamedTuple):
    """A segment as it stands in the journal, not unpacked."""

    pbx: str
    boot_id: str
    connection: int
    first_at: datetime
    monotonic_ns: int
    blob: bytes


def told_rules(rules: CallRules) -> dict[str, Any]:  # Any: as in `RecordedPbx`
    """Rules as they stand in a header."""
    return {rule.name: _plain(getattr(rules, rule.name)) for rule in fields(rules) if rule.init}


def head_of(header: RecordingHeader) -> bytes:
    """What a recording's file begins with."""
    return MAGIC + piece(_HEADER, header.model_dump_json(exclude_defaults=False).encode())


def piece_of(segment: StoredSegment) -> bytes:
    """What is appended for a segment."""
    return piece(_SEGMENT, body_of(segment))


def body_of(segment: StoredSegment) -> bytes:
    """A segment as its piece's body."""
    microseconds = (segment.first_at - _EPOCH) // timedelta(microseconds=1)
    facts = _FACTS.pack(segment.connection, microseconds, segment.monotonic_ns)
    return _text(segment.pbx) + _text(segment.boot_id) + facts + segment.blob


def segment_of(number: int, body: bytes) -> Segment:
    """The segment that `body_of` packed, by this id. Raises SegmentDamaged for anything else."""
    try:
        pbx, at = _text_at(body, 0)
        boot_id, at = _text_at(body, at)
        connection, microseconds, monotonic_ns = _FACTS.unpack_from(body, at)
        first_at = _EPOCH + timedelta(microseconds=microseconds)
        blob = body[at + _FACTS.size :]
        _check_size(blob)
        segment = Segment(number, pbx, boot_id, connection, first_at, monotonic_ns, decode(blob))
        _last_at(segment)  # offsets that lead beyond all time are damage
    except (struct.error, UnicodeDecodeError, OverflowError, zstandard.ZstdError) as exc:
        raise SegmentDamaged(str(exc)) from exc
    return segment


class RecordingReader:
    """Reads a recording from a stream, piece by piece.

    Raises RecordingUnreadable at once if the stream holds none. Afterwards `damaged` tells how many segments were left
    out, and `was_cut` whether the file ends in the middle of a piece.
    """

    def __init__(self, stream: BufferedIOBase) -> None:
        self._pieces = PieceReader(stream)
        self.damaged = 0
        if stream.read(len(MAGIC)) != MAGIC:
            raise RecordingUnreadable("it is no recording of this program")
        head = self._next(_MAX_HEADER_BYTES)
        if head is None or head.kind != _HEADER or head.body is None:
            raise RecordingUnreadable("its beginning is cut off or damaged")
        self.header = _header(head.body)

    @property
    def was_cut(self) -> bool:
        """Whether the file ends in the middle of a piece."""
        return self._pieces.was_cut

    def segments(self) -> Iterator[Segment]:
        """Every segment up to the end, or to where the file was cut off; damaged ones are left out and counted."""
        number = 0
        names = {pbx.name for pbx in self.header.pbx}
        while (found := self._next(MAX_SEGMENT_BYTES)) is not None:
            if found.body is not None and found.kind != _SEGMENT:
                continue
            number += 1
            try:
                if found.body is None:
                    raise SegmentDamaged("the checksum is wrong")
                segment = _of_our_time(segment_of(number, found.body))
            except SegmentDamaged:
                self.damaged += 1
                continue
            if segment.pbx in names:
                yield segment
            else:
                self.damaged += 1

    def _next(self, max_bytes: int) -> Piece | None:
        """The next piece, or None at the end; one that is too long for its kind ends everything and counts."""
        found = self._pieces.next(max_bytes)
        self.damaged += found is None and self._pieces.is_lost
        return found


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "replace")
    return struct.pack("<H", len(encoded)) + encoded


def _plain(rule: Any) -> Any:  # Any: what a rule is, and what JSON holds
    return asdict(rule) if is_dataclass(rule) and not isinstance(rule, type) else rule


def _as_rule(value: Any, default: Any) -> Any:  # Any: what JSON holds, and what a rule is
    """A rule as its type is, which that of the default shows."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(map(str, value))
    if is_dataclass(default) and not isinstance(default, type) and isinstance(value, dict):
        known = {part.name: part.default for part in fields(default) if part.init}
        told = {name: _as_rule(each, known[name]) for name, each in value.items() if name in known}
        return replace(default, **told)
    if default is None and isinstance(value, str | None):
        return value
    raise TypeError("a rule is of another type than this program's")


def _header(body: bytes) -> RecordingHeader:
    try:
        raw = json.loads(body)
        if isinstance(raw, Mapping) and isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
            raise RecordingUnreadable("it was made by a newer version of this program; update this one")
        header = RecordingHeader.model_validate(raw)
        if not _OLDEST <= header.made_at.astimezone(UTC) < _NEWEST:
            raise RecordingUnreadable("its header is damaged")
        for pbx in header.pbx:
            pbx.call_rules()
    except RecordingUnreadable:
        raise
    except (ValidationError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as exc:
        raise RecordingUnreadable("its header is damaged, or made by a newer version of this program") from exc
    return header


def _of_our_time(segment: Segment) -> Segment:
    if not _OLDEST <= segment.first_at <= _last_at(segment) < _NEWEST:
        raise SegmentDamaged("it is of no time that can be")
    return segment


def _last_at(segment: Segment) -> datetime:
    return segment.first_at + timedelta(microseconds=max((frame.offset_us for frame in segment.frames), default=0))


def _text_at(body: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<H", body, at)
    end = at + 2 + length
    if end > len(body):
        raise SegmentDamaged("a name is cut off")
    return body[at + 2 : end].decode(), end


def _check_size(blob: bytes) -> None:
    """A blob from who knows where is looked at before it is unpacked: a few bytes of it may claim to be very much."""
    packed = blob[1:]
    if not 0 <= zstandard.frame_content_size(packed) <= MAX_SEGMENT_BYTES:
        raise SegmentDamaged("it is larger than any segment")
    with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        (count,) = struct.unpack("<I", reader.read(4))
    if count > _MAX_FRAMES:
        raise SegmentDamaged("it claims more frames than any segment has")
