"""Who takes calls from a queue: phones, phones behind Local channels, people outside."""

from collections.abc import Sequence

from tests.pbx.stage.queueing import TO_THE_QUEUE, a_queue, left_queue, queued, rung
from tests.pbx.stage.scenario import RING, TALK, Cast, pause, scenario
from tests.pbx.stage.telling import inbound, missed_leg
from tests.pbx.stage.truth import CallTruth, seconds
from tests.pbx.stage.usual import talked


@scenario(inbound=TO_THE_QUEUE, queues=a_queue(1, "PJSIP/1ii1", "PJSIP/1ii2"))
async def queue_whose_second_agent_answers(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller = await outside.call(cast.did(5))
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
            pbx_answer=caller.answered_at,
            ring=rung(missed, target),
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(caller.answered_at, target.answered_at),
            missed=[missed_leg(first, "NOANSWER")],
            before=[queued(cast, caller)],
            answering={left_queue(cast, caller)},
        )
    ]


@scenario(
    inbound=TO_THE_QUEUE,
    queues=a_queue(
        1,
        "Local/1ii1@internal-stage/n,0,First,PJSIP/1ii1",
        "Local/1ii2@internal-stage/n,0,Second,PJSIP/1ii2",
        strategy="ringall",
        timeout=15,
    ),
)
async def queue_whose_agents_are_behind_local_channels(cast: Cast) -> Sequence[CallTruth]:
    """As FreePBX makes its agents; all ring, one answers."""
    return await _second_of_two(cast, talk=TALK)


@scenario(
    inbound=TO_THE_QUEUE,
    queues=a_queue(
        1,
        "Local/1ii1@internal-stage,0,First,PJSIP/1ii1",
        "Local/1ii2@internal-stage,0,Second,PJSIP/1ii2",
        strategy="ringall",
        timeout=15,
    ),
)
async def queue_whose_agents_are_behind_local_channels_that_vanish(cast: Cast) -> Sequence[CallTruth]:
    return await _second_of_two(cast, talk=2.0)


async def _second_of_two(cast: Cast, *, talk: float) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller = await outside.call(cast.did(5))
    missed, target = await first.rings(), await second.rings()
    await pause(RING)
    await target.answer()
    await missed.until_ended()
    await pause(talk)
    end = await caller.hang_up()
    await target.until_ended()

    return [
        talked(
            inbound,
            caller,
            target,
            end=end,
            pbx_answer=caller.answered_at,
            ring=seconds(missed.rang_at, target.answered_at),
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(caller.answered_at, target.answered_at),
            missed=[missed_leg(first, "CANCEL")],
            legs_at_once=True,
            before=[queued(cast, caller)],
            answering={left_queue(cast, caller)},
        )
    ]


@scenario(inbound=TO_THE_QUEUE, queues=a_queue(1, "Local/05321111ii2@internal-stage/n", timeout=15))
async def queue_whose_agent_is_outside(cast: Cast) -> Sequence[CallTruth]:
    outside, agent = cast.outside(1), cast.outside(2)
    caller = await outside.call(cast.did(5))
    target = await agent.rings()
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
            pbx_answer=caller.answered_at,
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(caller.answered_at, target.answered_at),
            before=[queued(cast, caller)],
            answering={left_queue(cast, caller)},
        )
    ]
