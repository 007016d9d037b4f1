"""A call being played: its channels, what was true of it so far, and the steps that every kind of call shares."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from agent.simulator.channel import DOWN, RINGING, UP, Bridge, Channel
from agent.simulator.exchange import Exchange
from agent.simulator.plan import OUTCOMES, CallPlan, Party
from agent.simulator.site import UNKNOWN
from agent.simulator.truth import Cut, SimulatedCall, moment
from sync.models import Disposition

# What SIP needs to reach a phone, and Asterisk to answer a call before it goes on in the dialplan.
REACH_SECONDS: Final = 0.005
ANSWER_SECONDS: Final = 0.5

NORMAL: Final = 16  # Q.850: normal clearing

_DISPOSITIONS: Final = {
    Disposition.ANSWERED: "ANSWERED",
    Disposition.BUSY: "BUSY",
    Disposition.CONGESTION: "CONGESTION",
    Disposition.FAILED: "FAILED",
}


class _Record(NamedTuple):
    """What goes into a call detail record beside what the caller's channel tells."""

    destination: str
    application: tuple[str, str]
    start_us: int
    answer_us: int | None
    disposition: Disposition


class Call:
    """State and steps; who takes which step when is told in `dialling`, `queueing` and `playing`."""

    def __init__(self, exchange: Exchange, plan: CallPlan) -> None:
        self.plan = plan
        self._root: Channel | None = None
        self.exchange = exchange
        self.legs: dict[Channel, Party] = {}  # those that are open
        self.reached: list[Party] = []  # those who ever had a channel
        self.started_us = 0
        self.pbx_answered_us: int | None = None
        self.dialled_us = 0
        self.answered_us: int | None = None
        self.answered_by: str | None = None
        self.talking_since_us: int | None = None
        self.talk_us = 0
        self.ended_us = 0
        self.disposition = Disposition.FAILED
        self.application = ("", "")
        self.queued = False
        self.records: list[_Record] = []
        self.cut_by: Cut | None = None
        self.in_use = False
        self.first_ring = True

    @property
    def root(self) -> Channel:
        """The caller's channel. Raises ValueError before the call has begun."""
        if self._root is None:
            raise ValueError("the call has not begun")
        return self._root

    def begin(self, root: Channel) -> None:
        """The caller's channel is there."""
        self._root = root
        self.started_us = root.opened_us

    def truth(self) -> SimulatedCall:
        """What happened, after the call has ended."""
        plan, root = self.plan, self.root
        return SimulatedCall(
            native_id=root.uniqueid,
            scenario=plan.scenario,
            tenant=plan.tenant.name,
            direction=plan.direction,
            caller=plan.caller,
            caller_name=None if plan.caller_name == UNKNOWN else plan.caller_name,
            callee=plan.dialled,
            answered_by=self.answered_by,
            queue=plan.queue if self.queued else None,
            status=OUTCOMES[self.disposition],
            disposition=self.disposition,
            start_time=moment(self.started_us),
            pbx_answer_time=None if self.pbx_answered_us is None else moment(self.pbx_answered_us),
            answer_time=None if self.answered_us is None else moment(self.answered_us),
            end_time=moment(self.ended_us),
            talk_seconds=self.talk_us / 1_000_000,
            traceparent=plan.traceparent,
            cut=self.cut_by,
        )

    def use_root(self, root: Channel) -> None:
        """A call that is refused at once is over before Asterisk notices that the line is in use."""
        if not self.in_use:
            self.in_use = True
            self.exchange.use_device(root.endpoint)

    def answer_root(self, root: Channel) -> None:
        """The PBX itself answers: a menu or a queue begins."""
        self.exchange.run(root, "Answer")
        self.pbx_answered_us = self.exchange.change_state(root, UP)
        self.use_root(root)

    def close_root(self, cause: int, *, source: str = "", tech_cause: int | None = None) -> None:
        """The caller's channel is gone, and with it the call."""
        exchange, root = self.exchange, self.root
        self.ended_us = exchange.hang_up(root, cause, source=source, tech_cause=tech_cause)
        if self.in_use:
            exchange.free_device(root.endpoint)
        exchange.cel("LINKEDID_END", root)
        self._tell_records(root)

    def _tell_records(self, root: Channel) -> None:
        for record in self.records or [_Record("", self.application, self.started_us, None, self.disposition)]:
            answer_us, disposition = record.answer_us, record.disposition
            if not record.destination and self.pbx_answered_us is not None:
                answer_us, disposition = self.pbx_answered_us, Disposition.ANSWERED
            self.exchange.cdr(
                root,
                destination=record.destination,
                callee=root.exten,
                application=record.application,
                start_us=record.start_us,
                answer_us=answer_us,
                disposition=_DISPOSITIONS.get(disposition, "NO ANSWER"),
            )

    def reach(self, root: Channel, party: Party) -> Channel:
        """A channel to the one who is called; Asterisk makes it before it sends anything."""
        exchange = self.exchange
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
        self.legs[leg] = party
        self.reached.append(party)
        exchange.set_variable(leg, "DIALEDPEERNUMBER", party.dial.partition("/")[2])
        if self.queued:
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

    def begin_attempt(self, root: Channel, leg: Channel, dial_string: str) -> None:
        """Somebody is called."""
        self.exchange.say("DialBegin", f"{root.fields()}{leg.dest_fields()}DialString: {dial_string}\r\n")

    def end_attempt(self, root: Channel, leg: Channel, status: str) -> None:
        """It is known how the call to somebody ended."""
        self.exchange.say("DialEnd", f"{root.fields()}{leg.dest_fields()}DialStatus: {status}\r\n")

    def run_hangup(self, root: Channel) -> None:
        """The dialplan's own end of a call gets a record of its own."""
        self.exchange.run(root, "Hangup")
        self.exchange.soft_hangup(root)
        if self.records:
            self.records.append(_Record("", ("Hangup", ""), self.exchange.stamp, None, recorded(self.disposition)))

    def answer(self, leg: Channel, *, rang: bool) -> None:
        """Somebody answers."""
        self.answered_us = self.exchange.change_state(leg, UP)
        self.answered_by = self.legs[leg].number
        self.disposition = Disposition.ANSWERED
        self.exchange.use_device(leg.endpoint, rang=rang)

    def bridge(self, root: Channel, leg: Channel, bridge: Bridge) -> None:
        """The caller and the one who answered begin to talk."""
        exchange = self.exchange
        exchange.enter_bridge(leg, bridge)
        self.talking_since_us = exchange.enter_bridge(root, bridge, peer=leg.name)
        for _ in range(3):
            for one, other in ((root, leg), (leg, root)):
                exchange.set_variable(one, "BRIDGEPEER", other.name)
                exchange.set_variable(one, "BRIDGEPVTCALLID", other.uniqueid)

    def stop_talking(self) -> None:
        """They no longer talk."""
        if self.talking_since_us is not None:
            self.talk_us += max(0, self.exchange.stamp - self.talking_since_us)
            self.talking_since_us = None

    def begin_parting(self, root: Channel, leg: Channel) -> None:
        """One of two who talk hangs up; `end_parting` has to follow."""
        exchange = self.exchange
        first, second = self._who_hangs_up_first(root, leg)
        exchange.tell_quality(first, bridged_with=second)
        exchange.request_hangup(first, None if self.queued else NORMAL)
        for one in (root, leg):
            exchange.set_variable(one, "BRIDGEPEER")
            exchange.set_variable(one, "BRIDGEPVTCALLID")

    def end_parting(self, root: Channel, leg: Channel) -> None:
        """Both leave the bridge and are gone."""
        exchange = self.exchange
        first, second = self._who_hangs_up_first(root, leg)
        exchange.leave_bridge(first, peer=leg.name if first is root else "")
        self.stop_talking()
        answered_seconds = (exchange.stamp - (self.answered_us or 0)) // 1_000_000
        dialled_seconds = (exchange.stamp - self.dialled_us) // 1_000_000
        for variable, value in (("ANSWEREDTIME", answered_seconds), ("DIALEDTIME", dialled_seconds)):
            exchange.set_variable(root, variable, str(value))
            exchange.set_variable(root, f"{variable}_MS", f"{value}000")
        exchange.leave_bridge(second, peer=leg.name if second is root else "")
        if not self.queued:
            exchange.set_variable(root, "DIALSTATUS", "ANSWER")
        exchange.cel("APP_END", root)
        exchange.soft_hangup(root)
        exchange.tell_quality(second)
        self.record(leg, Disposition.ANSWERED)
        self.close_leg(leg, NORMAL, source=first.name)
        self.close_root(NORMAL, source=first.name)

    def _who_hangs_up_first(self, root: Channel, leg: Channel) -> tuple[Channel, Channel]:
        return (leg, root) if self.plan.callee_hangs_up else (root, leg)

    def close_leg(self, leg: Channel, cause: int, *, source: str = "", tech_cause: int | None = None) -> None:
        """A called channel is gone."""
        exchange = self.exchange
        del self.legs[leg]
        exchange.hang_up(leg, cause, source=source, tech_cause=tech_cause)
        if leg.state == UP:
            exchange.free_device(leg.endpoint)
        elif leg.state == RINGING:
            exchange.silence_device(leg.endpoint)

    def record(self, leg: Channel, disposition: Disposition) -> None:
        """What a call detail record will tell of one who was called."""
        answer_us = self.answered_us if disposition is Disposition.ANSWERED else None
        self.records.append(_Record(leg.name, self.application, self.dialled_us, answer_us, disposition))

    def start_application(self, root: Channel, name: str, data: str, variables: Iterable[str]) -> None:
        """The dialplan begins to reach somebody."""
        exchange = self.exchange
        self.application = (name, data)
        exchange.run(root, name, data)
        exchange.cel("APP_START", root)
        for variable in variables:
            exchange.set_variable(root, variable)


def recorded(disposition: Disposition) -> Disposition:
    """Asterisk records a phone that declined or is not there as one that did not answer."""
    return Disposition.NO_ANSWER if disposition is Disposition.FAILED else disposition
