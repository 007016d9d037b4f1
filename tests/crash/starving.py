"""How long a process was kept from running by others, so that a busy machine is not taken for a slow agent."""

import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

_SAMPLES: Final = 400


class Starving:
    """Is asked to look now and then; the kernel itself counts the time that threads waited for a processor."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)  # when, and seconds waited until then
        self.look()

    def look(self) -> None:
        """Note how long its threads have waited so far."""
        total = 0
        with suppress(OSError):
            for task in self._tasks.iterdir():
                with suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[1])
        self._samples.append((time.monotonic(), total / 1e9))

    def stretched(self, seconds: float) -> float:
        """How long a time of so many seconds, up to the last look, was when the waiting within it is added."""
        last_at, last_waited = self._samples[-1]
        age = 0.0
        for at, waited in reversed(self._samples):
            age, allowed = last_at - at, seconds + last_waited - waited
            if age >= allowed:
                return allowed
        return max(age, seconds)
