"""Puts another file in the database's place, so that a death in the middle is finished by the next start.

The new file is made whole under a name of its own first. The old one is kept beside it with its write-ahead log, which
must never meet the new one.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from agent.store.faults import faults_of
from agent.store.files import discard, sync_directory, wal_file
from config import failpoints


def incoming_file(database: Path) -> Path:
    """A whole database that is to take the place of the present one."""
    return database.with_name(f"{database.name}.incoming")


def part_file(database: Path) -> Path:
    """Where one is made; what lies there is not whole."""
    return database.with_name(f"{database.name}.incoming.part")


def swap_in(database: Path, *, kept_as: str) -> Path | None:
    """Put the file at `part_file` in place; the old one's new path, if there was one. For the lease's holder only.

    `kept_as` becomes a part of the old one's name. Raises StoreUnavailable.
    """
    with faults_of(database):
        os.rename(part_file(database), incoming_file(database))
        sync_directory(database.parent)
        failpoints.hit("swap.incoming")
        return _finish(database, kept_as)


def finish_swap(database: Path) -> None:
    """Do what a death in the middle of `swap_in` left undone, and remove what one before it left half made.

    For the lease's holder only.
    """
    with faults_of(database):
        if incoming_file(database).exists():
            _finish(database, "replaced")
    discard(part_file(database))


def _finish(database: Path, kept_as: str) -> Path | None:
    aside: Path | None = None
    if database.exists():
        aside = database.with_name(f"{database.name}.{kept_as}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        os.link(database, aside)
        wal = wal_file(database)
        if wal.exists():
            os.rename(wal, wal_file(aside))
        sync_directory(database.parent)
        failpoints.hit("swap.aside")
    else:
        wal_file(database).unlink(missing_ok=True)
    database.with_name(f"{database.name}-shm").unlink(missing_ok=True)
    os.rename(incoming_file(database), database)
    sync_directory(database.parent)
    failpoints.hit("swap.done")
    return aside
