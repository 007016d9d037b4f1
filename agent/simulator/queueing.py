"""How a call goes that waits in a queue."""

from itertools import cycle
from typing import Final

from agent.simulator.call import ANSWER_SECONDS, NORMAL, REACH_SECONDS, Call
from agent.simulator.channel import RINGING, UP, Channel
from agent.simulator.exchange import Script
from agent.simulator.plan import Behaviour, Party
from agent.simulator.scenarios import AGENT_RING_SECONDS
from sync.models import Disposition

_QUEUE_VARIABLES: Final = (
    "ANSWEREDTIME",
    "ANSWEREDTIME_MS",
    "DIALEDTIME",
    "DIALEDTIME_MS",
    "QUEUEWAIT",
    "QUEUEWAIT_MS",
)


def wait_in_queue(call: Call, root: Channel, queue: str) -> Script:
    """Agents are called one after another, again and again, until one answers or somebody has enough."""
    exchange, plan = call.exchange, call.plan
    if root.state != UP:
        call.answer_root(root)
        yield ANSWER_SECONDS
        root.priority += 1
    gives_up = plan.patience_seconds is not None and plan.patience_seconds < plan.timeout_seconds
    left = plan.patience_seconds if gives_up and plan.patience_seconds is not None else plan.timeout_seconds
    call.start_application(root, "Queue", f"{queue},,,,{plan.timeout_seconds:g}", _QUEUE_VARIABLES)
    call.dialled_us = exchange.stamp
    call.queued = True
    exchange.join_queue(root, queue)
    exchange.say("MusicOnHoldStart", f"{root.fields()}Class: default\r\n")
    exchange.cel("STREAM_BEGIN", root, extra='{"class":"default"}')
    for party in cycle(plan.parties):
        leg = _call_agent(call, root, party)
        yield REACH_SECONDS
        _ring_agent(call, root, leg)
        answers = party.behaviour is Behaviour.ANSWERS and party.after_seconds < left
        rings = min(left, party.after_seconds if answers else AGENT_RING_SECONDS)
        yield rings
        left -= rings
        if answers:
            _answer_queue(call, root, leg, queue)
            yield plan.talk_seconds
            call.begin_parting(root, leg)
            _complete_agent(call, root, leg)
            call.end_parting(root, leg)
            return
        if left <= 0 and gives_up:
            _caller_leaves_queue(call, root)
            return
        _miss(call, root, leg, seconds=rings)
        if left <= 0:
            _queue_time_is_over(call, root)
            return
        call.close_leg(leg, 0)
        pause = min(left, 1.0)
        yield pause
        left -= pause
        if left <= 0:
            _end_in_pause(call, root, gives_up=gives_up)
            return


def _end_in_pause(call: Call, root: Channel, *, gives_up: bool) -> None:
    if gives_up:
        _caller_leaves_queue(call, root)
    else:
        _queue_time_is_over(call, root)


def _call_agent(call: Call, root: Channel, party: Party) -> Channel:
    exchange = call.exchange
    leg = call.reach(root, party)
    leg.exten = root.exten
    leg.connected_number, leg.connected_name = root.number, root.caller_name
    exchange.say("AgentCalled", _agent_fields(call, root, leg))
    call.begin_attempt(root, leg, party.dial)
    exchange.connect_line(root, leg)
    return leg


def _agent_fields(call: Call, root: Channel, leg: Channel) -> str:
    party = call.legs[leg]
    return (
        f"{root.fields()}{leg.dest_fields()}Queue: {call.plan.queue}\r\nInterface: {party.endpoint}\r\n"
        f"MemberName: {party.caller_name}\r\n"
    )


def _ring_agent(call: Call, root: Channel, leg: Channel) -> None:
    exchange = call.exchange
    exchange.change_state(leg, RINGING)
    exchange.run(leg, "AppQueue", "(Outgoing Line)")
    exchange.connect_line(leg, root)
    exchange.say("DialState", f"{root.fields()}{leg.dest_fields()}DialStatus: RINGING\r\n")
    exchange.ring_device(leg.endpoint)


def _hold_seconds(call: Call) -> int:
    return (call.exchange.stamp - call.dialled_us) // 1_000_000


def _answer_queue(call: Call, root: Channel, leg: Channel, queue: str) -> None:
    exchange = call.exchange
    call.answer(leg, rang=True)
    call.end_attempt(root, leg, "ANSWER")
    exchange.say("MusicOnHoldStop", root.fields())
    exchange.cel("STREAM_END", root)
    hold = _hold_seconds(call)
    exchange.leave_queue(root, queue)
    exchange.set_variable(root, "QUEUEPOSITION", "1")
    exchange.set_variable(root, "QUEUEWAIT", str(hold))
    exchange.set_variable(root, "QUEUEWAIT_MS", f"{hold}000")
    ring = int(call.legs[leg].after_seconds * call.exchange.pace)
    exchange.say("AgentConnect", f"{_agent_fields(call, root, leg)}HoldTime: {hold}\r\nRingTime: {ring}\r\n")
    call.bridge(root, leg, exchange.create_bridge())


def _complete_agent(call: Call, root: Channel, leg: Channel) -> None:
    exchange = call.exchange
    answered_us = call.answered_us or 0
    hold = (answered_us - call.dialled_us) // 1_000_000
    talk = (exchange.stamp - answered_us) // 1_000_000
    reason = "agent" if call.plan.callee_hangs_up else "caller"
    exchange.say(
        "AgentComplete",
        f"{_agent_fields(call, root, leg)}HoldTime: {hold}\r\nTalkTime: {talk}\r\nReason: {reason}\r\n",
    )


def _miss(call: Call, root: Channel, leg: Channel, *, seconds: float) -> None:
    """An agent let it ring too long."""
    milliseconds = int(seconds * call.exchange.pace * 1000)
    call.exchange.say("AgentRingNoAnswer", f"{_agent_fields(call, root, leg)}RingTime: {milliseconds}\r\n")
    call.end_attempt(root, leg, "NOANSWER")
    call.record(leg, Disposition.NO_ANSWER)


def leave_queue_unserved(call: Call, root: Channel) -> None:
    """The caller is out of the queue without having spoken to anybody, for whatever reason."""
    exchange, queue = call.exchange, call.plan.queue or ""
    hold = _hold_seconds(call)
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


def _caller_leaves_queue(call: Call, root: Channel) -> None:
    exchange = call.exchange
    call.disposition = Disposition.CANCELLED
    exchange.request_hangup(root, None)
    for leg in list(call.legs):
        # Asterisk says it twice.
        call.end_attempt(root, leg, "CANCEL")
        call.end_attempt(root, leg, "CANCEL")
        call.record(leg, Disposition.NO_ANSWER)
    leave_queue_unserved(call, root)
    exchange.cel("APP_END", root)
    exchange.soft_hangup(root)
    for leg in list(call.legs):
        call.close_leg(leg, 0)
    call.close_root(0, source=root.name)


def _queue_time_is_over(call: Call, root: Channel) -> None:
    exchange = call.exchange
    call.disposition = Disposition.NO_ANSWER
    for leg in call.legs:
        call.end_attempt(root, leg, "CANCEL")  # although NOANSWER was said before
    leave_queue_unserved(call, root)
    exchange.set_variable(root, "QUEUESTATUS", "TIMEOUT")
    exchange.cel("APP_END", root)
    root.priority += 1
    call.run_hangup(root)
    for leg in list(call.legs):
        call.close_leg(leg, 0)
    call.close_root(NORMAL, source="dialplan/builtin")
