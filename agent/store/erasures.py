"""Erased persons, as the store remembers them: which calls are emptied for good, and which told ones are of them.

Everything here is to be run inside a transaction or a short read.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, Self

from agent.calls.person import plain_number
from agent.store.moments import moment_of
from agent.store.rows import Encoded, EncodedCall, json_text

NUMBERS: Final = ("caller_id", "caller_e164", "callee_id", "callee_e164", "answered_by", "last_answered_by")
_CALLER: Final = ("caller_id", "caller_e164", "caller_name")
_CALLEE: Final = ("callee_id", "callee_e164")
# What a call tells of persons beside the numbers.
_EMPTY: Final[EncodedCall] = {"legs": "[]", "timeline": "[]", "full_transcript": "[]", "recording": None}
_SEALED: Final = "SELECT call_sid FROM erased_call WHERE call_sid IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Erased:
    """A row of the table `erasure`, for people."""

    id: int
    at: datetime
    by: str
    tenant: str | None
    hash: str  # of the number's first form
    calls: int
    mentions: int
    frames: int
    is_complete: bool

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"at": self.at.isoformat()}


def history(connection: sqlite3.Connection) -> list[Erased]:
    """Every erasure, the latest first."""
    query = 'SELECT id, at, "by", tenant, hashes, calls, mentions, frames, ended_at FROM erasure ORDER BY id DESC'
    return [
        Erased(key, moment_of(at), by, tenant, json.loads(hashes)[0], calls, mentions, frames, ended_at is not None)
        for key, at, by, tenant, hashes, calls, mentions, frames, ended_at in connection.execute(query).fetchall()
    ]


def sealed(connection: sqlite3.Connection, sids: Iterable[Encoded]) -> frozenset[str]:
    """Those of the calls that were emptied for good."""
    if connection.execute("SELECT 1 FROM erased_call LIMIT 1").fetchone() is None:
        return frozenset()
    return frozenset(sid for (sid,) in connection.execute(_SEALED, (json_text(list(sids)),)))


def seal(connection: sqlite3.Connection, erasure_id: int, sids: Iterable[str]) -> None:
    """Nothing is told of these calls any more."""
    connection.executemany(
        "INSERT INTO erased_call (call_sid, erasure_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(sid, erasure_id) for sid in sids],
    )


def hash_of(form: str, salt: bytes) -> str:
    """A number's form as it is kept."""
    return blake2b(form.encode(), key=salt, digest_size=16).hexdigest()


def emptied(row: EncodedCall, is_person: Mapping[str, bool]) -> EncodedCall:
    """What is written instead of a call: nothing that tells of the person. `is_person` by column of `NUMBERS`."""
    gone = [name for name in NUMBERS if is_person.get(name)]
    for together in (_CALLER, _CALLEE):
        if not set(gone).isdisjoint(together):
            gone += together
    return {**row, **dict.fromkeys(gone), **_EMPTY}


class Suppression:
    """The erased persons' numbers, against calls that began before and are told, as if new, after the erasure."""

    def __init__(self, erasures: Sequence[tuple[int, str, str | None, bytes, frozenset[str]]]) -> None:
        self._erasures = erasures

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Self:
        """What the database holds."""
        found = connection.execute("SELECT id, at, tenant, salt, hashes FROM erasure").fetchall()
        return cls([(key, at, tenant, salt, frozenset(json.loads(hashes))) for key, at, tenant, salt, hashes in found])

    def told(self, row: EncodedCall, tenant: str | None) -> tuple[EncodedCall, int] | None:
        """The emptied call and whose erasure it is; None if the call is nobody's who was erased."""
        for erasure_id, at, of_tenant, salt, hashes in self._erasures:
            if str(row["start_time"]) >= at or of_tenant not in {None, tenant}:
                continue
            is_person = {
                name: hash_of(plain_number(str(row[name])), salt) in hashes for name in NUMBERS if row.get(name)
            }
            if any(is_person.values()):
                return emptied(row, is_person), erasure_id
        return None
