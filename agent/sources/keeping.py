"""What a source told becomes durable at once: its calls, what was no record, its new place and the gaps it fills."""

import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from agent.sources.gathering import GatheredCall
from agent.store import sources
from agent.store.merge import ToldCall, merging
from agent.store.queue_calls import name_of_queue_call
from agent.store.rows import json_text
from agent.store.sources import Blindness, Reject, SourceState
from config import failpoints

log = logging.getLogger(__name__)

_LIVE: Final = "SELECT call_sid FROM live_call WHERE call_sid IN (SELECT value FROM json_each(?))"
_QUEUE_LOG: Final = "queue_log"
_FAR_FUTURE: Final = datetime.max.replace(tzinfo=UTC)
# So long one transaction may look and write: capture waits meanwhile.
_WRITE_SECONDS: Final = 0.02


@dataclass(slots=True)
class Kept:
    """What came of it."""

    live: set[str] = field(default_factory=set)  # calls that still go on by the live feed: to be told again later
    found: int = 0  # calls that were not known, or not wholly
    confirmed: int = 0
    filled: int = 0  # gaps
    done: int = 0  # of the calls, from the first on; the others are for the next transaction


def live_calls(connection: sqlite3.Connection, calls: Sequence[GatheredCall]) -> set[str]:
    """Which of the calls still go on by the live feed, or have a leg that it takes for a call of its own as yet."""
    names = {call.sid: [call.sid, *_legs(call)] for call in calls}
    asked = json_text([name for own in names.values() for name in own])
    live = {sid for (sid,) in connection.execute(_LIVE, (asked,))}
    return {sid for sid, own in names.items() if not live.isdisjoint(own)} if live else set()


def _legs(call: GatheredCall) -> list[str]:
    """How calls would be named that its legs seem to be to who missed a part."""
    prefix = call.sid.rpartition(":")[0]
    return [f"{prefix}:{leg['channel']}" for leg in call.row.get("legs", ()) if "channel" in leg]


def keep_calls(
    connection: sqlite3.Connection,
    calls: Sequence[GatheredCall],
    *,
    pbx: str,
    since: datetime,
    now: str,
) -> tuple[Kept, list[Reject]]:
    """Tell the store of calls, those left out that ended before `since` and are of no gap's time. Inside a transaction.

    At least of the first one, and of so many as time allows. A call that cannot be written at all is a reject, so that
    it stops nobody else.
    """
    kept, rejects = Kept(live=live_calls(connection, calls)), list[Reject]()
    gaps = sources.unfilled(connection, pbx)
    ends_at = time.perf_counter() + _WRITE_SECONDS
    for call in calls:
        if kept.done and time.perf_counter() > ends_at:
            break
        kept.done += 1
        if call.sid in kept.live:
            continue
        of_gaps = [gap.id for gap in gaps if _overlaps(call, gap)]
        if call.end_time < since and not of_gaps:
            continue
        if call.row["source"] == _QUEUE_LOG:
            named = name_of_queue_call(connection, call.row)
            if named.call_sid is None:
                kept.confirmed += not named.is_told_later
                kept.live |= {call.sid} if named.is_told_later else set()
                continue
            call = replace(call, row=call.row | {"call_sid": named.call_sid})  # noqa: PLW2901
        try:
            result = merging([ToldCall.of(call.row, call.tenant)], now=now)(connection)
        except (ValueError, TypeError, OverflowError) as exc:
            log.error("a call of a source cannot be written: %s", exc, extra={"call_sid": call.sid})
            rejects.append(Reject(call.sid, b"", f"it cannot be written: {exc}"))
            continue
        is_found = bool(result.new or result.amended)
        kept.found += is_found
        kept.confirmed += not is_found and not result.gone
        if is_found:
            sources.count_found(connection, of_gaps)
    return kept, rejects


def _overlaps(call: GatheredCall, gap: Blindness) -> bool:
    return call.start_time <= (gap.to_at or _FAR_FUTURE) and call.end_time >= gap.from_at


def advance(
    connection: sqlite3.Connection,
    state: SourceState,
    rejects: Sequence[Reject],
    *,
    known_from: datetime | None,
    known_until: datetime | None,
    now: str,
) -> int:
    """Keep how far the source was read, and mark the gaps that it fills; how many. Inside the same transaction."""
    sources.note_rejects(connection, state.pbx, state.source, rejects, now=now)
    failpoints.hit("source.place.before")
    sources.keep(connection, state, now=now)
    if known_from is None or known_until is None:
        return 0
    return sources.fill(connection, state.pbx, known_from=known_from, known_until=known_until, by=state.source, now=now)
