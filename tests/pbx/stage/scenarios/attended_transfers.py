"""Attended transfers by the phone's own key: consult somebody in a second call, then connect the two."""

from collections.abc import Callable, Sequence
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
    outbound,
    taken_over_leg,
)
from tests.pbx.stage.truth import CallTruth, seconds

SALES = """[sales-ii]
strategy=ringall
timeout=15
member => PJSIP/1ii1
"""


@scenario()
async def attended_transfer_after_the_answer(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    await pause(0.3)
    consulting, consulted = await connect(first, second.number, second)
    await pause(TALK)
    handed_on = await connect_the_two(callee, consulting)
    await pause(TALK)
    end = await consulted.hang_up()
    await caller.until_ended()

    talk = seconds(callee.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            name="the call",
            last_answered_by=second.number,
            end=end,
            talk=talk,
            hold=seconds(held, handed_on),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk, hold=seconds(held, handed_on)),
                called_leg(first, talk=seconds(callee.answered_at, handed_on)),
                taken_over_leg(second, talk=seconds(handed_on, end)),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=attended to={second}", "merged -", f"?unheld {first}"}
                | left(first)
                | joined(second),
                hangup(second, "callee") | left(outside, second),
            ],
        ),
        _consultation(consulting, consulted, handed_on),
    ]


@scenario()
async def attended_transfer_by_the_caller(cast: Cast) -> Sequence[CallTruth]:
    first, second, third = cast.phone(1), cast.phone(2), cast.phone(3)
    caller, callee = await connect(first, second.number, second)
    await pause(TALK)
    held = await caller.hold()
    await pause(0.3)
    consulting, consulted = await connect(first, third.number, third)
    await pause(TALK)
    handed_on = await connect_the_two(caller, consulting)
    await pause(TALK)
    end = await callee.hang_up()
    await consulted.until_ended()

    talk = seconds(callee.answered_at, end)
    return [
        internal(
            caller,
            by=callee,
            name="the call",
            last_answered_by=third.number,
            end=end,
            talk=talk,
            hold=seconds(held, handed_on),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            legs=[
                caller_leg(first, talk=seconds(callee.answered_at, handed_on)),
                called_leg(second, talk=talk, hold=seconds(held, handed_on)),
                taken_over_leg(third, talk=seconds(handed_on, end)),
            ],
            timeline=[
                f"answered {second}",
                joined(first, second),
                f"held {first}",
                {f"transferred {first} kind=attended to={third}", "merged -", f"?unheld {first}"}
                | left(first)
                | joined(third),
                hangup(second, "callee") | left(second, third),
            ],
        ),
        _consultation(consulting, consulted, handed_on),
    ]


@scenario()
async def attended_transfer_to_a_number_outside(cast: Cast) -> Sequence[CallTruth]:
    outside, first, other = cast.outside(1), cast.phone(1), cast.outside(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    await pause(0.3)
    consulting, consulted = await connect(first, other.number, other)
    await pause(TALK)
    handed_on = await connect_the_two(callee, consulting)
    await pause(TALK)
    end = await caller.hang_up()
    await consulted.until_ended()

    talk = seconds(callee.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            name="the call",
            last_answered_by=other.number,
            end=end,
            talk=talk,
            hold=seconds(held, handed_on),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk, hold=seconds(held, handed_on)),
                called_leg(first, talk=seconds(callee.answered_at, handed_on)),
                taken_over_leg(other, talk=seconds(handed_on, end)),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=attended to={other}", "merged -", f"?unheld {first}"}
                | left(first)
                | joined(other),
                hangup(outside, "caller") | left(outside, other),
            ],
        ),
        _consultation(consulting, consulted, handed_on, make=outbound),
    ]


@scenario()
async def attended_transfer_into_an_older_call(cast: Cast) -> Sequence[CallTruth]:
    """Two colleagues talk, somebody outside calls one of them, who connects the new caller with the colleague."""
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    asking, asked = await connect(first, second.number, second)
    await pause(TALK)
    held = await asking.hold()
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    handed_on = await connect_the_two(callee, asking)
    await pause(TALK)
    end = await caller.hang_up()
    await asked.until_ended()

    talk, young_talk = seconds(asked.answered_at, end), seconds(callee.answered_at, handed_on)
    return [
        internal(
            asking,
            by=asked,
            name="the older call",
            end=end,
            talk=talk,
            hold=seconds(held, handed_on),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            open=frozenset({"last_answered_by"}),  # who came in was the caller of the younger call and answered nothing
            legs=[
                caller_leg(first, talk=seconds(asked.answered_at, handed_on)),
                called_leg(second, talk=talk, hold=seconds(held, handed_on)),
                taken_over_leg(outside, talk=seconds(handed_on, end)),
            ],
            timeline=[
                f"answered {second}",
                joined(first, second),
                f"held {first}",
                {f"transferred {first} kind=attended", "merged -", f"?unheld {first}"} | left(first) | joined(outside),
                hangup(outside, "callee") | left(second, outside),
            ],
        ),
        inbound(
            caller,
            by=callee,
            end=handed_on,
            talk=young_talk,
            hangup_source=None,
            merged_into="the older call",
            open=frozenset({"transferred"}),  # it is the one that was handed on, but the word is said of the older
            legs=[caller_leg(outside, talk=young_talk), called_leg(first, talk=young_talk)],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                {f"?transferred {first} kind=attended"} | left(outside, first),
            ],
        ),
    ]


@scenario()
async def consultation_ends_and_the_caller_is_taken_back(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held = await callee.hold()
    consulting, consulted = await connect(first, second.number, second)
    await pause(TALK)
    no_more = await consulting.hang_up()
    await consulted.until_ended()
    taken_back = await callee.unhold()
    await pause(TALK)
    end = await caller.hang_up()
    await callee.until_ended()

    talk, consultation = seconds(callee.answered_at, end), seconds(consulted.answered_at, no_more)
    return [
        inbound(
            caller,
            by=callee,
            name="the call",
            end=end,
            talk=talk,
            hold=seconds(held, taken_back),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            legs=[
                caller_leg(outside, talk=talk, hold=seconds(held, taken_back)),
                called_leg(first, talk=talk),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                f"unheld {first}",
                hangup(outside, "caller") | left(outside, first),
            ],
        ),
        internal(
            consulting,
            by=consulted,
            name="the consultation",
            end=no_more,
            talk=consultation,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            legs=[caller_leg(first, talk=consultation), called_leg(second, talk=consultation)],
            timeline=[
                f"answered {second}",
                joined(first, second),
                hangup(first, "caller") | left(first, second),
            ],
        ),
    ]


@scenario()
async def attended_transfer_twice(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second, third = cast.outside(1), cast.phone(1), cast.phone(2), cast.phone(3)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    held_1 = await callee.hold()
    consulting_1, consulted_1 = await connect(first, second.number, second)
    await pause(TALK)
    handed_on_1 = await connect_the_two(callee, consulting_1)
    await pause(TALK)
    held_2 = await consulted_1.hold()
    consulting_2, consulted_2 = await connect(second, third.number, third)
    await pause(TALK)
    handed_on_2 = await connect_the_two(consulted_1, consulting_2)
    await pause(TALK)
    end = await caller.hang_up()
    await consulted_2.until_ended()

    talk = seconds(callee.answered_at, end)
    hold = seconds(held_1, handed_on_1) + seconds(held_2, handed_on_2)
    return [
        inbound(
            caller,
            by=callee,
            name="the call",
            last_answered_by=third.number,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk, hold=hold),
                called_leg(first, talk=seconds(callee.answered_at, handed_on_1)),
                taken_over_leg(second, talk=seconds(handed_on_1, handed_on_2)),
                taken_over_leg(third, talk=seconds(handed_on_2, end)),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=attended to={second}", "merged -", f"?unheld {first}"}
                | left(first)
                | joined(second),
                f"held {second}",
                {f"transferred {second} kind=attended to={third}", "merged -", f"?unheld {second}"}
                | left(second)
                | joined(third),
                hangup(outside, "caller") | left(outside, third),
            ],
        ),
        _consultation(consulting_1, consulted_1, handed_on_1),
        _consultation(consulting_2, consulted_2, handed_on_2),
    ]


@scenario(inbound="exten => 902165551ii9,1,Answer()\n same => n,Queue(sales-ii)\n same => n,Hangup()", queues=SALES)
async def attended_transfer_of_a_call_from_a_queue(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller = await outside.call(cast.did(9))
    waiting = await caller.until_answered()
    callee = await first.rings()
    await pause(RING)
    await callee.answer()
    await pause(TALK)
    held = await callee.hold()
    consulting, consulted = await connect(first, second.number, second)
    await pause(TALK)
    handed_on = await connect_the_two(callee, consulting)
    await pause(TALK)
    end = await caller.hang_up()
    await consulted.until_ended()

    talk, queue = seconds(callee.answered_at, end), cast.text("sales-ii")
    return [
        inbound(
            caller,
            by=callee,
            name="the call",
            last_answered_by=second.number,
            pbx_answer=waiting,
            end=end,
            talk=talk,
            hold=seconds(held, handed_on),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            queue=queue,
            queue_position=1,
            queue_wait=seconds(waiting, callee.answered_at),
            transferred=True,
            legs=[
                caller_leg(outside, talk=talk, hold=seconds(held, handed_on)),
                called_leg(first, talk=seconds(callee.answered_at, handed_on)),
                taken_over_leg(second, talk=seconds(handed_on, end)),
            ],
            timeline=[
                f"queued {outside} queue={queue} position=1",
                {f"answered {first}", f"left_queue {outside} queue={queue}"} | joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=attended to={second}", "merged -", f"?unheld {first}"}
                | left(first)
                | joined(second),
                hangup(outside, "caller") | left(outside, second),
            ],
        ),
        _consultation(consulting, consulted, handed_on),
    ]


async def connect_the_two(talking: Call, consulting: Call) -> datetime:
    """The transferer's phone is out of both calls afterwards."""
    handed_on = await talking.refer_replaces(consulting)
    await talking.until_ended()
    await consulting.until_ended()
    return handed_on


def _consultation(
    consulting: Call, consulted: Call, handed_on: datetime, *, make: Callable[..., CallTruth] = internal
) -> CallTruth:
    """It was answered, and ended where its parts went on."""
    asking, asked = consulting.phone, consulted.phone
    talk = seconds(consulted.answered_at, handed_on)
    return make(
        consulting,
        by=consulted,
        end=handed_on,
        talk=talk,
        hangup_source=None,
        merged_into="the call",
        legs=[caller_leg(asking, talk=talk), called_leg(asked, talk=talk)],
        timeline=[f"answered {asked}", joined(asking, asked), left(asking, asked)],
    )
