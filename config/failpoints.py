"""Named steps at which tests end or freeze the process (tests/crash); without the variable they cost a call.

SENTIRIC_FAILPOINTS="store.commit.before=kill@3,syncer.sent=kill" kills the process when it comes to the first step for
the third time, or to the second step at all; "salvage.table=freeze" stops it there until somebody sends SIGCONT. It is
read once, at import, and nothing sets it but tests.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

VARIABLE: Final = "SENTIRIC_FAILPOINTS"
_SIGNALS: Final = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


def _pass(step: str) -> None:
    """Nothing is to happen at any step."""


def armed(wishes: str) -> Callable[[str], None]:
    """What is to be called with each step's name. Raises ValueError for wishes that cannot be read."""
    left = dict(_wish(each) for each in wishes.split(",") if each.strip())
    if not left:
        return _pass

    def hit(step: str) -> None:
        if step in left:
            number, times = left[step]
            left[step] = number, times - 1
            if times == 1:
                os.kill(os.getpid(), number)

    return hit


def _wish(text: str) -> tuple[str, tuple[signal.Signals, int]]:
    step, _, action = text.strip().partition("=")
    what, _, time = action.partition("@")
    if not step or what not in _SIGNALS:
        raise ValueError(f"{VARIABLE}: {text!r} is not STEP=kill, STEP=freeze, STEP=kill@N or STEP=freeze@N")
    return step, (_SIGNALS[what], int(time or 1))


hit: Final = armed(os.environ.get(VARIABLE, ""))
