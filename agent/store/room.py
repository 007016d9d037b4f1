"""How much room the local data takes, how much there is, and how long it lasts without the centre."""

import shutil
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from agent.store.backup_files import backups_size
from agent.store.files import reserve_file, size_of, spill_file, wal_file
from agent.store.moments import moment_of, moment_text
from config.settings import StoreSettings

WATCH: Final = 0.70
LOW: Final = 0.85
FULL: Final = 0.95
# While so much of the disk is free, how much of it is used is nobody's worry: it holds millions of calls.
_PLENTY_BYTES: Final = 20 << 30
# Of a disk that others fill, nothing of ours is given up before so little is free, and nothing is added to it then.
_LEAST_FREE_BYTES: Final = 256 << 20
_LEAST_FREE_PART: Final = 0.05
_MEASURED: Final = timedelta(days=7)
_USUAL_CALL_BYTES: Final = 3000
_FEW_CALLS: Final = 1000  # below it, the empty tables weigh more than the calls
_PARTS: Final = """SELECT (SELECT value FROM counter WHERE name = 'journal_bytes'),
    (SELECT freelist_count FROM pragma_freelist_count()), (SELECT page_count FROM pragma_page_count()),
    (SELECT page_size FROM pragma_page_size())"""
_LATELY: Final = "SELECT count(*), min(start_time) FROM call WHERE start_time >= ? AND start_time < ?"


class Level(StrEnum):
    """How far the room is used up: 70, 85 and 95 %."""

    OK = "ok"
    WATCH = "watch"
    LOW = "low"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes, part by part; `database` without `unused` pages is what it holds, the journal among it."""

    database: int = 0
    unused: int = 0
    journal: int = 0
    wal: int = 0
    spill: int = 0
    reserve: int = 0
    backups: int = 0
    budget: int | None = None
    disk_free: int = 0
    disk_total: int = 0

    @property
    def used(self) -> int:
        """What counts against the budget."""
        return self.database - self.unused + self.wal + self.spill + self.reserve + self.backups

    @property
    def part(self) -> float:
        """How much of the budget is used, or of the disk where that is nearer to its end; 1 is all."""
        return max(self._of_disk, self._of_budget)

    @property
    def is_of_budget(self) -> bool:
        """Whether the budget is nearer to its end than the disk."""
        return self._of_budget >= self._of_disk

    @property
    def _of_disk(self) -> float:
        is_plenty = not self.disk_total or self.disk_free >= _PLENTY_BYTES
        return 0.0 if is_plenty else 1 - self.disk_free / self.disk_total

    @property
    def _of_budget(self) -> float:
        return self.used / self.budget if self.budget else 0.0

    @property
    def level(self) -> Level:
        """A word for it."""
        part = self.part
        return Level.FULL if part >= FULL else Level.LOW if part >= LOW else Level.WATCH if part >= WATCH else Level.OK

    @property
    def left(self) -> int:
        """What may still be taken: unused pages and what is free."""
        of_budget = self.budget - self.used if self.budget else self.disk_free
        return max(0, self.unused + min(self.disk_free, of_budget))


def measure(connection: sqlite3.Connection, database: Path, settings: StoreSettings) -> Room:
    """As it is now. Raises OSError."""
    budget = settings.budget_megabytes
    journal, unused, pages, page_size = connection.execute(_PARTS).fetchone()
    disk = shutil.disk_usage(database.parent)
    return Room(
        database=pages * page_size,
        unused=unused * page_size,
        journal=journal,
        wal=size_of(wal_file(database)),
        spill=size_of(spill_file(database)),
        reserve=size_of(reserve_file(database)),
        backups=backups_size(database, settings.backup_directory),
        budget=budget << 20 if budget else None,
        disk_free=disk.free,
        disk_total=disk.total,
    )


def least_free(disk_total: int) -> int:
    """So many bytes of a disk have to stay free for whatever else happens on it."""
    return min(_LEAST_FREE_BYTES, round(_LEAST_FREE_PART * disk_total))


def growth(connection: sqlite3.Connection, room: Room, *, now: datetime) -> float:
    """Bytes a day by which calls grow, as in the last week; 0 if there were none."""
    values = (moment_text(now - _MEASURED), moment_text(now))
    lately, first = connection.execute(_LATELY, values).fetchone()
    if not lately:
        return 0.0
    days = max((now - moment_of(first)) / timedelta(days=1), 1 / 24)
    ids = connection.execute("SELECT max(id), min(id) FROM call").fetchone()
    calls = ids[0] - ids[1] + 1
    each = (room.database - room.unused - room.journal) / calls if calls >= _FEW_CALLS else _USUAL_CALL_BYTES
    return float(lately / days * each)


def days_left(room: Room, *, bytes_a_day: float, journal_max: int) -> float | None:
    """How many days' calls fit in while the centre takes none; None if none come."""
    if bytes_a_day <= 0:
        return None
    return max(0.0, room.left - max(0, journal_max - room.journal)) / bytes_a_day
