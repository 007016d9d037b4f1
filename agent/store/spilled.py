"""Groups of facts and raw segments as pieces of a spill's file.

    kind 2      a group: u64 the last segment's id, u64 up to which offset of the file raw segments are heard in this
                group and earlier ones, u32 and the facts, a zstd frame of JSON, then u32 and the body for each segment
    kind 3      a raw segment, of which no id is known: the body

A segment's body is that of `agent.store.recording`. Calls are encoded as their columns are.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import zstandard

from agent.calls.context import TaskState
from agent.store import rows
from agent.store.accounts import decoded
from agent.store.moments import moment_of, moment_text
from agent.store.recording import StoredSegment, body_of, segment_of
from agent.store.segment import Segment, SegmentDamaged, encode
from agent.store.writer import FinishedCall, GapClosed, GapOpened, Group, LiveAnchor

GROUP: Final = 2
RAW: Final = 3

_HEAD: Final = struct.Struct("<QQI")
_LENGTH: Final = struct.Struct("<I")
_LEVEL: Final = 3
_MAX_FACTS_BYTES: Final = 256 << 20

Json = dict[str, Any]  # Any: JSON


class Head(NamedTuple):
    """What is known of a group without unpacking it."""

    last_segment_id: int
    heard: int
    facts_bytes: int


def pack_group(group: Group, *, heard: int) -> bytes:
    """A group as a piece's body. Raises ValueError, TypeError or OverflowError for facts that cannot be written."""
    facts = zstandard.ZstdCompressor(level=_LEVEL).compress(rows.json_text(_told(group)).encode())
    bodies = [pack_segment(segment) for segment in group.segments]
    last_id = max((segment.id for segment in group.segments), default=0)
    parts = [_HEAD.pack(last_id, heard, len(facts)), facts]
    for body in bodies:
        parts += [_LENGTH.pack(len(body)), body]
    return b"".join(parts)


def head_of_group(body: bytes) -> Head:
    """Raises SegmentDamaged if there is none."""
    try:
        return Head(*_HEAD.unpack_from(body))
    except struct.error as exc:
        raise SegmentDamaged(str(exc)) from exc


def unpack_group(body: bytes) -> Group:
    """The group. Raises SegmentDamaged for anything that `pack_group` did not write."""
    try:
        at = _HEAD.size + head_of_group(body).facts_bytes
        packed = body[_HEAD.size : at]
        facts: Json = json.loads(zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MAX_FACTS_BYTES))
        segments = []
        for segment_id in facts["segments"]:
            (length,) = _LENGTH.unpack_from(body, at)
            at += _LENGTH.size
            segments.append(segment_of(segment_id, body[at : at + length]))
            at += length
        return Group(
            segments=segments,
            opened=[LiveAnchor(sid, pbx, number, moment_of(at)) for sid, pbx, number, at in facts["opened"]],
            finished=[_finished(call) for call in facts["finished"]],
            forgotten=facts["forgotten"],
            moved=[(sid, into) for sid, into in facts["moved"]],
            gaps=[_gap(gap) for gap in facts["gaps"]],
        )
    except (struct.error, ValueError, KeyError, TypeError, zstandard.ZstdError) as exc:
        raise SegmentDamaged(f"no group of facts: {exc}") from exc


def pack_segment(segment: Segment) -> bytes:
    """A raw segment as a piece's body."""
    return body_of(
        StoredSegment(
            segment.pbx,
            segment.boot_id,
            segment.connection,
            segment.first_at,
            segment.monotonic_ns,
            encode(segment.frames),
        )
    )


def _told(group: Group) -> Json:
    return {
        "segments": [segment.id for segment in group.segments],
        "opened": [(call.call_sid, call.pbx, call.journal_id, moment_text(call.start_time)) for call in group.opened],
        "finished": [_told_call(call) for call in group.finished],
        "forgotten": list(group.forgotten),
        "moved": list(group.moved),
        "gaps": [_told_gap(gap) for gap in group.gaps],
    }


def _told_call(call: FinishedCall) -> Json:
    tasks = call.tasks
    return {
        "row": rows.encode_call(call.row),
        "tenant": call.tenant,
        "tasks": None if tasks is None else [(t.task_name, t.state_data, moment_text(t.start_time)) for t in tasks],
        "interactions": None if call.interactions is None else list(call.interactions),
    }


def _finished(told: Json) -> FinishedCall:
    return FinishedCall(decoded(told["row"]), told["tenant"], _tasks(told["tasks"]), told["interactions"])


def _tasks(told: Sequence[tuple[str, Mapping[str, Any], str]] | None) -> list[TaskState] | None:
    if told is None:
        return None
    return [TaskState(task_name=name, state_data=dict(data), start_time=moment_of(at)) for name, data, at in told]


def _told_gap(gap: GapOpened | GapClosed) -> Json:
    match gap:
        case GapOpened():
            return {"pbx": gap.pbx, "from": moment_text(gap.from_at), "reason": str(gap.reason), "detail": gap.detail}
        case GapClosed():
            return {"pbx": gap.pbx, "to": moment_text(gap.to_at)}


def _gap(told: Json) -> GapOpened | GapClosed:
    if "to" in told:
        return GapClosed(told["pbx"], moment_of(told["to"]))
    return GapOpened(told["pbx"], moment_of(told["from"]), told["reason"], told["detail"])
