"""Conferences: everybody who dials a room has a call of their own with it."""

from collections.abc import Sequence

from tests.pbx.stage.phone import Call
from tests.pbx.stage.scenario import TALK, Cast, pause, scenario
from tests.pbx.stage.telling import NORMAL_CLEARING, caller_leg, hangup, inbound, internal
from tests.pbx.stage.truth import CallTruth, seconds

SERVICE = "ConfBridge"


@scenario(inbound="exten => 902165551ii9,1,ConfBridge(8ii1,,stage_user)\n same => n,Hangup()")
async def conference_of_three(cast: Cast) -> Sequence[CallTruth]:
    room = cast.special(8, 1)
    calls = [
        await cast.outside(1).call(cast.did(9)),
        await cast.phone(1).call(room),
        await cast.phone(2).call(room),
    ]
    for call in calls:
        await call.until_answered()
    for call in calls:
        await pause(TALK)
        await call.hang_up()
    return [_in_the_room(call, [other for other in calls if other is not call], room) for call in calls]


def _in_the_room(call: Call, others: Sequence[Call], room: str) -> CallTruth:
    """The room is the other party of the call as long as one is in it; a leg talks while others are there."""
    tell = internal if call.number == room else inbound
    begin = max(call.answered_at, min(other.answered_at for other in others))
    end = min(call.ended_at, max(other.ended_at for other in others))
    return tell(
        call,
        answered_by=SERVICE,
        last_answered_by=SERVICE,
        answer=call.answered_at,
        end=call.ended_at,
        talk=seconds(call.answered_at, call.ended_at),
        hangup_cause=NORMAL_CLEARING,
        hangup_source="caller",
        conference=room,
        legs=[caller_leg(call.phone, talk=seconds(begin, end))],
        timeline=[
            {f"answered {SERVICE}", f"conference - room={room}", f"joined {call.phone}"},
            hangup(call.phone, "caller") | {f"left {call.phone}"},
        ],
    )
