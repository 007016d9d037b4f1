"""How long a process was kept from running by others, so that a busy machine is not taken for a slow agent."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

_LOOK_SECONDS: Final = 0.03
_SAMPLES: Final = 400
_STUCK: Final = 0.1  # of the time between two looks: a thread that wants to run and ran less was kept waiting


class _Thread(NamedTuple):
    wants: bool  # to run, or waits for the disk
    ran: float  # seconds, since it began
    waited: float  # seconds for a processor, without the wait that goes on


class Starving:
    """Is asked to look now and then. The kernel counts the time that threads waited for a processor, though not the
    wait that goes on; that, and what they wait for the disk, is seen by looking."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._threads: dict[str, _Thread] = {}
        self._waited = 0.0
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)  # when, and seconds waited until then
        self.look()

    def look(self, *, late_seconds: float = 0.0) -> None:
        """Note how long its threads have waited since the last look; at least as long as this one comes too late."""
        now, threads = time.monotonic(), dict(self._read())
        if self._samples:
            since = now - self._samples[-1][0]
            known = [(thread, self._threads[name]) for name, thread in threads.items() if name in self._threads]
            counted = sum(new.waited - old.waited for new, old in known)
            is_stuck = any(new.wants and new.ran - old.ran < since * _STUCK for new, old in known)
            self._waited += max(counted, since if is_stuck else 0.0, late_seconds)
        self._threads = threads
        self._samples.append((now, self._waited))

    def stretched(self, seconds: float) -> float:
        """How long a time of so many seconds, up to the last look, was when the waiting within it is added."""
        last_at, last_waited = self._samples[-1]
        age = 0.0
        for at, waited in reversed(self._samples):
            age, allowed = last_at - at, seconds + last_waited - waited
            if age >= allowed:
                return allowed
        return max(age, seconds)

    def _read(self) -> Iterator[tuple[str, _Thread]]:
        with suppress(OSError):
            for task in self._tasks.iterdir():
                with suppress(OSError):
                    state = (task / "stat").read_text().rpartition(")")[2].split(maxsplit=1)[0]
                    ran, waited, _ = (task / "schedstat").read_text().split()
                    yield task.name, _Thread(state in "RD", int(ran) / 1e9, int(waited) / 1e9)


@contextmanager
def watching(pid: int) -> Iterator[Starving]:
    """A thread looks until the end, and then once more. What keeps it from looking, such as a virtual machine that
    stands still, is taken to keep the process too."""
    starving, enough = Starving(pid), threading.Event()

    def look() -> None:
        due = time.monotonic() + _LOOK_SECONDS
        while not enough.wait(_LOOK_SECONDS):
            now = time.monotonic()
            starving.look(late_seconds=now - due)
            due = now + _LOOK_SECONDS

    thread = threading.Thread(target=look, name=f"watch over {pid}", daemon=True)
    thread.start()
    try:
        yield starving
    finally:
        enough.set()
        thread.join()
        starving.look()
