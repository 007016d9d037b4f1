"""Waiting for a condition with a deadline, for a rig without an event loop."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float, pause: float = 0.02) -> None:
    """Asks again and again; an AssertionError names what never came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
