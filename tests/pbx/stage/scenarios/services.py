"""What the PBX does in a person's stead: voicemail, announcements, menus and tones."""

import asyncio
from collections.abc import Sequence

from tests.pbx.stage.phone import Call
from tests.pbx.stage.scenario import RING, TALK, Cast, connect, pause, scenario
from tests.pbx.stage.telling import called_leg, caller_leg, hangup, inbound, internal, joined, left, missed_leg
from tests.pbx.stage.truth import CallTruth, LegTruth, seconds
from tests.pbx.stage.usual import talked

_MAILBOX = "1ii1 => 4711,Mailbox\n"
_NO_ANSWER_THEN = (
    "exten => 902165551ii1,1,Dial(PJSIP/1ii1,2)\n same => n,VoiceMail(1ii1@default,{})\n same => n,Hangup()"
)


@scenario(inbound=_NO_ANSWER_THEN.format("s"), voicemail=_MAILBOX)
async def voicemail_after_no_answer(cast: Cast) -> Sequence[CallTruth]:
    """Without a greeting: the caller speaks after the beep and hangs up."""
    outside, first = cast.outside(1), cast.phone(1)
    caller = await outside.call(cast.did(1))
    missed = await first.rings()
    await missed.until_ended()
    return [
        await _leave_a_message(caller, missed_leg(first, "NOANSWER"), ring=seconds(missed.rang_at, missed.ended_at))
    ]


@scenario(inbound=_NO_ANSWER_THEN.format("s"), voicemail=_MAILBOX)
async def voicemail_after_busy(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller = await outside.call(cast.did(1))
    (await first.wait_for_call()).refuse()
    return [await _leave_a_message(caller, missed_leg(first, "BUSY", rung=False), ring=0.0)]


@scenario(inbound=_NO_ANSWER_THEN.format("u"), voicemail=_MAILBOX)
async def voicemail_whose_greeting_the_caller_does_not_hear_out(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller = await outside.call(cast.did(1))
    missed = await first.rings()
    await missed.until_ended()
    return [
        await _leave_a_message(caller, missed_leg(first, "NOANSWER"), ring=seconds(missed.rang_at, missed.ended_at))
    ]


async def _leave_a_message(caller: Call, missed: LegTruth, *, ring: float) -> CallTruth:
    await caller.until_answered()
    await pause(1.5)
    end = await caller.hang_up()
    return inbound(
        caller,
        disposition="voicemail",
        end=end,
        pbx_answer=caller.answered_at,
        ring=ring,
        hangup_source="caller",
        legs=[caller_leg(caller.phone), missed],
        timeline=[hangup(caller.phone, "caller")],
    )


@scenario(inbound="exten => 902165551ii5,1,Answer()\n same => n,Playback(vm-goodbye)\n same => n,Hangup()")
async def announcement_to_its_end(cast: Cast) -> Sequence[CallTruth]:
    return [await _announcement(cast, status="failed", disposition="no_answer")]


@scenario(inbound="exten => 902165551ii5,1,Progress()\n same => n,Playback(vm-goodbye,noanswer)\n same => n,Hangup()")
async def announcement_before_any_answer(cast: Cast) -> Sequence[CallTruth]:
    outside = cast.outside(1)
    caller = await outside.call(cast.did(5))
    end = await caller.until_ended()
    return [
        inbound(
            caller,
            status="failed",
            disposition="no_answer",
            end=end,
            hangup_source="pbx",
            legs=[caller_leg(outside, answered=False)],
            timeline=[],
        )
    ]


async def _announcement(cast: Cast, *, status: str, disposition: str) -> CallTruth:
    """The PBX picks up, says or plays what it has to, and hangs up."""
    outside = cast.outside(1)
    caller = await outside.call(cast.did(5))
    end = await caller.until_ended()
    return inbound(
        caller,
        status=status,
        disposition=disposition,
        end=end,
        pbx_answer=caller.answered_at,
        hangup_source="pbx",
        legs=[caller_leg(outside)],
        timeline=[],
    )


@scenario(inbound="exten => 902165551ii5,1,Answer()\n same => n,Playback(basic-pbx-ivr-main)\n same => n,Hangup()")
async def announcement_that_the_caller_does_not_hear_out(cast: Cast) -> Sequence[CallTruth]:
    return [await _caller_hangs_up(cast, status="abandoned", disposition="cancelled")]


@scenario(inbound="exten => 902165551ii5,1,Answer()\n same => n,Busy(10)")
async def busy_tone_and_the_caller_hangs_up(cast: Cast) -> Sequence[CallTruth]:
    return [await _caller_hangs_up(cast, status="failed", disposition="busy")]


@scenario(inbound="exten => 902165551ii5,1,Answer()\n same => n,Congestion(10)")
async def congestion_tone_and_the_caller_hangs_up(cast: Cast) -> Sequence[CallTruth]:
    return [await _caller_hangs_up(cast, status="failed", disposition="congestion")]


@scenario(inbound="exten => 902165551ii5,1,Answer()\n same => n,Busy(2)")
async def busy_tone_to_its_end(cast: Cast) -> Sequence[CallTruth]:
    return [await _announcement(cast, status="failed", disposition="busy")]


async def _caller_hangs_up(cast: Cast, *, status: str, disposition: str) -> CallTruth:
    outside = cast.outside(1)
    caller = await outside.call(cast.did(5))
    await caller.until_answered()
    await pause(TALK)
    end = await caller.hang_up()
    return inbound(
        caller,
        status=status,
        disposition=disposition,
        end=end,
        pbx_answer=caller.answered_at,
        hangup_source="caller",
        legs=[caller_leg(outside)],
        timeline=[hangup(outside, "caller")],
    )


@scenario(inbound="exten => 902165551ii5,1,Busy()")
async def busy_without_any_tone(cast: Cast) -> Sequence[CallTruth]:
    """Nobody picked up, so the far end is told and plays its own tone."""
    outside = cast.outside(1)
    caller = await outside.call(cast.did(5))
    end = await caller.until_refused()
    assert caller.reason == 486
    return [
        inbound(
            caller,
            status="failed",
            disposition="busy",
            end=end,
            hangup_source="pbx",
            hangup_cause=17,
            legs=[caller_leg(outside, answered=False)],
            timeline=[],
        )
    ]


@scenario(inbound="exten => 902165551ii5,1,Congestion()")
async def congestion_without_any_tone(cast: Cast) -> Sequence[CallTruth]:
    outside = cast.outside(1)
    caller = await outside.call(cast.did(5))
    end = await caller.until_refused()
    assert caller.reason == 503
    return [
        inbound(
            caller,
            status="failed",
            disposition="congestion",
            end=end,
            hangup_source="pbx",
            legs=[caller_leg(outside, answered=False)],
            timeline=[],
        )
    ]


@scenario(
    inbound="exten => 902165551ii1,1,Dial(PJSIP/1ii1,2)\n same => n,Playback(vm-nobodyavail)\n same => n,Hangup()"
)
async def announcement_that_nobody_answered(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller = await outside.call(cast.did(1))
    missed = await first.rings()
    end = await caller.until_ended()
    return [
        inbound(
            caller,
            status="failed",
            disposition="no_answer",
            end=end,
            pbx_answer=caller.answered_at,
            ring=seconds(missed.rang_at, missed.ended_at),
            hangup_source="pbx",
            legs=[caller_leg(outside), missed_leg(first, "NOANSWER")],
            timeline=[],
        )
    ]


@scenario(
    inbound="exten => 902165551ii1,1,Dial(PJSIP/1ii1,20,g)\n same => n,Playback(basic-pbx-ivr-main)\n"
    " same => n,Hangup()"
)
async def survey_after_the_callee_hung_up(cast: Cast) -> Sequence[CallTruth]:
    """The call goes on without the callee, until the caller has had enough of the questions."""
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    alone = await callee.hang_up()
    await pause(TALK)
    end = await caller.hang_up()
    talk = seconds(callee.answered_at, alone)
    return [
        talked(
            inbound,
            caller,
            callee,
            end=end,
            talk=talk,
            hangup_cause=None,
            legs=[caller_leg(outside, talk=talk), called_leg(first, talk=talk)],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                left(outside, first) | {f"?hangup {first} by=callee"},
                hangup(outside, "caller"),
            ],
        )
    ]


@scenario(
    inbound="exten => 902165551ii5,1,Goto(menu-ii,s,1)\n"
    "[menu-ii]\nexten => s,1,Answer()\n same => n,Background(basic-pbx-ivr-main)\n same => n,WaitExten(5)\n"
    "exten => _1XXX,1,Dial(PJSIP/${EXTEN},20)\n same => n,Hangup()"
)
async def menu_in_which_the_caller_dials_an_extension(cast: Cast) -> Sequence[CallTruth]:
    outside, second = cast.outside(1), cast.phone(2)
    caller = await outside.call(cast.did(5))
    await caller.until_answered()
    await pause(RING)
    target, _ = await asyncio.gather(second.rings(), caller.press(second.number))
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()
    return [talked(inbound, caller, target, end=end, pbx_answer=caller.answered_at)]


@scenario(
    internal="exten => 4ii1,1,VoiceMailMain(1ii1@default,s)\n same => n,Hangup()",
    voicemail=_MAILBOX,
)
async def voicemail_that_its_owner_listens_to(cast: Cast) -> Sequence[CallTruth]:
    first = cast.phone(1)
    caller = await first.call(cast.special(4, 1))
    await caller.until_answered()
    await pause(1.0)
    end = await caller.hang_up()
    return [
        internal(
            caller,
            answered_by="VoiceMailMain",
            last_answered_by="VoiceMailMain",
            answer=caller.answered_at,
            end=end,
            hangup_source="caller",
            open=frozenset(
                {"talk"}
            ),  # a room is told as talked in, a wake-up call is not; of a mailbox nothing is said
            legs=[caller_leg(first)],
            timeline=[{"answered VoiceMailMain", f"?joined {first}"}, hangup(first, "caller") | {f"?left {first}"}],
        )
    ]
