"""The outbox in SQLite: calls whose latest revision the centre has not confirmed.

Waiting calls are found by their place in line (`sequence`), and settled ones are deleted, so neither start nor memory
nor the next batch depends on how many wait. JSON passes through as text, never parsed.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from agent.errors import StoreUnavailable
from agent.store import horizon, quarantine, receipts
from agent.store.engine import Store
from agent.store.moments import moment_of, moment_text
from agent.store.outbox_rows import VALUES, Form
from agent.store.quarantine import Chosen
from agent.store.rows import json_text
from agent.store.small_steps import StepSize, timed
from agent.store.writer import Writer
from config import failpoints
from sync.errors import OutboxUnavailable
from sync.outbox import Backlog, Standing
from sync.records import Batch, CallRecord, CopyRecord, EncodedRecord, Receipt, RecordReceipt, Verdict

# The part of a batch that is kept for the freshest calls while the backlog is longer than the batch.
_FRESH_PART = 4

_WAITING = (
    "FROM outbox JOIN call ON call.id = outbox.call_id JOIN tenant ON tenant.id = call.tenant_id "
    "WHERE outbox.call_id NOT IN (SELECT value FROM json_each(?)) ORDER BY outbox.sequence"
)
OLDEST = f"{_WAITING} LIMIT ?"
FRESHEST = f"{_WAITING} DESC LIMIT ?"
# By the index over the beginnings of calls, so that its cost depends on the calls of some hours, not on the backlog.
FRESH = (
    "FROM call INDEXED BY ix_call_start_time "
    "CROSS JOIN outbox ON outbox.call_id = call.id JOIN tenant ON tenant.id = call.tenant_id "
    "WHERE call.start_time >= ? AND call.end_time >= ? AND outbox.call_id NOT IN (SELECT value FROM json_each(?)) "
    "ORDER BY outbox.sequence LIMIT ?"
)
_LONGEST_CALL = timedelta(hours=4)  # of those that are fresh when they end


class SqliteOutbox:
    """`sync.outbox.Outbox` over an open store. Reads on its reader; everything that changes goes through the writer.

    Its batches hold records in `form`.
    """

    def __init__(self, store: Store, writer: Writer, *, site: str, form: Form = VALUES) -> None:
        self._connection = store.connection
        self._reader = store.reader
        self._writer = writer
        self._site = site
        self._form = form
        self._under_way: dict[str, int] = {}  # call_sid to the call's key
        self._settled_at_once = StepSize(first=200, most=1000, least=50)

    async def next_batch(self, *, limit: int, fresh_since: datetime | None = None) -> Batch | None:
        """Up to `limit` waiting calls: the oldest, and a quarter of the freshest if more wait than fit in.

        With `fresh_since` the oldest of those that ended since then; a call of many hours counts as a backlog's.
        For one task; what others change meanwhile does no harm.
        """
        taken = tuple(self._under_way.values())
        with _told_to_the_syncer():
            if fresh_since is None:
                look = partial(_read_waiting, form=self._form, limit=limit, taken=taken)
            else:
                look = partial(_read_fresh, form=self._form, limit=limit, taken=taken, since=fresh_since)
            found = await self._reader.run(look)
        if not found:
            return None
        self._under_way |= {place.record.call_sid: place.call_id for place in found}
        return Batch(
            site=self._site,
            records=[place.record for place in found],
            high_water=max(place.sequence for place in found),
        )

    def release(self, batch: Batch) -> None:
        """The batch's calls may be in the next one, if they still wait."""
        for record in batch.records:
            self._under_way.pop(record.call_sid, None)

    async def settle(self, receipt: Receipt) -> None:
        """Durably take away what the centre has, and set aside what it rejected.

        In some transactions, so that capture never waits long behind a large batch; of a batch that is settled in part
        the rest is sent again.
        """
        with _told_to_the_syncer():
            left = receipt.verdicts
            while left:
                part, left = left[: self._settled_at_once.size], left[self._settled_at_once.size :]
                settle = partial(_settle, replace(receipt, verdicts=part), self._writer.now_text())
                _, seconds = await self._connection.run(partial(timed, settle))
                self._settled_at_once.learn(len(part), seconds)

    async def backlog(self) -> Backlog:
        """How much waits, by the counts that triggers keep."""
        with _told_to_the_syncer():
            return await self._reader.run(_backlog)

    async def standing(self) -> Standing:
        """How this site stands with its centre."""
        with _told_to_the_syncer():
            return await self._reader.run(receipts.read_standing)

    async def keep_standing(self, standing: Standing) -> None:
        """Remember it."""
        with _told_to_the_syncer():
            await self._writer.transact(partial(receipts.keep_standing, standing))

    async def refill(self, *, after: int) -> int:
        """Have some calls wait again that the centre confirmed by a later receipt than `after`."""
        with _told_to_the_syncer():
            return await self._writer.transact(partial(receipts.refill, after, self._writer.now_text()))

    async def deleted_after(self, *, receipt: int) -> datetime | None:
        """When the latest call may have begun that only a later receipt confirmed, and that retention deleted."""
        with _told_to_the_syncer():
            return await self._reader.run(partial(horizon.lost_for, after=receipt))

    async def readmit(self, tenants: Sequence[str]) -> int:
        """Have some calls of these tenants wait again that the centre refused for their tenant's sake."""
        with _told_to_the_syncer():
            work = partial(quarantine.readmit, json_text(list(tenants)), self._writer.now_text())
            return await self._writer.transact(work)

    async def retry(self, chosen: Chosen) -> int:
        """Have refused calls wait to be sent again; how many."""
        return await self._in_steps(lambda: partial(quarantine.retry, chosen, self._writer.now_text()))

    async def drop(self, chosen: Chosen, *, by: str) -> int:
        """Give refused calls up, by whom; how many. They stay here, and are not sent unless they change."""
        return await self._in_steps(lambda: partial(quarantine.drop, chosen, by, self._writer.now_text()))

    async def _in_steps(self, step: Callable[[], Callable[[sqlite3.Connection], int]]) -> int:
        total = 0
        while done := await self._writer.transact(step()):
            total += done
        return total


@contextmanager
def _told_to_the_syncer() -> Iterator[None]:
    """The syncer stands a floor below and has its own word for a local database that cannot be used now."""
    try:
        yield
    except StoreUnavailable as exc:
        raise OutboxUnavailable(str(exc)) from exc


class _Place(NamedTuple):
    sequence: int
    call_id: int
    record: CallRecord | EncodedRecord | CopyRecord


def _read_waiting(connection: sqlite3.Connection, *, form: Form, limit: int, taken: Sequence[int]) -> list[_Place]:
    skipped = json_text(taken)
    connection.execute("BEGIN")  # one view for both ends of the line
    try:
        rest = limit
        freshest: list[_Place] = []
        if _counter(connection, "outbox_records") > limit + len(taken):
            freshest = _places(connection, form, FRESHEST, (skipped, limit // _FRESH_PART))
            rest = limit - len(freshest)
        oldest = _places(connection, form, OLDEST, (skipped, rest))
    finally:
        connection.execute("ROLLBACK")
    return [*oldest, *reversed(freshest)]


def _read_fresh(
    connection: sqlite3.Connection, *, form: Form, limit: int, taken: Sequence[int], since: datetime
) -> list[_Place]:
    bounds = (moment_text(since - _LONGEST_CALL), moment_text(since), json_text(taken), limit)
    return _places(connection, form, FRESH, bounds)


def _places(connection: sqlite3.Connection, form: Form, which: str, values: Sequence[object]) -> list[_Place]:
    def read(form: Form) -> list[_Place]:
        select = f"SELECT outbox.sequence, outbox.call_id, {form.columns} {which}"
        return [_Place(row[0], row[1], form.record_of(row[2:])) for row in connection.execute(select, values)]

    try:
        return read(form)
    except (ValueError, TypeError):
        pass
    except sqlite3.OperationalError as exc:
        # Python's own, for bytes that are no UTF-8, have no code.
        if getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
    # One of them holds what its column should not. By its values, with bytes that are no text marked, it can be read,
    # and is refused alone.
    connection.text_factory = _marked
    try:
        return read(VALUES)
    finally:
        connection.text_factory = str


def _marked(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def _counter(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()[0])


def _backlog(connection: sqlite3.Connection) -> Backlog:
    oldest = connection.execute("SELECT enqueued_at FROM outbox ORDER BY sequence LIMIT 1").fetchone()
    return Backlog(
        records=_counter(connection, "outbox_records"),
        oldest_at=moment_of(oldest[0]) if oldest else None,
        quarantined=_counter(connection, "quarantine_records"),
    )


# By one statement for all of them: Python's other threads run from its beginning to its end, where one for each call
# would have them change places twice a call.
_TAKE_AWAY = f"""DELETE FROM outbox WHERE sequence IN (SELECT waiting.sequence FROM {receipts.TOLD}
    CROSS JOIN outbox AS waiting ON waiting.call_id = call.id AND waiting.revision <= told.value ->> 1)"""  # noqa: S608 - our own words
_CLEAR = f"""DELETE FROM quarantine WHERE call_id IN (SELECT aside.call_id FROM {receipts.TOLD}
    CROSS JOIN quarantine AS aside ON aside.call_id = call.id AND aside.revision <= told.value ->> 1)"""  # noqa: S608 - our own words
_SET_ASIDE = """INSERT INTO quarantine (call_id, revision, code, reason, at)
    VALUES ((SELECT id FROM call WHERE call_sid = ?), ?, ?, ?, ?)
    ON CONFLICT (call_id) DO UPDATE SET
        revision = excluded.revision, code = excluded.code, reason = excluded.reason, at = excluded.at"""


def _settle(receipt: Receipt, now: str, connection: sqlite3.Connection) -> None:
    passed = [one for one in receipt.verdicts if one.verdict is not Verdict.REJECTED]
    told = _told(passed)
    connection.execute(_TAKE_AWAY, (told,))
    if _counter(connection, "quarantine_records"):
        connection.execute(_CLEAR, (told,))
    failpoints.hit("outbox.settle")
    receipts.keep_receipt(connection, passed, told, number=receipt.number)
    for one in receipt.verdicts:
        if one.verdict is Verdict.REJECTED:
            removed = connection.execute(_TAKE_AWAY, (_told([one]),)).rowcount
            # If a newer revision waits, that one goes out before anybody need look at this one.
            if removed:
                said = (one.call_sid, one.revision, one.code or "rejected", one.reason or "", now)
                connection.execute(_SET_ASIDE, said)


def _told(verdicts: Sequence[RecordReceipt]) -> str:
    return json_text([(one.call_sid, one.revision) for one in verdicts])
