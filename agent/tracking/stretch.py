"""From where on the journal has to be heard again, so that a call and all it is joined with are known wholly."""

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from agent.pbx.feed import Interpreter
from agent.store.history import id_at, read_part, span, timed
from agent.store.moments import moment_of, moment_text

# How much earlier than a call's first moment, by the PBX's clock, its first frame may have come by ours.
_CLOCK_MARGIN: Final = timedelta(minutes=15)
# Segments looked through for a time that the PBX tells.
_CLOCK_SEGMENTS: Final = 100
# Calls that last longer than this and began before are not looked for.
_LONGEST: Final = timedelta(days=1)

_EARLIEST: Final = (
    "SELECT min(start_time) FROM call WHERE pbx = ? AND start_time >= ? AND start_time < ? AND end_time >= ?"
)
_EARLIEST_LIVE: Final = "SELECT min(journal_id) FROM live_call WHERE pbx = ? AND start_time < ?"


def first_segment(
    connection: sqlite3.Connection, pbx: str, begun: datetime, *, interpreter: Callable[[], Interpreter]
) -> int:
    """The segment from which on all calls that went on at `begun` are heard wholly, if the journal goes so far back."""
    moment = moment_text(begun)
    earlier = connection.execute(_EARLIEST, (pbx, moment_text(begun - _LONGEST), moment, moment)).fetchone()[0]
    live = connection.execute(_EARLIEST_LIVE, (pbx, moment)).fetchone()[0]
    needed = (moment_of(earlier) if earlier else begun) - _CLOCK_MARGIN
    first = id_at(connection, pbx, needed)
    ahead = _clock_ahead(connection, pbx, first, interpreter())
    if ahead > _CLOCK_MARGIN / 2:
        first = id_at(connection, pbx, needed - ahead)
    return min(first, live) if live is not None else first


def _clock_ahead(connection: sqlite3.Connection, pbx: str, first: int, interpreter: Interpreter) -> timedelta:
    """How far the PBX's clock was before ours then, or when the journal began; nothing if it tells no times."""
    held = span(connection, pbx)
    for begin in (first, held.first_id if held else first):
        for segment in read_part(connection, pbx, first=begin, last=begin + _CLOCK_SEGMENTS).segments:
            for frame, at in timed(segment):
                event = interpreter.interpret(frame.data, at)
                if event is not None and event.at != at:
                    return event.at - at
    return timedelta()
