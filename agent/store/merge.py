"""Calls that a second source tells, put into the database: new ones are kept, known ones gain what they lacked.

One transaction for some hundreds, so that capture goes on between them. Live calls are left alone: the tracker tells
them when they end.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from types import NoneType
from typing import Any, Final, Self

import orjson

from agent.calls.merging import CEL, Rank, is_part, rank_of
from agent.store import accounts, erasures, horizon, rows
from agent.store.accounts import Retelling
from agent.store.rows import Encoded, EncodedCall
from agent.store.writer import enqueue, tenant_id_of

MAX_CALLS = 1000  # told at once


@dataclass(frozen=True, slots=True)
class ToldCall:
    """A call as another source tells it: encoded columns of `Call` by name, and the tenant by the present rules."""

    row: EncodedCall
    tenant: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], tenant: str | None = None) -> Self:  # Any: the columns' own types
        """Encode the columns. Raises ValueError for columns that are none of a call."""
        return cls(rows.encode_call(row), tenant)


@dataclass(slots=True)
class MergeResult:
    """What telling did: calls by what became of them."""

    new: int = 0
    amended: int = 0
    unchanged: int = 0
    live: int = 0  # left alone, because they are still going on
    gone: int = 0  # left out: unknown, and of a time of which calls were deleted once the centre had confirmed them

    def add(self, other: Self) -> None:
        """Count together."""
        self.new += other.new
        self.amended += other.amended
        self.unchanged += other.unchanged
        self.live += other.live
        self.gone += other.gone

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Known:
    """A stored call. Its columns are put together only where something is to be changed."""

    id: int
    tenant_id: int | None
    revision: int
    values: rows.Row  # of `_NAMES`

    @property
    def row(self) -> EncodedCall:
        """The columns by name."""
        return dict(zip(_NAMES, self.values, strict=True))

    def says(self, told: EncodedCall) -> bool:
        """Whether every told column stands there as it is told."""
        stored: rows.Row = _picker(tuple(told))(self.values)
        return stored == tuple(told.values())


@dataclass(slots=True)
class _Work:
    """What is to be written of one group."""

    new: list[tuple[EncodedCall, int | None]] = field(default_factory=list)  # and the tenant
    changed: list[EncodedCall] = field(default_factory=list)
    given: list[tuple[int, int]] = field(default_factory=list)  # tenant and call whose children bear it too
    sealed: list[tuple[int, str]] = field(default_factory=list)  # by which erasure, and the call
    accounts: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)  # of calls that several sources told


def merging(
    calls: Sequence[ToldCall], *, now: str, dry_run: bool = False, again: bool = False
) -> Callable[[sqlite3.Connection], MergeResult]:
    """What is to be run as one transaction. `again`: also calls that may have been deleted here by retention."""
    told = {str(call.row["call_sid"]): call for call in calls}

    def work(connection: sqlite3.Connection) -> MergeResult:
        return _merge(connection, told, now, dry_run=dry_run, again=again)

    return work


def _merge(
    connection: sqlite3.Connection, told: Mapping[str, ToldCall], now: str, *, dry_run: bool, again: bool
) -> MergeResult:
    legs = _as_legs(told)
    sids = rows.json_text([*told, *legs])
    known = _read_known(connection, sids)
    live = {sid for (sid,) in connection.execute(_LIVE, (sids,))}
    parts = {sid for (sid,) in connection.execute(_PARTS, (sids,))}
    emptied, erased = erasures.sealed(connection, [*told, *legs]), erasures.Suppression.read(connection)
    gone = set[str]() if again else horizon.gone(connection, _unknown(told, known))
    result, work = MergeResult(), _Work()
    tenants: dict[str, int] = {}
    for sid, call in told.items():
        if sid in live or sid in gone:
            result.live += sid in live
            result.gone += sid not in live
            continue
        tenant_id = None if dry_run else _tenant_id(connection, call.tenant, tenants)
        old = known.get(sid)
        if sid in emptied or (old is None and (sid in parts or is_part(call.row))):
            result.unchanged += 1  # a part is to be said of a call that is stored, if it is
            continue
        if old is None:
            result.new += 1
            row = call.row
            if (found := erased.told(row, call.tenant)) is not None:
                row, erasure_id = found
                work.sealed.append((erasure_id, sid))
            work.new.append((rows.with_defaults(row), tenant_id))
            continue
        retelling = _retelling(connection, old, call.row)
        if retelling.accounts_differ:
            work.accounts.append((old.id, retelling.accounts))
        changes = retelling.changes
        if changes or (old.tenant_id is None and call.tenant is not None):
            result.amended += 1
            _amend(work, old, changes, tenant_id)
        else:
            result.unchanged += 1
    for sid, into in legs.items():
        if sid in known and sid not in live and sid not in emptied and _seemed_a_call(known[sid]):
            retelling = accounts.retell(connection, known[sid].id, known[sid].row, into)
            if retelling.changes:
                result.amended += 1
                work.accounts.append((known[sid].id, retelling.accounts))
                _amend(work, known[sid], retelling.changes, None)
    if not dry_run:
        _write(connection, work, now)
    return result


def _unknown(told: Mapping[str, ToldCall], known: Mapping[str, _Known]) -> Iterator[horizon.Unknown]:
    for sid, call in told.items():
        if sid not in known and not is_part(call.row):
            start = str(call.row["start_time"])
            yield horizon.Unknown(sid, call.tenant, str(call.row["pbx"]), start, str(call.row.get("end_time") or start))


def _as_legs(told: Mapping[str, ToldCall]) -> dict[str, dict[str, Any]]:  # Any: columns
    """What CEL tells of channels by which a call would be named: that they are legs of another."""
    parts = {}
    for sid, call in told.items():
        if call.row.get("source") == CEL and not is_part(call.row):
            prefix, _, native_id = sid.rpartition(":")
            for leg in orjson.loads(str(call.row["legs"])):
                name = f"{prefix}:{leg.get('channel')}"
                if leg.get("channel") != native_id and name not in told:
                    parts[name] = {"call_sid": name, "source": CEL, "merged_into": sid}
    return parts


def _seemed_a_call(known: _Known) -> bool:
    """Whether a live feed that missed a part took a leg for a call, as that of a transfer that comes back."""
    row = accounts.decoded(known.row)
    return row["merged_into"] is None and rank_of(row) in {Rank.HEARD_TO_ITS_END, Rank.HEARD_IN_PART}


def _tenant_id(connection: sqlite3.Connection, name: str | None, found: dict[str, int]) -> int | None:
    if name is None:
        return None
    if name not in found:
        found[name] = tenant_id_of(connection, name)
    return found[name]


_NAMES: Final = ("call_sid", *rows.CONTENT)
_LIVE = "SELECT call_sid FROM live_call WHERE call_sid IN (SELECT value FROM json_each(?))"
_PARTS = "SELECT call_sid FROM part_of_call WHERE call_sid IN (SELECT value FROM json_each(?))"
_READ = (
    f"SELECT id, tenant_id, revision, {', '.join(_NAMES)} FROM call "  # noqa: S608 - our own words
    "WHERE call_sid IN (SELECT value FROM json_each(?))"
)


def _read_known(connection: sqlite3.Connection, sids: str) -> dict[str, _Known]:
    return {
        found[3]: _Known(found[0], found[1], found[2], found[3:])
        for found in connection.execute(_READ, (sids,)).fetchall()
    }


@lru_cache(maxsize=16)  # a source tells the same columns of each of its calls
def _picker(names: tuple[str, ...]) -> Callable[[rows.Row], rows.Row]:
    """Picks the values of these columns, of which there are at least two, out of those of `_NAMES`."""
    return itemgetter(*map(_NAMES.index, names))


_NOTHING = Retelling({}, {}, accounts_differ=False)


def _retelling(connection: sqlite3.Connection, old: _Known, told: EncodedCall) -> Retelling:
    """What differs."""
    if old.says(told):
        return _NOTHING
    return accounts.retell(connection, old.id, old.row, accounts.decoded(told))


def _amend(work: _Work, old: _Known, changes: Mapping[str, Encoded], tenant_id: int | None) -> None:
    # A call that has a tenant keeps it, since the centre has it under that name.
    kept = old.tenant_id if old.tenant_id is not None else tenant_id
    if kept is not None and old.tenant_id is None:
        work.given.append((kept, old.id))
    work.changed.append({**old.row, **changes, "key": old.id, "tenant_id": kept, "revision": old.revision + 1})


def _write(connection: sqlite3.Connection, work: _Work, now: str) -> None:
    accounts.keep(connection, work.accounts)
    for erasure_id, sid in work.sealed:
        erasures.seal(connection, erasure_id, [sid])
    if work.new:
        next_id = int(connection.execute("SELECT coalesce(max(id), 0) + 1 FROM call").fetchone()[0])
        for number, (row, tenant_id) in enumerate(work.new):
            row |= {"id": next_id + number, "tenant_id": tenant_id}
            row |= {"revision": 1, "created_at": now, "updated_at": now}
        connection.executemany(rows.INSERT_CALL, [rows.call_values(row) for row, _ in work.new])
        sent = [(next_id + number, 1) for number, (_, tenant_id) in enumerate(work.new) if tenant_id is not None]
        enqueue(connection, sent, at=now, known=False)
    if work.changed:
        for row in work.changed:
            row["updated_at"] = now
        connection.executemany(rows.UPDATE_CALL, [rows.update_values(row) for row in work.changed])
        for table in ("task", "interaction"):
            connection.executemany(f"UPDATE {table} SET tenant_id = ? WHERE call_id = ?", work.given)  # noqa: S608 - our own words
        changed = [(int(str(row["key"])), int(str(row["revision"]))) for row in work.changed if row["tenant_id"]]
        enqueue(connection, changed, at=now)


_PLAIN: Final = frozenset({str, int, float, bool, NoneType})  # what SQLite takes as it is


def told_text(calls: Iterable[ToldCall]) -> bytes:
    """What `read_told` reads: JSON of encoded columns, so that the process that writes has little to do."""
    return orjson.dumps([{"row": call.row, "tenant": call.tenant} for call in calls])


def read_told(body: bytes) -> list[ToldCall]:
    """Calls as another process tells them by `told_text`. Raises ValueError for what is none."""
    told = orjson.loads(body)
    if not isinstance(told, list) or len(told) > MAX_CALLS:
        raise ValueError(f"a list of at most {MAX_CALLS} calls is wanted")
    return [_read_call(call) for call in told]


def _read_call(call: Any) -> ToldCall:  # Any: JSON
    row, tenant = call.get("row"), call.get("tenant")
    if not isinstance(row, dict) or not isinstance(tenant, str | None):
        raise ValueError("a call is an object with a row and a tenant")
    if not isinstance(row.get("call_sid"), str) or not isinstance(row.get("source"), str):
        raise ValueError("a call has a call_sid and a source")
    if not row.keys() <= rows.TOLD:
        raise ValueError(f"no columns of a call to be told: {', '.join(sorted(row.keys() - rows.TOLD))}")
    if not _PLAIN.issuperset(map(type, row.values())):
        raise ValueError("the columns of a call are texts and numbers")
    for name in rows.MOMENTS:
        if row.get(name) is not None:
            datetime.fromisoformat(row[name])
    return ToldCall(row, tenant)
