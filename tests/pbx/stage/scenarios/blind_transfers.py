"""Blind transfers: somebody who talks sends the other party on and is gone."""

from collections.abc import Sequence

from tests.pbx.stage.scenario import RING, TALK, Cast, connect, pause, scenario
from tests.pbx.stage.telling import NORMAL_CLEARING, called_leg, caller_leg, hangup, inbound, joined, left
from tests.pbx.stage.truth import CallTruth, seconds


@scenario()
async def blind_transfer_by_callee(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on = await callee.refer(second.number)
    target = await second.rings()
    await callee.until_ended()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, sent_on), seconds(target.answered_at, end)
    return [
        inbound(
            outside,
            cast.did(1),
            answered_by=first.number,
            last_answered_by=second.number,
            start=caller.asked_at,
            answer=callee.answered_at,
            end=end,
            ring=seconds(callee.rang_at, callee.answered_at),
            talk=talk_1 + talk_2,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2),
                called_leg(first, talk=talk_1),
                called_leg(second, talk=talk_2),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                {f"transferred {first} kind=blind to={second}"} | left(outside, first),
                joined(outside, second),
                hangup(outside, "caller") | left(outside, second),
            ],
        )
    ]
