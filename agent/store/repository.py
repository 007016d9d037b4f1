"""Short reads of an open store for its status, and giving unassigned calls their tenant."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent.store import coverage
from agent.store.coverage import DayCounts
from agent.store.engine import Store
from agent.store.faults import faults_of
from agent.store.files import wal_file
from agent.store.tables import Counter, Gap
from agent.store.writer import Writer, enqueue, tenant_id_of
from sync.models import Call

if TYPE_CHECKING:
    _Query: TypeAlias = Select[*tuple[Any, ...]]  # Any: rows are as various as the queries

# Calls given to tenants in one transaction: some milliseconds, so that no group of calls waits long behind it.
_REASSIGN_STEP = 200


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on disk: the database, its WAL, and how much of the database is journal."""

    database_bytes: int
    wal_bytes: int
    journal_bytes: int


@dataclass(slots=True)
class Reassigned:
    """What applying the rules did: calls looked at, calls given to each tenant, calls that no rule matched."""

    looked_at: int = 0
    assigned: dict[str, int] = field(default_factory=dict)
    unassigned: int = 0

    def as_dict(self) -> dict[str, Any]:  # Any: as JSON tells it
        """The same, for JSON."""
        return asdict(self)


class Repository:
    """What an open store tells of itself, and its unassigned calls given to tenants."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer

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
        wal = wal_file(self._store.path)
        with self._store.damage.noted(), faults_of(self._store.path):
            wal_bytes = wal.stat().st_size if wal.exists() else 0
            return Sizes(self._store.path.stat().st_size, wal_bytes, int(journal[0][0]))

    async def gaps(self, *, limit: int) -> Sequence[Gap]:
        """Times in which a PBX was not heard, latest first."""
        query = select(Gap).order_by(col(Gap.id).desc()).limit(limit)
        return [row[0] for row in await self._rows(query)]

    async def unfilled_gaps(self, since: datetime) -> dict[str, tuple[int, float]]:
        """How many gaps that ended since then no source has filled, and their seconds, by PBX."""
        query = select(col(Gap.pbx), col(Gap.from_at), col(Gap.to_at)).where(
            col(Gap.to_at) >= since, col(Gap.backfilled_at).is_(None)
        )
        found: dict[str, tuple[int, float]] = {}
        for pbx, from_at, to_at in await self._rows(query):
            count, seconds = found.get(pbx, (0, 0.0))
            found[pbx] = (count + 1, seconds + (to_at - from_at).total_seconds())
        return found

    async def coverage(self) -> dict[str, DayCounts]:
        """What the latest verification of each PBX found."""
        return await self._store.reader.run(coverage.latest)

    async def reassign(self, tenant_of: Callable[[Call], str | None]) -> Reassigned:
        """Give every unassigned call to the tenant that `tenant_of` names, and have it sent.

        In small transactions, so that capture goes on meanwhile; stopped half-way, what is done stays done.
        """
        result = Reassigned()
        last: Call | None = None
        while calls := await self._unassigned_after(last):
            last = calls[-1]
            named = [(call.id or 0, tenant) for call in calls if (tenant := tenant_of(call)) is not None]
            given = await self._writer.transact(partial(_give, named, self._writer.now_text())) if named else []
            for tenant in given:
                result.assigned[tenant] = result.assigned.get(tenant, 0) + 1
            result.looked_at += len(calls)
            result.unassigned += len(calls) - len(named)
        return result

    async def _unassigned_after(self, last: Call | None) -> Sequence[Call]:
        return [row[0] for row in await self._rows(unassigned_query(last))]

    async def _rows(self, query: "_Query") -> Sequence[Any]:  # Any: rows are as various as the queries
        with self._store.damage.noted(), faults_of(self._store.path):
            async with AsyncSession(self._store.reads) as session:
                found: Sequence[Any] = (await session.execute(query)).all()
                return found


def unassigned_query(last: Call | None) -> "_Query":
    """The next unassigned calls in the order of their index, by when they began."""
    query = select(Call).where(col(Call.tenant_id).is_(None))
    if last is not None:
        query = query.where(tuple_(col(Call.start_time), col(Call.id)) > tuple_(last.start_time, last.id))
    return query.order_by(col(Call.start_time), col(Call.id)).limit(_REASSIGN_STEP)


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
