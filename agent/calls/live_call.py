"""One logical call while it lasts: its legs, what runs on its clocks, and what will stand in its record.

docs/call-record.md says what each column means.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from agent.calls.context import CallContext, CallState, Participant
from agent.calls.events import DialStatus
from agent.calls.leg import Leg, iso_text, seconds_between
from agent.calls.numbers import presentation
from agent.calls.outcome import MERGED, UNSEEN, Decision, Outcome, decide
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment, CallFacts, facts_of_legs
from agent.calls.traces import TRACED, TraceParent, minted_trace_id, traceparent
from sync.models import Direction, HangupSource

MAX_TIMELINE: Final = 500  # entries; a call that does more is told by its first ones
MAX_LEGS: Final = 500
MAX_LINKED: Final = 500

# Q.850 causes that say nothing: none, and interworking.
_SILENT_CAUSES: Final = frozenset({None, 0, 127})
# Entries of the timeline that are looked at again, because something may have been told before it happened.
_LATEST: Final = 8
# To leave one bridge and be in the next within this time is to be moved, by an optimised Local channel for one; to be
# picked up by the PBX and go over to another call within it is to be put through.
_AT_ONCE_SECONDS: Final = 0.2


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
    facts_changed: bool = False  # something that tenant rules look at is known now
    caller_channel: str = ""  # who called; not the first channel if that is a Local one, as with Originate
    caller_number: str | None = None
    caller_name: str | None = None
    callee: str | None = None
    dialled_trunk: bool = False  # the dialplan tried a trunk, whether or not a channel came of it
    pbx_answered_at: datetime | None = None
    answered_at: datetime | None = None
    answered_by: str | None = None
    last_answered_by: str | None = None
    voicemail_at: datetime | None = None
    connected: set[str] = field(default_factory=set)  # channels in a bridge with somebody else
    in_service: set[str] = field(default_factory=set)  # channels that an answering service talks to
    waiting: set[str] = field(default_factory=set)  # channels on hold, parked or left alone with music
    parked: set[str] = field(default_factory=set)  # those of them that are parked
    talking_since: datetime | None = None
    talk_seconds: float = 0.0
    holding_since: datetime | None = None
    hold_seconds: float = 0.0
    ringing_since: datetime | None = None
    ring_seconds: float = 0.0
    queue: str | None = None
    queue_position: int | None = None
    queued_since: datetime | None = None
    queued_channel: str = ""
    queue_wait_seconds: float = 0.0
    conference: str | None = None
    transferred: bool = False
    dial_round: int = 0
    dial_reached_nobody: bool = False  # a Dial ran and made no channel: unreachable or unregistered
    tone: Outcome | None = None  # what the PBX lets the caller hear: busy, congestion
    hung_up_by: str | None = None  # the channel whose party hung up, if nothing came after it
    is_cut_off: bool = False  # the PBX stopped under it
    ended_at: datetime | None = None
    start_estimated: bool = False
    end_estimated: bool = False
    merged_into: str | None = None
    last_heard_at: datetime | None = None
    parent: TraceParent | None = None  # under which span who sent the call wants it to be seen
    timeline: list[dict[str, Any]] = field(default_factory=list)

    @property
    def root(self) -> Leg | None:
        """The leg the call began with; None if the agent came too late to see it."""
        return self.legs.get(self.native_id)

    @property
    def caller(self) -> Leg | None:
        """The leg of who called: the first one, or the first phone behind it where that is a Local channel."""
        return self.legs.get(self.caller_channel)

    @property
    def trace_id(self) -> str:
        """The W3C trace id that came with the call, else one that every source of this call finds by itself."""
        return self.parent.trace_id if self.parent is not None else minted_trace_id(self.call_sid)

    def accept_trace(self, parent: TraceParent | None, leg: Leg, at: datetime, *, is_found: bool = False) -> None:
        """A leg bears a trace context: the first one that the call's own legs bear is the call's.

        Not once somebody has answered, since services are at work by then under the id they were told; unless the call
        was only found just now. A leg that came from another call brings that one's.
        """
        is_too_late = self.answered_at is not None and not is_found
        if parent is None or self.parent is not None or is_too_late or leg.left_linked:
            return
        self.parent = parent
        self.note(at, TRACED, parent=parent.span_id, sampled=parent.sampled)

    def parties(self) -> Iterator[Leg]:
        """The legs of persons, phones and trunks."""
        return (leg for leg in self.legs.values() if not leg.is_local)

    # The timeline

    def note(self, at: datetime, event: str, **facts: object) -> None:
        """Remember what happened, for the record and for `calls explain`."""
        if len(self.timeline) < MAX_TIMELINE:
            known = {name: value for name, value in facts.items() if value is not None}
            self.timeline.append({"at": iso_text(at), "event": event} | known)

    def note_unheard(self, since: datetime, until: datetime) -> None:
        """Nobody listened meanwhile; told even where there is no room, so that other sources are believed instead."""
        if len(self.timeline) >= MAX_TIMELINE:
            self.timeline.pop()
        self.note(until, "unheard", since=iso_text(since))

    def put_last_note_in_its_place(self) -> None:
        """What was understood late stands where it happened."""
        place = len(self.timeline) - 1
        while place > 0 and self.timeline[place - 1]["at"] > self.timeline[-1]["at"]:
            place -= 1
        if self.timeline:
            self.timeline.insert(place, self.timeline.pop())

    def note_leg(self, at: datetime, event: str, leg: Leg, **facts: object) -> None:
        """Remember what happened to a party; a Local channel is none."""
        if not leg.is_local:
            self.note(at, event, who=self.who(leg), **facts)

    def latest(self, at: datetime) -> Iterator[dict[str, Any]]:
        """What was noted just before `at`, which the PBX may have told in another order than it happened."""
        for entry in self.timeline[-_LATEST:]:
            if (at - datetime.fromisoformat(entry["at"])).total_seconds() <= _AT_ONCE_SECONDS:
                yield entry

    def who(self, leg: Leg) -> str | None:
        """How a leg is called in the timeline."""
        number = self.caller_number if leg.channel == self.caller_channel else leg.number
        return number or leg.endpoint or None

    # Clocks

    def connect(self, leg: Leg, at: datetime) -> None:
        """A leg is in a bridge with somebody else; the first one besides the caller's has answered."""
        if leg.channel in self.connected:
            return
        leg.talk(at)
        self.connected.add(leg.channel)
        if leg.channel == self.queued_channel:
            self.leave_queue(at)
        self.hung_up_by = None
        if self.answered_at is None and leg.channel != self.caller_channel:
            self.mark_answered(leg, leg.up_at or at, by=leg.number)
        self._note_joined(leg, at)
        self.run_clocks(at)
        self._note_company()

    def _note_joined(self, leg: Leg, at: datetime) -> None:
        """Who was moved from one bridge to another never left."""
        who = self.who(leg)
        for entry in reversed(list(self.latest(at))):
            if entry["event"] in {"dialled", "transferred"}:
                break
            if entry["event"] == "left" and entry["who"] == who:
                self.timeline.remove(entry)
                return
        self.note(at, "joined", who=who)

    def disconnect(self, leg: Leg, at: datetime) -> None:
        """A leg is alone, or in no bridge any more."""
        if leg.channel not in self.connected:
            return
        self.connected.discard(leg.channel)
        leg.stop_talking(at)
        self.note_leg(at, "left", leg)
        self.run_clocks(at)
        if len(self.connected) > 1:
            self._note_company()

    def serve(self, leg: Leg, at: datetime) -> None:
        """An answering service talks to a leg."""
        self.in_service.add(leg.channel)
        self.hung_up_by = None
        self.mark_answered(leg, at, by=leg.application)
        self.last_answered_by = leg.application
        self.run_clocks(at)

    def stop_serving(self, leg: Leg, at: datetime) -> None:
        """It does so no longer."""
        if leg.channel in self.in_service:
            self.in_service.discard(leg.channel)
            self.run_clocks(at)

    def run_clocks(self, at: datetime) -> None:
        """Start or stop the clocks of talk and hold, according to who is connected and who waits."""
        answered = self.answered_at is not None
        is_held = len(self.waiting) > len(self.parked)
        talks = answered and (is_held or bool(self.connected or self.in_service))
        if talks and self.talking_since is None:
            self.talking_since = at
        elif not talks and self.talking_since is not None:
            self.talk_seconds += seconds_between(self.talking_since, at)
            self.talking_since = None
        holds = answered and bool(self.waiting)
        if holds and self.holding_since is None:
            self.holding_since = at
        elif not holds and self.holding_since is not None:
            self.hold_seconds += seconds_between(self.holding_since, at)
            self.holding_since = None

    def _note_company(self) -> None:
        """Of those who are connected with each other, the one who came last answered last."""
        newest = self.newest_party(but=self.caller_channel)
        if newest is not None and self.answered_at is not None:
            self.last_answered_by = newest.number

    def newest_party(self, *, but: str) -> Leg | None:
        """Of those who are connected now, the one who was so first at the latest moment."""
        return max((self.legs[channel] for channel in self.connected if channel != but), key=_when_met, default=None)

    def mark_answered(self, leg: Leg, at: datetime, *, by: str | None) -> None:
        """Somebody, or a service in their stead, answered; only the first answer counts."""
        if self.answered_at is not None:
            return
        if leg.channel == self.caller_channel and leg.up_at is not None:
            at = max(at, leg.up_at)
        self.answered_at = at
        self.answered_by = self.last_answered_by = by
        self.stop_ringing(at)
        if self.pbx_answered_at is not None and self.pbx_answered_at >= at:
            self.pbx_answered_at = None  # the caller's leg came up because the other did
        self.note(at, "answered", who=by)
        self.run_clocks(at)

    def answer_as_originated(self) -> None:
        """The PBX rang somebody and connected nobody else, as for a wake-up call: who picked up answered."""
        leg = self.originated()
        if leg is not None and leg.up_at is not None and self.answered_at is None:
            self.mark_answered(leg, leg.up_at, by=leg.number)
            self.put_last_note_in_its_place()

    def stop_ringing(self, at: datetime) -> None:
        """Nobody is being rung any more."""
        if self.ringing_since is not None:
            self.ring_seconds += seconds_between(self.ringing_since, at)
            self.ringing_since = None

    def enter_queue(self, leg: Leg, at: datetime, *, queue: str | None, position: int | None) -> None:
        """The wait in a queue begins."""
        self.leave_queue(at)
        self.queue = queue or self.queue
        self.queue_position = position
        self.queued_since = at
        self.queued_channel = leg.channel
        self.note_leg(at, "queued", leg, queue=self.queue, position=position)

    def leave_queue(self, at: datetime) -> None:
        """It waits in no queue any more."""
        if self.queued_since is not None:
            self.queue_wait_seconds += seconds_between(self.queued_since, at)
            self.queued_since = None
            waited = self.legs.get(self.queued_channel)
            self.note(at, "left_queue", who=self.who(waited) if waited is not None else None, queue=self.queue)

    def went_over(self, call_sid: str, at: datetime) -> None:
        """A leg of it goes on in another call, and so does what it was about."""
        self.merged_into = call_sid
        if self.pbx_answered_at is not None and seconds_between(self.pbx_answered_at, at) <= _AT_ONCE_SECONDS:
            self.pbx_answered_at = None

    # What is known of it

    def direction(self) -> Direction:
        """From a trunk or an inbound context: inbound. To a trunk: outbound. Else internal."""
        caller = self.caller
        if caller is not None and not caller.dialled and self._is_outside(caller):
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
        if self.holding_since is not None:
            return CallState.HELD
        if self.answered_at is not None or self.voicemail_at is not None:
            return CallState.ANSWERED
        if self.queued_since is not None:
            return CallState.QUEUED
        if self.pbx_answered_at is not None and not self.attempts():
            return CallState.MENU
        return CallState.RINGING

    def facts(self) -> CallFacts:
        """What tenant rules look at."""
        caller = self.caller
        return facts_of_legs(
            pbx=self.pbx,
            direction=self.direction(),
            caller_number=self.caller_number,
            callee=self.callee,
            caller=caller,
            others=[leg for leg in self.parties() if leg is not caller],
            rules=self.rules,
        )

    def context(self, at: datetime) -> CallContext:
        """What the tracker tells services about the call."""
        return CallContext(
            call_sid=self.call_sid,
            trace_id=self.trace_id,
            traceparent=traceparent(self.call_sid, self.trace_id, sampled=self.parent is None or self.parent.sampled),
            tenant_id=self.assignment.tenant,
            site=self.site,
            pbx=self.pbx,
            direction=self.direction(),
            state=self.state(),
            caller_id=self.caller_number,
            caller_name=self.caller_name,
            callee_id=self.callee,
            participants=[self._participant(leg) for leg in self.parties()],
            merged_into=self.merged_into,
            call_start_time=self.started_at,
            last_interaction_time=at,
        )

    def _participant(self, leg: Leg) -> Participant:
        is_caller = leg.channel == self.caller_channel
        if leg.closed_at is not None:
            state = "gone"
        elif leg.waiting_at is not None:
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
        return [leg for leg in self.legs.values() if leg.dialled and leg.channel != self.caller_channel]

    def is_recall(self) -> bool:
        """Whether the PBX itself rang one phone, for a call that waits for it: a transfer that comes back, say."""
        return len(self.legs) == 1 and self.originated() is not None

    def waits_for(self, endpoint: str, number: str) -> bool:
        """Whether who has this number is there and speaks with nobody, after this phone had its part in the call."""
        return (
            self.answered_at is not None
            and not self.connected
            and any(leg.endpoint == endpoint for leg in self.legs.values())
            and any(self.legs[channel].number == number for channel in self.open_channels)
        )

    def originated(self) -> Leg | None:
        """The caller's leg, if the PBX itself dialled it (click to call, a wake-up call)."""
        caller = self.caller
        return caller if caller is not None and caller.dialled else None

    # The record

    def decision(self) -> Decision:
        """How the call ended, and by which rule."""
        if self.merged_into is not None and self.answered_at is None:
            return MERGED
        is_known = self.answered_at is not None or self.voicemail_at is not None or self.hung_up_by is not None
        if self.end_estimated and not is_known and not self.is_cut_off:
            return UNSEEN
        caller = self.caller
        originated = self.originated()
        attempts = [leg for leg in self.attempts() if not leg.is_local]
        last_round = [leg for leg in attempts if leg.dial_round == self.dial_round] or attempts
        dialled = [(leg.dial_status, leg.cause) for leg in last_round]
        if not dialled and originated is not None:
            # An Originate that is given up is told as cancelled where a Local channel stands in between.
            is_given_up = originated.dial_status is DialStatus.CANCEL
            dialled = [(DialStatus.NOANSWER if is_given_up else originated.dial_status, originated.cause)]
        return decide(
            answered=self.answered_at is not None,
            voicemail=self.voicemail_at is not None,
            caller_gave_up=self.tone is None and self.hangup_source() is HangupSource.CALLER,
            cut_off=self.is_cut_off,
            dialled=dialled,
            reached_nobody=self.dial_reached_nobody,
            tone=self.tone,
            cause=caller.cause if caller else None,
        )

    def hangup_source(self) -> HangupSource | None:
        """Who ended the call; None if nobody saw it or it went on in another."""
        if self.merged_into is not None:
            return None
        if self.hung_up_by is not None:
            return HangupSource.CALLER if self.hung_up_by == self.caller_channel else HangupSource.CALLEE
        if self._gave_up_unannounced():
            return HangupSource.CALLER
        return None if self.end_estimated else HangupSource.PBX

    def _gave_up_unannounced(self) -> bool:
        """An analog line says nothing when it goes on hook; that all attempts were taken back tells it."""
        caller = self.caller
        if caller is None or not caller.name.startswith("DAHDI/") or self.answered_at is not None or self.is_cut_off:
            return False
        last_round = [leg for leg in self.attempts() if leg.dial_round == self.dial_round and not leg.is_local]
        taken_back = all(leg.dial_status is DialStatus.CANCEL and not leg.sent_on for leg in last_round)
        return bool(last_round) and taken_back and not self.end_estimated

    def hangup_cause(self) -> int | None:
        """Q.850, of the caller's leg; where that says nothing, of the leg that ended last and says something."""
        caller = self.caller
        ended = sorted((leg for leg in self.legs.values() if leg.closed_at is not None), key=_when_closed, reverse=True)
        causes = [caller.cause] if caller else []
        causes += [leg.cause for leg in ended if not leg.is_local]
        return next((cause for cause in causes if cause not in _SILENT_CAUSES), causes[0] if causes else None)

    def to_row(self) -> dict[str, Any]:
        """The columns of `Call` that the tracker can tell of an ended call; what others tell (a transcript, say) and
        the bookkeeping are left to the store."""
        ended_at = self.ended_at
        if ended_at is None:
            raise ValueError(f"call {self.call_sid} has not ended")
        outcome = self.decision().outcome
        numbers = self.rules.numbers
        direction = self.direction()
        total = (ended_at - self.started_at).total_seconds()
        return {
            "call_sid": self.call_sid,
            "trace_id": self.trace_id,
            "site": self.site,
            "pbx": self.pbx,
            "direction": direction,
            "caller_id": self.caller_number,
            "caller_e164": numbers.e164(self.caller_number),
            "caller_name": self.caller_name,
            "caller_presentation": presentation(self.caller_number, self.caller_name),
            "callee_id": self.callee,
            "callee_e164": numbers.e164(self.callee, dialled=direction is not Direction.INBOUND),
            "answered_by": self.answered_by,
            "last_answered_by": self.last_answered_by,
            "status": outcome.status,
            "disposition": outcome.disposition,
            "start_time": self.started_at,
            "pbx_answer_time": self.pbx_answered_at,
            "answer_time": self.answered_at,
            "end_time": ended_at,
            # What ended unseen ended before some clocks were stopped.
            "ring_seconds": round(min(self.ring_seconds, total), 6),
            "talk_seconds": round(min(self.talk_seconds, total), 6),
            "hold_seconds": round(min(self.hold_seconds, total), 6),
            "total_seconds": round(total, 6),
            "hangup_cause": self.hangup_cause(),
            "hangup_source": self.hangup_source(),
            "queue": self.queue,
            "queue_position": self.queue_position,
            "queue_wait_seconds": round(min(self.queue_wait_seconds, total), 6),
            "conference": self.conference,
            "transferred": self.transferred,
            "merged_into": self.merged_into,
            "legs": self._told_legs(),
            "timeline": self.timeline,
            "source": "ami",
            "start_estimated": self.start_estimated,
            "end_estimated": self.end_estimated,
        }

    def _told_legs(self) -> list[dict[str, Any]]:
        """The caller's first and marked, so that a stored call knows whether it was seen."""
        caller = self.caller
        told = [leg.told() for leg in self.parties() if leg is not caller]
        return told if caller is None or caller.is_local else [caller.told() | {"caller": True}, *told]


def _when_met(leg: Leg) -> float:
    return leg.met_at.timestamp() if leg.met_at is not None else 0.0


def _when_closed(leg: Leg) -> float:
    return leg.closed_at.timestamp() if leg.closed_at is not None else 0.0
