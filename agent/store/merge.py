"""Calls that a second source tells, put into the database: new ones are kept, known ones gain what they lacked.

One transaction for some hundreds, so that capture goes on between them. Live calls are left alone: the tracker tells
them when they end.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self

import orjson

from agent.calls.merging import merged
from agent.store import rows
from agent.store.rows import Encoded, EncodedCall, moment_of
from agent.store.writer import enqueue, tenant_id_of

MAX_CALLS = 1000  # told at once


@dataclass(frozen=True, slots=True)
class ToldCall:
    """A call as another source tells it: columns of `Call` by name, and the tenant's name by the present rules."""

    row: Mapping[str, Any]  # Any: the columns' own types
    tenant: str | None = None


@dataclass(slots=True)
class MergeResult:
    """What telling did: calls by what became of them."""

    new: int = 0
    amended: int = 0
    unchanged: int = 0
    live: int = 0  # left alone, because they are still going on

    def add(self, other: Self) -> None:
        """Count together."""
        self.new += other.new
        self.amended += other.amended
        self.unchanged += other.unchanged
        self.live += other.live

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Known:
    id: int
    tenant_id: int | None
    revision: int
    row: EncodedCall


@dataclass(slots=True)
class _Work:
    """What is to be written of one group."""

    new: list[EncodedCall] = field(default_factory=list)
    changed: list[EncodedCall] = field(default_factory=list)
    given: list[tuple[int, int]] = field(default_factory=list)  # tenant and call whose children bear it too


def merging(
    calls: Sequence[ToldCall], *, now: str, dry_run: bool = False
) -> Callable[[sqlite3.Connection], MergeResult]:
    """What is to be run as one transaction. Raises ValueError for columns that are none of a call."""
    told: dict[str, tuple[ToldCall, EncodedCall]] = {}
    for call in calls:
        encoded = rows.encode_call(call.row)
        told[str(encoded["call_sid"])] = (call, encoded)

    def work(connection: sqlite3.Connection) -> MergeResult:
        return _merge(connection, told, now, dry_run=dry_run)

    return work


def _merge(
    connection: sqlite3.Connection, told: Mapping[str, tuple[ToldCall, EncodedCall]], now: str, *, dry_run: bool
) -> MergeResult:
    sids = rows.json_text(list(told))
    known = _read_known(connection, sids)
    live = {sid for (sid,) in connection.execute(_LIVE, (sids,))}
    result, work = MergeResult(), _Work()
    tenants: dict[str, int] = {}
    for sid, (call, encoded) in told.items():
        if sid in live:
            result.live += 1
            continue
        tenant_id = None if dry_run else _tenant_id(connection, call.tenant, tenants)
        old = known.get(sid)
        if old is None:
            result.new += 1
            work.new.append({**rows.with_defaults(encoded), "tenant_id": tenant_id})
            continue
        changes = _changes(connection, old, call, encoded)
        if changes or (old.tenant_id is None and call.tenant is not None):
            result.amended += 1
            _amend(work, old, changes, tenant_id)
        else:
            result.unchanged += 1
    if not dry_run:
        _write(connection, work, now)
    return result


def _tenant_id(connection: sqlite3.Connection, name: str | None, found: dict[str, int]) -> int | None:
    if name is None:
        return None
    if name not in found:
        found[name] = tenant_id_of(connection, name)
    return found[name]


_LIVE = "SELECT call_sid FROM live_call WHERE call_sid IN (SELECT value FROM json_each(?))"
_READ = (
    f"SELECT id, tenant_id, revision, call_sid, {', '.join(rows.CONTENT)} FROM call "  # noqa: S608 - our own words
    "WHERE call_sid IN (SELECT value FROM json_each(?))"
)
_UNHEARD = "SELECT 1 FROM gap WHERE pbx = ? AND from_at <= ? AND (to_at IS NULL OR to_at >= ?) LIMIT 1"


def _read_known(connection: sqlite3.Connection, sids: str) -> dict[str, _Known]:
    names = ("call_sid", *rows.CONTENT)
    return {
        found[3]: _Known(found[0], found[1], found[2], dict(zip(names, found[3:], strict=True)))
        for found in connection.execute(_READ, (sids,)).fetchall()
    }


def _changes(connection: sqlite3.Connection, old: _Known, call: ToldCall, encoded: EncodedCall) -> EncodedCall:
    """What differs, encoded."""
    if all(old.row[name] == value for name, value in encoded.items()):
        return {}
    was_heard = connection.execute(_UNHEARD, (old.row["pbx"], old.row["end_time"], old.row["start_time"])).fetchone()
    changes = merged(_decoded(old.row), call.row, heard_whole=was_heard is None)
    return {
        name: value
        for name, value in rows.encode_call(changes).items()
        if old.row[name] != value and not (name in rows.JSONS and rows.same_json(old.row[name], value))
    }


def _decoded(row: EncodedCall) -> dict[str, Any]:
    values: dict[str, Any] = dict(row)
    for name in rows.MOMENTS:
        if values[name] is not None:
            values[name] = moment_of(str(values[name]))
    for name in rows.JSONS:
        values[name] = json.loads(str(values[name]))
    return values


def _amend(work: _Work, old: _Known, changes: Mapping[str, Encoded], tenant_id: int | None) -> None:
    # A call that has a tenant keeps it, since the centre has it under that name.
    kept = old.tenant_id if old.tenant_id is not None else tenant_id
    if kept is not None and old.tenant_id is None:
        work.given.append((kept, old.id))
    work.changed.append({**old.row, **changes, "key": old.id, "tenant_id": kept, "revision": old.revision + 1})


def _write(connection: sqlite3.Connection, work: _Work, now: str) -> None:
    if work.new:
        next_id = int(connection.execute("SELECT coalesce(max(id), 0) + 1 FROM call").fetchone()[0])
        for number, row in enumerate(work.new):
            row |= {"id": next_id + number, "revision": 1, "created_at": now, "updated_at": now}
        connection.executemany(rows.INSERT_CALL, [rows.call_values(row) for row in work.new])
        sent = [(next_id + number, 1) for number, row in enumerate(work.new) if row["tenant_id"] is not None]
        enqueue(connection, sent, at=now, known=False)
    if work.changed:
        for row in work.changed:
            row["updated_at"] = now
        connection.executemany(rows.UPDATE_CALL, [rows.update_values(row) for row in work.changed])
        for table in ("task", "interaction"):
            connection.executemany(f"UPDATE {table} SET tenant_id = ? WHERE call_id = ?", work.given)  # noqa: S608 - our own words
        changed = [(int(str(row["key"])), int(str(row["revision"]))) for row in work.changed if row["tenant_id"]]
        enqueue(connection, changed, at=now)


def read_told(body: bytes) -> list[ToldCall]:
    """Calls as another process tells them, in JSON. Raises ValueError for what is none."""
    told = orjson.loads(body)
    if not isinstance(told, list) or len(told) > MAX_CALLS:
        raise ValueError(f"a list of at most {MAX_CALLS} calls is wanted")
    return [_read_call(call) for call in told]


def _read_call(call: Any) -> ToldCall:  # Any: JSON
    row, tenant = call.get("row"), call.get("tenant")
    if not isinstance(row, dict) or not isinstance(row.get("call_sid"), str) or not isinstance(tenant, str | None):
        raise ValueError("a call is an object with a row and a tenant")
    for name in rows.MOMENTS:
        if row.get(name) is not None:
            row[name] = datetime.fromisoformat(row[name])
    for name, value in row.items():
        if isinstance(value, dict | list) != (name in rows.JSONS):
            raise ValueError(f"the column {name} is of another kind")
    return ToldCall(row, tenant)


def told_text(calls: Sequence[ToldCall]) -> bytes:
    """What `read_told` reads."""
    return orjson.dumps([{"row": call.row, "tenant": call.tenant} for call in calls])
