"""Copies of the database, made while the agent captures, and one of them put back."""

import errno
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from agent.errors import StoreDamaged, StoreUnavailable
from agent.store import schema
from agent.store.backup_files import part_of
from agent.store.engine import problems_of, reading
from agent.store.faults import faults_of
from agent.store.files import discard, sync_directory
from agent.store.lease import Lease
from agent.store.stopping import Stop
from agent.store.swap import aside_of, finish_swap, part_file, swap_in
from config import failpoints

_PAGES: Final = 64  # copied at once: 512 KB
_SHORTEST_REST_SECONDS: Final = 0.005  # between; the disk is capture's first
# What is written is synced in parts: one great sync at the end would have capture's commits wait behind it.
_SYNC_EVERY: Final = 8  # times of _PAGES


def back_up(database: Path, target: Path, *, stop: Stop | None = None) -> int:
    """Write a copy as of now to `target`, checked and synced, and return its size in bytes.

    It reads as any reader does and rests half of the time, so capture does not wait for it; only the write-ahead log
    grows meanwhile. Raises StoreUnavailable, of these StoreDamaged where damage is found in the copy, or Stopped once
    `stop` is told, with `target` as it was.
    """
    part = part_of(target)
    with faults_of(target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _copy(database, part, stop or Stop())
            failpoints.hit("backup.rename.before")
            os.rename(part, target)
            failpoints.hit("backup.rename.after")
            _sync_name(target.parent)
        finally:
            discard(part)
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
            try:
                _copy(backup, part, Stop())
            except StoreDamaged as exc:
                raise StoreUnavailable(
                    f"{backup} is damaged or no backup, so nothing was changed; "
                    f"`edge-agent salvage {backup} --into FILE` saves what can be read ({str(exc).splitlines()[0]})"
                ) from exc
            _refuse_others(part, backup, site=site)
        except BaseException:
            discard(part)
            raise
        aside = aside_of(database, "before-restore")
        return aside if swap_in(database, aside=aside) else None
    finally:
        lease.leave()


def _copy(source: Path, target: Path, stop: Stop) -> None:
    with suppress(FileNotFoundError):
        target.unlink()
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with reading(source.absolute()) as from_, closing(sqlite3.connect(target, isolation_level=None)) as to:
            # Synced below, and nobody reads it before.
            to.execute("PRAGMA synchronous = OFF")
            # One snapshot from beginning to end: what is committed meanwhile would make the copy begin again.
            from_.execute("BEGIN")
            from_.execute("SELECT count(*) FROM sqlite_master").fetchone()
            # sqlite3 itself sleeps only when it has to wait for a lock.
            from_.backup(to, pages=_PAGES, sleep=_SHORTEST_REST_SECONDS, progress=_Pace(handle, stop))
            from_.execute("ROLLBACK")
            to.execute("PRAGMA journal_mode = DELETE")
            os.fsync(handle)
            with stop.ends(to):
                problems = problems_of(to)
    finally:
        os.close(handle)
    if problems:
        raise StoreDamaged(f"{source} is damaged ({problems[0]}); `edge-agent salvage` saves what can be read")


def _sync_name(directory: Path) -> None:
    try:
        sync_directory(directory)
    except OSError as exc:
        if exc.errno not in {errno.EINVAL, errno.ENOTSUP}:  # a network share that knows no such sync
            raise


class _Pace:
    """Called after every part of a copy: syncs what was written, and rests."""

    def __init__(self, handle: int, stop: Stop) -> None:
        self._handle = handle
        self._stop = stop
        self._parts = 0

    def __call__(self, status: int, remaining: int, total: int) -> None:
        self._parts += 1
        if self._parts % _SYNC_EVERY == 0:
            os.fdatasync(self._handle)
        if remaining:
            self._stop.rest(_SHORTEST_REST_SECONDS)


def _refuse_others(copy: Path, named: Path, *, site: str) -> None:
    with reading(copy) as connection:
        found = schema.revision_of(connection)
        if found is None:
            raise StoreUnavailable(f"{named} is no database of an agent")
        schema.check_known(found, connection, named)
        other = connection.execute("SELECT site FROM call WHERE site <> ? LIMIT 1", (site,)).fetchone()
    if other is not None:
        raise StoreUnavailable(f"{named} holds calls of the site {other[0]}, and this one is {site}")
