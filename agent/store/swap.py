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


def aside_of(database: Path, kept_as: str) -> Path:
    """What the present database is to be called when another takes its place now."""
    return database.with_name(f"{database.name}.{kept_as}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")


def swap_in(database: Path, *, aside: Path) -> bool:
    """Put the file at `part_file` in place; whether there was an old one, which is called `aside` now.

    For the lease's holder only. Raises StoreUnavailable.
    """
    with faults_of(database):
        os.rename(part_file(database), incoming_file(database))
        sync_directory(database.parent)
        failpoints.hit("swap.incoming")
        return _finish(database, aside)


def finish_swap(database: Path) -> None:
    """Do what a death in the middle of `swap_in` left undone, and remove what one before it left half made.

    For the lease's holder only.
    """
    with faults_of(database):
        if incoming_file(database).exists():
            _finish(database, aside_of(database, "replaced"))
    discard(part_file(database))


def _finish(database: Path, aside: Path) -> bool:
    was_there = database.exists()
    if was_there:
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
    return was_there
