"""Moments as the local tables hold them; of no weight, so that commands that must be quick can use it."""

from datetime import UTC, datetime

import orjson


def moment_text(value: datetime) -> str:
    """A moment as `UtcDateTime` has SQLite store it. Raises ValueError without a time zone."""
    if value.tzinfo is UTC:
        # orjson prints a moment six times as fast as isoformat: "2026-11-22T09:00:00.123456+00:00" in quotes.
        text = orjson.dumps(value)[1:27].decode().replace("T", " ")
        return text if value.microsecond else f"{text[:19]}.000000"
    if value.tzinfo is None:
        raise ValueError(f"the moment {value} has no time zone; use aware UTC datetimes")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def moment_of(text: str) -> datetime:
    """The moment that `moment_text` wrote."""
    return datetime.fromisoformat(f"{text}+00:00")  # a third of the time of replace(tzinfo=UTC)
