"""How long to wait before trying again: longer each time, never in step with others, short again after success."""

import random as _random
import time
from collections.abc import Callable

_LONGEST_WISH_SECONDS = 3600.0  # a Retry-After beyond that is taken for a mistake


class Backoff:
    """Delays that double from `initial` to `maximum` seconds, each shortened at random by up to one half.

    What breaks within `stable_seconds` of its success goes on where it was: a peer that accepts and hangs up at once
    is not tried every second.
    """

    def __init__(
        self,
        *,
        maximum: float,
        initial: float = 1.0,
        stable_seconds: float = 5.0,
        random: Callable[[], float] = _random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._initial = min(initial, maximum)
        self._maximum = maximum
        self._stable_seconds = stable_seconds
        self._random = random
        self._clock = clock
        self._ceiling = self._initial
        self._succeeded_at: float | None = None

    def next_delay(self, *, at_least: float | None = None) -> float:
        """Seconds to wait before the next try; not less than `at_least`, the peer's own wish."""
        if self._succeeded_at is not None and self._clock() - self._succeeded_at >= self._stable_seconds:
            self._ceiling = self._initial
        self._succeeded_at = None
        delay = self._ceiling * (1 - self._random() / 2)
        self._ceiling = min(self._ceiling * 2, self._maximum)
        return max(delay, min(at_least or 0.0, _LONGEST_WISH_SECONDS))

    def succeeded(self) -> None:
        """It works now; once it has for `stable_seconds`, the next delay is short again."""
        if self._succeeded_at is None:
            self._succeeded_at = self._clock()
