"""What was verified, day by day and PBX by PBX: whether every call that the PBX knows is held here."""

import sqlite3
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final, Self

from agent.store.moments import moment_of, moment_text

KEEP_DAYS: Final = 400


@dataclass(frozen=True, slots=True)
class DayCounts:
    """A row of the table `coverage`."""

    pbx: str
    day: str
    source: str
    known: int
    held: int
    missing: int
    extra: int
    untold: int
    differing: int
    trouble: str | None
    at: datetime

    @classmethod
    def not_verified(cls, pbx: str, day: str, trouble: str, *, at: datetime) -> Self:
        """A day that could not be verified, and why."""
        return cls(pbx, day, "", 0, 0, 0, 0, 0, 0, trouble, at)

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        return asdict(self) | {"at": self.at.isoformat()}

    @classmethod
    def from_dict(cls, told: object) -> Self:
        """What `as_dict` told. Raises ValueError."""
        if not isinstance(told, dict) or told.keys() != {each.name for each in fields(cls)}:
            raise ValueError("an object with the columns of coverage is wanted")
        values = dict(told)
        if not all(isinstance(values[name], int) for name in _COUNTS) or not isinstance(values["at"], str):
            raise ValueError("a column of coverage is of another kind")
        at = datetime.fromisoformat(values.pop("at"))
        if at.tzinfo is None:
            raise ValueError("a moment needs a zone")
        return cls(**values, at=at)


_COUNTS: Final = ("known", "held", "missing", "extra", "untold", "differing")
_COLUMNS: Final = tuple(each.name for each in fields(DayCounts))
_NAMES: Final = ", ".join(_COLUMNS)
_READ: Final = f"SELECT {_NAMES} FROM coverage"  # noqa: S608 - our own words


def keep(connection: sqlite3.Connection, counts: DayCounts) -> None:
    """Keep the result of a day, instead of an earlier one of the same. Inside a transaction."""
    changes = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)
    values = [getattr(counts, name) for name in _COLUMNS]
    connection.execute(
        f"INSERT INTO coverage ({_NAMES}) VALUES ({', '.join('?' * len(values))}) "  # noqa: S608 - our own words
        f"ON CONFLICT (pbx, day) DO UPDATE SET {changes}",
        [moment_text(value) if isinstance(value, datetime) else value for value in values],
    )
    oldest = (counts.at - timedelta(days=KEEP_DAYS)).date().isoformat()
    connection.execute("DELETE FROM coverage WHERE pbx = ? AND day < ?", (counts.pbx, oldest))


def history(connection: sqlite3.Connection, *, pbx: str | None = None) -> list[DayCounts]:
    """All that is kept, the latest day first."""
    query = f"{_READ} WHERE ?1 IS NULL OR pbx = ?1 ORDER BY day DESC, pbx"
    return [_counts(row) for row in connection.execute(query, (pbx,)).fetchall()]


def latest(connection: sqlite3.Connection) -> dict[str, DayCounts]:
    """The latest day of each PBX."""
    query = f"{_READ} WHERE (pbx, day) IN (SELECT pbx, max(day) FROM coverage GROUP BY pbx)"  # noqa: S608 - our own words
    return {row[0]: _counts(row) for row in connection.execute(query).fetchall()}


def _counts(row: tuple[Any, ...]) -> DayCounts:  # Any: what SQLite holds
    values = dict(zip(_COLUMNS, row, strict=True))
    return DayCounts(**values | {"at": moment_of(values["at"])})
