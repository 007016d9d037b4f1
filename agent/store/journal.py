"""The journal: what each PBX said, read back for replay, and pruned by age and size but never past a live call."""

import logging
import sqlite3
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial

from agent.store.engine import Store
from agent.store.history import PBX_NAMES, read_part
from agent.store.moments import moment_of, moment_text
from agent.store.segment import Segment
from agent.store.writer import Writer
from config import failpoints

logger = logging.getLogger(__name__)

# Segments deleted in one transaction: some milliseconds, so that a group of calls never waits long behind it.
_PRUNE_STEP = 200
# Free pages are filled again by what comes; only what is far too much (32 MB) goes back to the file system, in steps.
_FREE_PAGES = 4096
_VACUUM_PAGES = 256

OLDEST_ANCHOR = "SELECT min(journal_id) FROM live_call WHERE pbx = ?"
PRUNABLE = (
    "SELECT id, last_at, length(blob) FROM journal_segment WHERE pbx = ? AND id < ? ORDER BY id LIMIT ?"  # by the index
)


class Journal:
    """Read on the store's reader, pruned through the writer."""

    def __init__(self, store: Store, writer: Writer) -> None:
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

    async def prune(self, *, keep: timedelta, max_bytes: int) -> int:
        """Take away what is older than `keep`, and the oldest of the rest while it is more than `max_bytes`.

        What a live call needs for a replay stays, whatever its age and size. Returns how many segments went.
        """
        before = moment_text(self._writer.now() - keep)
        total = 0
        while taken := await self._writer.transact(partial(_prune_step, before, max_bytes)):
            total += taken
        return total


def _last_id(connection: sqlite3.Connection, *, pbx: str) -> int:
    found = connection.execute("SELECT max(id) FROM journal_segment WHERE pbx = ?", (pbx,)).fetchone()[0]
    return int(found or 0)


def _prune_step(before: str, max_bytes: int, connection: sqlite3.Connection) -> int:
    held = int(connection.execute("SELECT value FROM counter WHERE name = 'journal_bytes'").fetchone()[0])
    doomed = []
    for segment_id, last_at, size in _oldest_prunable(connection):
        if last_at >= before and held <= max_bytes:
            break
        doomed.append((segment_id,))
        held -= size
    connection.executemany("DELETE FROM journal_segment WHERE id = ?", doomed)
    failpoints.hit("journal.prune")
    _give_back_pages(connection)
    return len(doomed)


def _give_back_pages(connection: sqlite3.Connection) -> None:
    too_many = connection.execute("PRAGMA freelist_count").fetchone()[0] - _FREE_PAGES
    for _ in range(min(too_many, _VACUUM_PAGES)):
        # SQLite frees one page per step and sqlite3 takes one step of a statement without columns, whatever N is.
        connection.execute("PRAGMA incremental_vacuum(1)")


def _oldest_prunable(connection: sqlite3.Connection) -> list[tuple[int, str, int]]:
    """The oldest segments of all PBXes that no live call needs, in the order in which they came."""
    found: list[tuple[int, str, int]] = []
    for (pbx,) in connection.execute(PBX_NAMES).fetchall():
        anchor = connection.execute(OLDEST_ANCHOR, (pbx,)).fetchone()[0]
        floor = anchor if anchor is not None else 1 << 62
        found += connection.execute(PRUNABLE, (pbx, floor, _PRUNE_STEP)).fetchall()
    return sorted(found)[:_PRUNE_STEP]
