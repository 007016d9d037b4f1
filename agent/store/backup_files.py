"""The files in which backups lie: their names, which of them are made by the clock, and which of these may go.

No heavy imports: `status` and `backup --list` come by here.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_TIME: Final = "%Y%m%dT%H%M%SZ"
_TIME_PATTERN: Final = r"(?P<time>\d{8}T\d{6}Z)"
_BY_HAND: Final = re.compile(rf"edge-{_TIME_PATTERN}\.db")


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A whole backup, by what its name says."""

    path: Path
    at: datetime
    size: int  # bytes
    is_scheduled: bool


def named_by_hand(at: datetime) -> str:
    """The name of a backup that somebody makes and gives none; no clock ever removes it."""
    return f"edge-{at.astimezone(UTC):{_TIME}}.db"


def named_by_clock(site: str, at: datetime) -> str:
    """The name of one that the agent makes by itself; sites may share a directory."""
    return f"edge-{site}-{at.astimezone(UTC):{_TIME}}.scheduled.db"


def part_of(target: Path) -> Path:
    """Where a backup is made before it bears its name."""
    return target.with_name(f"{target.name}.part")


def scheduled_in(directory: Path, site: str) -> list[BackupFile]:
    """A site's backups that were made by the clock, the oldest first. Raises OSError."""
    return sorted(_found(directory, {_by_clock(site): True}), key=lambda one: one.at)


def all_in(directory: Path, site: str) -> list[BackupFile]:
    """Those that were made by hand as well. Raises OSError."""
    return sorted(_found(directory, {_by_clock(site): True, _BY_HAND: False}), key=lambda one: one.at)


def left_unfinished(directory: Path, site: str) -> list[Path]:
    """What is left of backups by the clock that were broken off; for whoever makes them. Raises OSError."""
    pattern = re.compile(rf"{_by_clock(site).pattern}\.part(-journal|-wal|-shm)?")
    with os.scandir(directory) as entries:
        return [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name) and _is_file(entry)]


def doomed(files: Sequence[BackupFile], *, newest: BackupFile, keep: int) -> list[BackupFile]:
    """Which may go now that `newest` is whole, so that `keep` stay; the oldest, and never `newest`.

    All others were made before it, so one that bears a later time bears a wrong clock's: it counts as older than any.
    """
    others = [file for file in files if file.path != newest.path]
    others.sort(key=lambda one: (one.at <= newest.at, one.at))
    return others[: max(0, len(others) + 1 - keep)]


def backups_size(database: Path, directory: Path | None) -> int:
    """Bytes that backups take of the state directory's room: none, where they lie elsewhere.

    `directory` as in the settings; None: the usual one. 0 also where it cannot be looked at.
    """
    place = directory or database.with_name("backups")
    if not place.is_relative_to(database.parent):
        return 0
    try:
        return sum(file.stat().st_size for file in place.iterdir() if file.is_file())
    except OSError:
        return 0


def _by_clock(site: str) -> re.Pattern[str]:
    return re.compile(rf"edge-{re.escape(site)}-{_TIME_PATTERN}\.scheduled\.db")


def _found(directory: Path, kinds: dict[re.Pattern[str], bool]) -> Iterator[BackupFile]:
    with os.scandir(directory) as entries:
        for entry in entries:
            for pattern, is_scheduled in kinds.items():
                named = pattern.fullmatch(entry.name)
                if named is None or not _is_file(entry):
                    continue
                try:
                    at = datetime.strptime(named["time"], _TIME).replace(tzinfo=UTC)
                    size = entry.stat(follow_symlinks=False).st_size
                except (ValueError, FileNotFoundError):  # no moment, or gone meanwhile
                    continue
                yield BackupFile(Path(entry.path), at, size, is_scheduled)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)
