"""Attended transfers by the phone's own key: consult somebody in a second call, then connect the two."""

from collections.abc import Sequence

from tests.pbx.stage.scenario import TALK, Cast, connect, pause, scenario
from tests.pbx.stage.telling import (
    NORMAL_CLEARING,
    called_leg,
    caller_leg,
    hangup,
    inbound,
    internal,
    joined,
    left,
)
from tests.pbx.stage.truth import CallTruth, LegTruth, seconds


@scenario()
async def attended_transfer_after_the_answer(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    await pause(0.3)
    consulting, consulted = await connect(first, second.number, second)
    await pause(TALK)
    handed_on = await callee.refer_replaces(consulting)
    await callee.until_ended()
    await consulting.until_ended()
    await pause(TALK)
    end = await consulted.hang_up()
    await caller.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, handed_on), seconds(handed_on, end)
    consultation = seconds(consulted.answered_at, handed_on)
    return [
        inbound(
            outside,
            cast.did(1),
            name="the call",
            answered_by=first.number,
            last_answered_by=second.number,
            start=caller.asked_at,
            answer=callee.answered_at,
            end=end,
            ring=seconds(callee.rang_at, callee.answered_at),
            talk=talk_1 + talk_2,
            hold=seconds(held, handed_on),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2, hold=seconds(held, handed_on)),
                called_leg(first, talk=talk_1),
                LegTruth(number=second.number, answered=True, talk=talk_2),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=attended to={second}", "merged -", f"unheld {first}"}
                | left(first)
                | joined(second),
                hangup(second, "callee") | left(outside, second),
            ],
        ),
        internal(
            first,
            second.number,
            name="the consultation",
            answered_by=second.number,
            start=consulting.asked_at,
            answer=consulted.answered_at,
            end=handed_on,
            ring=seconds(consulted.rang_at, consulted.answered_at),
            talk=consultation,
            hangup_source=None,
            merged_into="the call",
            legs=[caller_leg(first, talk=consultation), called_leg(second, talk=consultation)],
            timeline=[f"answered {second}", joined(first, second), left(first, second)],
        ),
    ]
