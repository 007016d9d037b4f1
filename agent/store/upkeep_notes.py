"""When the database was last looked through and copied: a file of its own beside it.

Not a table: what a check found has to be known of a database that cannot be read, and a database that is put back from
a backup must not believe that nothing was done since. No heavy imports: `status` without a running agent comes by here.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from agent.store.files import sync_directory, upkeep_file
from config import failpoints

_FORMAT: Final = 1
_MAX_BYTES: Final = 64 << 10
_MAX_WORDS: Final = 2000  # of one sentence


@dataclass(frozen=True, slots=True)
class UpkeepNotes:
    """What is kept. Moments are of the last one that was completed; troubles are of later ones, and end with it."""

    checked_at: datetime | None = None
    found: str | None = None  # by the last check; None: the database was sound
    check_trouble: str | None = None  # why it could not be checked
    backed_up_at: datetime | None = None
    backup_file: str | None = None
    backup_bytes: int = 0
    backup_trouble: str | None = None  # why there is no newer backup, or why older ones could not be removed

    @classmethod
    def of(cls, database: Path) -> Self:
        """What was kept; nothing if there is no such file, or one that cannot be read, or a newer program's."""
        try:
            with upkeep_file(database).open("rb") as stream:
                told = json.loads(stream.read(_MAX_BYTES))
            return cls._from_dict(told) if told["format"] == _FORMAT else cls()
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def keep(self, database: Path) -> None:
        """Keep them, whole or not at all. Raises OSError, with what was kept before as it was."""
        file = upkeep_file(database)
        part = file.with_name(f"{file.name}.part")
        told = {"format": _FORMAT, **{name: _told(value) for name, value in asdict(self).items()}}
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(told, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        failpoints.hit("upkeep.noted.before")
        os.rename(part, file)
        sync_directory(file.parent)
        failpoints.hit("upkeep.noted.after")

    @classmethod
    def _from_dict(cls, told: dict[str, Any]) -> Self:  # Any: JSON
        return cls(
            checked_at=_moment(told["checked_at"]),
            found=_words(told["found"]),
            check_trouble=_words(told["check_trouble"]),
            backed_up_at=_moment(told["backed_up_at"]),
            backup_file=_words(told["backup_file"]),
            backup_bytes=int(told["backup_bytes"]),
            backup_trouble=_words(told["backup_trouble"]),
        )


def _told(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return value[:_MAX_WORDS] if isinstance(value, str) else value


def _moment(told: Any) -> datetime | None:  # Any: JSON
    if told is None:
        return None
    moment = datetime.fromisoformat(told)
    if moment.tzinfo is None:
        raise ValueError(f"the moment {told} has no time zone")
    return moment


def _words(told: Any) -> str | None:  # Any: JSON
    return None if told is None else str(told)
