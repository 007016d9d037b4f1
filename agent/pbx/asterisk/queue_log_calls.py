"""Lines of a queue log become what callers met with in queues, and that an account of their call. No I/O.

A caller waits under the id of its channel. An attended transfer into a queue puts another channel into the place of the
one that entered, and from then on lines bear the id of that; the time it waited and its first place tell which it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agent.calls.leg import iso_text
from agent.calls.numbers import presentation
from agent.calls.outcome import ANSWERED, CANCELLED, NO_ANSWER, UNSEEN, Outcome
from agent.calls.rules import CallRules, extension_of
from agent.calls.traces import minted_trace_id
from agent.pbx.asterisk.cdr_clock import began_at
from agent.pbx.asterisk.queue_log import QueueEvent, QueueLine
from sync.models import Direction, HangupSource

SOURCE: Final = "queue_log"
MAX_VISITS: Final = 50  # of one call; more is a loop in the dialplan
_MAX_RINGS: Final = 200  # of one visit
# They tell neither how long a caller waited nor its place, so without a visit nothing can be made of them.
BY_THE_WAY: Final = frozenset({QueueEvent.RINGNOANSWER, QueueEvent.RINGCANCELED, QueueEvent.AGENTDUMP})

_AT_ONCE: Final = timedelta(seconds=1)  # what whole seconds can hide
_LEFT: Final = {
    QueueEvent.CONNECT: "connected",
    QueueEvent.ABANDON: "abandoned",
    QueueEvent.EXITWITHTIMEOUT: "timeout",
    QueueEvent.EXITWITHKEY: "key",
    QueueEvent.EXITEMPTY: "empty",
    QueueEvent.WITHDRAW: "withdrawn",
    QueueEvent.SYSCOMPAT: "failed",
}
_WHO_ENDED: Final = {
    QueueEvent.COMPLETECALLER: HangupSource.CALLER,
    QueueEvent.COMPLETEAGENT: HangupSource.CALLEE,
}
_TRANSFERS: Final = {
    QueueEvent.BLINDTRANSFER: "blind",
    QueueEvent.TRANSFER: "blind",
    QueueEvent.ATTENDEDTRANSFER: "attended",
}
_RINGS: Final = {QueueEvent.RINGNOANSWER: "NOANSWER", QueueEvent.RINGCANCELED: "CANCEL", QueueEvent.CONNECT: "ANSWER"}
_PARKING: Final = "parkedcalls"  # a call that is parked is not transferred


@dataclass(frozen=True, slots=True)
class _Ring:
    agent: str | None
    channel: str | None
    start: datetime
    end: datetime
    status: str


@dataclass(slots=True, eq=False)
class Visit:
    """One caller's time in one queue, the talk it led to included."""

    queue: str
    entered_at: datetime
    last_at: datetime
    number: str | None = None
    position: int | None = None
    left_at: datetime | None = None
    reason: str | None = None  # why it left: connected, abandoned, timeout …
    agent: str | None = None  # who took it
    over_at: datetime | None = None  # the end of the talk, or of the visit if there was none
    hung_up: HangupSource | None = None
    transfer: str | None = None  # blind or attended, by the agent
    transferred_to: str | None = None
    is_taken_over: bool = False  # by another caller: who waited before handed its call on
    rings: list[_Ring] = field(default_factory=list)

    @property
    def is_connected(self) -> bool:
        """Whether somebody took it."""
        return self.reason == "connected"

    def take(self, line: QueueLine) -> None:
        """The next line about it."""
        event = line.event
        self.last_at = max(self.last_at, line.at)
        if self.position is None:
            self.position = line.position
        if event in _RINGS and len(self.rings) < _MAX_RINGS:
            began = max(self.entered_at, line.at - (line.ring or timedelta()))
            self.rings.append(_Ring(line.agent, line.channel, began, line.at, _RINGS[event]))
        if event in _LEFT and self.left_at is None:
            self.left_at, self.reason = line.at, _LEFT[event]
        if event is QueueEvent.CONNECT:
            self.agent = line.agent
        elif event in _WHO_ENDED or event in _TRANSFERS:
            self._end_talk(line)
        elif event in _LEFT:
            self.over_at = line.at
            self.hung_up = HangupSource.CALLER if event is QueueEvent.ABANDON else None

    def _end_talk(self, line: QueueLine) -> None:
        if self.left_at is None:  # its CONNECT was written elsewhere
            talk = line.talk or timedelta()
            self.left_at, self.reason, self.agent = max(self.entered_at, line.at - talk), "connected", line.agent
        self.over_at = line.at
        self.hung_up = _WHO_ENDED.get(line.event)
        if line.context != _PARKING:
            self.transfer, self.transferred_to = _TRANSFERS.get(line.event), line.to

    def is_that_of(self, line: QueueLine) -> bool:
        """Whether a line that bears an unknown id may be about it."""
        if line.queue != self.queue or self.over_at is not None or line.at < self.entered_at:
            return False
        if None not in (line.position, self.position) and line.position != self.position:
            return False
        if line.wait is None:
            return False
        waited_until = self.left_at or (line.at if line.talk is None else None)
        is_same_agent = self.agent is None or line.agent == self.agent
        return (
            is_same_agent and waited_until is not None and abs(self.entered_at + line.wait - waited_until) <= _AT_ONCE
        )


def visit_of(line: QueueLine) -> Visit:
    """The visit that a line begins, or tells something of although nothing was told before."""
    entered_at = line.at - (line.wait or timedelta()) - (line.talk or timedelta())
    visit = Visit(line.queue, entered_at, line.at, number=line.number)
    visit.take(line)
    return visit


@dataclass(slots=True, eq=False)
class QueueCall:
    """All that queues tell of one caller's channel."""

    call_id: str
    visits: list[Visit] = field(default_factory=list)

    @property
    def start_time(self) -> datetime:
        """When its channel began, as its id tells."""
        entered: datetime = self.visits[0].entered_at
        begun = began_at(self.call_id)
        return begun if begun is not None and begun <= entered else entered

    @property
    def last_at(self) -> datetime:
        """The time of the last line."""
        return max(visit.last_at for visit in self.visits)

    @property
    def is_over(self) -> bool:
        """Whether it waits and talks no more."""
        return all(visit.over_at is not None for visit in self.visits)

    @property
    def last(self) -> Visit:
        """The queue it was in last."""
        return self.visits[-1]

    def waits_in(self, queue: str) -> bool:
        """Whether more may be told of a visit to this queue under its id."""
        return any(visit.queue == queue and visit.over_at is None for visit in self.visits)

    def cut_off(self) -> None:
        """The PBX stopped, or never told the end."""
        for visit in self.visits:
            visit.over_at = visit.over_at or visit.last_at

    def add(self, line: QueueLine) -> None:
        """The next line of it."""
        if line.event is not QueueEvent.ENTERQUEUE:
            for visit in reversed(self.visits):
                if visit.queue == line.queue and (visit.over_at is None or visit.over_at == line.at):
                    visit.take(line)
                    return
        if line.event not in BY_THE_WAY and len(self.visits) < MAX_VISITS:
            self.visits.append(visit_of(line))


def account_of(call: QueueCall, *, site: str, pbx: str, rules: CallRules) -> dict[str, Any]:  # Any: columns
    """The columns of the call as far as its queues can tell them."""
    call_sid = f"{site}:{pbx}:{call.call_id}"
    last, connected = call.last, [visit for visit in call.visits if visit.is_connected]
    number = next((visit.number for visit in call.visits if visit.number), None)
    public = rules.numbers.e164(number)
    # No queue log tells where a call began. Who is inside has no public number, if a country tells which are public.
    is_outside = public is not None or number is None or rules.numbers.country is None
    start, end = call.start_time, call.last_at
    outcome, is_end_known = _outcome(last, is_answered=bool(connected))
    return {
        "call_sid": call_sid,
        "trace_id": minted_trace_id(call_sid),
        "site": site,
        "pbx": pbx,
        "direction": Direction.INBOUND if is_outside else Direction.INTERNAL,
        "caller_id": number,
        "caller_e164": public,
        "caller_presentation": presentation(number, None),
        "answered_by": _who(connected[0]) if connected else None,
        "last_answered_by": _who(connected[-1]) if connected else None,
        "status": outcome.status,
        "disposition": outcome.disposition,
        "start_time": start,
        "answer_time": connected[0].left_at if connected else None,
        "end_time": end,
        "ring_seconds": _rung_seconds(call.visits),
        "talk_seconds": sum((_seconds(visit.left_at, visit.over_at or end) for visit in connected), 0.0),
        "total_seconds": _seconds(start, end),
        "hangup_source": last.hung_up,
        "queue": last.queue,
        "queue_position": last.position,
        "queue_wait_seconds": sum((_seconds(visit.entered_at, visit.left_at or end) for visit in call.visits), 0.0),
        "transferred": any(visit.transfer or visit.is_taken_over for visit in call.visits),
        "source": SOURCE,
        "start_estimated": True,
        "end_estimated": not is_end_known,
        "legs": _legs(call, number),
        "timeline": _timeline(call, number),
    }


def _outcome(last: Visit, *, is_answered: bool) -> tuple[Outcome, bool]:
    """And whether the call ended with what is known of it."""
    is_end_known = last.hung_up is not None
    if is_answered:
        return ANSWERED, is_end_known
    if last.reason == "abandoned":
        return CANCELLED, True
    return (NO_ANSWER if is_end_known else UNSEEN.outcome), is_end_known


def _who(visit: Visit) -> str | None:
    """A member by the extension it is named after, else by its name."""
    return visit.agent and (extension_of(visit.agent) or visit.agent)


def _rung_seconds(visits: Sequence[Visit]) -> float:
    """How long at least one was rung before the first answer."""
    answer = next((visit.left_at for visit in visits if visit.is_connected), None)
    spans = [(ring.start, ring.end) for visit in visits for ring in visit.rings if answer is None or ring.end <= answer]
    total, until = 0.0, datetime.min.replace(tzinfo=UTC)
    for start, end in sorted(spans):
        total += max(0.0, (end - max(start, until)).total_seconds())
        until = max(until, end)
    return total


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return max(0.0, (end - start).total_seconds()) if start is not None and end is not None else 0.0


def _legs(call: QueueCall, number: str | None) -> list[dict[str, Any]]:  # Any: JSON
    talk = sum((_seconds(visit.left_at, visit.over_at) for visit in call.visits if visit.is_connected), 0.0)
    legs = [
        {"channel": call.call_id, "number": number, "caller": True, "start_time": iso_text(call.start_time)}
        | {"end_time": iso_text(call.last_at), "talk_seconds": talk}
    ]
    for visit in call.visits:
        legs += [_leg_of(ring, visit) for ring in visit.rings]
    return [{name: value for name, value in leg.items() if value is not None} for leg in legs]


def _leg_of(ring: _Ring, visit: Visit) -> dict[str, Any]:  # Any: JSON
    agent = ring.agent or ""
    answered = ring.status == "ANSWER"
    end = (visit.over_at or visit.last_at) if answered else ring.end
    return {
        "channel": ring.channel,
        "endpoint": agent or None,
        "number": extension_of(agent),
        "dial_status": ring.status,
        "start_time": iso_text(ring.start),
        "ring_time": iso_text(ring.start),
        "answer_time": iso_text(ring.end) if answered else None,
        "end_time": iso_text(end),
        "talk_seconds": _seconds(ring.end, end) if answered else None,
    }


def _timeline(call: QueueCall, number: str | None) -> list[dict[str, Any]]:  # Any: JSON
    entries: list[dict[str, Any]] = [{"at": iso_text(call.start_time), "event": "began", "who": number}]
    is_answered = False
    for visit in call.visits:
        queue = {"who": visit.number or number, "queue": visit.queue}
        entries.append({"at": iso_text(visit.entered_at), "event": "queued", **queue, "position": visit.position})
        if visit.is_connected and not is_answered:
            is_answered = True
            entries.append({"at": iso_text(visit.left_at), "event": "answered", "who": _who(visit)})
        if visit.left_at is not None:
            entries.append({"at": iso_text(visit.left_at), "event": "left_queue", **queue, "reason": visit.reason})
        if visit.transfer is not None:
            handed = {"kind": visit.transfer, "who": _who(visit), "to": visit.transferred_to}
            entries.append({"at": iso_text(visit.over_at), "event": "transferred", **handed})
        if visit.hung_up is not None:
            who = queue["who"] if visit.hung_up is HangupSource.CALLER else _who(visit)
            entries.append({"at": iso_text(visit.over_at), "event": "hangup", "by": visit.hung_up, "who": who})
    return [{name: value for name, value in entry.items() if value is not None} for entry in entries]
