"""Attended transfers that are made before whom one wants to consult has answered."""

from collections.abc import Sequence
from datetime import datetime

from tests.pbx.stage.phone import Call
from tests.pbx.stage.scenario import RING, TALK, Cast, connect, pause, scenario
from tests.pbx.stage.scenarios.attended_transfers import connect_the_two
from tests.pbx.stage.telling import (
    NORMAL_CLEARING,
    called_leg,
    caller_leg,
    hangup,
    inbound,
    internal,
    joined,
    left,
    missed_leg,
    taken_over_leg,
)
from tests.pbx.stage.truth import CallTruth, LegTruth, seconds


@scenario()
async def attended_transfer_before_the_answer(cast: Cast) -> Sequence[CallTruth]:
    """Blonde: handed on while the other phone still rings, which then answers."""
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    await pause(0.3)
    consulting = await first.call(second.number)
    target = await second.rings()
    await consulting.until_ringing()
    await pause(RING)
    handed_on = await connect_the_two(callee, consulting)
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await target.hang_up()
    await caller.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, handed_on), seconds(target.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            name="the call",
            last_answered_by=second.number,
            end=end,
            talk=talk_1 + talk_2,
            hold=seconds(held, handed_on),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2, hold=seconds(held, handed_on)),
                called_leg(first, talk=talk_1),
                taken_over_leg(second, talk=talk_2),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=attended to={second}", "merged -", f"?unheld {first}"}
                | left(outside, first),
                joined(outside, second),
                hangup(second, "callee") | left(outside, second),
            ],
        ),
        _consultation_unanswered(consulting, target, handed_on),
    ]


@scenario(internal="exten => 4ii2,1,Dial(PJSIP/1ii2,3,tT)\n same => n,Hangup()")
async def attended_transfer_before_the_answer_and_nobody_answers(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    consulting = await first.call(cast.special(4, 2))
    target = await second.rings()
    await consulting.until_ringing()
    await pause(RING)
    handed_on = await connect_the_two(callee, consulting)
    await target.until_ended()
    end = await caller.until_ended()

    talk = seconds(callee.answered_at, handed_on)
    return [
        inbound(
            caller,
            by=callee,
            name="the call",
            end=end,
            talk=talk,
            hold=seconds(held, handed_on),
            hangup_source="pbx",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk, hold=seconds(held, handed_on)),
                called_leg(first, talk=talk),
                LegTruth(number=second.number, answered=False),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=attended to={second}", "merged -", f"?unheld {first}"}
                | left(outside, first),
            ],
        ),
        _consultation_unanswered(consulting, target, handed_on),
    ]


def _consultation_unanswered(consulting: Call, target: Call, handed_on: datetime) -> CallTruth:
    """It went on in the other call before anybody had answered."""
    return internal(
        consulting,
        disposition=None,
        end=handed_on,
        ring=seconds(target.rang_at, handed_on),
        hangup_source=None,
        merged_into="the call",
        legs=[caller_leg(consulting.phone, answered=False), missed_leg(target.phone, None)],
        timeline=[],
    )
