"""Pickups: somebody takes a call that rings elsewhere."""

from collections.abc import Sequence

from tests.pbx.stage.phone import Call
from tests.pbx.stage.scenario import RING, TALK, Cast, pause, scenario
from tests.pbx.stage.telling import (
    NORMAL_CLEARING,
    caller_leg,
    hangup,
    inbound,
    internal,
    joined,
    left,
    missed_leg,
    taken_over_leg,
)
from tests.pbx.stage.truth import CallTruth, seconds


@scenario()
async def pickup_of_whatever_rings_in_the_group(cast: Cast) -> Sequence[CallTruth]:
    return await _pick_up(cast, "*8")


@scenario()
async def pickup_of_one_phone(cast: Cast) -> Sequence[CallTruth]:
    return await _pick_up(cast, "*8" + cast.extension(1))


async def _pick_up(cast: Cast, code: str) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller = await outside.call(cast.did(1))
    ringing = await first.rings()
    await pause(RING)
    taking = await second.call(code)
    taken = await taking.until_answered()
    await ringing.until_ended()
    await caller.until_answered()
    await pause(TALK)
    end = await taking.hang_up()
    await caller.until_ended()

    talk = seconds(taken, end)
    return [
        inbound(
            caller,
            name="the call",
            answered_by=second.number,
            last_answered_by=second.number,
            answer=taken,
            end=end,
            ring=seconds(ringing.rang_at, taken),
            talk=talk,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            legs=[
                caller_leg(outside, talk=talk),
                missed_leg(first, None),
                taken_over_leg(second, talk=talk),
            ],
            timeline=[
                {f"picked_up {second} from={first}", f"answered {second}", "merged -"} | joined(outside, second),
                hangup(second, "callee") | left(outside, second),
            ],
        ),
        _attempt(taking),
    ]


def _attempt(taking: Call) -> CallTruth:
    """The call of who picks up ends where it goes on in the one that rang."""
    return internal(
        taking,
        disposition=None,
        end=taking.answered_at,
        hangup_source=None,
        merged_into="the call",
        open=frozenset({"pbx_answer"}),  # whether the PBX answered who picks up, the record's words do not say
        legs=[caller_leg(taking.phone, answered=None)],
        timeline=[],
    )
