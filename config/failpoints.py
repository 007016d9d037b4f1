"""Named steps at which the crash laboratory (tests/crash) ends the process; without the variable they cost a call.

SENTIRIC_FAILPOINTS="store.commit.before=kill@3,syncer.sent=kill" kills the process when it comes to the first step for
the third time, or to the second step at all. It is read once, at import, and nothing sets it but tests.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

VARIABLE: Final = "SENTIRIC_FAILPOINTS"


def _pass(step: str) -> None:
    """Nothing is to happen at any step."""


def armed(wishes: str) -> Callable[[str], None]:
    """What is to be called with each step's name. Raises ValueError for wishes that cannot be read."""
    left = dict(_wish(each) for each in wishes.split(",") if each.strip())
    if not left:
        return _pass

    def hit(step: str) -> None:
        if step in left:
            left[step] -= 1
            if left[step] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hit


def _wish(text: str) -> tuple[str, int]:
    step, _, action = text.strip().partition("=")
    what, _, time = action.partition("@")
    if not step or what != "kill":
        raise ValueError(f"{VARIABLE}: {text!r} is not STEP=kill or STEP=kill@N")
    return step, int(time or 1)


hit: Final = armed(os.environ.get(VARIABLE, ""))
