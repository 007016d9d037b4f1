"""How a call goes that the dialplan dials: to one phone, to a group of phones, or out of a trunk."""

from typing import Final

from agent.simulator.call import NORMAL, REACH_SECONDS, Call, recorded
from agent.simulator.channel import RINGING, UP, Channel
from agent.simulator.exchange import Script
from agent.simulator.plan import Behaviour, Party, Refusal
from sync.models import Disposition

# One who refuses so fast has not rung.
_AT_ONCE_SECONDS: Final = 0.1

_NO_ROUTE: Final = 3
_ELSEWHERE: Final = 26
_INTERWORKING: Final = 127

# Which of several phones' endings is the call's: the one nearest to being answered.
_BEST_FIRST: Final = (Disposition.NO_ANSWER, Disposition.BUSY, Disposition.CONGESTION, Disposition.FAILED)

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


def dial(call: Call, root: Channel) -> Script:
    """The dialplan's Dial: all parties at once, until one answers or nobody is left or has patience."""
    exchange, plan = call.exchange, call.plan
    data = f"{'&'.join(party.dial for party in plan.parties)},{plan.timeout_seconds:g}"
    call.start_application(root, "Dial", data, _DIAL_VARIABLES)
    call.dialled_us = exchange.stamp
    for party in plan.parties:
        if party.behaviour is not Behaviour.UNREACHABLE:
            call.reach(root, party)
    for leg, party in call.legs.items():
        call.begin_attempt(root, leg, party.dial.partition("/")[2])
    if len(call.legs) == 1:
        exchange.connect_line(root, next(iter(call.legs)))
    elif not call.legs:
        _give_up(call, root, _NO_ROUTE, "CHANUNAVAIL", Disposition.FAILED, tech_cause=404)
        return
    yield REACH_SECONDS
    for leg, party in call.legs.items():
        if party.behaviour is Behaviour.RINGS or party.after_seconds > _AT_ONCE_SECONDS:
            _ring(call, root, leg)
    yield from _let_ring(call, root)


def _ring(call: Call, root: Channel, leg: Channel) -> None:
    exchange = call.exchange
    exchange.change_state(leg, RINGING)
    exchange.ring_device(leg.endpoint)
    if call.first_ring:
        call.first_ring = False
        exchange.set_variable(root, "RINGTIME", "0")
        exchange.set_variable(root, "RINGTIME_MS", "5")
    call.use_root(root)
    exchange.say("DialState", f"{root.fields()}{leg.dest_fields()}DialStatus: RINGING\r\n")


def _let_ring(call: Call, root: Channel) -> Script:
    """Until somebody answers, everybody refused, the caller or the dialplan has enough."""
    plan = call.plan
    patience = plan.timeout_seconds + 1 if plan.patience_seconds is None else plan.patience_seconds
    limit = min(plan.timeout_seconds, patience)
    passed = 0.0
    for leg, party in _in_their_order(call.legs):
        if party.after_seconds >= limit:
            break
        yield party.after_seconds - passed
        passed = party.after_seconds
        if party.behaviour is Behaviour.ANSWERS:
            _answer_dial(call, root, leg)
            yield plan.talk_seconds
            call.begin_parting(root, leg)
            call.end_parting(root, leg)
            return
        _refuse(call, root, leg, party)
    if not call.legs:
        _give_up_after_refusals(call, root)
        return
    yield limit - passed
    if patience < plan.timeout_seconds:
        _caller_gives_up(call, root)
    else:
        _time_is_over(call, root)


def _refuse(call: Call, root: Channel, leg: Channel, party: Party) -> None:
    refusal = party.refusal
    if refusal is None:
        return
    exchange = call.exchange
    exchange.request_hangup(leg, refusal.cause, refusal.sip)
    call.end_attempt(root, leg, refusal.dial_status)
    call.close_leg(leg, refusal.cause, tech_cause=refusal.sip, source=leg.name)
    call.record(leg, recorded(refusal.disposition))


def _refusals(call: Call) -> list[Refusal]:
    """How those refused who did so before now, in the order of time."""
    gone = [party for party in call.reached if party not in call.legs.values()]
    return [party.refusal for party in sorted(gone, key=_by_time) if party.refusal is not None]


def _give_up_after_refusals(call: Call, root: Channel) -> None:
    refusals = _refusals(call)
    last = refusals[-1]
    disposition = min((refusal.disposition for refusal in refusals), key=_BEST_FIRST.index)
    _give_up(call, root, last.cause, last.dialplan_status, disposition, tech_cause=last.passed_on)


def _caller_gives_up(call: Call, root: Channel) -> None:
    exchange = call.exchange
    refusals = _refusals(call)
    # Asterisk remembers why the last one refused.
    cause, passed_on = (refusals[-1].cause, refusals[-1].passed_on) if refusals else (_INTERWORKING, 500)
    call.disposition = Disposition.CANCELLED
    exchange.request_hangup(root, cause, 487)
    for leg in list(call.legs):
        call.end_attempt(root, leg, "CANCEL")
    exchange.set_variable(root, "DIALSTATUS", "CANCEL")
    exchange.cel("APP_END", root)
    exchange.soft_hangup(root, tech_cause=487)
    for leg in list(call.legs):
        call.close_leg(leg, cause, tech_cause=passed_on)
        call.record(leg, Disposition.NO_ANSWER)
    call.close_root(cause, source=root.name, tech_cause=487)


def _time_is_over(call: Call, root: Channel) -> None:
    refusals = _refusals(call)
    for leg in list(call.legs):
        call.end_attempt(root, leg, "NOANSWER")
        call.close_leg(leg, 0)
        call.record(leg, Disposition.NO_ANSWER)
    cause, passed_on = (refusals[-1].cause, refusals[-1].passed_on) if refusals else (NORMAL, None)
    _give_up(call, root, cause, "NOANSWER", Disposition.NO_ANSWER, tech_cause=passed_on)


def _give_up(
    call: Call, root: Channel, cause: int, dialstatus: str, disposition: Disposition, *, tech_cause: int | None = None
) -> None:
    """Dial came to nothing, the dialplan hangs up."""
    exchange = call.exchange
    call.disposition = disposition
    exchange.set_variable(root, "DIALSTATUS", dialstatus)
    exchange.cel("APP_END", root)
    root.priority += 1
    call.run_hangup(root)
    call.close_root(cause, source="dialplan/builtin", tech_cause=tech_cause)


def _answer_dial(call: Call, root: Channel, leg: Channel) -> None:
    exchange = call.exchange
    call.answer(leg, rang=leg.state == RINGING)
    leg.exten = ""
    if len(call.plan.parties) > 1:
        exchange.connect_line(root, leg)
    others = [other for other in call.legs if other is not leg]
    for other in others:
        call.end_attempt(root, other, "CANCEL")
    for variable, value in (
        ("DIALSTATUS", "ANSWER"),
        ("DIALEDPEERNAME", leg.name),
        ("DIALEDPEERNUMBER", call.legs[leg].dial.partition("/")[2]),
    ):
        exchange.set_variable(root, variable, value)
    call.end_attempt(root, leg, "ANSWER")
    if root.state != UP:
        exchange.change_state(root, UP)
    for other in others:
        call.close_leg(other, _ELSEWHERE)
        call.record(other, Disposition.NO_ANSWER)
    bridge = exchange.create_bridge()
    exchange.run(leg, "AppDial", "(Outgoing Line)")
    call.bridge(root, leg, bridge)


def _by_time(party: Party) -> float:
    return party.after_seconds


def _in_their_order(legs: dict[Channel, Party]) -> list[tuple[Channel, Party]]:
    """Those who do something, in the order of time; those who only ring are left out."""
    acting = [(leg, party) for leg, party in legs.items() if party.behaviour is not Behaviour.RINGS]
    return sorted(acting, key=lambda item: item[1].after_seconds)
