"""Moments as people type them: "2026-11-22", "2026-11-22 14:30", "today", "2h"."""

import re
from datetime import datetime, time, timedelta
from typing import Final

from agent.cli.faults import CommandFailed

_UNITS: Final = {"s": "seconds", "min": "minutes", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_DAYS: Final = {"today": 0, "yesterday": 1}


def parse_moment(text: str, *, now: datetime) -> datetime:
    """The moment meant; without a zone it is on this machine's clock. Raises CommandFailed."""
    word = text.strip().lower()
    if word in _DAYS:
        day = now.date() - timedelta(days=_DAYS[word])
        return datetime.combine(day, time()).astimezone()
    try:
        if match := re.fullmatch(r"(\d{1,6})\s*(s|min|m|h|d|w)(\s+ago)?", word):
            return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        moment = now if word == "now" else datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise CommandFailed(
            f"{text!r} is no moment; write 2026-11-22, '2026-11-22 14:30', today, yesterday, 30min, 2h or 7d"
        ) from None
    return moment if moment.tzinfo is not None else moment.astimezone()


def parse_length(text: str) -> timedelta:
    """A length of time: "90s", "10min", "2h". Raises CommandFailed."""
    match = re.fullmatch(r"(\d{1,6})\s*(s|min|m|h|d|w)", text.strip().lower())
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not length:
        raise CommandFailed(f"{text!r} is no length of time; write 90s, 10min or 2h")
    return length
