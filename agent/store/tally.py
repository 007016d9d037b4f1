"""The site's calls as reconciliation counts them: digests by tenant and day, computed in SQLite beside everything else.

Each day is a read of its own on a connection of its own, so that neither memory nor the WAL grows with the number of
calls, and the agent captures meanwhile.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path

import orjson

from agent.errors import StoreUnavailable
from agent.store import horizon
from agent.store.faults import faults_of
from agent.store.moments import moment_text
from agent.store.receipts import SEND_AGAIN
from agent.store.writer import Writer
from sync.errors import OutboxUnavailable
from sync.reconciler import Difference, Reconciled
from sync.records import DayDigest, HeldCall

_BUSY_SECONDS = 5.0
_CACHE_KIBIBYTES = 8 * 1024

_SETTLED = """NOT EXISTS (SELECT 1 FROM outbox WHERE call_id = call.id)
    AND NOT EXISTS (SELECT 1 FROM quarantine WHERE call_id = call.id)
    AND NOT EXISTS (SELECT 1 FROM dropped_call AS dropped
        WHERE dropped.call_sid = call.call_sid AND dropped.revision >= call.revision)"""
# The tenants first: then their index gives each day's calls, and nothing needs to be sorted.
DAY = f"""SELECT tenant.name, count(*), digest(call.call_sid, call.revision)
    FROM tenant CROSS JOIN call ON call.tenant_id = tenant.id
    WHERE call.start_time >= ? AND call.start_time < ? AND {_SETTLED} GROUP BY tenant.id"""  # noqa: S608 - our own words
_HELD = "CREATE TEMP TABLE held (call_sid TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID"
# Confirmed after the comparison began: the centre may have told its calls before.
_LACKING = f"""SELECT call.call_sid, CASE WHEN held.call_sid IS NULL THEN 'missing' ELSE 'older' END
    FROM call LEFT JOIN held ON held.call_sid = call.call_sid
    WHERE call.tenant_id = (SELECT id FROM tenant WHERE name = ?) AND call.start_time >= ? AND call.start_time < ?
    AND (held.call_sid IS NULL OR held.revision < call.revision) AND {_SETTLED}
    AND coalesce((SELECT number FROM call_receipt WHERE call_id = call.id), 0) <= ?"""  # noqa: S608 - our own words
# A call that is known here under another day or tenant is found there.
_AHEAD = f"""SELECT held.call_sid, CASE WHEN call.id IS NULL THEN 'unknown' ELSE 'newer' END
    FROM held LEFT JOIN call ON call.call_sid = held.call_sid
    WHERE call.id IS NULL OR (held.revision > call.revision AND {_SETTLED})"""  # noqa: S608 - our own words


class SqliteTally:
    """`sync.reconciler.Tally` over the database at `path`; without a writer it only looks."""

    def __init__(self, path: Path, writer: Writer | None = None) -> None:
        self._path = path
        self._writer = writer

    async def days(self, first: date, last: date) -> list[DayDigest]:
        """What the centre confirmed, from day to day."""
        found: list[DayDigest] = []
        day = first
        while day <= last:
            with _told_as_outbox(self._path):
                found += await asyncio.to_thread(_day, self._path, day)
            day += timedelta(days=1)
        return found

    async def kept_since(self) -> dict[str, date]:
        """The day after the latest from which a call was deleted, by tenant."""
        with _told_as_outbox(self._path):
            return await asyncio.to_thread(_kept_since, self._path)

    @asynccontextmanager
    async def comparing(self, tenant: str, day: date) -> AsyncIterator["_Comparison"]:
        """One day of one tenant."""
        with _told_as_outbox(self._path), closing(await asyncio.to_thread(_connect, self._path)) as connection:
            yield _Comparison(connection, tenant, day, receipts=await asyncio.to_thread(_begin, connection))

    async def send_again(self, sids: Sequence[str]) -> int:
        """Have these calls wait to be sent."""
        if self._writer is None:
            return 0
        with _told_as_outbox(self._path):
            return await self._writer.transact(partial(_send_again, sids, self._writer.now_text()))

    async def keep(self, found: Reconciled) -> None:
        """Remember the outcome, where it may be written."""
        if self._writer is not None:
            with _told_as_outbox(self._path):
                await self._writer.transact(partial(_keep, found))

    async def last(self) -> dict[str, object] | None:
        """What the last look found, as JSON."""
        with _told_as_outbox(self._path):
            return await asyncio.to_thread(_last, self._path)


class _Comparison:
    def __init__(self, connection: sqlite3.Connection, tenant: str, day: date, *, receipts: int) -> None:
        self._connection = connection
        self._day = (tenant, *_bounds(day), receipts)
        self._asked = iter([(_LACKING, self._day), (_AHEAD, ())])
        self._cursor: sqlite3.Cursor | None = None

    async def note(self, held: Sequence[HeldCall]) -> None:
        """The centre holds these."""
        rows = [(one.call_sid, one.revision) for one in held]
        insert = "INSERT OR REPLACE INTO held VALUES (?, ?)"
        await asyncio.to_thread(self._connection.executemany, insert, rows)

    async def differences(self, *, limit: int) -> list[tuple[str, Difference]]:
        """The next call_sids that differ."""
        return await asyncio.to_thread(self._differences, limit)

    def _differences(self, limit: int) -> list[tuple[str, Difference]]:
        while True:
            if self._cursor is None:
                question = next(self._asked, None)
                if question is None:
                    return []
                self._cursor = self._connection.execute(*question)
            found = [(sid, Difference(kind)) for sid, kind in self._cursor.fetchmany(limit)]
            if found:
                return found
            self._cursor = None


class _Digest:
    """The sum modulo 2^64 of the first eight bytes of each call's MD5, as SQL aggregates: see docs/hub.md."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, call_sid: str, revision: int) -> None:
        """One call."""
        digest = hashlib.md5(f"{call_sid}:{revision}".encode(), usedforsecurity=False).digest()
        self._sum += int.from_bytes(digest[:8], "big")

    def finalize(self) -> str:
        """16 hex digits."""
        return f"{self._sum % 2**64:016x}"


@contextmanager
def _told_as_outbox(path: Path) -> Iterator[None]:
    """The reconciler stands a floor below and has its own word for a local database that cannot be used now."""
    try:
        with faults_of(path):
            yield
    except StoreUnavailable as exc:
        raise OutboxUnavailable(str(exc)) from exc


def _connect(path: Path) -> sqlite3.Connection:
    """Only the temporary table can be written."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.create_aggregate("digest", 2, _Digest)  # type: ignore[arg-type]  # typeshed knows those of one number
    connection.execute("PRAGMA temp_store = FILE")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
    return connection


def _bounds(day: date) -> tuple[str, str]:
    begin = datetime.combine(day, time(), UTC)
    return moment_text(begin), moment_text(begin + timedelta(days=1))


def _day(path: Path, day: date) -> list[DayDigest]:
    with closing(_connect(path)) as connection:
        return [DayDigest(tenant, day, *counted) for tenant, *counted in connection.execute(DAY, _bounds(day))]


def _kept_since(path: Path) -> dict[str, date]:
    with closing(_connect(path)) as connection:
        until = horizon.by_tenant(connection)
    return {tenant: at.date() + timedelta(days=1) for tenant, at in until.items() if tenant is not None}


def _begin(connection: sqlite3.Connection) -> int:
    connection.execute(_HELD)
    found = connection.execute("SELECT receipts FROM centre WHERE id = 1").fetchone()
    return int(found[0]) if found else 0


def _send_again(sids: Sequence[str], now: str, connection: sqlite3.Connection) -> int:
    count = 0
    for sid in sids:
        for (call_id,) in connection.execute("SELECT id FROM call WHERE call_sid = ?", (sid,)).fetchall():
            count += connection.execute(SEND_AGAIN, (now, call_id)).rowcount
    return count


def _keep(found: Reconciled, connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO centre (id, receipts, reconciled) VALUES (1, 0, ?) "
        "ON CONFLICT (id) DO UPDATE SET reconciled = excluded.reconciled",
        (orjson.dumps(found.as_dict()).decode(),),
    )


def _last(path: Path) -> dict[str, object] | None:
    with closing(_connect(path)) as connection:
        row = connection.execute("SELECT reconciled FROM centre WHERE id = 1").fetchone()
    found: dict[str, object] | None = orjson.loads(row[0]) if row and row[0] else None
    return found
