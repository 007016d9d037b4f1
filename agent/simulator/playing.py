"""Plays a planned call on the exchange, step by step as Asterisk 22 does it, and knows afterwards what was true."""

from collections.abc import Iterable
from itertools import cycle
from typing import Final, NamedTuple

from agent.simulator.exchange import DOWN, RING, RINGING, UP, Bridge, Channel, Exchange, Script
from agent.simulator.plan import OUTCOMES, Behaviour, CallPlan, Party, Refusal
from agent.simulator.scenarios import AGENT_RING_SECONDS
from agent.simulator.site import UNKNOWN
from agent.simulator.truth import Cut, SimulatedCall, moment
from sync.models import Direction, Disposition

# What SIP needs to reach a phone, and Asterisk to answer a call before it goes on in the dialplan.
_REACH_SECONDS: Final = 0.005
_ANSWER_SECONDS: Final = 0.5
# One who refuses so fast has not rung.
_AT_ONCE_SECONDS: Final = 0.1

_DIAL_VARIABLES: Final = (
    "DIALSTATUS",
    "DIALEDPEERNUMBER",
    "DIALEDPEERNAME",
    "ANSWEREDTIME",
    "ANSWEREDTIME_MS",
    "DIALEDTIME",
    "DIALEDTIME_MS",
    "RINGTIME",
    "RINGTIME_MS",
    "PROGRESSTIME",
    "PROGRESSTIME_MS",
)
_QUEUE_VARIABLES: Final = (
    "ANSWEREDTIME",
    "ANSWEREDTIME_MS",
    "DIALEDTIME",
    "DIALEDTIME_MS",
    "QUEUEWAIT",
    "QUEUEWAIT_MS",
)

_MENU_FILE: Final = "basic-pbx-ivr-main"

_NORMAL: Final = 16
_NO_ROUTE: Final = 3
_ELSEWHERE: Final = 26
_INTERWORKING: Final = 127
_DISPOSITIONS: Final = {
    Disposition.ANSWERED: "ANSWERED",
    Disposition.BUSY: "BUSY",
    Disposition.CONGESTION: "CONGESTION",
    Disposition.FAILED: "FAILED",
}
# Which of several phones' endings is the call's: the one nearest to being answered.
_BEST_FIRST: Final = (Disposition.NO_ANSWER, Disposition.BUSY, Disposition.CONGESTION, Disposition.FAILED)


class _Record(NamedTuple):
    """What goes into a call detail record beside what the caller's channel tells."""

    destination: str
    application: tuple[str, str]
    start_us: int
    answer_us: int | None
    disposition: Disposition


class PlayedCall:
    """One call. `script` plays it; `truth` tells how it went once the script is through."""

    def __init__(self, exchange: Exchange, plan: CallPlan) -> None:
        self.plan = plan
        self.root: Channel | None = None
        self._exchange = exchange
        self._legs: dict[Channel, Party] = {}  # those that are open
        self._reached: list[Party] = []  # those who ever had a channel
        self._started_us = 0
        self._pbx_answered_us: int | None = None
        self._dialled_us = 0
        self._answered_us: int | None = None
        self._answered_by: str | None = None
        self._talking_since_us: int | None = None
        self._talk_us = 0
        self._ended_us = 0
        self._disposition = Disposition.FAILED
        self._application = ("", "")
        self._queued = False
        self._records: list[_Record] = []
        self._cut: Cut | None = None
        self._in_use = False
        self._first_ring = True

    def script(self) -> Script:
        """The whole call."""
        root = self._arrive()
        yield 0.0
        if self.plan.menu_seconds is not None:
            yield from self._listen_to_menu(root)
            if self.plan.digit is None:
                return
        if self.plan.queue is not None:
            yield from self._wait_in_queue(root, self.plan.queue)
        else:
            yield from self._dial(root)

    def truth(self) -> SimulatedCall:
        """What happened, after the call has ended."""
        plan, root = self.plan, self._root()
        return SimulatedCall(
            native_id=root.uniqueid,
            scenario=plan.scenario,
            tenant=plan.tenant.name,
            direction=plan.direction,
            caller=plan.caller,
            caller_name=None if plan.caller_name == UNKNOWN else plan.caller_name,
            callee=plan.dialled,
            answered_by=self._answered_by,
            queue=plan.queue if self._queued else None,
            status=OUTCOMES[self._disposition],
            disposition=self._disposition,
            start_time=moment(self._started_us),
            pbx_answer_time=None if self._pbx_answered_us is None else moment(self._pbx_answered_us),
            answer_time=None if self._answered_us is None else moment(self._answered_us),
            end_time=moment(self._ended_us),
            talk_seconds=self._talk_us / 1_000_000,
            cut=self._cut,
        )

    def cut(self, by: Cut) -> SimulatedCall:
        """The PBX stops in the middle of the call: every channel is hung up at once."""
        root, exchange = self._root(), self._exchange
        self._cut = by
        is_answered = self._answered_us is not None
        waits = self._queued and not is_answered
        self._disposition = Disposition.ANSWERED if is_answered else Disposition.FAILED
        exchange.soft_hangup(root, cause=4)
        for leg in self._legs:
            if not is_answered:
                self._end_attempt(root, leg, "NOANSWER" if waits else "CANCEL")
            exchange.soft_hangup(leg, cause=4)
        if waits:
            self._leave_queue_unserved(root)
        exchange.leave_bridge(root)
        self._stop_talking()
        for leg in list(self._legs):
            exchange.leave_bridge(leg)
            self._close_leg(leg, 0 if waits else _NORMAL)
        self._close_root(_NORMAL if is_answered else 0)
        return self.truth()

    # The caller

    def _root(self) -> Channel:
        if self.root is None:
            raise ValueError("the call has not begun")
        return self.root

    def _arrive(self) -> Channel:
        plan, exchange = self.plan, self._exchange
        root = exchange.open_channel(
            plan.endpoint,
            state=RING,
            number=plan.caller,
            caller_name=plan.caller_name,
            context=plan.context,
            exten=plan.dialled,
        )
        self.root = root
        self._started_us = root.opened_us
        exchange.set_variable(root, "SIPDOMAIN", "192.0.2.10")
        exchange.run(root, "Set", f"CHANNEL(userfield)={plan.tenant.name}")
        root.userfield = plan.tenant.name
        if plan.dialled.startswith("+") and plan.direction is Direction.INBOUND:
            root.priority = 2
            exchange.run(root, "Goto", f"{plan.dialled[1:]},1")
            root.priority = 0
            root.exten = plan.dialled[1:]
        if plan.direction is Direction.OUTBOUND and plan.tenant.shown_number is not None:
            root.priority += 1
            exchange.run(root, "Set", f"CALLERID(num)={plan.tenant.shown_number}")
            exchange.identify(root, plan.tenant.shown_number)
        root.priority += 1
        return root

    def _use_root(self, root: Channel) -> None:
        """A call that is refused at once is over before Asterisk notices that the line is in use."""
        if not self._in_use:
            self._in_use = True
            self._exchange.use_device(root.endpoint)

    def _answer_root(self, root: Channel) -> None:
        self._exchange.run(root, "Answer")
        self._pbx_answered_us = self._exchange.change_state(root, UP)
        self._use_root(root)

    def _listen_to_menu(self, root: Channel) -> Script:
        exchange, plan = self._exchange, self.plan
        menu = f"ivr-{plan.tenant.name}"
        exchange.run(root, "Goto", f"{menu},s,1")
        root.context, root.exten, root.priority = menu, "s", 1
        self._answer_root(root)
        yield _ANSWER_SECONDS
        root.priority = 2
        exchange.run(root, "BackGround", _MENU_FILE)
        exchange.cel("STREAM_BEGIN", root, extra=f'{{"sound":"{_MENU_FILE}","format":"gsm","language":"en"}}')
        yield plan.menu_seconds or 0.0
        if plan.digit is not None:
            if "DTMFEnd" not in exchange.unwanted:
                exchange.say(
                    "DTMFEnd", f"{root.fields()}Digit: {plan.digit}\r\nDurationMs: 160\r\nDirection: Received\r\n"
                )
            exchange.cel("DTMF", root, extra=f'{{"digit":"{plan.digit}","duration_ms":160}}')
            exchange.cel("STREAM_END", root)
            exchange.set_variable(root, "BACKGROUNDSTATUS", "SUCCESS")
            root.exten, root.priority = plan.digit, 1
            return
        exchange.request_hangup(root, None)
        exchange.cel("STREAM_END", root)
        exchange.set_variable(root, "BACKGROUNDSTATUS", "SUCCESS")
        exchange.tell_quality(root)
        self._disposition = Disposition.CANCELLED
        exchange.soft_hangup(root)
        self._application = (root.application, root.application_data)
        self._close_root(0)

    def _close_root(self, cause: int, *, source: str = "", tech_cause: int | None = None) -> None:
        exchange, root = self._exchange, self._root()
        self._ended_us = exchange.hang_up(root, cause, source=source, tech_cause=tech_cause)
        if self._in_use:
            exchange.free_device(root.endpoint)
        exchange.cel("LINKEDID_END", root)
        self._tell_records(root)

    def _tell_records(self, root: Channel) -> None:
        for record in self._records or [_Record("", self._application, self._started_us, None, self._disposition)]:
            answer_us, disposition = record.answer_us, record.disposition
            if not record.destination and self._pbx_answered_us is not None:
                answer_us, disposition = self._pbx_answered_us, Disposition.ANSWERED
            self._exchange.cdr(
                root,
                destination=record.destination,
                callee=root.exten,
                application=record.application,
                start_us=record.start_us,
                answer_us=answer_us,
                disposition=_DISPOSITIONS.get(disposition, "NO ANSWER"),
            )

    # Dial

    def _dial(self, root: Channel) -> Script:
        exchange, plan = self._exchange, self.plan
        data = f"{'&'.join(party.dial for party in plan.parties)},{plan.timeout_seconds:g}"
        self._start_application(root, "Dial", data, _DIAL_VARIABLES)
        self._dialled_us = exchange.stamp
        for party in plan.parties:
            if party.behaviour is not Behaviour.UNREACHABLE:
                self._reach(root, party)
        for leg, party in self._legs.items():
            self._begin_attempt(root, leg, party.dial.partition("/")[2])
        if len(self._legs) == 1:
            exchange.connect_line(root, next(iter(self._legs)))
        elif not self._legs:
            self._give_up(root, _NO_ROUTE, "CHANUNAVAIL", Disposition.FAILED, tech_cause=404)
            return
        yield _REACH_SECONDS
        for leg, party in self._legs.items():
            if party.behaviour is Behaviour.RINGS or party.after_seconds > _AT_ONCE_SECONDS:
                self._ring(root, leg)
        yield from self._let_ring(root)

    def _reach(self, root: Channel, party: Party) -> Channel:
        """A channel to the one who is called; Asterisk makes it before it sends anything."""
        exchange = self._exchange
        is_trunk = party.context != self.plan.tenant.internal_context
        leg = exchange.open_channel(
            party.endpoint,
            state=DOWN,
            number=UNKNOWN if is_trunk else party.number,
            caller_name=party.caller_name,
            context=party.context,
            exten="s",
            linked_to=root,
        )
        self._legs[leg] = party
        self._reached.append(party)
        exchange.set_variable(leg, "DIALEDPEERNUMBER", party.dial.partition("/")[2])
        if self._queued:
            return leg
        leg.exten = root.exten
        if is_trunk:
            leg.number = party.number
        exchange.run(leg, "AppDial", "(Outgoing Line)")
        leg.connected_number, leg.connected_name = root.number, root.caller_name
        if is_trunk:
            exchange.identify(leg, party.number)
        exchange.connect_line(leg, root)
        return leg

    def _begin_attempt(self, root: Channel, leg: Channel, dial_string: str) -> None:
        self._exchange.say("DialBegin", f"{root.fields()}{leg.dest_fields()}DialString: {dial_string}\r\n")

    def _end_attempt(self, root: Channel, leg: Channel, status: str) -> None:
        self._exchange.say("DialEnd", f"{root.fields()}{leg.dest_fields()}DialStatus: {status}\r\n")

    def _ring(self, root: Channel, leg: Channel) -> None:
        exchange = self._exchange
        exchange.change_state(leg, RINGING)
        exchange.ring_device(leg.endpoint)
        if self._first_ring:
            self._first_ring = False
            exchange.set_variable(root, "RINGTIME", "0")
            exchange.set_variable(root, "RINGTIME_MS", "5")
        self._use_root(root)
        exchange.say("DialState", f"{root.fields()}{leg.dest_fields()}DialStatus: RINGING\r\n")

    def _let_ring(self, root: Channel) -> Script:
        """Until somebody answers, everybody refused, the caller or the dialplan has enough."""
        plan = self.plan
        patience = plan.timeout_seconds + 1 if plan.patience_seconds is None else plan.patience_seconds
        limit = min(plan.timeout_seconds, patience)
        passed = 0.0
        for leg, party in _in_their_order(self._legs):
            if party.after_seconds >= limit:
                break
            yield party.after_seconds - passed
            passed = party.after_seconds
            if party.behaviour is Behaviour.ANSWERS:
                self._answer_dial(root, leg)
                yield plan.talk_seconds
                self._part(root, leg)
                return
            self._refuse(root, leg, party)
        if not self._legs:
            self._give_up_after_refusals(root)
            return
        yield limit - passed
        if patience < plan.timeout_seconds:
            self._caller_gives_up(root)
        else:
            self._time_is_over(root)

    def _refuse(self, root: Channel, leg: Channel, party: Party) -> None:
        refusal = party.refusal
        if refusal is None:
            return
        exchange = self._exchange
        exchange.request_hangup(leg, refusal.cause, refusal.sip)
        self._end_attempt(root, leg, refusal.dial_status)
        self._close_leg(leg, refusal.cause, tech_cause=refusal.sip, source=leg.name)
        self._record(leg, _recorded(refusal.disposition))

    def _refusals(self) -> list[Refusal]:
        """How those refused who did so before now, in the order of time."""
        gone = [party for party in self._reached if party not in self._legs.values()]
        return [party.refusal for party in sorted(gone, key=_by_time) if party.refusal is not None]

    def _give_up_after_refusals(self, root: Channel) -> None:
        refusals = self._refusals()
        last = refusals[-1]
        disposition = min((refusal.disposition for refusal in refusals), key=_BEST_FIRST.index)
        self._give_up(root, last.cause, last.dialplan_status, disposition, tech_cause=last.passed_on)

    def _caller_gives_up(self, root: Channel) -> None:
        exchange = self._exchange
        refusals = self._refusals()
        # Asterisk remembers why the last one refused.
        cause, passed_on = (refusals[-1].cause, refusals[-1].passed_on) if refusals else (_INTERWORKING, 500)
        self._disposition = Disposition.CANCELLED
        exchange.request_hangup(root, cause, 487)
        for leg in list(self._legs):
            self._end_attempt(root, leg, "CANCEL")
        exchange.set_variable(root, "DIALSTATUS", "CANCEL")
        exchange.cel("APP_END", root)
        exchange.soft_hangup(root, tech_cause=487)
        for leg in list(self._legs):
            self._close_leg(leg, cause, tech_cause=passed_on)
            self._record(leg, Disposition.NO_ANSWER)
        self._close_root(cause, source=root.name, tech_cause=487)

    def _time_is_over(self, root: Channel) -> None:
        refusals = self._refusals()
        for leg in list(self._legs):
            self._end_attempt(root, leg, "NOANSWER")
            self._close_leg(leg, 0)
            self._record(leg, Disposition.NO_ANSWER)
        cause, passed_on = (refusals[-1].cause, refusals[-1].passed_on) if refusals else (_NORMAL, None)
        self._give_up(root, cause, "NOANSWER", Disposition.NO_ANSWER, tech_cause=passed_on)

    def _give_up(
        self, root: Channel, cause: int, dialstatus: str, disposition: Disposition, *, tech_cause: int | None = None
    ) -> None:
        """Dial came to nothing, the dialplan hangs up."""
        exchange = self._exchange
        self._disposition = disposition
        exchange.set_variable(root, "DIALSTATUS", dialstatus)
        exchange.cel("APP_END", root)
        root.priority += 1
        self._run_hangup(root)
        self._close_root(cause, source="dialplan/builtin", tech_cause=tech_cause)

    def _run_hangup(self, root: Channel) -> None:
        """The dialplan's own end of a call gets a record of its own."""
        self._exchange.run(root, "Hangup")
        self._exchange.soft_hangup(root)
        if self._records:
            self._records.append(_Record("", ("Hangup", ""), self._exchange.stamp, None, _recorded(self._disposition)))

    # Talking

    def _answer_dial(self, root: Channel, leg: Channel) -> None:
        exchange = self._exchange
        self._answer(leg, rang=leg.state == RINGING)
        leg.exten = ""
        if len(self.plan.parties) > 1:
            exchange.connect_line(root, leg)
        others = [other for other in self._legs if other is not leg]
        for other in others:
            self._end_attempt(root, other, "CANCEL")
        for variable, value in (
            ("DIALSTATUS", "ANSWER"),
            ("DIALEDPEERNAME", leg.name),
            ("DIALEDPEERNUMBER", self._legs[leg].dial.partition("/")[2]),
        ):
            exchange.set_variable(root, variable, value)
        self._end_attempt(root, leg, "ANSWER")
        if root.state != UP:
            exchange.change_state(root, UP)
        for other in others:
            self._close_leg(other, _ELSEWHERE)
            self._record(other, Disposition.NO_ANSWER)
        bridge = exchange.create_bridge()
        exchange.run(leg, "AppDial", "(Outgoing Line)")
        self._bridge(root, leg, bridge)

    def _answer(self, leg: Channel, *, rang: bool) -> None:
        self._answered_us = self._exchange.change_state(leg, UP)
        self._answered_by = self._legs[leg].number
        self._disposition = Disposition.ANSWERED
        self._exchange.use_device(leg.endpoint, rang=rang)

    def _bridge(self, root: Channel, leg: Channel, bridge: Bridge) -> None:
        exchange = self._exchange
        exchange.enter_bridge(leg, bridge)
        self._talking_since_us = exchange.enter_bridge(root, bridge, peer=leg.name)
        for _ in range(3):
            for one, other in ((root, leg), (leg, root)):
                exchange.set_variable(one, "BRIDGEPEER", other.name)
                exchange.set_variable(one, "BRIDGEPVTCALLID", other.uniqueid)

    def _stop_talking(self) -> None:
        if self._talking_since_us is not None:
            self._talk_us += max(0, self._exchange.stamp - self._talking_since_us)
            self._talking_since_us = None

    def _part(self, root: Channel, leg: Channel) -> None:
        """One of two who talk hangs up."""
        exchange = self._exchange
        first, second = (leg, root) if self.plan.callee_hangs_up else (root, leg)
        exchange.tell_quality(first, bridged_with=second)
        exchange.request_hangup(first, None if self._queued else _NORMAL)
        for one in (root, leg):
            exchange.set_variable(one, "BRIDGEPEER")
            exchange.set_variable(one, "BRIDGEPVTCALLID")
        if self._queued:
            self._complete_agent(root, leg)
        exchange.leave_bridge(first, peer=leg.name if first is root else "")
        self._stop_talking()
        answered_seconds = (exchange.stamp - (self._answered_us or 0)) // 1_000_000
        dialled_seconds = (exchange.stamp - self._dialled_us) // 1_000_000
        for variable, value in (("ANSWEREDTIME", answered_seconds), ("DIALEDTIME", dialled_seconds)):
            exchange.set_variable(root, variable, str(value))
            exchange.set_variable(root, f"{variable}_MS", f"{value}000")
        exchange.leave_bridge(second, peer=leg.name if second is root else "")
        if not self._queued:
            exchange.set_variable(root, "DIALSTATUS", "ANSWER")
        exchange.cel("APP_END", root)
        exchange.soft_hangup(root)
        exchange.tell_quality(second)
        self._record(leg, Disposition.ANSWERED)
        self._close_leg(leg, _NORMAL, source=first.name)
        self._close_root(_NORMAL, source=first.name)

    def _close_leg(self, leg: Channel, cause: int, *, source: str = "", tech_cause: int | None = None) -> None:
        exchange = self._exchange
        del self._legs[leg]
        exchange.hang_up(leg, cause, source=source, tech_cause=tech_cause)
        if leg.state == UP:
            exchange.free_device(leg.endpoint)
        elif leg.state == RINGING:
            exchange.silence_device(leg.endpoint)

    def _record(self, leg: Channel, disposition: Disposition) -> None:
        answer_us = self._answered_us if disposition is Disposition.ANSWERED else None
        self._records.append(_Record(leg.name, self._application, self._dialled_us, answer_us, disposition))

    def _start_application(self, root: Channel, name: str, data: str, variables: Iterable[str]) -> None:
        exchange = self._exchange
        self._application = (name, data)
        exchange.run(root, name, data)
        exchange.cel("APP_START", root)
        for variable in variables:
            exchange.set_variable(root, variable)

    # Queues

    def _wait_in_queue(self, root: Channel, queue: str) -> Script:
        """Agents are called one after another, again and again, until one answers or somebody has enough."""
        exchange, plan = self._exchange, self.plan
        if root.state != UP:
            self._answer_root(root)
            yield _ANSWER_SECONDS
            root.priority += 1
        gives_up = plan.patience_seconds is not None and plan.patience_seconds < plan.timeout_seconds
        left = plan.patience_seconds if gives_up and plan.patience_seconds is not None else plan.timeout_seconds
        self._start_application(root, "Queue", f"{queue},,,,{plan.timeout_seconds:g}", _QUEUE_VARIABLES)
        self._dialled_us = exchange.stamp
        self._queued = True
        exchange.join_queue(root, queue)
        exchange.say("MusicOnHoldStart", f"{root.fields()}Class: default\r\n")
        exchange.cel("STREAM_BEGIN", root, extra='{"class":"default"}')
        for party in cycle(plan.parties):
            leg = self._call_agent(root, party)
            yield _REACH_SECONDS
            self._ring_agent(root, leg)
            answers = party.behaviour is Behaviour.ANSWERS and party.after_seconds < left
            rings = min(left, party.after_seconds if answers else AGENT_RING_SECONDS)
            yield rings
            left -= rings
            if answers:
                self._answer_queue(root, leg, queue)
                yield plan.talk_seconds
                self._part(root, leg)
                return
            if left <= 0 and gives_up:
                self._caller_leaves_queue(root)
                return
            self._miss(root, leg, seconds=rings)
            if left <= 0:
                self._queue_time_is_over(root)
                return
            self._close_leg(leg, 0)
            pause = min(left, 1.0)
            yield pause
            left -= pause
            if left <= 0:
                self._end_in_pause(root, gives_up=gives_up)
                return

    def _end_in_pause(self, root: Channel, *, gives_up: bool) -> None:
        if gives_up:
            self._caller_leaves_queue(root)
        else:
            self._queue_time_is_over(root)

    def _call_agent(self, root: Channel, party: Party) -> Channel:
        exchange = self._exchange
        leg = self._reach(root, party)
        leg.exten = root.exten
        leg.connected_number, leg.connected_name = root.number, root.caller_name
        exchange.say("AgentCalled", self._agent_fields(root, leg))
        self._begin_attempt(root, leg, party.dial)
        exchange.connect_line(root, leg)
        return leg

    def _agent_fields(self, root: Channel, leg: Channel) -> str:
        party = self._legs[leg]
        return (
            f"{root.fields()}{leg.dest_fields()}Queue: {self.plan.queue}\r\nInterface: {party.endpoint}\r\n"
            f"MemberName: {party.caller_name}\r\n"
        )

    def _ring_agent(self, root: Channel, leg: Channel) -> None:
        exchange = self._exchange
        exchange.change_state(leg, RINGING)
        exchange.run(leg, "AppQueue", "(Outgoing Line)")
        exchange.connect_line(leg, root)
        exchange.say("DialState", f"{root.fields()}{leg.dest_fields()}DialStatus: RINGING\r\n")
        exchange.ring_device(leg.endpoint)

    def _hold_seconds(self) -> int:
        return (self._exchange.stamp - self._dialled_us) // 1_000_000

    def _answer_queue(self, root: Channel, leg: Channel, queue: str) -> None:
        exchange = self._exchange
        self._answer(leg, rang=True)
        self._end_attempt(root, leg, "ANSWER")
        exchange.say("MusicOnHoldStop", root.fields())
        exchange.cel("STREAM_END", root)
        hold = self._hold_seconds()
        exchange.leave_queue(root, queue)
        exchange.set_variable(root, "QUEUEPOSITION", "1")
        exchange.set_variable(root, "QUEUEWAIT", str(hold))
        exchange.set_variable(root, "QUEUEWAIT_MS", f"{hold}000")
        ring = int(self._legs[leg].after_seconds * self._exchange.pace)
        exchange.say("AgentConnect", f"{self._agent_fields(root, leg)}HoldTime: {hold}\r\nRingTime: {ring}\r\n")
        self._bridge(root, leg, exchange.create_bridge())

    def _complete_agent(self, root: Channel, leg: Channel) -> None:
        exchange = self._exchange
        answered_us = self._answered_us or 0
        hold = (answered_us - self._dialled_us) // 1_000_000
        talk = (exchange.stamp - answered_us) // 1_000_000
        reason = "agent" if self.plan.callee_hangs_up else "caller"
        exchange.say(
            "AgentComplete",
            f"{self._agent_fields(root, leg)}HoldTime: {hold}\r\nTalkTime: {talk}\r\nReason: {reason}\r\n",
        )

    def _miss(self, root: Channel, leg: Channel, *, seconds: float) -> None:
        """An agent let it ring too long."""
        milliseconds = int(seconds * self._exchange.pace * 1000)
        self._exchange.say("AgentRingNoAnswer", f"{self._agent_fields(root, leg)}RingTime: {milliseconds}\r\n")
        self._end_attempt(root, leg, "NOANSWER")
        self._record(leg, Disposition.NO_ANSWER)

    def _leave_queue_unserved(self, root: Channel) -> None:
        exchange, queue = self._exchange, self.plan.queue or ""
        hold = self._hold_seconds()
        exchange.say("MusicOnHoldStop", root.fields())
        exchange.cel("STREAM_END", root)
        for variable, value in (("QUEUEWAIT", hold), ("DIALEDTIME", hold), ("ANSWEREDTIME", 0)):
            exchange.set_variable(root, variable, str(value))
            exchange.set_variable(root, f"{variable}_MS", f"{value}000")
        exchange.tell_quality(root)
        exchange.set_variable(root, "ABANDONED", "TRUE")
        exchange.abandon_queue(root, queue, hold_seconds=hold)
        exchange.leave_queue(root, queue)
        exchange.set_variable(root, "QUEUEPOSITION", "1")

    def _caller_leaves_queue(self, root: Channel) -> None:
        exchange = self._exchange
        self._disposition = Disposition.CANCELLED
        exchange.request_hangup(root, None)
        for leg in list(self._legs):
            # Asterisk says it twice.
            self._end_attempt(root, leg, "CANCEL")
            self._end_attempt(root, leg, "CANCEL")
            self._record(leg, Disposition.NO_ANSWER)
        self._leave_queue_unserved(root)
        exchange.cel("APP_END", root)
        exchange.soft_hangup(root)
        for leg in list(self._legs):
            self._close_leg(leg, 0)
        self._close_root(0, source=root.name)

    def _queue_time_is_over(self, root: Channel) -> None:
        exchange = self._exchange
        self._disposition = Disposition.NO_ANSWER
        for leg in self._legs:
            self._end_attempt(root, leg, "CANCEL")  # although NOANSWER was said before
        self._leave_queue_unserved(root)
        exchange.set_variable(root, "QUEUESTATUS", "TIMEOUT")
        exchange.cel("APP_END", root)
        root.priority += 1
        self._run_hangup(root)
        for leg in list(self._legs):
            self._close_leg(leg, 0)
        self._close_root(_NORMAL, source="dialplan/builtin")


def _recorded(disposition: Disposition) -> Disposition:
    """Asterisk records a phone that declined or is not there as one that did not answer."""
    return Disposition.NO_ANSWER if disposition is Disposition.FAILED else disposition


def _by_time(party: Party) -> float:
    return party.after_seconds


def _in_their_order(legs: dict[Channel, Party]) -> list[tuple[Channel, Party]]:
    """Those who do something, in the order of time; those who only ring are left out."""
    acting = [(leg, party) for leg, party in legs.items() if party.behaviour is not Behaviour.RINGS]
    return sorted(acting, key=lambda item: item[1].after_seconds)
