"""How much is sent at once and when: found out by what the line shows, within what the operator allows."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from datetime import time as time_of_day
from typing import Final

# A lane more has to bring so much, or it only takes memory at the centre.
_WORTH_WHILE: Final = 1.05
# Windows of full batches after which a lane that brought nothing is tried again: lines change over a day.
_PATIENCE: Final = 50
_WINDOW_BATCHES: Final = 6  # with each lane
# A lane is given up after no shorter time, so that a checkpoint or a busy moment does not decide.
_WINDOW_SECONDS: Final = 4.0
# A part of a body goes out at once, and its share of the line's time is waited for; as long as a phone's buffer lasts.
_PART_SECONDS: Final = 0.05
_SMALLEST_PART_BYTES: Final = 1024
# A body is spread no longer, or it would take longer than its batch may. What it had too much, the next one waits for.
_LONGEST_SPREAD_SECONDS: Final = 8.0


class Pace:
    """`limit` records a batch, `lanes` batches under way. Starts with one lane and full batches.

    A batch that takes longer than `slow_seconds` is made smaller, as is everything after trouble; both grow again
    while it brings throughput.
    """

    def __init__(
        self, *, max_records: int, max_lanes: int, slow_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wanted_records = max_records
        self._max_records = max_records
        self._max_lanes = max_lanes
        self._slow_seconds = slow_seconds
        self._clock = clock
        self.limit = max_records
        self._ceiling = max_records  # grows slowly, since a batch that is refused for its size went for nothing
        self.lanes = 1
        self._rate_before: float | None = None  # records a second with a lane less
        self._patience = 0
        self._window_began: float | None = None
        self._window_records = 0
        self._window_batches = 0

    def allow(self, max_records: int) -> None:
        """The centre takes at most so many records in a batch."""
        self._max_records = max(1, min(self._wanted_records, max_records))
        self._ceiling = min(self._ceiling, self._max_records)
        self.limit = min(self.limit, self._max_records)

    def answered(self, records: int, *, seconds: float, is_full: bool) -> None:
        """A batch of so many records was answered after so long; `is_full` if more of them waited than fit in."""
        if seconds > self._slow_seconds:
            self.limit = max(1, min(self.limit, records) // 2)
        else:
            self.limit = min(self.limit * 2, self._ceiling)
        self._ceiling = min(self._ceiling + max(1, self._ceiling // 10), self._max_records)
        if is_full:
            self._measure(records)
        else:
            self._window_began = None

    def too_large(self, records: int) -> None:
        """A batch of so many records was refused for its size."""
        self._ceiling = max(1, records // 2)
        self.limit = min(self.limit, self._ceiling)

    def trouble(self) -> None:
        """The centre did not answer, or wished to be left alone: go on carefully."""
        self.limit = max(1, self.limit // 2)
        self.lanes = 1
        self._rate_before = self._window_began = None
        self._patience = 0

    def _measure(self, records: int) -> None:
        now = self._clock()
        if self._window_began is None:
            self._begin_window(now)
            return
        self._window_records += records
        self._window_batches += 1
        lasted = now - self._window_began
        if self._window_batches < _WINDOW_BATCHES * self.lanes or lasted <= 0:
            return
        rate = self._window_records / lasted
        if self._is_in_vain(rate) and lasted < _WINDOW_SECONDS:
            return
        self._decide(rate)
        self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._window_began, self._window_records, self._window_batches = now, 0, 0

    def _is_in_vain(self, rate: float) -> bool:
        """Whether the last lane brings too little."""
        return self._rate_before is not None and rate < self._rate_before * _WORTH_WHILE

    def _decide(self, rate: float) -> None:
        if self._patience:
            self._patience -= 1
        elif self._is_in_vain(rate):
            self.lanes -= 1
            self._rate_before = None
            self._patience = _PATIENCE
        elif self.lanes < self._max_lanes:
            self._rate_before = rate
            self.lanes += 1
        else:
            self._rate_before = None


class LineShare:
    """At most so many kilobits (1000 bits) a second for all bodies together, so that calls on the same line are heard.

    `turn` before a body waits until what went out before is paid for; `spread` gives the body part by part.
    """

    def __init__(
        self,
        kilobits_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bytes_per_second = kilobits_per_second * 125
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    async def turn(self) -> None:
        """Wait until the line is free."""
        while (wait := self._free_at - self._clock()) > 0:
            await self._sleep(wait)

    async def spread(self, body: bytes) -> AsyncIterator[bytes]:
        """The body, at the line's share."""
        size = max(_SMALLEST_PART_BYTES, int(self._bytes_per_second * _PART_SECONDS))
        latest = self._clock() + _LONGEST_SPREAD_SECONDS
        for first in range(0, len(body), size):
            part = body[first : first + size]
            goes_at = max(self._free_at, self._clock())
            self._free_at = goes_at + len(part) / self._bytes_per_second
            if (wait := min(goes_at, latest) - self._clock()) > 0:
                await self._sleep(wait)
            yield part


class BulkHours:
    """The hours of this machine's clock in which a backlog may go, as "22:00-06:00"; without any, at all times."""

    def __init__(self, hours: Sequence[str]) -> None:
        self._spans = [
            (time_of_day.fromisoformat(begins), time_of_day.fromisoformat(ends))
            for begins, ends in (span.split("-") for span in hours)
        ]

    def are_now(self, moment: datetime) -> bool:
        """Whether a backlog may go at this moment, in the zone that it bears."""
        now = moment.time()
        return not self._spans or any(
            begins <= now < ends if begins < ends else now >= begins or now < ends for begins, ends in self._spans
        )
