"""Gaps that were filled at somebody's word, as a command tells it to whoever holds the database."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from agent.store import sources


@dataclass(frozen=True, slots=True)
class Filling:
    """What was read of a PBX, and how many calls were found of the time of each gap, by its id."""

    pbx: str
    by: str
    known_from: datetime  # of the calls that ended between the two, all were told
    known_until: datetime
    found: dict[int, int]

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        return {
            "pbx": self.pbx,
            "by": self.by,
            "known_from": self.known_from.isoformat(),
            "known_until": self.known_until.isoformat(),
            "found": {str(key): count for key, count in self.found.items()},
        }

    @classmethod
    def from_dict(cls, told: Any) -> Self:  # Any: JSON
        """What `as_dict` told. Raises ValueError, TypeError, KeyError or AttributeError for anything else."""
        known_from, known_until = (datetime.fromisoformat(told[name]) for name in ("known_from", "known_until"))
        if known_from.tzinfo is None or known_until.tzinfo is None:
            raise ValueError("a moment needs a zone")
        found = {int(key): int(count) for key, count in told["found"].items()}
        return cls(str(told["pbx"]), str(told["by"]), known_from, known_until, found)


def fill(connection: sqlite3.Connection, filling: Filling, *, now: str) -> int:
    """Count what was found, and mark the gaps of that time as filled; how many. Inside a transaction.

    Gaps in which a call began that still goes on stay open.
    """
    for gap_id, count in filling.found.items():
        sources.count_found(connection, [gap_id], calls=count)
    return sources.fill(
        connection,
        filling.pbx,
        known_from=filling.known_from,
        known_until=filling.known_until,
        by=filling.by,
        now=now,
    )
