"""The files that lie beside a database, and what is asked of them in more than one place. No heavy imports: `status`
without a running agent comes by here."""

import os
from contextlib import suppress
from pathlib import Path


def wal_file(database: Path) -> Path:
    """The write-ahead log."""
    return database.with_name(f"{database.name}-wal")


def discard(database: Path) -> None:
    """Remove a database that was not made whole, with its logs, as far as the disk lets one."""
    for ending in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            database.with_name(f"{database.name}{ending}").unlink()


def spill_file(database: Path) -> Path:
    """The spill: `agent.store.spill`."""
    return database.with_name(f"{database.name}.spill")


def reserve_file(database: Path) -> Path:
    """The reserve: `agent.store.reserve`."""
    return database.with_name(f"{database.name}.reserve")


def upkeep_file(database: Path) -> Path:
    """When it was checked and copied last: `agent.store.upkeep_notes`."""
    return database.with_name(f"{database.name}.upkeep")


def size_of(file: Path) -> int:
    """In bytes; 0 if it is not there or cannot be looked at."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def sync_directory(directory: Path) -> None:
    """Names that were made, changed or taken away in it outlive a power cut afterwards. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
