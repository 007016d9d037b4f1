"""Holding: one of the two lets the other wait with music."""

from collections.abc import Sequence

from tests.pbx.stage.scenario import TALK, Cast, connect, pause, scenario
from tests.pbx.stage.telling import NORMAL_CLEARING, called_leg, caller_leg, hangup, inbound, internal, joined, left
from tests.pbx.stage.truth import CallTruth, seconds


@scenario()
async def held_and_taken_back_by_the_callee(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    await pause(TALK)
    taken_back = await callee.unhold()
    await pause(TALK)
    end = await callee.hang_up()
    await caller.until_ended()

    talk, hold = seconds(callee.answered_at, end), seconds(held, taken_back)
    return [
        inbound(
            caller,
            by=callee,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            legs=[caller_leg(outside, talk=talk, hold=hold), called_leg(first, talk=talk)],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                f"unheld {first}",
                hangup(first, "callee") | left(outside, first),
            ],
        )
    ]


@scenario()
async def held_by_the_caller_who_then_hangs_up(cast: Cast) -> Sequence[CallTruth]:
    first, second = cast.phone(1), cast.phone(2)
    caller, callee = await connect(first, second.number, second)
    await pause(TALK)
    held = await caller.hold()
    await pause(TALK)
    end = await caller.hang_up()
    await callee.until_ended()

    talk, hold = seconds(callee.answered_at, end), seconds(held, end)
    return [
        internal(
            caller,
            by=callee,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            legs=[caller_leg(first, talk=talk), called_leg(second, talk=talk, hold=hold)],
            timeline=[
                f"answered {second}",
                joined(first, second),
                f"held {first}",
                hangup(first, "caller") | left(first, second) | {f"?unheld {first}"},
            ],
        )
    ]


@scenario()
async def held_until_the_caller_hangs_up(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    await pause(TALK)
    end = await caller.hang_up()
    await callee.until_ended()

    talk, hold = seconds(callee.answered_at, end), seconds(held, end)
    return [
        inbound(
            caller,
            by=callee,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            legs=[caller_leg(outside, talk=talk, hold=hold), called_leg(first, talk=talk)],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                hangup(outside, "caller") | left(outside, first) | {f"?unheld {first}"},
            ],
        )
    ]


@scenario()
async def held_by_both_at_the_same_time(cast: Cast) -> Sequence[CallTruth]:
    first, second = cast.phone(1), cast.phone(2)
    caller, callee = await connect(first, second.number, second)
    await pause(TALK)
    held_1 = await caller.hold()
    await pause(0.4)
    held_2 = await callee.hold()
    await pause(0.4)
    taken_back_1 = await caller.unhold()
    await pause(0.4)
    taken_back_2 = await callee.unhold()
    await pause(TALK)
    end = await caller.hang_up()
    await callee.until_ended()

    talk = seconds(callee.answered_at, end)
    return [
        internal(
            caller,
            by=callee,
            end=end,
            talk=talk,
            hold=seconds(held_1, taken_back_2),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            legs=[
                caller_leg(first, talk=talk, hold=seconds(held_2, taken_back_2)),
                called_leg(second, talk=talk, hold=seconds(held_1, taken_back_1)),
            ],
            timeline=[
                f"answered {second}",
                joined(first, second),
                f"held {first}",
                f"held {second}",
                f"unheld {first}",
                f"unheld {second}",
                hangup(first, "caller") | left(first, second),
            ],
        )
    ]
