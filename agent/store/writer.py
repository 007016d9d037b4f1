"""The one writer: a group of facts becomes one transaction, or nothing of it does.

Repeating a group changes nothing, so a group whose commit failed, or whose fate is unknown, may be given again:
segments and gaps are known by their keys, calls by their call_sid and content.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

from agent.calls.context import TaskState
from agent.store import accounts, erasures, rows
from agent.store.engine import WAL_LIMIT_BYTES, EdgeConnection, in_transaction
from agent.store.files import wal_file
from agent.store.moments import moment_text
from agent.store.rows import Encoded, EncodedCall, EncodedInteraction, EncodedTask
from agent.store.segment import Segment, encode
from config import failpoints

logger = logging.getLogger(__name__)

# A reader that stays long may keep the WAL from being cut; asking again at every commit would only cost time.
_CHECKPOINT_SECONDS = 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LiveAnchor:
    """A call has begun; `journal_id` is the segment (of this group or earlier) that holds its first frame."""

    call_sid: str
    pbx: str
    journal_id: int
    start_time: datetime


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """What is told of a call that has ended, or of one that ended before, to amend it.

    `row` holds columns of `Call` by name, except those the store keeps itself (id, tenant_id, revision, created_at,
    updated_at). For a call that is known already, columns that are not named, and tasks or interactions that are
    None, stay as they are; so a replay that knows nothing of a transcript takes none away. A call that has a tenant
    keeps it, since the centre has it under that name.
    """

    row: Mapping[str, Any]  # Any: the columns' own types
    tenant: str | None  # by name; None: no rule matched, the call is kept and not sent
    tasks: Sequence[TaskState] | None = None
    interactions: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class GapOpened:
    """From now on a PBX is not heard. Nothing happens if a gap of this PBX is open already: it began earlier."""

    pbx: str
    from_at: datetime
    reason: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class GapClosed:
    """A PBX is heard again."""

    pbx: str
    to_at: datetime


@dataclass(frozen=True, slots=True)
class Group:
    """Facts to be committed together, in this order."""

    segments: Sequence[Segment] = ()
    opened: Sequence[LiveAnchor] = ()
    finished: Sequence[FinishedCall] = ()
    forgotten: Sequence[str] = ()  # call_sids of live calls that turned out to be none
    moved: Sequence[tuple[str, str]] = ()  # of them, those that are a part of another call: its call_sid
    gaps: Sequence[GapOpened | GapClosed] = ()

    def __bool__(self) -> bool:
        return bool(self.segments or self.opened or self.finished or self.forgotten or self.gaps)


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What a commit did: calls seen for the first time, changed, known as they are; and how many now wait to be sent
    because of it."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    enqueued: int = 0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Writer:
    """Everything that is written to the edge database passes through here, one transaction after the other."""

    def __init__(
        self, connection: EdgeConnection, *, last_segment_id: int, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._connection = connection
        self._last_segment_id = last_segment_id
        self._now = now
        self._tenant_ids: dict[str, int] = {}
        self._next_checkpoint = 0.0

    @classmethod
    async def over(cls, connection: EdgeConnection, *, now: Callable[[], datetime] = _utc_now) -> Self:
        """A writer on an open store's writing connection."""
        return cls(connection, last_segment_id=await connection.run(_last_segment_id), now=now)

    def next_segment_id(self) -> int:
        """An id for a segment to come; ids grow and are never given twice."""
        self._last_segment_id += 1
        return self._last_segment_id

    def skip_segment_ids(self, last: int) -> None:
        """Ids up to this one are taken, by segments that the database does not hold yet."""
        self._last_segment_id = max(self._last_segment_id, last)

    async def commit(self, group: Group, *, also: Callable[[sqlite3.Connection], None] | None = None) -> CommitResult:
        """Make the group durable, and say what it changed; `also` writes in the same transaction.

        Raises StoreUnavailable, with nothing of the group written, when the disk is full, fails or is held; the same
        group may be given again. Raises ValueError for facts that cannot be written at all.
        """
        if not group and also is None:
            return CommitResult()
        return await self._connection.run(partial(self._commit, group, also))

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as one transaction between the groups. Raises StoreUnavailable, with nothing written."""
        return await self._connection.transact(work)

    async def cut_log(self) -> bool:
        """Have everything stand in the database itself and nothing in the write-ahead log; False while others read."""
        return await self._connection.run(_cut_log)

    def now(self) -> datetime:
        """This moment, by the writer's clock."""
        return self._now()

    def now_text(self) -> str:
        """This moment, as it is stored."""
        return moment_text(self._now())

    def _commit(
        self, group: Group, also: Callable[[sqlite3.Connection], None] | None, connection: sqlite3.Connection
    ) -> CommitResult:
        # Encoding comes before BEGIN: what takes long or cannot be encoded never holds a transaction.
        segments = [_segment_row(segment) for segment in group.segments]
        finished = [_encoded(call) for call in group.finished]
        pen = _Pen(self.now_text(), dict(self._tenant_ids))

        def write(connection: sqlite3.Connection) -> CommitResult:
            if segments:
                connection.executemany(rows.INSERT_SEGMENT, segments)
            _write_anchors(connection, group, now=pen.now)
            result = pen.write(connection, finished)
            _write_gaps(connection, group.gaps)
            if also is not None:
                also(connection)
            return result

        failpoints.hit("journal.commit.before")
        result = in_transaction(write, connection)
        self._tenant_ids = pen.tenant_ids
        self._cut_wal(connection)
        return result

    def _cut_wal(self, connection: sqlite3.Connection) -> None:
        if time.monotonic() < self._next_checkpoint:
            return
        # The group is durable already: a checkpoint that fails is tried again later. Never wait for a slow reader.
        with suppress(sqlite3.Error, OSError):
            if wal_file(self._connection.path).stat().st_size <= WAL_LIMIT_BYTES:
                return
            self._next_checkpoint = time.monotonic() + _CHECKPOINT_SECONDS
            _cut_log(connection)


class _Encoded(NamedTuple):
    row: EncodedCall
    tenant: str | None
    tasks: list[EncodedTask] | None
    interactions: list[EncodedInteraction] | None


@dataclass(slots=True)
class _Known:
    """A call as the database will hold it after this group."""

    id: int
    row: EncodedCall
    tenant_id: int | None
    is_new: bool
    revision: int = 1
    is_changed: bool = False
    tasks: list[EncodedTask] = field(default_factory=list)
    interactions: list[EncodedInteraction] = field(default_factory=list)
    new_children: bool = False


class _Pen:
    """Writes the finished calls of one group inside its transaction."""

    def __init__(self, now: str, tenant_ids: dict[str, int]) -> None:
        self.now = now
        self.tenant_ids = tenant_ids  # by name; good for later groups only if this one commits

    def write(self, connection: sqlite3.Connection, finished: Sequence[_Encoded]) -> CommitResult:
        if not finished:
            return CommitResult()
        sids = [call.row["call_sid"] for call in finished]
        known, emptied = _read_known(connection, sids), erasures.sealed(connection, sids)
        erased = erasures.Suppression.read(connection)
        next_id = int(connection.execute("SELECT coalesce(max(id), 0) + 1 FROM call").fetchone()[0])
        retold: list[tuple[int, Mapping[str, str]]] = []
        for call in finished:
            tenant_id = self._tenant_id(connection, call.tenant)
            sid = str(call.row["call_sid"])
            if sid in emptied:
                continue
            old = known.get(sid)
            if old is None:
                known[sid] = _new(next_id, _unless_erased(connection, erased, call), tenant_id)
                next_id += 1
                continue
            told = call
            if not old.is_new and accounts.are_several(connection, old.id, old.row, call.row):
                # What services noted is no source's to tell, and stands beside it.
                noted = {name: call.row[name] for name in accounts.OTHERS & call.row.keys()}
                source = {name: value for name, value in call.row.items() if name not in noted}
                retelling = accounts.retell(connection, old.id, old.row, accounts.decoded(source))
                retold.append((old.id, retelling.accounts))
                told = call._replace(row={**retelling.changes, **noted})
            _amend(old, told, tenant_id)
        accounts.keep(connection, retold)
        self._insert(connection, [call for call in known.values() if call.is_new])
        if changed := [call for call in known.values() if call.is_changed and not call.is_new]:
            self._update(connection, changed)
        _end(connection, list(known))
        written = [call for call in known.values() if call.is_new or call.is_changed]
        sent = [call for call in written if call.tenant_id is not None]
        new = sum(call.is_new for call in written)
        return CommitResult(
            new=new, changed=len(written) - new, unchanged=len(known) - len(written), enqueued=len(sent)
        )

    def _tenant_id(self, connection: sqlite3.Connection, name: str | None) -> int | None:
        if name is None:
            return None
        found = self.tenant_ids.get(name)
        if found is None:
            found = self.tenant_ids[name] = tenant_id_of(connection, name)
        return found

    def _insert(self, connection: sqlite3.Connection, calls: Sequence[_Known]) -> None:
        for call in calls:
            call.row["id"], call.row["tenant_id"], call.row["revision"] = call.id, call.tenant_id, 1
            call.row["created_at"] = call.row["updated_at"] = self.now
        connection.executemany(rows.INSERT_CALL, [rows.call_values(call.row) for call in calls])
        _insert_children(connection, calls)
        enqueue(connection, [(call.id, 1) for call in calls if call.tenant_id is not None], at=self.now, known=False)

    def _update(self, connection: sqlite3.Connection, calls: Sequence[_Known]) -> None:
        for call in calls:
            call.revision += 1
            call.row["key"], call.row["tenant_id"], call.row["revision"] = call.id, call.tenant_id, call.revision
            call.row["updated_at"] = self.now
        connection.executemany(rows.UPDATE_CALL, [rows.update_values(call.row) for call in calls])
        rewritten = [call for call in calls if call.new_children]
        for table in ("task", "interaction"):
            connection.executemany(f"DELETE FROM {table} WHERE call_id = ?", [(call.id,) for call in rewritten])  # noqa: S608 - our own words
        _insert_children(connection, rewritten)
        enqueue(connection, [(call.id, call.revision) for call in calls if call.tenant_id is not None], at=self.now)


def write_finished(connection: sqlite3.Connection, finished: Sequence[FinishedCall], *, now: str) -> CommitResult:
    """Write calls inside a transaction of the caller's, as `Writer.commit` does; `now` as it is stored."""
    return _Pen(now, {}).write(connection, [_encoded(call) for call in finished])


def move_operations(connection: sqlite3.Connection, *, moved: Iterable[tuple[str, str]]) -> None:
    """What services wrote for a call that turned out to be none belongs to the call that it is a part of."""
    connection.executemany(
        "UPDATE context_operation SET call_sid = ? WHERE call_sid = ?", [(into, sid) for sid, into in moved]
    )


def enqueue(connection: sqlite3.Connection, calls: Sequence[tuple[int, int]], *, at: str, known: bool = True) -> None:
    """Have (call id, revision) wait to be sent, each call once; `known=False` promises that none waits yet."""
    if known:
        connection.executemany("DELETE FROM outbox WHERE call_id = ?", [(call_id,) for call_id, _ in calls])
    # One statement for all takes a third of the time of one for each.
    connection.execute(rows.INSERT_OUTBOX, (at, rows.json_text(calls)))


def tenant_id_of(connection: sqlite3.Connection, name: str) -> int:
    """The local key of a tenant, made when it is first needed."""
    found = connection.execute("SELECT id FROM tenant WHERE name = ?", (name,)).fetchone()
    if found is None:
        found = connection.execute(
            "INSERT INTO tenant (name, is_active) VALUES (?, 1) RETURNING id", (name,)
        ).fetchone()
    return int(found[0])


def _encoded(call: FinishedCall) -> _Encoded:
    row = rows.encode_call(call.row)
    if "call_sid" not in row:
        raise ValueError("a call without call_sid cannot be kept")
    return _Encoded(
        row=row,
        tenant=call.tenant,
        tasks=None if call.tasks is None else rows.encode_tasks(call.tasks),
        interactions=None if call.interactions is None else rows.encode_interactions(call.interactions),
    )


_READ_KNOWN = (
    f"SELECT id, tenant_id, revision, call_sid, {', '.join(rows.CONTENT)} FROM call "  # noqa: S608 - our own words
    "WHERE call_sid IN (SELECT value FROM json_each(?))"
)


def _read_known(connection: sqlite3.Connection, sids: Sequence[Encoded]) -> dict[str, _Known]:
    known = {}
    for call_id, tenant_id, revision, *content in connection.execute(_READ_KNOWN, (rows.json_text(sids),)).fetchall():
        row: EncodedCall = dict(zip(("call_sid", *rows.CONTENT), content, strict=True))
        tasks = connection.execute(
            "SELECT position, task_name, state_data, start_time FROM task WHERE call_id = ? ORDER BY position",
            (call_id,),
        )
        interactions = connection.execute(
            "SELECT position, data FROM interaction WHERE call_id = ? ORDER BY position", (call_id,)
        )
        known[content[0]] = _Known(
            id=call_id,
            row=row,
            tenant_id=tenant_id,
            is_new=False,
            revision=revision,
            tasks=tasks.fetchall(),
            interactions=interactions.fetchall(),
        )
    return known


def _unless_erased(connection: sqlite3.Connection, erased: erasures.Suppression, call: _Encoded) -> _Encoded:
    """A call of a person who was erased after it began is kept empty, so that counts stay true."""
    found = erased.told(call.row, call.tenant)
    if found is None:
        return call
    row, erasure_id = found
    erasures.seal(connection, erasure_id, [str(row["call_sid"])])
    return call._replace(row=row, tasks=[], interactions=[])


def _new(call_id: int, call: _Encoded, tenant_id: int | None) -> _Known:
    return _Known(
        id=call_id,
        row=rows.with_defaults(call.row),
        tenant_id=tenant_id,
        is_new=True,
        tasks=call.tasks or [],
        interactions=call.interactions or [],
    )


def _amend(known: _Known, call: _Encoded, tenant_id: int | None) -> None:
    if known.tenant_id is None and tenant_id is not None:
        known.tenant_id = tenant_id
        known.is_changed = known.new_children = True  # the children carry the tenant too
    if not _same_content(known.row, call.row):
        known.row |= call.row
        known.is_changed = True
    if call.tasks is not None and not _same_tasks(known.tasks, call.tasks):
        known.tasks = call.tasks
        known.is_changed = known.new_children = True
    if call.interactions is not None and not _same_interactions(known.interactions, call.interactions):
        known.interactions = call.interactions
        known.is_changed = known.new_children = True


def _same_content(stored: EncodedCall, told: EncodedCall) -> bool:
    return all(
        value == stored[name] or (name in rows.JSONS and rows.same_json(value, stored[name]))
        for name, value in told.items()
    )


def _same_tasks(stored: Sequence[EncodedTask], told: Sequence[EncodedTask]) -> bool:
    return len(stored) == len(told) and all(
        one[:2] == other[:2] and one[3] == other[3] and rows.same_json(one[2], other[2])
        for one, other in zip(stored, told, strict=True)
    )


def _same_interactions(stored: Sequence[EncodedInteraction], told: Sequence[EncodedInteraction]) -> bool:
    return len(stored) == len(told) and all(
        rows.same_json(one[1], other[1]) for one, other in zip(stored, told, strict=True)
    )


def _insert_children(connection: sqlite3.Connection, calls: Sequence[_Known]) -> None:
    tasks = [(call.tenant_id, call.id, *task) for call in calls for task in call.tasks]
    interactions = [(call.tenant_id, call.id, *said) for call in calls for said in call.interactions]
    if tasks:
        connection.executemany(rows.INSERT_TASK, tasks)
    if interactions:
        connection.executemany(rows.INSERT_INTERACTION, interactions)


def _segment_row(segment: Segment) -> rows.Row:
    return rows.segment_values(
        {
            "id": segment.id,
            "pbx": segment.pbx,
            "boot_id": segment.boot_id,
            "connection": segment.connection,
            "first_at": moment_text(segment.first_at),
            "last_at": moment_text(segment.last_at),
            "monotonic_ns": segment.monotonic_ns,
            "frame_count": len(segment.frames),
            "raw_size": sum(len(frame.data) for frame in segment.frames),
            "blob": encode(segment.frames),
        }
    )


def _write_anchors(connection: sqlite3.Connection, group: Group, *, now: str) -> None:
    if not (group.opened or group.forgotten):
        return
    # The earlier anchor of a call holds: a replay must start where its first frame is.
    connection.executemany(
        "INSERT INTO live_call (call_sid, pbx, journal_id, start_time) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(call.call_sid, call.pbx, call.journal_id, moment_text(call.start_time)) for call in group.opened],
    )
    _end(connection, group.forgotten)
    connection.executemany(
        "INSERT INTO part_of_call (call_sid, part_of, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(sid, into, now) for sid, into in group.moved],
    )
    move_operations(connection, moved=group.moved)


def _end(connection: sqlite3.Connection, sids: Sequence[str]) -> None:
    connection.execute(
        "DELETE FROM live_call WHERE call_sid IN (SELECT value FROM json_each(?))", (rows.json_text(sids),)
    )


# No gap ends before it began, and none is closed by what closed another: a repeated group may say so of a later gap.
_CLOSE_GAP = (
    "UPDATE gap SET to_at = :to_at WHERE pbx = :pbx AND to_at IS NULL AND from_at <= :to_at "
    "AND NOT EXISTS (SELECT 1 FROM gap WHERE pbx = :pbx AND to_at = :to_at)"
)


def _write_gaps(connection: sqlite3.Connection, gaps: Sequence[GapOpened | GapClosed]) -> None:
    for gap in gaps:
        match gap:
            case GapOpened():
                connection.execute(
                    "INSERT INTO gap (pbx, from_at, reason, detail) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (gap.pbx, moment_text(gap.from_at), gap.reason, gap.detail),
                )
            case GapClosed():
                connection.execute(_CLOSE_GAP, {"pbx": gap.pbx, "to_at": moment_text(gap.to_at)})


def _cut_log(connection: sqlite3.Connection) -> bool:
    (timeout,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    failpoints.hit("store.checkpoint.before")
    try:
        (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        failpoints.hit("store.checkpoint.after")
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout}")
    return not is_busy


def _last_segment_id(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal_segment'").fetchone()
    return int(found[0]) if found else 0
