"""When the scheduler does something again and again, on a machine whose clock may be set by any length at any time.

APScheduler goes by the wall clock. Its own interval trigger counts out every turn that a clock set ahead has passed
over, which takes minutes and all memory when a machine that began in 1970 learns the time; and a clock that is set back
puts the next turn off by as much.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.base import BaseTrigger

_LOOK_SECONDS: Final = 30.0


class Every(BaseTrigger):  # type: ignore[misc]  # untyped there
    """A turn every so often, counted from the last one; the first one `first` from now, else after an interval."""

    def __init__(self, interval: timedelta, *, first: timedelta | None = None, jitter_seconds: float = 0.0) -> None:
        self._interval = interval
        self._first = interval if first is None else first
        self._jitter_seconds = jitter_seconds

    @property
    def longest(self) -> timedelta:
        """No turn is further away."""
        return max(self._interval, self._first) + timedelta(seconds=self._jitter_seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """The next turn, never one that has passed: APScheduler asks so until it is told one that has not."""
        wait = self._first if previous_fire_time is None else self._interval
        turn: datetime = self._apply_jitter(now + wait, self._jitter_seconds, now)
        return turn


async def keep_in_step(scheduler: BaseScheduler) -> None:
    """Have no turn of an `Every` be further away than it can be; until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        bring_near(scheduler, now=datetime.now(UTC))


def bring_near(scheduler: BaseScheduler, *, now: datetime) -> None:
    """After a clock was set back: what would come too late comes now."""
    for job in scheduler.get_jobs():
        trigger: Any = job.trigger  # whichever the job has
        if isinstance(trigger, Every) and job.next_run_time - now > trigger.longest:
            job.modify(next_run_time=now)
