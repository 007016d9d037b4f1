"""A day as the people at a PBX count it, and those that are still to be verified."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

QUIET_HOUR: Final = 3  # of the PBX's clock: by then nearly all of yesterday's calls have ended


@dataclass(frozen=True, slots=True)
class Day:
    """From midnight to midnight, as moments in UTC."""

    name: str  # 2026-11-22
    start: datetime
    end: datetime

    @classmethod
    def of(cls, which: date, zone: tzinfo) -> "Day":
        """The day of that date in a zone; it may have 23 or 25 hours."""
        return cls(which.isoformat(), _midnight(which, zone), _midnight(which + timedelta(days=1), zone))


def _midnight(which: date, zone: tzinfo) -> datetime:
    return datetime.combine(which, time(), zone).astimezone(UTC)


def days_due(*, now: datetime, zone: tzinfo, begun_at: datetime, done: Container[str], most: int) -> Iterator[Day]:
    """Days that are over since the quiet hour, lay wholly behind `begun_at` and are not done; the latest first."""
    local = now.astimezone(zone)
    today = local.date() - timedelta(days=int(local.hour < QUIET_HOUR))
    for back in range(1, most + 1):
        day = Day.of(today - timedelta(days=back), zone)
        if day.start < begun_at:
            return
        if day.name not in done:
            yield day
