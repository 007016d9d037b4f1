"""Short reads of what is kept, by SQLModel, and the one change made on reading: giving unassigned calls their tenant.

Long lists are read page by page, each page a read of its own, so that no reader holds the WAL open for long.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col

from agent.store.engine import Store, wal_file
from agent.store.faults import faults_of
from agent.store.tables import Counter, Gap, OutboxEntry, QuarantineEntry
from agent.store.writer import Writer, enqueue, tenant_id_of
from sync.models import Call, Tenant

if TYPE_CHECKING:
    _Query: TypeAlias = Select[*tuple[Any, ...]]  # Any: rows are as various as the queries

_EXPORT_PAGE = 500
# Calls given to tenants in one transaction: some milliseconds, so that no group of calls waits long behind it.
_REASSIGN_STEP = 200
_MATCHES = 10


class CallOfTenant(NamedTuple):
    """A call with its tenant's name; None while it is unassigned."""

    call: Call
    tenant: str | None


class Cursor(NamedTuple):
    """The last call of a page: the next page begins behind it."""

    start_time: datetime
    id: int


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are wanted; everything that is given must hold."""

    tenant: str | None = None
    unassigned: bool = False
    status: str | None = None
    direction: str | None = None
    pbx: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    number: str | None = None  # any party's number, or how it ends


@dataclass(frozen=True, slots=True)
class Page:
    """Calls, newest first, and where the next page begins; None after the last."""

    calls: Sequence[CallOfTenant]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on disk: the database, its WAL, and how much of the database is journal."""

    database_bytes: int
    wal_bytes: int
    journal_bytes: int


class WaitingCall(NamedTuple):
    """A call in the outbox."""

    sequence: int
    call_sid: str
    tenant: str
    revision: int
    enqueued_at: datetime


class SetAsideCall(NamedTuple):
    """A call in quarantine, with what the centre said."""

    call_sid: str
    tenant: str | None
    revision: int
    code: str
    reason: str
    at: datetime


@dataclass(slots=True)
class Reassigned:
    """What applying the rules did: calls looked at, calls given to each tenant, calls that no rule matched."""

    looked_at: int = 0
    assigned: dict[str, int] = field(default_factory=dict)
    unassigned: int = 0

    def as_dict(self) -> dict[str, Any]:  # Any: as JSON tells it
        """The same, for JSON."""
        return asdict(self)


class Reads:
    """Reads over any engine of the database: an open store's, or one from `open_read_only`."""

    def __init__(self, engine: AsyncEngine, path: Path) -> None:
        self._engine = engine
        self._path = path

    async def list_calls(self, wanted: CallFilter, *, limit: int, after: Cursor | None = None) -> Page:
        """A page of calls, newest first."""
        query = calls_query(wanted).order_by(col(Call.start_time).desc(), col(Call.id).desc()).limit(limit + 1)
        if after is not None:
            query = query.where(tuple_(col(Call.start_time), col(Call.id)) < tuple_(after.start_time, after.id))
        found = [CallOfTenant(*row) for row in await self._rows(query)]
        more = len(found) > limit
        return Page(found[:limit], _place(found[limit - 1].call) if more else None)

    async def export(self, wanted: CallFilter) -> AsyncIterator[CallOfTenant]:
        """Every call wanted, oldest first, in bounded memory."""
        after: Cursor | None = None
        while True:
            query = calls_query(wanted).order_by(col(Call.start_time), col(Call.id)).limit(_EXPORT_PAGE)
            if after is not None:
                query = query.where(tuple_(col(Call.start_time), col(Call.id)) > tuple_(after.start_time, after.id))
            found = [CallOfTenant(*row) for row in await self._rows(query)]
            for one in found:
                yield one
            if len(found) < _EXPORT_PAGE:
                return
            after = _place(found[-1].call)

    async def find(self, reference: str) -> Sequence[CallOfTenant]:
        """The call of this call_sid, or else those whose call_sid ends so (ten at most)."""
        everything = calls_query(CallFilter())
        exact = await self._rows(everything.where(col(Call.call_sid) == reference))
        if exact:
            return [CallOfTenant(*row) for row in exact]
        ending = everything.where(func.substr(col(Call.call_sid), -len(reference)) == reference).limit(_MATCHES)
        return [CallOfTenant(*row) for row in await self._rows(ending)] if reference else []

    async def counts_since(self, since: datetime) -> dict[str, int]:
        """Calls that began since then, by status."""
        query = select(col(Call.status), func.count()).where(col(Call.start_time) >= since).group_by(col(Call.status))
        return {str(status): count for status, count in await self._rows(query)}

    async def count_unassigned(self) -> int:
        """Calls that belong to no tenant yet."""
        query = select(func.count()).select_from(Call).where(col(Call.tenant_id).is_(None))
        return int((await self._rows(query))[0][0])

    async def last_call_time(self, pbx: str) -> datetime | None:
        """When the latest kept call of a PBX began."""
        query = select(col(Call.start_time)).where(col(Call.pbx) == pbx).order_by(col(Call.start_time).desc()).limit(1)
        found = await self._rows(query)
        return found[0][0] if found else None

    async def sizes(self) -> Sizes:
        """How much room everything takes."""
        journal = await self._rows(select(col(Counter.value)).where(col(Counter.name) == "journal_bytes"))
        wal = wal_file(self._path)
        with faults_of(self._path):
            wal_bytes = wal.stat().st_size if wal.exists() else 0
            return Sizes(self._path.stat().st_size, wal_bytes, int(journal[0][0]))

    async def waiting(self, *, limit: int) -> Sequence[WaitingCall]:
        """The head of the line in the outbox."""
        query = (
            select(
                *map(
                    col,
                    (OutboxEntry.sequence, Call.call_sid, Tenant.name, OutboxEntry.revision, OutboxEntry.enqueued_at),
                )
            )
            .select_from(OutboxEntry)
            .join(Call, col(Call.id) == OutboxEntry.call_id)
            .join(Tenant, col(Tenant.id) == Call.tenant_id)
            .order_by(col(OutboxEntry.sequence))
            .limit(limit)
        )
        return [WaitingCall(*row) for row in await self._rows(query)]

    async def set_aside(self, *, limit: int) -> Sequence[SetAsideCall]:
        """What the centre refused, latest first."""
        entry = QuarantineEntry
        query = (
            select(*map(col, (Call.call_sid, Tenant.name, entry.revision, entry.code, entry.reason, entry.at)))
            .select_from(entry)
            .join(Call, col(Call.id) == entry.call_id)
            .outerjoin(Tenant, col(Tenant.id) == Call.tenant_id)
            .order_by(col(entry.at).desc())
            .limit(limit)
        )
        return [SetAsideCall(*row) for row in await self._rows(query)]

    async def gaps(self, *, limit: int) -> Sequence[Gap]:
        """Times in which a PBX was not heard, latest first."""
        query = select(Gap).order_by(col(Gap.id).desc()).limit(limit)
        return [row[0] for row in await self._rows(query)]

    async def _rows(self, query: "_Query") -> Sequence[Any]:  # Any: rows are as various as the queries
        with faults_of(self._path):
            async with AsyncSession(self._engine) as session:
                found: Sequence[Any] = (await session.execute(query)).all()
                return found


class Repository(Reads):
    """Reads of an open store, and the changes that are made by looking at what is kept."""

    def __init__(self, store: Store, writer: Writer) -> None:
        super().__init__(store.reads, store.path)
        self._writer = writer

    async def reassign(self, tenant_of: Callable[[Call], str | None]) -> Reassigned:
        """Give every unassigned call to the tenant that `tenant_of` names, and have it sent.

        In small transactions, so that capture goes on meanwhile; stopped half-way, what is done stays done.
        """
        result = Reassigned()
        last_id = 0
        while calls := await self._unassigned_after(last_id):
            last_id = max(call.id or 0 for call in calls)
            named = [(call.id or 0, tenant) for call in calls if (tenant := tenant_of(call)) is not None]
            given = await self._writer.transact(partial(_give, named, self._writer.now_text())) if named else []
            for tenant in given:
                result.assigned[tenant] = result.assigned.get(tenant, 0) + 1
            result.looked_at += len(calls)
            result.unassigned += len(calls) - len(named)
        return result

    async def _unassigned_after(self, last_id: int) -> Sequence[Call]:
        query = unassigned_query(last_id)
        return [row[0] for row in await self._rows(query)]


def calls_query(wanted: CallFilter) -> "_Query":
    """Calls with their tenant's name."""
    query = select(Call, col(Tenant.name)).outerjoin(Tenant, col(Tenant.id) == Call.tenant_id)
    return query.where(*_conditions(wanted))


def unassigned_query(last_id: int) -> "_Query":
    """The next unassigned calls in the order of their ids."""
    unassigned = col(Call.tenant_id).is_(None)
    return select(Call).where(unassigned, col(Call.id) > last_id).order_by(col(Call.id)).limit(_REASSIGN_STEP)


def _conditions(wanted: CallFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.tenant is not None:
        # By key, so that the index on (tenant_id, start_time) gives the order too.
        found.append(
            col(Call.tenant_id) == select(col(Tenant.id)).where(col(Tenant.name) == wanted.tenant).scalar_subquery()
        )
    if wanted.unassigned:
        found.append(col(Call.tenant_id).is_(None))
    for column, value in ((Call.status, wanted.status), (Call.direction, wanted.direction), (Call.pbx, wanted.pbx)):
        if value is not None:
            found.append(col(column) == value)
    if wanted.since is not None:
        found.append(col(Call.start_time) >= wanted.since)
    if wanted.until is not None:
        found.append(col(Call.start_time) < wanted.until)
    if wanted.number:
        parties = (Call.caller_id, Call.callee_id, Call.answered_by)
        ends = [func.substr(party, -len(wanted.number)) == wanted.number for party in parties]
        found.append(or_(*ends))
    return found


def _place(call: Call) -> Cursor:
    return Cursor(call.start_time, call.id or 0)


def _give(named: Sequence[tuple[int, str]], now: str, connection: sqlite3.Connection) -> list[str]:
    """Give calls (by id) to tenants (by name); returns the tenants of those that were still unassigned."""
    given: list[str] = []
    changed: list[tuple[int, int]] = []
    for call_id, tenant in named:
        tenant_id = tenant_id_of(connection, tenant)
        row = connection.execute(
            "UPDATE call SET tenant_id = ?, revision = revision + 1, updated_at = ? "
            "WHERE id = ? AND tenant_id IS NULL RETURNING revision",
            (tenant_id, now, call_id),
        ).fetchone()
        if row is None:  # amended meanwhile by a source that knew the tenant
            continue
        connection.execute("UPDATE task SET tenant_id = ? WHERE call_id = ?", (tenant_id, call_id))
        connection.execute("UPDATE interaction SET tenant_id = ? WHERE call_id = ?", (tenant_id, call_id))
        changed.append((call_id, row[0]))
        given.append(tenant)
    enqueue(connection, changed, at=now)
    return given
