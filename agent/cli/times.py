"""Moments as people type them: "2026-11-22", "2026-11-22 14:30", "today", "2h"."""

import re
from datetime import datetime, time, timedelta
from typing import Final

from agent.cli.faults import CommandFailed

_UNITS: Final = {"s": "seconds", "min": "minutes", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_moment(text: str, *, now: datetime) -> datetime:
    """The moment meant; without a zone it is on the clock of `now`. Raises CommandFailed."""
    word = text.strip().lower()
    midnight = datetime.combine(now.date(), time(), now.tzinfo)
    if word in {"now", "today", "yesterday"}:
        return {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}[word]
    if match := re.fullmatch(r"(\d{1,6})\s*(s|min|m|h|d|w)(\s+ago)?", word):
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise CommandFailed(
            f"{text!r} is no moment; write 2026-11-22, '2026-11-22 14:30', today, yesterday, 30min, 2h or 7d"
        ) from None
    return moment if moment.tzinfo is not None else moment.astimezone()
