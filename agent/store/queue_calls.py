"""Which call a queue log's account is of: it knows only the channel that waited, which need not be the call's first.

To be run inside a transaction.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from agent.store.moments import moment_text

_LONGEST: Final = timedelta(hours=2)  # from a call's beginning to its first queue
_NEAR: Final = timedelta(seconds=2)

_BY_NAME: Final = "SELECT 1 FROM call WHERE call_sid = ?"
# To look for the text is some ten times as fast as to read the JSON; ids are long enough.
_AT_THAT_TIME: Final = (
    "SELECT call_sid, instr(legs, :channel) > 0 FROM call WHERE pbx = :pbx AND start_time BETWEEN :since AND :entered "
    "AND end_time >= :left AND source <> :source AND merged_into IS NULL "
    "AND (queue = :queue AND caller_id = :caller OR instr(legs, :channel)) LIMIT 3"
)
_GAP: Final = "SELECT max(to_at IS NULL) FROM gap WHERE pbx = ? AND from_at <= ? AND (to_at IS NULL OR to_at >= ?)"
_WAS_HEARD: Final = "SELECT 1 FROM call WHERE pbx = ? AND start_time <= ? AND source LIKE 'ami%' LIMIT 1"
_STILL_LIVE: Final = "SELECT 1 FROM live_call WHERE pbx = ? AND start_time <= ? LIMIT 1"


@dataclass(frozen=True, slots=True)
class Named:
    """`call_sid` of the call, a new one where nobody else tells of it. None: to be told later, or never."""

    call_sid: str | None = None
    is_told_later: bool = False


def name_of_queue_call(connection: sqlite3.Connection, account: Mapping[str, Any]) -> Named:  # Any: columns
    """Whose account it is.

    A call by itself only where the PBX was not heard: what was heard bears another name, and is known wholly.
    """
    call_sid, pbx = str(account["call_sid"]), account["pbx"]
    if connection.execute(_BY_NAME, (call_sid,)).fetchone():
        return Named(call_sid)
    if (known := _known_otherwise(connection, account)) is not None:
        return Named(known)
    start, end = moment_text(account["start_time"]), moment_text(account["end_time"])
    is_open = connection.execute(_GAP, (pbx, end, start)).fetchone()[0]
    if is_open is None and connection.execute(_WAS_HEARD, (pbx, end)).fetchone():
        return Named()
    may_be_told = (is_open and account["end_estimated"]) or connection.execute(_STILL_LIVE, (pbx, end)).fetchone()
    return Named(is_told_later=True) if may_be_told else Named(call_sid)


def _known_otherwise(connection: sqlite3.Connection, account: Mapping[str, Any]) -> str | None:
    """The only call that has the channel among its legs, or had the same caller in the same queue at that time."""
    waited = [datetime.fromisoformat(entry["at"]) for entry in account["timeline"] if entry["event"] == "queued"]
    entered = waited[0] if waited else account["start_time"]
    values = {
        "pbx": account["pbx"],
        "since": moment_text(entered - _LONGEST),
        "entered": moment_text(entered + _NEAR),
        "left": moment_text(account["end_time"] - _NEAR),
        "source": account["source"],
        "channel": json.dumps(account["call_sid"].rpartition(":")[2]),
        "queue": account["queue"],
        "caller": account["caller_id"],
    }
    found = connection.execute(_AT_THAT_TIME, values).fetchall()
    found = [each for each in found if each[1]] or found
    return str(found[0][0]) if len(found) == 1 else None
