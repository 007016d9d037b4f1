"""Notices that a clock was set while a PBX is heard, and keeps it in the journal, so that a replay knows it too.

A PBX that stamps its words is timed by its own clock, else by ours. Both are held against the time since boot, which
nobody can set. A stamp that is older than expected is usually a word that came late; it is taken for a clock that was
set back only if ours was set back by as much, as on one machine, or the PBX's answer to a ping shows it.
"""

import re
from datetime import datetime
from typing import Final

from agent.calls.events import ClockDoubted, ClockStepped

STEP_SECONDS: Final = 1.0  # less is what time services do, or how long a word was under way
_SAME_SECONDS: Final = 2.0
_PENDING_SECONDS: Final = 60.0  # how long after ours was set a PBX's clock may show that it is the same one
_FOLLOWED: Final = 0.1  # of a small difference: clocks drift and are slewed

_DOUBTED: Final = b"\0clock doubted"
_STEPPED: Final = re.compile(rb"\0clock set by (-?\d{1,18}) us( and trusted)?", re.ASCII)


def mark_of(event: ClockDoubted | ClockStepped) -> bytes:
    """How it stands in the journal; no PBX can send it because it begins with NUL."""
    if isinstance(event, ClockDoubted):
        return _DOUBTED
    return b"\0clock set by %d us%s" % (round(event.seconds * 1e6), b" and trusted" if event.is_trusted else b"")


def event_of_mark(frame: bytes, at: datetime) -> ClockDoubted | ClockStepped | None:
    """What a mark in the journal stands for; None if it is none of the clock."""
    if frame == _DOUBTED:
        return ClockDoubted(at)
    match = _STEPPED.fullmatch(frame)
    return ClockStepped(at, int(match[1]) / 1e6, match[2] is not None) if match else None


class LineClock:
    """The clock by which one PBX's words are timed. All arguments are seconds: a clock's since 1970, and since boot."""

    def __init__(self) -> None:
        self._ours: float | None = None  # our clock minus the time since boot
        self._theirs: float | None = None  # the PBX's; None: it does not stamp its words, as far as heard
        self._pending = 0.0  # ours was set by so much, and it is not yet known whether the PBX's was
        self._pending_since = 0.0

    def arrived(self, wall: float, boot: float) -> None:
        """Something came when our clock showed that."""
        ours = wall - boot
        if self._ours is not None and abs(ours - self._ours) > STEP_SECONDS:
            self._pending += ours - self._ours
            self._pending_since = boot
        elif self._theirs is not None and boot - self._pending_since > _PENDING_SECONDS:
            self._pending = 0.0  # it is another clock than the PBX's
        self._ours = ours

    def may_be_set(self, stamp: float | None, boot: float) -> bool:
        """Whether the clock may have been set before the last of some words that came together, which bears this."""
        if self._pending:
            return True
        if stamp is None:
            return False
        if self._theirs is None:
            return True
        change = stamp - boot - self._theirs
        if abs(change) > STEP_SECONDS:
            return True
        self._theirs += change * (1.0 if change > 0 else _FOLLOWED)
        return False

    def step_before(self, stamp: float | None, boot: float) -> float:
        """By how much the clock was set since the last word, to be told before a word that bears this stamp; else 0."""
        if stamp is None:
            if self._theirs is not None:
                return 0.0
            step, self._pending = self._pending, 0.0
            return step
        theirs = stamp - boot
        if self._theirs is None:
            # What came before was timed by our clock, which may have been set since.
            self._theirs = theirs
            step, self._pending = self._pending, 0.0
            return step
        change = theirs - self._theirs
        if change > STEP_SECONDS or (change < -STEP_SECONDS and abs(change - self._pending) <= _SAME_SECONDS):
            self._theirs, self._pending = theirs, 0.0
            return change
        return 0.0

    def ponged(self, stamp: float, sent: float, came: float) -> float:
        """The PBX told its time between these moments since boot: by how much it was certainly set back, or 0."""
        if self._theirs is None or came - sent > STEP_SECONDS:
            return 0.0
        change = stamp - (sent + came) / 2 - self._theirs
        if change >= -_SAME_SECONDS:
            return 0.0
        self._theirs, self._pending = self._theirs + change, 0.0
        return change
