"""Parking: a call waits in a numbered space until somebody takes it up."""

from collections.abc import Sequence
from datetime import datetime

from tests.pbx.stage.phone import Call
from tests.pbx.stage.scenario import RING, TALK, Cast, connect, pause, scenario
from tests.pbx.stage.telling import (
    NORMAL_CLEARING,
    called_leg,
    caller_leg,
    hangup,
    inbound,
    internal,
    joined,
    left,
    taken_over_leg,
)
from tests.pbx.stage.truth import CallTruth, seconds

LOT = """[lot-ii]
parkext=7ii0
parkext_exclusive=yes
parkpos=7ii1-7ii3
context=parked-ii
comebacktoorigin=yes
comebackdialtime=10
findslot=first
parkingtime={seconds}
"""
LOT_FOR_LONG = LOT.format(seconds=40)
LOT_FOR_SHORT = LOT.format(seconds=3)
# Whether the lot picked up a call that a person had answered before, or that of the one who takes it up again, the
# record's words do not say.
OPEN = frozenset({"pbx_answer"})


@scenario(internal="include => parked-ii", res_parking=LOT_FOR_LONG)
async def parked_and_retrieved_by_another(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    parked = await _park(cast, callee)
    await pause(TALK)
    taking = await second.call(cast.special(7, 1))
    taken = await taking.until_answered()
    await pause(TALK)
    end = await caller.hang_up()
    await taking.until_ended()

    talk_1, talk_2, hold = seconds(callee.answered_at, parked), seconds(taken, end), seconds(parked, taken)
    return [
        inbound(
            caller,
            by=callee,
            name="the call",
            last_answered_by=second.number,
            end=end,
            talk=talk_1 + talk_2,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            open=OPEN,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2, hold=hold),
                called_leg(first, talk=talk_1),
                taken_over_leg(second, talk=talk_2),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                {f"parked {outside} space={cast.special(7, 1)} by={first}"} | left(outside, first),
                {f"retrieved {outside} by={second}", "merged -"} | joined(outside, second),
                hangup(outside, "caller") | left(outside, second),
            ],
        ),
        _retrieval(taking),
    ]


@scenario(
    internal="include => parked-ii",
    inbound="exten => 902165551ii9,1,Park(lot-ii)\n same => n,Hangup()",
    res_parking=LOT_FOR_LONG,
)
async def parked_by_the_dialplan_and_retrieved(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller = await outside.call(cast.did(9))
    parked = await caller.until_answered()
    await pause(TALK)
    taking = await first.call(cast.special(7, 1))
    taken = await taking.until_answered()
    await pause(TALK)
    end = await caller.hang_up()
    await taking.until_ended()

    talk = seconds(taken, end)
    return [
        inbound(
            caller,
            name="the call",
            answered_by=first.number,
            last_answered_by=first.number,
            pbx_answer=parked,
            answer=taken,
            end=end,
            talk=talk,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            legs=[caller_leg(outside, talk=talk, hold=seconds(parked, taken)), taken_over_leg(first, talk=talk)],
            timeline=[
                f"parked {outside} space={cast.special(7, 1)}",
                {f"retrieved {outside} by={first}", "merged -", f"answered {first}"} | joined(outside, first),
                hangup(outside, "caller") | left(outside, first),
            ],
        ),
        _retrieval(taking),
    ]


@scenario(internal="include => parked-ii", res_parking=LOT_FOR_SHORT)
async def parked_too_long_and_answered_by_the_parker(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    parked = await _park(cast, callee)
    again = await first.rings()
    await pause(RING)
    await again.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await again.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, parked), seconds(again.answered_at, end)
    hold = seconds(parked, again.rang_at)
    return [
        inbound(
            caller,
            by=callee,
            end=end,
            talk=talk_1 + talk_2,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            open=OPEN,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2, hold=hold),
                called_leg(first, talk=talk_1),
                called_leg(first, talk=talk_2),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                {f"parked {outside} space={cast.special(7, 1)} by={first}"} | left(outside, first),
                f"park_timeout {outside}",
                joined(outside, first),
                hangup(outside, "caller") | left(outside, first),
            ],
        )
    ]


@scenario(internal="include => parked-ii", res_parking=LOT_FOR_LONG)
async def parked_and_the_caller_hangs_up(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    parked = await _park(cast, callee)
    await pause(TALK)
    end = await caller.hang_up()

    talk, hold = seconds(callee.answered_at, parked), seconds(parked, end)
    return [
        inbound(
            caller,
            by=callee,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            open=OPEN,
            legs=[caller_leg(outside, talk=talk, hold=hold), called_leg(first, talk=talk)],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                {f"parked {outside} space={cast.special(7, 1)} by={first}"} | left(outside, first),
                hangup(outside, "caller"),
            ],
        )
    ]


def _retrieval(taking: Call) -> CallTruth:
    """The call of who takes the other up ends where it goes on in it."""
    return internal(
        taking,
        disposition=None,
        end=taking.answered_at,
        hangup_source=None,
        merged_into="the call",
        open=OPEN,
        legs=[caller_leg(taking.phone, answered=None)],
        timeline=[],
    )


async def _park(cast: Cast, call: Call) -> datetime:
    """The other side waits from the moment it is referred; the parker listens to the space's number for a while."""
    parked = await call.refer(cast.special(7, 0))
    await pause(TALK)
    await call.hang_up()
    return parked
