"""Calls derived again from what one PBX said: out of the journal, a recording or a capture."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from agent.calls.events import CallEvent, ClockDoubted, ClockStepped, DialBegan, DialEnded, LineLost, SnapshotTaken
from agent.calls.live_call import LiveCall
from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment, CallFacts
from agent.pbx.feed import LINE_LOST, Interpreter
from agent.tracking.feed import ABANDONED
from sync.models import Status

log = logging.getLogger(__name__)

# What the PBX itself gives no time for bears that of its arrival, which the journal knows a little otherwise.
ARRIVAL_NOISE: Final = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class DerivedCall:
    """A call that ended in what was heard."""

    call: LiveCall
    is_whole: bool  # all of it was heard, from the opening of the caller's channel on
    noise: timedelta  # by how much a time of it may differ from what was told when it happened

    @property
    def call_sid(self) -> str:
        """Its name."""
        return self.call.call_sid


class Derivation:
    """Hears one PBX again."""

    def __init__(
        self,
        *,
        site: str,
        pbx: str,
        rules: CallRules,
        assign: Callable[[CallFacts], Assignment],
        interpreter: Interpreter,
    ) -> None:
        self.pbx = pbx
        self.model = CallModel(site=site, pbx=pbx, rules=rules, assign=assign)
        self.not_understood = 0  # frames that raised: bugs, which must not keep the rest from being heard
        self._interpreter = interpreter
        self._last_at: datetime | None = None
        self._unstamped: set[str] = set()  # channels of which something was told without a time
        self._tainted: set[str] = set()  # calls of which a part is missing

    def hear(self, frame: bytes, at: datetime) -> CallEvent | None:
        """One frame, or a mark of the agent's, and when it came; gives what it means."""
        event: CallEvent | None = None
        try:
            event = self._meaning(frame, at)
            if event is not None:
                self._note_time(event, at)
                self.model.apply(event)
        except Exception:
            self.not_understood += 1
            log.debug("a frame cannot be replayed and is left out", extra={"pbx": self.pbx}, exc_info=True)
        self._last_at = at
        self.model.take_changed()
        return event

    def miss(self) -> None:
        """Something that was heard is not there any more: no live call is known wholly from here on."""
        self._tainted |= {call.call_sid for call in self.model.live_calls()}

    def take_ended(self) -> list[DerivedCall]:
        """Calls that ended since the last time."""
        self.model.take_opened()
        self.model.take_forgotten()
        return [self._derived(call) for call in self.model.take_ended()]

    def take_repaired(self) -> list[LiveCall]:
        """Calls that ended earlier, and whose times were put right since the last time."""
        return self.model.take_repaired()

    def _meaning(self, frame: bytes, at: datetime) -> CallEvent | None:
        if frame == ABANDONED:
            return SnapshotTaken(at, frozenset())
        event = self._interpreter.interpret(frame, at)
        if frame == LINE_LOST and isinstance(event, LineLost):
            # The mark was made when the loss was noticed; what counts is when the PBX was last heard.
            return LineLost(self._last_at or at)
        return event

    def _note_time(self, event: CallEvent, at: datetime) -> None:
        if event.at == at:
            self._unstamped.update(channels_of(event)[:1])

    def _derived(self, call: LiveCall) -> DerivedCall:
        is_noisy = call.end_estimated or call.start_estimated or not self._unstamped.isdisjoint(call.legs)
        self._unstamped.difference_update(call.legs)
        whole = is_whole(call) and call.call_sid not in self._tainted and not self._is_joined_with_a_part(call)
        if not whole:
            self._tainted.add(call.call_sid)
        return DerivedCall(call=call, is_whole=whole, noise=ARRIVAL_NOISE if is_noisy else timedelta())

    def _is_joined_with_a_part(self, call: LiveCall) -> bool:
        """Whether it became one with a call of which a part is missing: which of them is older is not known then."""
        others = {str(entry.get("call_sid")) for entry in call.timeline if entry["event"] == "merged"}
        if call.merged_into is not None:
            others.add(call.merged_into)
        if not others:
            return False
        parts = {live.call_sid for live in self.model.live_calls() if not is_whole(live)}
        return not others.isdisjoint(parts | self._tainted)


def is_whole(call: LiveCall) -> bool:
    """Whether the call was heard from its beginning, and everything that it was joined with too.

    A linkedid that belongs to no channel of the call is that of an older one, which nobody heard here.
    """
    root = call.root
    return root is not None and not call.start_estimated and call.linked <= call.legs.keys()


def row_so_far(call: LiveCall, at: datetime) -> dict[str, Any]:  # Any: the columns' own types
    """The columns of a call that goes on at `at`: nothing in them tells of an end."""
    call.ended_at = max(at, call.started_at)
    try:
        row = call.to_row()
    finally:
        call.ended_at = None
    return row | {
        "status": Status.IN_PROGRESS,
        "disposition": None,
        "end_time": None,
        "hangup_cause": None,
        "hangup_source": None,
        "end_estimated": False,
    }


def channels_of(event: CallEvent) -> tuple[str, ...]:
    """The channels that an event is about."""
    match event:
        case LineLost() | SnapshotTaken() | ClockDoubted() | ClockStepped():
            return ()
        case DialBegan(channel=str(channel)):
            return (event.dest, channel)
        case DialBegan() | DialEnded():
            return (event.dest,)
        case _:
            return (event.channel,)
