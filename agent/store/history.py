"""Parts of the journal from a moment on, read on any connection: for rebuilding, explaining and recording calls.

Ids grow with time, so a moment is found among them by halves. Where a clock was set back by more than the margins that
readers take, what was said in the time that came twice may not be found so.
"""

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from agent.store.moments import moment_of
from agent.store.segment import Frame, Segment, SegmentDamaged, decode

# What one part holds in memory, as raw bytes.
_PART_BYTES = 4 * 1024 * 1024

SEGMENTS = (
    "SELECT id, boot_id, connection, first_at, monotonic_ns, raw_size, blob FROM journal_segment "
    "WHERE pbx = ? AND id >= ? AND id <= ? ORDER BY id LIMIT 256"
)
OLDEST = "SELECT id, first_at FROM journal_segment WHERE pbx = ? ORDER BY id LIMIT 1"
NEWEST = "SELECT id, last_at FROM journal_segment WHERE pbx = ? ORDER BY id DESC LIMIT 1"
FROM_ID = "SELECT id, last_at FROM journal_segment WHERE pbx = ? AND id >= ? ORDER BY id LIMIT 1"
# Every PBX that ever spoke, found by jumping through the index instead of walking it.
PBX_NAMES = """WITH RECURSIVE name (pbx) AS (
    SELECT min(pbx) FROM journal_segment
    UNION ALL SELECT (SELECT min(pbx) FROM journal_segment WHERE pbx > name.pbx) FROM name WHERE name.pbx IS NOT NULL
) SELECT pbx FROM name WHERE pbx IS NOT NULL"""


class Span(NamedTuple):
    """What the journal holds of one PBX."""

    first_id: int
    first_at: datetime
    last_id: int
    last_at: datetime


class Part(NamedTuple):
    """Some segments in order, the ids of damaged ones that stand before them, and the id to go on from."""

    segments: list[Segment]
    damaged: list[int]
    next_id: int


def pbx_names(connection: sqlite3.Connection) -> list[str]:
    """Every PBX the journal holds something of."""
    return [str(pbx) for (pbx,) in connection.execute(PBX_NAMES).fetchall()]


def span(connection: sqlite3.Connection, pbx: str) -> Span | None:
    """From when to when the journal goes for a PBX; None if it holds nothing of it."""
    oldest = connection.execute(OLDEST, (pbx,)).fetchone()
    newest = connection.execute(NEWEST, (pbx,)).fetchone()
    if oldest is None or newest is None:
        return None
    return Span(oldest[0], moment_of(oldest[1]), newest[0], moment_of(newest[1]))


def id_at(connection: sqlite3.Connection, pbx: str, moment: datetime) -> int:
    """The first segment in which something may have come at `moment` or later; beyond the last if there is none."""
    held = span(connection, pbx)
    if held is None or held.last_at < moment:
        return held.last_id + 1 if held else 1
    low, high = held.first_id, held.last_id  # the one looked for is among low … high
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(FROM_ID, (pbx, middle)).fetchone()
        if found is not None and moment_of(found[1]) < moment:
            low = found[0] + 1
        else:
            high = middle
    return low


def read_part(connection: sqlite3.Connection, pbx: str, *, first: int, last: int) -> Part:
    """Some segments from `first` on, none beyond `last`."""
    segments: list[Segment] = []
    damaged: list[int] = []
    size, next_id = 0, last + 1
    cursor = connection.execute(SEGMENTS, (pbx, first, last))
    for segment_id, boot_id, number, first_at, monotonic_ns, raw_size, blob in cursor:
        next_id = segment_id + 1
        try:
            frames = decode(blob)
        except SegmentDamaged:
            if segments:
                next_id = segment_id  # the next part begins with it
                break
            damaged.append(segment_id)
            continue
        segments.append(Segment(segment_id, pbx, boot_id, number, moment_of(first_at), monotonic_ns, frames))
        size += raw_size
        if size > _PART_BYTES:
            break
    cursor.close()
    return Part(segments, damaged, next_id)


def timed(segment: Segment) -> Iterator[tuple[Frame, datetime]]:
    """The frames of a segment, each with the moment it came."""
    for frame in segment.frames:
        yield frame, segment.first_at + timedelta(microseconds=frame.offset_us)
