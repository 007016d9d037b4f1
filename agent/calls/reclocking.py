"""Calls keep their order and durations when the clock is set: what was timed before is told by the clock as it is now.

Live calls are moved with the clock. Calls that had ended keep their times, since a clock that was right may have been
set wrong, unless it turns out that they were timed by a wrong one: it was doubted from the start, or a step is undone.
Pure; what is remembered of ended calls is bounded.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Final

from agent.calls.events import ClockStepped
from agent.calls.leg import Leg, iso_text
from agent.calls.live_call import LiveCall

# The entry of the timeline of a call whose times were put right after it had ended.
SET_RIGHT: Final = "clock_set_right"

_REMEMBERED: Final = 1000  # calls, some megabytes
_REMEMBERED_FOR: Final = timedelta(hours=24)
# Smaller steps are what time services do to clocks that are right.
_WORTH_UNDOING_SECONDS: Final = 10.0
_SAME_SECONDS: Final = 2.0
_SAME_PART: Final = 0.001  # clocks drift meanwhile
_MOMENTS: Final = ("at", "since")  # of an entry of the timeline


class Reclocking:
    """What ended by a clock that may have been wrong."""

    def __init__(self) -> None:
        self._ended: deque[LiveCall] = deque(maxlen=_REMEMBERED)
        self.is_doubted = False
        self._step: float | None = None  # seconds; may be undone

    def doubt(self) -> None:
        """What ends from now on is timed wrong."""
        self.is_doubted = True

    def ended(self, call: LiveCall, at: datetime) -> None:
        """A call has ended."""
        if not self.is_doubted and self._step is None:
            return
        while self._ended and at - (self._ended[0].ended_at or at) > _REMEMBERED_FOR:
            self._ended.popleft()
        self._ended.append(call)

    def step(self, event: ClockStepped, live: Iterable[LiveCall]) -> list[LiveCall]:
        """Move calls to the clock as it is now; those that had ended and are told otherwise now."""
        if event.seconds:
            for call in live:
                move(call, event.seconds)
                call.note(event.at, "clock_stepped", seconds=round(event.seconds, 3))
        is_undone = self._step is not None and _are_same(-self._step, event.seconds)
        is_known = is_undone or self.is_doubted
        repaired = list(self._ended) if is_known and event.seconds else []
        for call in repaired:
            move(call, event.seconds)
        if self.is_doubted and not event.is_trusted:
            return []
        for call in repaired:
            call.note(call.ended_at or event.at, SET_RIGHT, seconds=round(event.seconds, 3))
        self._ended.clear()
        self.is_doubted = False
        self._step = None if is_known or abs(event.seconds) < _WORTH_UNDOING_SECONDS else event.seconds
        return repaired


def move(call: LiveCall, seconds: float) -> None:
    """Tell everything in a call so many seconds later. Times that no calendar has stay."""
    by = timedelta(seconds=seconds)
    _move_fields(call, by)
    for leg in call.legs.values():
        _move_fields(leg, by)
    # A new list: what was told of the call before may still be on its way to the store.
    call.timeline = [_moved_entry(entry, by) for entry in call.timeline]


def moved(moment: datetime, by: timedelta) -> datetime:
    """The moment so much later; itself where the calendar ends."""
    try:
        return moment + by
    except OverflowError:
        return moment


def _move_fields(holder: LiveCall | Leg, by: timedelta) -> None:
    for each in fields(holder):
        value = getattr(holder, each.name)
        if isinstance(value, datetime):
            setattr(holder, each.name, moved(value, by))


def _moved_entry(entry: dict[str, Any], by: timedelta) -> dict[str, Any]:  # Any: JSON
    times = {
        name: iso_text(moved(datetime.fromisoformat(entry[name]), by))
        for name in _MOMENTS
        if isinstance(entry.get(name), str)
    }
    return {**entry, **times}


def _are_same(first: float, second: float) -> bool:
    return abs(first - second) <= _SAME_SECONDS + _SAME_PART * abs(first)
