"""Blind transfers: somebody who talks sends the other party on and is gone."""

from collections.abc import Sequence

from tests.pbx.stage.phone import Call, Phone
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
    missed_leg,
    outbound,
)
from tests.pbx.stage.truth import CallTruth, LegTruth, Step, seconds

USER_BUSY = 17
ANSWERED_ELSEWHERE = 26
# Whether a queue or voicemail picks up a call that a person had answered before, the record's words do not say.
PICKED_UP_AGAIN = frozenset({"pbx_answer"})


def _until_sent_on(caller: Phone, first: Phone, number: str) -> list[Step]:
    """The timeline up to the moment at which the first who answered is out of the call."""
    return [
        f"answered {first}",
        joined(caller, first),
        {f"transferred {first} kind=blind to={number}"} | left(caller, first),
    ]


@scenario()
async def blind_transfer_by_the_callee(cast: Cast) -> Sequence[CallTruth]:
    return [await _blind_transfer(cast, cast.phone(2))]


@scenario()
async def blind_transfer_to_a_number_outside(cast: Cast) -> Sequence[CallTruth]:
    return [await _blind_transfer(cast, cast.outside(2))]


@scenario(internal="exten => 5ii1,1,Dial(PJSIP/1ii2&PJSIP/1ii3,20,tT)\n same => n,Hangup()")
async def blind_transfer_into_a_ring_group(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second, third = cast.outside(1), cast.phone(1), cast.phone(2), cast.phone(3)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on = await callee.refer(cast.special(5, 1))
    target, other = await second.rings(), await third.rings()
    await callee.until_ended()
    await pause(RING)
    await target.answer()
    await other.until_ended()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, sent_on), seconds(target.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            last_answered_by=second.number,
            end=end,
            talk=talk_1 + talk_2,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2),
                called_leg(first, talk=talk_1),
                called_leg(second, talk=talk_2),
                missed_leg(third, "CANCEL", cause=ANSWERED_ELSEWHERE),
            ],
            timeline=[
                *_until_sent_on(outside, first, cast.special(5, 1)),
                joined(outside, second),
                hangup(outside, "caller") | left(outside, second),
            ],
        )
    ]


@scenario(
    internal="exten => 6ii1,1,Queue(sales-ii)\n same => n,Hangup()",
    queues="[sales-ii]\nstrategy=ringall\ntimeout=15\nmember => PJSIP/1ii2\n",
)
async def blind_transfer_into_a_queue(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on = await callee.refer(cast.special(6, 1))
    target = await second.rings()
    await callee.until_ended()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await target.hang_up()
    await caller.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, sent_on), seconds(target.answered_at, end)
    queue = cast.text("sales-ii")
    return [
        inbound(
            caller,
            by=callee,
            last_answered_by=second.number,
            end=end,
            talk=talk_1 + talk_2,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            queue=queue,
            queue_position=1,
            queue_wait=seconds(sent_on, target.answered_at),
            transferred=True,
            open=PICKED_UP_AGAIN,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2),
                called_leg(first, talk=talk_1),
                called_leg(second, talk=talk_2),
            ],
            timeline=[
                *_until_sent_on(outside, first, cast.special(6, 1)),
                f"queued {outside} queue={queue} position=1",
                {f"left_queue {outside} queue={queue}"} | joined(outside, second),
                hangup(second, "callee") | left(outside, second),
            ],
        )
    ]


@scenario(
    internal="exten => 4ii1,1,VoiceMail(1ii2@default,u)\n same => n,Hangup()",
    voicemail="1ii2 => 1234,Two\n",
)
async def blind_transfer_to_voicemail(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on = await callee.refer(cast.special(4, 1))
    await callee.until_ended()
    await pause(TALK)
    end = await caller.hang_up()

    talk = seconds(callee.answered_at, sent_on)
    return [
        inbound(
            caller,
            by=callee,
            end=end,
            talk=talk,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            transferred=True,
            # Whether a machine that takes a message answers last, the record's words do not say.
            open=PICKED_UP_AGAIN | {"last_answered_by"},
            legs=[caller_leg(outside, talk=talk), called_leg(first, talk=talk)],
            timeline=[*_until_sent_on(outside, first, cast.special(4, 1)), hangup(outside, "caller")],
        )
    ]


@scenario()
async def blind_transfer_of_a_call_on_hold(cast: Cast) -> Sequence[CallTruth]:
    """What most phones do when their key for it is pressed: hold first, then send on."""
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    await pause(TALK)
    sent_on = await callee.refer(second.number)
    target = await second.rings()
    await callee.until_ended()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, sent_on), seconds(target.answered_at, end)
    hold = seconds(held, sent_on)
    return [
        inbound(
            caller,
            by=callee,
            last_answered_by=second.number,
            end=end,
            talk=talk_1 + talk_2,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2, hold=hold),
                called_leg(first, talk=talk_1),
                called_leg(second, talk=talk_2),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=blind to={second}", f"?unheld {first}"} | left(outside, first),
                joined(outside, second),
                hangup(outside, "caller") | left(outside, second),
            ],
        )
    ]


@scenario()
async def blind_transfer_twice(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second, third = cast.outside(1), cast.phone(1), cast.phone(2), cast.phone(3)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on_1 = await callee.refer(second.number)
    target_1 = await second.rings()
    await pause(RING)
    await target_1.answer()
    await pause(TALK)
    sent_on_2 = await target_1.refer(third.number)
    target_2 = await third.rings()
    await target_1.until_ended()
    await pause(RING)
    await target_2.answer()
    await pause(TALK)
    end = await target_2.hang_up()
    await caller.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, sent_on_1), seconds(target_1.answered_at, sent_on_2)
    talk_3 = seconds(target_2.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            last_answered_by=third.number,
            end=end,
            talk=talk_1 + talk_2 + talk_3,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2 + talk_3),
                called_leg(first, talk=talk_1),
                called_leg(second, talk=talk_2),
                called_leg(third, talk=talk_3),
            ],
            timeline=[
                *_until_sent_on(outside, first, second.number),
                joined(outside, second),
                {f"transferred {second} kind=blind to={third}"} | left(outside, second),
                joined(outside, third),
                hangup(third, "callee") | left(outside, third),
            ],
        )
    ]


async def _blind_transfer(cast: Cast, second: Phone) -> CallTruth:
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on = await callee.refer(second.number)
    target = await second.rings()
    await callee.until_ended()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, sent_on), seconds(target.answered_at, end)
    return inbound(
        caller,
        by=callee,
        last_answered_by=second.number,
        end=end,
        talk=talk_1 + talk_2,
        hangup_cause=NORMAL_CLEARING,
        hangup_source="caller",
        transferred=True,
        legs=[
            caller_leg(outside, talk=talk_1 + talk_2),
            called_leg(first, talk=talk_1),
            called_leg(second, talk=talk_2),
        ],
        timeline=[
            *_until_sent_on(outside, first, second.number),
            joined(outside, second),
            hangup(outside, "caller") | left(outside, second),
        ],
    )


@scenario()
async def blind_transfer_by_the_caller(cast: Cast) -> Sequence[CallTruth]:
    return [await _transfer_by_the_caller(cast, cast.phone(2))]


@scenario()
async def blind_transfer_by_the_caller_of_a_call_to_outside(cast: Cast) -> Sequence[CallTruth]:
    return [await _transfer_by_the_caller(cast, cast.outside(2))]


async def _transfer_by_the_caller(cast: Cast, second: Phone) -> CallTruth:
    first, third = cast.phone(1), cast.phone(3)
    caller, callee = await connect(first, second.number, second)
    await pause(TALK)
    sent_on = await caller.refer(third.number)
    target = await third.rings()
    await caller.until_ended()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await target.hang_up()
    await callee.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, sent_on), seconds(target.answered_at, end)
    tell = internal if second is cast.phone(2) else outbound
    return tell(
        caller,
        by=callee,
        last_answered_by=third.number,
        end=end,
        talk=talk_1 + talk_2,
        hangup_cause=NORMAL_CLEARING,
        hangup_source="callee",
        transferred=True,
        legs=[
            caller_leg(first, talk=talk_1),
            called_leg(second, talk=talk_1 + talk_2),
            called_leg(third, talk=talk_2),
        ],
        timeline=[
            f"answered {second}",
            joined(first, second),
            {f"transferred {first} kind=blind to={third}"} | left(first, second),
            joined(second, third),
            hangup(third, "callee") | left(second, third),
        ],
    )


@scenario(internal="exten => 4ii2,1,Dial(PJSIP/1ii2,3,tT)\n same => n,Hangup()")
async def blind_transfer_to_a_phone_that_nobody_answers(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on = await callee.refer(cast.special(4, 2))
    target = await second.rings()
    await target.until_ended()
    end = await caller.until_ended()

    legs = [missed_leg(second, "NOANSWER")]
    return [_sent_on_in_vain(caller, callee, seconds(callee.answered_at, sent_on), cast.special(4, 2), legs, end=end)]


@scenario()
async def blind_transfer_to_a_busy_phone(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on = await callee.refer(second.number)
    target = await second.wait_for_call()
    target.refuse(486, "Busy Here")
    end = await caller.until_ended()

    legs = [missed_leg(second, "BUSY", rung=False, cause=USER_BUSY)]
    talk = seconds(callee.answered_at, sent_on)
    return [
        _sent_on_in_vain(caller, callee, talk, second.number, legs, end=end, hangup_cause=USER_BUSY),
    ]


@scenario()
async def blind_transfer_and_the_caller_gives_up(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    sent_on = await callee.refer(second.number)
    target = await second.rings()
    await callee.until_ended()
    await pause(RING)
    end = await caller.hang_up()
    await target.until_ended()

    truth = _sent_on_in_vain(
        caller,
        callee,
        seconds(callee.answered_at, sent_on),
        second.number,
        [missed_leg(second, "CANCEL")],
        end=end,
        hangup_source="caller",
    )
    truth.timeline.append(hangup(outside, "caller"))
    return [truth]


def _sent_on_in_vain(
    caller: Call, callee: Call, talk: float, number: str, legs: list[LegTruth], **rest: object
) -> CallTruth:
    """Answered calls stay answered, whatever becomes of them after a transfer."""
    return inbound(
        caller,
        by=callee,
        talk=talk,
        transferred=True,
        legs=[caller_leg(caller.phone, talk=talk), called_leg(callee.phone, talk=talk), *legs],
        timeline=_until_sent_on(caller.phone, callee.phone, number),
        **{"hangup_source": "pbx"} | rest,
    )
