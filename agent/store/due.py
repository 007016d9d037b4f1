"""When something is due that is done every so often, whatever is done to the clock and however often the agent starts.

What was done before this start is known by the wall clock, which may be wrong; from then on the time since boot counts,
which nobody can set. So a wrong clock brings at most one turn too many after each start, and puts none off for long.
"""

from datetime import datetime, timedelta
from typing import Final

# A last time in the future is a clock's mistake, then or now. Where it is now's, it is usually mended within the hour.
_CLOCK_IS_SET: Final = timedelta(hours=1)
_RETRY: Final = timedelta(minutes=30)


class Due:
    """Of one kind of work. `since_boot` is always the time since the machine's boot, in seconds."""

    def __init__(self, every: timedelta, *, since_boot: float) -> None:
        self._every = every
        self._began = since_boot
        self._not_before: float | None = None  # what was tried in this run says when to try again

    def wait(self, last_at: datetime | None, *, now: datetime, since_boot: float) -> timedelta:
        """How long until it is due; not positive: it is. `last_at` is when it was last done, as far as is known."""
        if self._not_before is not None:
            return timedelta(seconds=self._not_before - since_boot)
        run_for = timedelta(seconds=since_boot - self._began)
        if last_at is None:
            return timedelta()
        if last_at > now:
            return min(self._every, _CLOCK_IS_SET) - run_for
        return self._every - max(now - last_at, run_for)

    def done(self, since_boot: float) -> None:
        """It has been done."""
        self._not_before = since_boot + self._every.total_seconds()

    def failed(self, since_boot: float) -> None:
        """It could not be done, and is tried again rather soon."""
        self._not_before = since_boot + min(self._every, _RETRY).total_seconds()
