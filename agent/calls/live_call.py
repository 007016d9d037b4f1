"""One logical call while it lasts: its legs, who talks with whom, and what will stand in its record."""

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from agent.calls.context import CallContext, CallState, Participant
from agent.calls.leg import Leg, iso_text
from agent.calls.outcome import Outcome, decide
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment, CallFacts, facts_of_legs
from sync.models import Direction, HangupSource

MAX_TIMELINE: Final = 500  # entries; a call that does more is told by its first ones
MAX_LEGS: Final = 500
MAX_LINKED: Final = 500


@dataclass(slots=True)
class LiveCall:
    """A group of channels that ever shared a linkedid."""

    call_sid: str
    site: str
    pbx: str
    native_id: str
    started_at: datetime
    rules: CallRules
    legs: dict[str, Leg] = field(default_factory=dict)
    open_channels: set[str] = field(default_factory=set)
    linked: set[str] = field(default_factory=set)
    assignment: Assignment = field(default_factory=Assignment)
    caller_number: str | None = None
    caller_name: str | None = None
    callee: str | None = None
    dialled_trunk: bool = False  # the dialplan tried a trunk, whether or not a channel came of it
    pbx_answered_at: datetime | None = None
    answered_at: datetime | None = None
    answered_by: str | None = None
    voicemail_at: datetime | None = None
    talking_since: datetime | None = None
    talk_seconds: float = 0.0
    held_since: datetime | None = None
    hold_seconds: float = 0.0
    ringing_since: datetime | None = None
    ring_seconds: float = 0.0
    queue: str | None = None
    in_queue: bool = False
    dial_round: int = 0
    dial_reached_nobody: bool = False  # a Dial ran and made no channel: unreachable or unregistered
    pending_dial: str | None = None  # the channel whose Dial has not yet begun to reach anybody
    hangup_source: HangupSource | None = None
    is_cut_off: bool = False  # the PBX stopped under it
    ended_at: datetime | None = None
    start_estimated: bool = False
    end_estimated: bool = False
    merged_into: str | None = None
    last_heard_at: datetime | None = None
    timeline: list[dict[str, Any]] = field(default_factory=list)

    @property
    def root(self) -> Leg | None:
        """The caller's leg; None if the agent came too late to see it."""
        return self.legs.get(self.native_id)

    @property
    def trace_id(self) -> str:
        """A W3C trace id that every source of this call finds by itself."""
        return blake2b(self.call_sid.encode(), digest_size=16).hexdigest()

    def note(self, at: datetime, event: str, **facts: object) -> None:
        """Remember what happened, for the record and for `calls explain`."""
        if len(self.timeline) < MAX_TIMELINE:
            known = {name: value for name, value in facts.items() if value is not None}
            self.timeline.append({"at": iso_text(at), "event": event} | known)

    def mark_answered(self, leg: Leg, at: datetime, *, by: str | None) -> None:
        """Somebody, or a service in their stead, answered; only the first answer counts."""
        if self.answered_at is not None:
            return
        root = self.root
        if leg is root and root.up_at is not None:
            at = max(at, root.up_at)
        self.answered_at = at
        self.answered_by = by
        if self.ringing_since is not None:
            self.stop_ringing(at)
        if self.pbx_answered_at is not None and self.pbx_answered_at >= at:
            self.pbx_answered_at = None  # the caller's leg came up because the other did
        self.note(at, "answered", by=by)

    def answer_as_originated(self, at: datetime) -> None:
        """The PBX rang somebody and connected nobody else, as for a wake-up call: who picked up answered."""
        for leg in self.originated():
            if leg.up_at is not None and self.answered_at is None:
                self.mark_answered(leg, leg.up_at, by=leg.number)
                self.talk_seconds = max(0.0, (at - leg.up_at).total_seconds())

    def stop_ringing(self, at: datetime) -> None:
        """Nobody is being rung any more."""
        if self.ringing_since is not None:
            self.ring_seconds += max(0.0, (at - self.ringing_since).total_seconds())
            self.ringing_since = None

    def unhold(self, leg: Leg, at: datetime) -> None:
        """The party behind `leg` took the other off hold, or is gone."""
        if leg.held_at is None:
            return
        leg.held_at = None
        self.note(at, "unheld", channel=leg.name)
        if self.held_since is not None and not any(other.held_at for other in self.legs.values()):
            self.hold_seconds += max(0.0, (at - self.held_since).total_seconds())
            self.held_since = None

    def direction(self) -> Direction:
        """From a trunk or an inbound context: inbound. To a trunk: outbound. Else internal."""
        root = self.root
        if root is not None and not root.dialled and self._is_outside(root):
            return Direction.INBOUND
        if self.dialled_trunk or any(leg.dialled and self.rules.is_trunk(leg.endpoint) for leg in self.legs.values()):
            return Direction.OUTBOUND
        return Direction.INTERNAL

    def _is_outside(self, leg: Leg) -> bool:
        return self.rules.is_trunk(leg.endpoint) or self.rules.is_inbound_context(leg.context)

    def state(self) -> CallState:
        """Where the call is now."""
        if self.ended_at is not None:
            return CallState.ENDED
        if self.held_since is not None:
            return CallState.HELD
        if self.answered_at is not None or self.voicemail_at is not None:
            return CallState.ANSWERED
        if self.in_queue:
            return CallState.QUEUED
        if self.pbx_answered_at is not None and not self.attempts():
            return CallState.MENU
        return CallState.RINGING

    def facts(self) -> CallFacts:
        """What tenant rules look at."""
        root = self.root
        return facts_of_legs(
            pbx=self.pbx,
            direction=self.direction(),
            caller_number=self.caller_number,
            callee=self.callee,
            caller=root,
            others=[leg for leg in self.legs.values() if leg is not root],
            rules=self.rules,
        )

    def context(self, at: datetime) -> CallContext:
        """What the tracker tells services about the call."""
        return CallContext(
            call_sid=self.call_sid,
            trace_id=self.trace_id,
            tenant_id=self.assignment.tenant,
            site=self.site,
            pbx=self.pbx,
            direction=self.direction(),
            state=self.state(),
            caller_id=self.caller_number,
            caller_name=self.caller_name,
            callee_id=self.callee,
            participants=[self._participant(leg) for leg in self.legs.values() if not leg.is_local],
            call_start_time=self.started_at,
            last_interaction_time=at,
        )

    def _participant(self, leg: Leg) -> Participant:
        is_caller = leg is self.root
        if leg.closed_at is not None:
            state = "gone"
        elif leg.held_at is not None:
            state = "held"
        else:
            state = "up" if leg.up_at is not None else "ringing"
        return Participant(
            channel=leg.name,
            number=self.caller_number if is_caller else leg.number,
            name=self.caller_name if is_caller else None,
            role="caller" if is_caller else "callee",
            state=state,
        )

    def attempts(self) -> list[Leg]:
        """The legs that were dialled for the caller."""
        return [leg for leg in self.legs.values() if leg.dialled and leg is not self.root]

    def originated(self) -> list[Leg]:
        """The caller's leg, if the PBX itself dialled it (click to call, a wake-up call)."""
        return [leg for leg in (self.root,) if leg is not None and leg.dialled]

    def outcome(self) -> Outcome:
        """How the call ended."""
        root = self.root
        attempts = [leg for leg in self.attempts() if not leg.is_local] or self.originated()
        last_round = [leg for leg in attempts if leg.dial_round == self.dial_round] or attempts
        return decide(
            answered=self.answered_at is not None,
            voicemail=self.voicemail_at is not None,
            caller_gave_up=self.hangup_source is HangupSource.CALLER,
            cut_off=self.is_cut_off,
            dialled=[(leg.dial_status, leg.cause) for leg in last_round],
            reached_nobody=self.dial_reached_nobody,
            cause=root.cause if root else None,
        )

    def hangup_cause(self) -> int | None:
        """Q.850, of the caller's leg; of the last leg where the caller's says nothing."""
        root = self.root
        causes = [root.cause] if root else []
        causes += [leg.cause for leg in reversed(self.legs.values())]
        return next((cause for cause in causes if cause), causes[0] if causes else None)

    def to_row(self) -> dict[str, Any]:
        """The columns of `Call` that the tracker can tell of an ended call; what others tell (a transcript, say) and
        the bookkeeping are left to the store."""
        ended_at = self.ended_at
        if ended_at is None:
            raise ValueError(f"call {self.call_sid} has not ended")
        outcome = self.outcome()
        return {
            "call_sid": self.call_sid,
            "trace_id": self.trace_id,
            "site": self.site,
            "pbx": self.pbx,
            "direction": self.direction(),
            "caller_id": self.caller_number,
            "caller_name": self.caller_name,
            "callee_id": self.callee,
            "answered_by": self.answered_by,
            "status": outcome.status,
            "disposition": outcome.disposition,
            "start_time": self.started_at,
            "pbx_answer_time": self.pbx_answered_at,
            "answer_time": self.answered_at,
            "end_time": ended_at,
            "ring_seconds": round(self.ring_seconds, 6),
            "talk_seconds": round(self.talk_seconds, 6),
            "hold_seconds": round(self.hold_seconds, 6),
            "total_seconds": round((ended_at - self.started_at).total_seconds(), 6),
            "hangup_cause": self.hangup_cause(),
            "hangup_source": self.hangup_source or HangupSource.PBX if not self.end_estimated else self.hangup_source,
            "queue": self.queue,
            "merged_into": self.merged_into,
            "legs": self._told_legs(),
            "timeline": self.timeline,
            "source": "ami",
            "start_estimated": self.start_estimated,
            "end_estimated": self.end_estimated,
        }

    def _told_legs(self) -> list[dict[str, Any]]:
        """The caller's first and marked, so that a stored call knows whether it was seen."""
        root = self.root
        told = [leg.told() for leg in self.legs.values() if leg is not root]
        return told if root is None else [root.told() | {"caller": True}, *told]
