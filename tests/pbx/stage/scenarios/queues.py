"""Queues: callers wait until somebody takes them, or until they have had enough."""

from collections.abc import Sequence

from tests.pbx.stage.queueing import TO_THE_QUEUE, a_queue, left_queue, queued, rung
from tests.pbx.stage.scenario import RING, TALK, Cast, pause, scenario
from tests.pbx.stage.telling import called_leg, caller_leg, hangup, inbound, joined, left, missed_leg
from tests.pbx.stage.truth import CallTruth, seconds
from tests.pbx.stage.usual import talked


@scenario(
    inbound="exten => 902165551ii5,1,Answer()\n same => n,Queue(6ii1,,,,2)\n same => n,VoiceMail(1ii5@default,s)",
    queues=a_queue(1, "PJSIP/1ii1", timeout=15),
    voicemail="1ii5 => 4711,Mailbox\n",
)
async def queue_in_vain_and_then_voicemail(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller = await outside.call(cast.did(5))
    missed = await first.rings()
    await missed.until_ended()
    await pause(1.5)
    end = await caller.hang_up()
    return [
        inbound(
            caller,
            disposition="voicemail",
            end=end,
            pbx_answer=caller.answered_at,
            ring=seconds(missed.rang_at, missed.ended_at),
            hangup_source="caller",
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(caller.answered_at, missed.ended_at),
            legs=[caller_leg(outside), missed_leg(first, None)],
            timeline=[queued(cast, caller), left_queue(cast, caller), hangup(outside, "caller")],
        )
    ]


@scenario(inbound=TO_THE_QUEUE, queues=a_queue(1, "PJSIP/1ii1", timeout=15))
async def queue_with_a_second_caller_who_waits(cast: Cast) -> Sequence[CallTruth]:
    """One agent: the second caller waits while the first is waiting, and then while he talks."""
    agent = cast.phone(1)
    one = await cast.outside(1).call(cast.did(5))
    first = await agent.rings()
    two = await cast.outside(2).call(cast.did(5))
    await two.until_answered()
    await pause(RING)
    await first.answer()
    await pause(TALK)
    end_one = await one.hang_up()
    await first.until_ended()
    second = await agent.rings()
    await pause(RING)
    await second.answer()
    await pause(TALK)
    end_two = await two.hang_up()
    await second.until_ended()

    return [
        talked(
            inbound,
            caller,
            target,
            end=end,
            pbx_answer=caller.answered_at,
            queue=cast.special(6, 1),
            queue_position=position,
            queue_wait=seconds(caller.answered_at, target.answered_at),
            before=[queued(cast, caller, position)],
            answering={left_queue(cast, caller)},
        )
        for position, (caller, target, end) in enumerate([(one, first, end_one), (two, second, end_two)], start=1)
    ]


@scenario(
    inbound="exten => 902165551ii5,1,Answer()\n same => n,Queue(6ii1,,,,2)\n same => n,Queue(6ii2)",
    queues=a_queue(1, "PJSIP/1ii1", timeout=15) + a_queue(2, "PJSIP/1ii2", timeout=15),
)
async def queue_in_vain_and_then_another(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller = await outside.call(cast.did(5))
    missed = await first.rings()
    await missed.until_ended()
    target = await second.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    return [
        talked(
            inbound,
            caller,
            target,
            end=end,
            pbx_answer=caller.answered_at,
            ring=rung(missed, target),
            queue=cast.special(6, 2),
            queue_position=1,
            queue_wait=seconds(caller.answered_at, target.answered_at),
            missed=[missed_leg(first, None)],
            before=[queued(cast, caller), left_queue(cast, caller), queued(cast, caller, queue=2)],
            answering={left_queue(cast, caller, 2)},
        )
    ]


@scenario(inbound=TO_THE_QUEUE, queues=a_queue(1, "PJSIP/1ii1", timeout=15))
async def queue_that_the_caller_abandons(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller = await outside.call(cast.did(5))
    missed = await first.rings()
    await caller.until_answered()
    await pause(TALK)
    end = await caller.hang_up()
    await missed.until_ended()

    return [
        inbound(
            caller,
            status="abandoned",
            disposition="cancelled",
            end=end,
            pbx_answer=caller.answered_at,
            ring=seconds(missed.rang_at, end),
            hangup_source="caller",
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(caller.answered_at, end),
            legs=[caller_leg(outside), missed_leg(first, "CANCEL")],
            timeline=[queued(cast, caller), hangup(outside, "caller") | {left_queue(cast, caller)}],
        )
    ]


@scenario(
    inbound=TO_THE_QUEUE + "\n[exits-ii]\nexten => 0,1,Dial(PJSIP/1ii3,20)\n same => n,Hangup()",
    queues=a_queue(1, "PJSIP/1ii1", timeout=15, context="exits-ii"),
)
async def queue_left_by_a_key(cast: Cast) -> Sequence[CallTruth]:
    outside, first, third = cast.outside(1), cast.phone(1), cast.phone(3)
    caller = await outside.call(cast.did(5))
    missed = await first.rings()
    await caller.until_answered()
    await pause(RING)
    await caller.press("0")
    gone = await missed.until_ended()
    target = await third.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    talk = seconds(target.answered_at, end)
    return [
        talked(
            inbound,
            caller,
            target,
            end=end,
            pbx_answer=caller.answered_at,
            ring=rung(missed, target),
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(caller.answered_at, gone),
            legs=[caller_leg(outside, talk=talk), missed_leg(first, None), called_leg(third, talk=talk)],
            before=[queued(cast, caller), left_queue(cast, caller)],
        )
    ]


@scenario(
    inbound=TO_THE_QUEUE + "\n[agents-ii]\nexten => _1XXX,1,Dial(PJSIP/${EXTEN},20,tT)\n same => n,Hangup()",
    queues=a_queue(1, "Local/1ii1@agents-ii/n", timeout=15),
)
async def queue_whose_agent_behind_a_local_channel_holds_the_caller(cast: Cast) -> Sequence[CallTruth]:
    outside, agent = cast.outside(1), cast.phone(1)
    caller = await outside.call(cast.did(5))
    target = await agent.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    held = await target.hold()
    await pause(TALK)
    taken_back = await target.unhold()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    talk, hold = seconds(target.answered_at, end), seconds(held, taken_back)
    return [
        talked(
            inbound,
            caller,
            target,
            end=end,
            hold=hold,
            pbx_answer=caller.answered_at,
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(caller.answered_at, target.answered_at),
            legs=[caller_leg(outside, talk=talk, hold=hold), called_leg(agent, talk=talk)],
            timeline=[
                queued(cast, caller),
                {f"answered {agent}", left_queue(cast, caller)},
                joined(outside, agent),
                f"held {agent}",
                f"unheld {agent}",
                hangup(outside, "caller") | left(outside, agent),
            ],
        )
    ]
