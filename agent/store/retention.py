"""What is old goes: calls that the centre confirmed, what else is kept of past days, and the journal.

Calls that nobody else has are never deleted. All of it happens in small steps between the commits of capture, each of
them whole or not done at all; what was deleted of whose calls is noted in the same transaction (`agent.store.horizon`).
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Self

from agent.store import horizon
from agent.store.clock_trust import first_trust, look_again
from agent.store.engine import Store, reading
from agent.store.free_pages import shrink
from agent.store.journal import Journal
from agent.store.moments import moment_of, moment_text
from agent.store.rows import json_text
from agent.store.small_steps import SmallSteps
from agent.store.writer import Writer
from config import failpoints
from config.settings import RetentionSettings, StoreSettings, TenancySettings

log = logging.getLogger(__name__)

_LOOK: Final = 500  # calls looked at in one read
_REST_SECONDS: Final = 0.01
# A call that changed so lately stays, whatever its age: its second sources may not have told all of it.
_SETTLED: Final = timedelta(days=1)
_FOR_EVER: Final = "9999-12-31"  # no number, which SQLite would take it for in a column of moments


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which calls go: of one tenant (None: everybody's), begun and unchanged before these moments."""

    tenant_id: int | None
    before: str
    unchanged: str
    is_confirmed: bool = True  # False: also those that wait, since there is no centre


class Retention:
    """Deletes what the settings say; one task at a time uses it."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        *,
        settings: RetentionSettings,
        journal_settings: StoreSettings,
        tenancy: TenancySettings,
        has_centre: bool,
        newest: datetime | None,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._writer = writer
        self._journal = Journal(store, writer)
        self._settings = settings
        self._journal_settings = journal_settings
        self._tenancy = tenancy
        self._has_centre = has_centre
        self._monotonic = monotonic
        self._pause = pause
        self._one_at_a_time = asyncio.Lock()
        self._trust = first_trust(newest=newest, now=writer.now(), monotonic=monotonic())

    @classmethod
    async def over(
        cls,
        store: Store,
        writer: Writer,
        *,
        settings: RetentionSettings,
        journal_settings: StoreSettings,
        tenancy: TenancySettings,
        has_centre: bool,
    ) -> Self:
        """Of an open store, before anything is captured: what it holds tells whether the clock is to be believed."""
        return cls(
            store, writer, settings=settings, journal_settings=journal_settings, tenancy=tenancy,
            has_centre=has_centre, newest=await store.reader.run(_newest),
        )  # fmt: skip

    def use_rules(self, tenancy: TenancySettings) -> None:
        """The settings were read again."""
        self._tenancy = tenancy

    async def run_due(self) -> None:
        """Delete what is too old or too much by the settings. Raises StoreUnavailable."""
        async with self._one_at_a_time:
            is_believed = self._look_at_the_clock()
            keep = self._journal_settings.journal_keep if is_believed else None
            max_bytes = self._journal_settings.journal_max_megabytes * 2**20
            _tell("old journal segments were removed", await self._journal.prune(keep=keep, max_bytes=max_bytes))
            if is_believed:
                _tell("old calls were deleted", await self._by_age())
                _tell("what was kept of past days was deleted", await self._others())
            most = self._settings.calls_max_megabytes
            if most is not None:
                bound = most * 2**20
                _tell(
                    "calls were deleted, since they took too much room",
                    await self._until(lambda: _room_of_calls(self._store) <= bound),
                )
            await shrink(self._store.connection)

    async def drop_synced_calls(self, is_enough: Callable[[], bool]) -> int:
        """Delete the oldest confirmed calls, whatever their age, until `is_enough` or there are none; how many.

        Those that changed within the last day stay. Raises StoreUnavailable.
        """
        async with self._one_at_a_time:
            return await self._until(is_enough)

    async def drop_journal(self, is_enough: Callable[[], bool]) -> int:
        """Delete the oldest of the journal that no live call needs, until `is_enough`; how many segments."""
        async with self._one_at_a_time:
            return await self._journal.drop(is_enough)

    def _look_at_the_clock(self) -> bool:
        before, now = self._trust, self._writer.now()
        self._trust = look_again(before, now=now, monotonic=self._monotonic())
        if self._trust.doubted_since is not None and before.doubted_since is None:
            log.warning("the clock leapt, so nothing is deleted by its age until tomorrow or until it leaps back")
        return self._trust.doubted_since is None

    # Calls

    async def _by_age(self) -> int:
        """Every tenant by its own days."""
        days = {rule.tenant: rule.calls_days for rule in self._tenancy.retention}
        tenants = await self._store.reader.run(lambda reader: reader.execute("SELECT id, name FROM tenant").fetchall())
        total = 0
        if self._has_centre:
            for tenant_id, name in tenants:
                total += await self._delete(self._older(tenant_id, days.get(name, self._settings.calls_days)))
        elif (everybodys := self._settings.calls_days_without_centre) is not None:
            for tenant_id, name in [*tenants, (horizon.NOBODY, None)]:
                older = self._older(tenant_id, days.get(name, everybodys), is_confirmed=False)
                total += await self._delete(older)
        return total

    def _older(self, tenant_id: int, days: int, *, is_confirmed: bool = True) -> _Wanted:
        now = self._writer.now()
        before, unchanged = now - timedelta(days=days), now - _SETTLED
        return _Wanted(tenant_id, moment_text(before), moment_text(unchanged), is_confirmed)

    async def _until(self, is_enough: Callable[[], bool]) -> int:
        unchanged = moment_text(self._writer.now() - _SETTLED)
        return await self._delete(_Wanted(None, _FOR_EVER, unchanged), is_enough)

    async def _delete(self, wanted: _Wanted, is_enough: Callable[[], bool] = lambda: False) -> int:
        """The oldest first. What may not go is passed over on the reader, where nobody waits for it."""
        steps = SmallSteps(self._store.connection, pause=self._pause)
        total, last = 0, ("", 0)
        while not await asyncio.to_thread(is_enough):
            part = await self._store.reader.run(partial(_look, wanted, last))
            if part is None:
                break
            last, doomed = part
            if not doomed:
                await self._pause(_REST_SECONDS)  # others read too
            while doomed and not await asyncio.to_thread(is_enough):
                some, doomed = doomed[: steps.size], doomed[steps.size :]
                total += await steps.take(partial(_delete_calls, some, wanted), count=int)
        return total

    # What else is kept of past days

    async def _others(self) -> int:
        now, settings = self._writer.now(), self._settings
        rejects = moment_text(now - timedelta(days=settings.rejects_days))
        history = moment_text(now - timedelta(days=settings.history_days))
        steps = SmallSteps(self._store.connection, pause=self._pause)
        total = 0
        of_days = (REJECTS, rejects), (GAPS, history), (COVERAGE, history[:10]), (DROPPED, history), (PARTS, history)
        for query, before in of_days:
            total += await _all_of(steps, query, before)
        if settings.erasures_days is not None:
            erasures = moment_text(now - timedelta(days=settings.erasures_days))
            total += await _all_of(steps, SEALS, erasures)
            total += await _all_of(steps, ERASURES, erasures)
        return total


def _tell(message: str, count: int) -> None:
    if count:
        log.info(message, extra={"count": count})


async def _all_of(steps: SmallSteps, query: str, before: str) -> int:
    total = 0
    while gone := await steps.take(partial(_delete_some, query, before, steps.size), count=int):
        total += gone
    return total


def _delete_some(query: str, before: str, limit: int, connection: sqlite3.Connection) -> int:
    return connection.execute(query, (before, limit)).rowcount


# Nothing of it is read again by a live call, an outbox, a service or a source.
_IS_LEFT_ALONE: Final = """NOT EXISTS (SELECT 1 FROM quarantine WHERE quarantine.call_id = call.id)
    AND NOT EXISTS (SELECT 1 FROM live_call WHERE live_call.call_sid = call.call_sid)
    AND NOT EXISTS (SELECT 1 FROM context_operation WHERE context_operation.call_sid = call.call_sid)"""
_IS_CONFIRMED: Final = """(EXISTS (SELECT 1 FROM call_receipt WHERE call_receipt.call_id = call.id)
    OR EXISTS (SELECT 1 FROM dropped_call WHERE dropped_call.call_sid = call.call_sid
        AND dropped_call.revision >= call.revision))
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.call_id = call.id)"""


def _may_go(wanted: _Wanted) -> str:
    return f"{_IS_LEFT_ALONE} AND {_IS_CONFIRMED}" if wanted.is_confirmed else _IS_LEFT_ALONE


def look_query(wanted: _Wanted) -> str:
    """The next calls by their beginning, and whether each may go."""
    whose = {None: "", horizon.NOBODY: "tenant_id IS NULL AND"}.get(wanted.tenant_id, "tenant_id = :tenant_id AND")
    return f"""SELECT id, start_time, updated_at < :unchanged AND {_may_go(wanted)} FROM call
        WHERE {whose} (start_time, id) > (:start, :id) AND start_time < :before ORDER BY start_time, id LIMIT :limit"""  # noqa: S608 - our own words


def _look(
    wanted: _Wanted, last: tuple[str, int], connection: sqlite3.Connection
) -> tuple[tuple[str, int], list[int]] | None:
    """Where the look ended and what may go of it; None if there is nothing more."""
    values = {
        "tenant_id": wanted.tenant_id, "start": last[0], "id": last[1], "before": wanted.before,
        "unchanged": wanted.unchanged, "limit": _LOOK,
    }  # fmt: skip
    found = connection.execute(look_query(wanted), values).fetchall()
    if not found:
        return None
    return (found[-1][1], found[-1][0]), [key for key, _, may_go in found if may_go]


def _delete_calls(keys: list[int], wanted: _Wanted, connection: sqlite3.Connection) -> int:
    """What was true when it was looked at has to be true now; how many went."""
    which = "id IN (SELECT value FROM json_each(:keys)) AND updated_at < :unchanged"
    values = {"keys": json_text(keys), "unchanged": wanted.unchanged}
    deleted = connection.execute(
        f"""SELECT coalesce(tenant_id, {horizon.NOBODY}), max(start_time), coalesce(max(number), 0), count(*) FROM call
            LEFT JOIN call_receipt ON call_receipt.call_id = call.id WHERE {which} AND {_may_go(wanted)} GROUP BY 1""",  # noqa: S608 - our own words
        values,
    ).fetchall()
    horizon.advance(connection, deleted)
    failpoints.hit("retention.calls")
    if not wanted.is_confirmed:
        connection.execute(
            f"DELETE FROM outbox WHERE call_id IN (SELECT id FROM call WHERE {which} AND {_may_go(wanted)})",  # noqa: S608 - our own words
            values,
        )
    return connection.execute(f"DELETE FROM call WHERE {which} AND {_may_go(wanted)}", values).rowcount  # noqa: S608 - our own words


REJECTS: Final = """DELETE FROM source_reject WHERE id IN (
    SELECT id FROM source_reject WHERE at < ? ORDER BY id LIMIT ?)"""
GAPS: Final = "DELETE FROM gap WHERE id IN (SELECT id FROM gap WHERE to_at < ? ORDER BY id LIMIT ?)"
COVERAGE: Final = "DELETE FROM coverage WHERE (pbx, day) IN (SELECT pbx, day FROM coverage WHERE day < ? LIMIT ?)"
# As long as the call is here, it is told by this that nobody wants to send it.
DROPPED: Final = """DELETE FROM dropped_call WHERE call_sid IN (SELECT call_sid FROM dropped_call WHERE at < ?
    AND NOT EXISTS (SELECT 1 FROM call WHERE call.call_sid = dropped_call.call_sid) LIMIT ?)"""
PARTS: Final = """DELETE FROM part_of_call WHERE call_sid IN (
    SELECT call_sid FROM part_of_call WHERE at < ? LIMIT ?)"""
SEALS: Final = """DELETE FROM erased_call WHERE call_sid IN (SELECT call_sid FROM erased_call
    JOIN erasure ON erasure.id = erasure_id WHERE ended_at < ? LIMIT ?)"""
ERASURES: Final = "DELETE FROM erasure WHERE id IN (SELECT id FROM erasure WHERE ended_at < ? ORDER BY id LIMIT ?)"


def _newest(connection: sqlite3.Connection) -> datetime | None:
    """The latest moment that is kept of the time before the start."""
    found = connection.execute(
        "SELECT max(at) FROM (SELECT last_at AS at FROM (SELECT last_at FROM journal_segment ORDER BY id DESC LIMIT 1) "
        "UNION ALL SELECT created_at FROM (SELECT created_at FROM call ORDER BY id DESC LIMIT 1))"
    ).fetchone()[0]
    return moment_of(found) if found is not None else None


def _room_of_calls(store: Store) -> int:
    """Bytes of the database that are neither free nor the journal's."""
    with reading(store.path) as connection:
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        journal = connection.execute("SELECT value FROM counter WHERE name = 'journal_bytes'").fetchone()[0]
    return (pages - free) * size - int(journal)
