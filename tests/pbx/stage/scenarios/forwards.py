"""Forwards: a call comes out elsewhere than where it was sent, by a phone's wish or by the dialplan's."""

from collections.abc import Sequence

from tests.pbx.stage.scenario import RING, TALK, Cast, pause, scenario
from tests.pbx.stage.telling import called_leg, caller_leg, inbound, internal, missed_leg, outbound
from tests.pbx.stage.truth import CallTruth, seconds
from tests.pbx.stage.usual import talked


@scenario()
async def forward_by_a_phone_to_a_phone(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller = await outside.call(cast.did(1))
    (await first.wait_for_call()).redirect(second.number)
    target = await second.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    missed = [missed_leg(first, None, rung=False)]
    return [talked(inbound, caller, target, end=end, missed=missed, before=[f"forwarded {first} to={second}"])]


@scenario()
async def forward_by_a_phone_to_a_number_outside(cast: Cast) -> Sequence[CallTruth]:
    outside, first, other = cast.outside(1), cast.phone(1), cast.outside(2)
    caller = await outside.call(cast.did(1))
    (await first.wait_for_call()).redirect(other.number)
    target = await other.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await target.hang_up()
    await caller.until_ended()

    missed = [missed_leg(first, None, rung=False)]
    return [
        talked(inbound, caller, target, end=end, by="callee", missed=missed, before=[f"forwarded {first} to={other}"])
    ]


@scenario(inbound="exten => 902165551ii1,1,Dial(Local/1ii3@internal-stage,20)\n same => n,Hangup()")
async def forward_by_the_dialplan(cast: Cast) -> Sequence[CallTruth]:
    """Over a Local channel that Asterisk takes out of the way once sound flows."""
    return await _straight(cast, talk=2.0)


@scenario(inbound="exten => 902165551ii1,1,Dial(Local/1ii3@internal-stage/n,20)\n same => n,Hangup()")
async def forward_by_the_dialplan_over_a_local_channel_that_stays(cast: Cast) -> Sequence[CallTruth]:
    return await _straight(cast, talk=TALK)


async def _straight(cast: Cast, *, talk: float) -> Sequence[CallTruth]:
    outside, third = cast.outside(1), cast.phone(3)
    caller = await outside.call(cast.did(1))
    target = await third.rings()
    await pause(RING)
    await target.answer()
    await pause(talk)
    end = await caller.hang_up()
    await target.until_ended()
    return [talked(inbound, caller, target, end=end)]


@scenario(inbound="exten => 902165551ii1,1,Dial(Local/05321111ii2@internal-stage,20)\n same => n,Hangup()")
async def forward_by_the_dialplan_to_a_number_outside(cast: Cast) -> Sequence[CallTruth]:
    outside, other = cast.outside(1), cast.outside(2)
    caller = await outside.call(cast.did(1))
    target = await other.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await target.hang_up()
    await caller.until_ended()
    return [talked(inbound, caller, target, end=end, by="callee")]


@scenario(
    internal="exten => 4ii1,1,FollowMe(people-ii,d)\n same => n,Hangup()",
    # A digit counts only after whose call it is has been said, so that is kept short.
    followme="[people-ii]\ncontext=>internal-stage\nmusicclass=>default\n"
    "call_from_prompt=>beep\nnorecording_prompt=>beep\nnumber=>1ii2,2\nnumber=>1ii3,15\n",
)
async def follow_me_to_the_second_number(cast: Cast) -> Sequence[CallTruth]:
    """Who picks up is asked whether to take the call, and only then connected with the caller."""
    first, second, third = cast.phone(1), cast.phone(2), cast.phone(3)
    caller = await first.call(cast.special(4, 1))
    missed = await second.rings()
    await missed.until_ended()
    target = await third.rings()
    await pause(RING)
    await target.answer()
    await pause(2.5)
    accepted = await target.press("1")
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()
    talk = seconds(accepted, end)
    return [
        talked(
            internal,
            caller,
            target,
            end=end,
            pbx_answer=caller.answered_at,
            ring=seconds(missed.rang_at, missed.ended_at) + seconds(target.rang_at, target.answered_at),
            talk=talk,
            legs=[
                caller_leg(caller.phone, talk=talk),
                missed_leg(missed.phone, None),
                called_leg(target.phone, talk=talk),
            ],
            # The digit sounds for a while before the PBX takes it for pressed.
            slack={"talk": 0.3},
        )
    ]


@scenario(
    inbound="exten => 902165551ii1,1,Dial(Local/4ii1@internal-stage,20)\n same => n,Hangup()",
    internal="exten => 4ii1,1,Dial(Local/1ii3@internal-stage,20)\n same => n,Hangup()",
)
async def forward_by_the_dialplan_twice(cast: Cast) -> Sequence[CallTruth]:
    """A Local channel behind a Local channel."""
    return await _straight(cast, talk=2.0)


@scenario(
    internal="exten => 05321111ii1,1,Dial(PJSIP/${EXTEN}@trunk-stage,20)\n"
    ' same => n,ExecIf($["${DIALSTATUS}"="CONGESTION"|"${DIALSTATUS}"="CHANUNAVAIL"]'
    "?Dial(PJSIP/${EXTEN}@trunk-reserve,20))\n same => n,Hangup()"
)
async def second_trunk_when_the_first_is_congested(cast: Cast) -> Sequence[CallTruth]:
    first, reached = cast.phone(1), cast.outside_second(1)
    caller = await first.call(reached.number)
    (await cast.outside(1).wait_for_call()).refuse(503, "Service Unavailable")
    target = await reached.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()
    return [talked(outbound, caller, target, end=end, missed=[missed_leg(reached, "CONGESTION", rung=False)])]
