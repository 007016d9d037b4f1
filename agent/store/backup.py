"""Copies of the database, made while the agent captures, and one of them put back."""

import os
import sqlite3
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.errors import StoreUnavailable
from agent.store import schema
from agent.store.engine import problems_of, reading
from agent.store.faults import faults_of
from agent.store.files import sync_directory
from agent.store.lease import Lease
from agent.store.swap import finish_swap, part_file, swap_in
from config import failpoints

_PAGES: Final = 64  # copied at once: 512 KB
_PAUSE_SECONDS: Final = 0.005  # between; the disk is capture's first


def backup_directory(database: Path) -> Path:
    """Where backups go that are given no name."""
    return database.with_name("backups")


def usual_backup_file(database: Path) -> Path:
    """A new backup's file, if nobody names one."""
    return backup_directory(database) / f"{database.stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"


def back_up(database: Path, target: Path) -> int:
    """Write a copy as of now to `target`, checked and synced, and return its size in bytes.

    It reads as any reader does, so capture does not wait for it; only the write-ahead log grows meanwhile. Raises
    StoreUnavailable, with `target` as it was.
    """
    part = target.with_name(target.name + ".part")
    with faults_of(target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _copy(database, part)
            failpoints.hit("backup.rename.before")
            os.rename(part, target)
            failpoints.hit("backup.rename.after")
            sync_directory(target.parent)
        finally:
            with suppress(OSError):
                part.unlink()
        return target.stat().st_size


def restore(backup: Path, database: Path, *, site: str) -> Path | None:
    """Put a backup in the database's place and return where the present one is kept; for a stopped agent.

    Raises StoreHeld while an agent runs; StoreUnavailable for a backup that is damaged, newer than this program, not of
    this site, or no database of an agent. Then nothing has changed.
    """
    if not backup.is_file():
        raise StoreUnavailable(f"there is no file {backup}")
    with faults_of(database):
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lease = Lease.take(database)
    try:
        finish_swap(database)
        part = part_file(database)
        try:
            _copy(backup, part)
            _refuse_others(part, backup, site=site)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        return swap_in(database, kept_as="before-restore")
    finally:
        lease.leave()


def _copy(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        target.unlink()
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with reading(source.absolute()) as from_, closing(sqlite3.connect(target, isolation_level=None)) as to:
        # One snapshot from beginning to end: what is committed meanwhile would make the copy begin again.
        from_.execute("BEGIN")
        from_.execute("SELECT count(*) FROM sqlite_master").fetchone()
        from_.backup(to, pages=_PAGES, sleep=_PAUSE_SECONDS, progress=_pause)
        to.execute("PRAGMA journal_mode = DELETE")
        problems = problems_of(to)
    if problems:
        raise StoreUnavailable(f"{source} is damaged ({problems[0]}); `edge-agent salvage` saves what can be read")
    with target.open("rb") as written:
        os.fsync(written.fileno())


def _pause(status: int, remaining: int, total: int) -> None:
    del status, total
    if remaining:
        time.sleep(_PAUSE_SECONDS)  # sqlite3 sleeps only when it has to wait for a lock


def _refuse_others(copy: Path, named: Path, *, site: str) -> None:
    with reading(copy) as connection:
        found = schema.revision_of(connection)
        if found is None:
            raise StoreUnavailable(f"{named} is no database of an agent")
        schema.check_known(found, connection, named)
        other = connection.execute("SELECT site FROM call WHERE site <> ? LIMIT 1", (site,)).fetchone()
    if other is not None:
        raise StoreUnavailable(f"{named} holds calls of the site {other[0]}, and this one is {site}")
