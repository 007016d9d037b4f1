"""The journal: what each PBX said, read back for replay, and pruned by age and size but never past a live call."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from functools import partial

from agent.store.engine import Store
from agent.store.free_pages import shrink
from agent.store.history import PBX_NAMES, read_part
from agent.store.moments import moment_of, moment_text
from agent.store.segment import Segment
from agent.store.small_steps import SmallSteps
from agent.store.writer import Writer
from config import failpoints

logger = logging.getLogger(__name__)

_PRUNE_STEP = 200  # segments deleted in one transaction, at most

OLDEST_ANCHOR = "SELECT min(journal_id) FROM live_call WHERE pbx = ?"
PRUNABLE = (
    "SELECT id, last_at, length(blob) FROM journal_segment WHERE pbx = ? AND id < ? ORDER BY id LIMIT ?"  # by the index
)


class Journal:
    """Read on the store's reader, pruned through the writer."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._connection = store.connection
        self._reader = store.reader
        self._writer = writer

    async def anchors(self, pbx: str) -> dict[str, int]:
        """The live calls of a PBX by call_sid, each with the segment from which a replay finds all of it."""

        def look(connection: sqlite3.Connection) -> dict[str, int]:
            found = connection.execute("SELECT call_sid, journal_id FROM live_call WHERE pbx = ?", (pbx,))
            return dict(found.fetchall())

        return await self._reader.run(look)

    async def anchored_pbxes(self) -> list[str]:
        """The PBXes that have live calls."""

        def look(connection: sqlite3.Connection) -> list[str]:
            return [pbx for (pbx,) in connection.execute("SELECT DISTINCT pbx FROM live_call ORDER BY pbx").fetchall()]

        return await self._reader.run(look)

    async def replay_from(self, pbx: str, journal_id: int) -> AsyncIterator[Segment]:
        """Every segment of a PBX from `journal_id` to the last one there is now, in bounded memory.

        A damaged segment is logged and left out: what comes after it is still worth hearing.
        """
        last = await self._reader.run(partial(_last_id, pbx=pbx))
        while journal_id <= last:
            part = await self._reader.run(partial(read_part, pbx=pbx, first=journal_id, last=last))
            for segment_id in part.damaged:
                logger.error("a journal segment is damaged and left out", extra={"pbx": pbx, "segment": segment_id})
            for segment in part.segments:
                yield segment
            journal_id = part.next_id

    async def last_heard_at(self, pbx: str) -> datetime | None:
        """When a PBX last said anything that was kept: where a gap begins if the agent was down."""

        def look(connection: sqlite3.Connection) -> datetime | None:
            found = connection.execute(
                "SELECT last_at FROM journal_segment WHERE pbx = ? ORDER BY id DESC LIMIT 1", (pbx,)
            ).fetchone()
            return moment_of(found[0]) if found else None

        return await self._reader.run(look)

    async def prune(self, *, keep: timedelta | None, max_bytes: int) -> int:
        """Take away what is older than `keep`, and the oldest of the rest while it is more than `max_bytes`.

        What a live call needs for a replay stays, whatever its age and size. Without `keep`, nothing is too old.
        Returns how many segments went.
        """
        before = moment_text(self._writer.now() - keep) if keep is not None else ""
        return await self._prune(before, max_bytes, lambda: False)

    async def drop(self, is_enough: Callable[[], bool]) -> int:
        """Take away the oldest that no live call needs until `is_enough`; how many segments went."""
        return await self._prune("", 0, is_enough)

    async def _prune(self, before: str, max_bytes: int, is_enough: Callable[[], bool]) -> int:
        steps = SmallSteps(self._connection, most=_PRUNE_STEP)
        total = 0
        while not await asyncio.to_thread(is_enough):
            taken = await steps.take(partial(_prune_step, before, max_bytes, steps.size), count=int)
            if not taken:
                break
            total += taken
        if total:
            await shrink(self._connection)
        return total


def _last_id(connection: sqlite3.Connection, *, pbx: str) -> int:
    found = connection.execute("SELECT max(id) FROM journal_segment WHERE pbx = ?", (pbx,)).fetchone()[0]
    return int(found or 0)


def _prune_step(before: str, max_bytes: int, limit: int, connection: sqlite3.Connection) -> int:
    held = int(connection.execute("SELECT value FROM counter WHERE name = 'journal_bytes'").fetchone()[0])
    doomed = []
    for segment_id, last_at, size in _oldest_prunable(connection, limit):
        if last_at >= before and held <= max_bytes:
            break
        doomed.append((segment_id,))
        held -= size
    connection.executemany("DELETE FROM journal_segment WHERE id = ?", doomed)
    failpoints.hit("journal.prune")
    return len(doomed)


def _oldest_prunable(connection: sqlite3.Connection, limit: int) -> list[tuple[int, str, int]]:
    """The oldest segments of all PBXes that no live call needs, in the order in which they came."""
    found: list[tuple[int, str, int]] = []
    for (pbx,) in connection.execute(PBX_NAMES).fetchall():
        anchor = connection.execute(OLDEST_ANCHOR, (pbx,)).fetchone()[0]
        floor = anchor if anchor is not None else 1 << 62
        found += connection.execute(PRUNABLE, (pbx, floor, limit)).fetchall()
    return sorted(found)[:limit]
