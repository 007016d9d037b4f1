"""Several phones for one number: groups behind Local channels, and one phone after the other."""

from collections.abc import Sequence

from tests.pbx.stage.phone import Call
from tests.pbx.stage.scenario import RING, TALK, Cast, pause, scenario
from tests.pbx.stage.telling import called_leg, caller_leg, hangup, inbound, missed_leg
from tests.pbx.stage.truth import CallTruth, LegTruth, seconds
from tests.pbx.stage.usual import talked

# Each member behind a Local channel of its own, as FreePBX rings its groups.
_THREE = "&".join(f"Local/1ii{number}@internal-stage/n" for number in (1, 2, 3))
_TWO = _THREE.rpartition("&")[0]


@scenario(inbound=f"exten => 902165551ii5,1,Dial({_THREE},20)\n same => n,Hangup()")
async def group_in_which_one_answers(cast: Cast) -> Sequence[CallTruth]:
    caller, ringing = await _ring(cast, 3)
    target = ringing[1]
    await pause(RING)
    await target.answer()
    for call in (ringing[0], ringing[2]):
        await call.until_ended()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()
    return [
        talked(
            inbound,
            caller,
            target,
            end=end,
            ring=seconds(ringing[0].rang_at, target.answered_at),
            missed=[missed_leg(call.phone, "CANCEL") for call in ringing if call is not target],
            legs_at_once=True,
        )
    ]


@scenario(inbound=f"exten => 902165551ii5,1,Dial({_TWO},20)\n same => n,Hangup()")
async def group_of_which_the_caller_gets_tired(cast: Cast) -> Sequence[CallTruth]:
    caller, ringing = await _ring(cast, 2)
    await pause(TALK)
    end = await caller.hang_up()
    for call in ringing:
        await call.until_ended()
    return [
        inbound(
            caller,
            status="abandoned",
            disposition="cancelled",
            end=end,
            ring=seconds(ringing[0].rang_at, end),
            hangup_source="caller",
            legs=[caller_leg(caller.phone, answered=False), *(missed_leg(call.phone, "CANCEL") for call in ringing)],
            legs_at_once=True,
            timeline=[hangup(caller.phone, "caller")],
        )
    ]


@scenario(inbound=f"exten => 902165551ii5,1,Dial({_TWO},20)\n same => n,Hangup()")
async def group_in_which_all_are_busy(cast: Cast) -> Sequence[CallTruth]:
    members = [cast.phone(1), cast.phone(2)]
    caller = await cast.outside(1).call(cast.did(5))
    for member in members:
        (await member.wait_for_call()).refuse()
    end = await caller.until_ended()
    return [
        inbound(
            caller,
            status="failed",
            disposition="busy",
            end=end,
            hangup_source="pbx",
            legs=[
                caller_leg(caller.phone, answered=False),
                *(missed_leg(member, "BUSY", rung=False) for member in members),
            ],
            legs_at_once=True,
            timeline=[],
        )
    ]


@scenario(
    inbound=f"exten => 902165551ii5,1,Dial({_TWO},2)\n same => n,VoiceMail(1ii5@default,s)\n same => n,Hangup()",
    voicemail="1ii5 => 4711,Mailbox\n",
)
async def group_in_vain_and_then_voicemail(cast: Cast) -> Sequence[CallTruth]:
    caller, ringing = await _ring(cast, 2)
    for call in ringing:
        await call.until_ended()
    await caller.until_answered()
    await pause(1.5)
    end = await caller.hang_up()
    return [
        inbound(
            caller,
            disposition="voicemail",
            end=end,
            pbx_answer=caller.answered_at,
            ring=seconds(ringing[0].rang_at, max(call.ended_at for call in ringing)),
            hangup_source="caller",
            legs=[caller_leg(caller.phone), *(missed_leg(call.phone, None) for call in ringing)],
            legs_at_once=True,
            timeline=[hangup(caller.phone, "caller")],
        )
    ]


async def _ring(cast: Cast, phones: int) -> tuple[Call, list[Call]]:
    """Somebody outside calls the group; all its phones ring."""
    members = [cast.phone(number) for number in range(1, phones + 1)]
    caller = await cast.outside(1).call(cast.did(5))
    return caller, [await member.rings() for member in members]


@scenario(inbound="exten => 902165551ii5,1,Dial(PJSIP/1ii1,2)\n same => n,Dial(PJSIP/1ii2,20)\n same => n,Hangup()")
async def hunt_from_one_phone_to_the_next(cast: Cast) -> Sequence[CallTruth]:
    first, second = cast.phone(1), cast.phone(2)
    caller = await cast.outside(1).call(cast.did(5))
    missed = await first.rings()
    await missed.until_ended()
    target = await second.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await target.hang_up()
    await caller.until_ended()
    return [
        talked(
            inbound,
            caller,
            target,
            end=end,
            by="callee",
            ring=seconds(missed.rang_at, missed.ended_at) + seconds(target.rang_at, target.answered_at),
            missed=[missed_leg(missed.phone, "NOANSWER")],
        )
    ]


# Whoever picks up has to accept by pressing 1, as FreePBX's groups ask for.
_CONFIRMED = """exten => 902165551ii5,1,Dial(Local/1ii1@confirmed-ii&Local/1ii2@confirmed-ii,20)
 same => n,Hangup()
[confirmed-ii]
exten => _1XXX,1,Dial(PJSIP/${EXTEN},20,U(confirm-ii))
 same => n,Hangup()
[confirm-ii]
exten => s,1,Read(KEY,,1,,1,10)
 same => n,GotoIf($["${KEY}"="1"]?accepted)
 same => n,Set(GOSUB_RESULT=CONTINUE)
 same => n(accepted),Return()"""


@scenario(inbound=_CONFIRMED)
async def group_in_which_two_pick_up_and_one_accepts(cast: Cast) -> Sequence[CallTruth]:
    """The other is still being asked when the two talk, and hangs up; that ends nothing."""
    caller, (target, other) = await _ring(cast, 2)
    await pause(RING)
    await other.answer()
    await target.answer()
    await pause(TALK)
    accepted = await target.press("1")
    await caller.until_answered()
    await pause(RING)
    await other.hang_up()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()
    talk = seconds(accepted, end)
    return [
        talked(
            inbound,
            caller,
            target,
            end=end,
            talk=talk,
            legs=[
                caller_leg(caller.phone, talk=talk),
                called_leg(target.phone, talk=talk),
                LegTruth(number=other.phone.number, rung=True, answered=True),
            ],
            legs_at_once=True,
            slack={"talk": 0.5},  # the PBX knows a digit when it is over
        )
    ]
