"""Plays a planned call on the exchange, step by step as Asterisk 22 does it, and knows afterwards what was true."""

from typing import Final

from agent.simulator.call import ANSWER_SECONDS, NORMAL, Call
from agent.simulator.channel import RING, Channel
from agent.simulator.dialling import dial
from agent.simulator.exchange import Exchange, Script
from agent.simulator.plan import CallPlan
from agent.simulator.queueing import leave_queue_unserved, wait_in_queue
from agent.simulator.truth import Cut, SimulatedCall
from sync.models import Direction, Disposition

_MENU_FILE: Final = "basic-pbx-ivr-main"


class PlayedCall:
    """One call. `script` plays it; `truth` tells how it went once the script is through."""

    def __init__(self, exchange: Exchange, plan: CallPlan) -> None:
        self.plan = plan
        self._exchange = exchange
        self._call = Call(exchange, plan)

    def truth(self) -> SimulatedCall:
        """What happened, after the call has ended."""
        return self._call.truth()

    def script(self) -> Script:
        """The whole call."""
        root = self._arrive()
        yield 0.0
        if self.plan.menu_seconds is not None:
            yield from self._listen_to_menu(root)
            if self.plan.digit is None:
                return
        if self.plan.queue is not None:
            yield from wait_in_queue(self._call, root, self.plan.queue)
        else:
            yield from dial(self._call, root)

    def cut(self, by: Cut) -> SimulatedCall:
        """The PBX stops in the middle of the call: every channel is hung up at once."""
        call, exchange = self._call, self._exchange
        root = call.root
        call.cut_by = by
        is_answered = call.answered_us is not None
        waits = call.queued and not is_answered
        call.disposition = Disposition.ANSWERED if is_answered else Disposition.FAILED
        exchange.soft_hangup(root, cause=4)
        for leg in call.legs:
            if not is_answered:
                call.end_attempt(root, leg, "NOANSWER" if waits else "CANCEL")
            exchange.soft_hangup(leg, cause=4)
        if waits:
            leave_queue_unserved(call, root)
        exchange.leave_bridge(root)
        call.stop_talking()
        for leg in list(call.legs):
            exchange.leave_bridge(leg)
            call.close_leg(leg, 0 if waits else NORMAL)
        call.close_root(NORMAL if is_answered else 0)
        return call.truth()

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
        self._call.begin(root)
        exchange.set_variable(root, "SIPDOMAIN", "192.0.2.10")
        exchange.run(root, "Set", f"CHANNEL(userfield)={plan.tenant.name}")
        root.userfield = plan.tenant.name
        if plan.traceparent is not None:
            root.priority += 1
            exchange.run(root, "Set", f"TRACEPARENT={plan.traceparent}")
            root.variables = f"ChanVariable: TRACEPARENT={plan.traceparent}\r\n"
            exchange.set_variable(root, "TRACEPARENT", plan.traceparent)
        if plan.dialled.startswith("+") and plan.direction is Direction.INBOUND:
            root.priority += 1
            exchange.run(root, "Goto", f"{plan.dialled[1:]},1")
            root.priority = 0
            root.exten = plan.dialled[1:]
        if plan.direction is Direction.OUTBOUND and plan.tenant.shown_number is not None:
            root.priority += 1
            exchange.run(root, "Set", f"CALLERID(num)={plan.tenant.shown_number}")
            exchange.identify(root, plan.tenant.shown_number)
        root.priority += 1
        return root

    def _listen_to_menu(self, root: Channel) -> Script:
        call, exchange, plan = self._call, self._exchange, self.plan
        menu = f"ivr-{plan.tenant.name}"
        exchange.run(root, "Goto", f"{menu},s,1")
        root.context, root.exten, root.priority = menu, "s", 1
        call.answer_root(root)
        yield ANSWER_SECONDS
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
        call.disposition = Disposition.CANCELLED
        exchange.soft_hangup(root)
        call.application = (root.application, root.application_data)
        call.close_root(0)
