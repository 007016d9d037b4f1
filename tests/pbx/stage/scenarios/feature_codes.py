"""What is done by pressing digits while one talks: #1 sends on, *2 consults first, *3 then puts all three together."""

from collections.abc import Sequence
from datetime import datetime

from tests.pbx.stage.phone import Call, Phone
from tests.pbx.stage.scenario import RING, TALK, Cast, connect, pause, scenario
from tests.pbx.stage.telling import (
    NORMAL_CLEARING,
    called_leg,
    caller_leg,
    hangup,
    inbound,
    joined,
    left,
    missed_leg,
)
from tests.pbx.stage.truth import CallTruth, Step, seconds

# The PBX knows a digit when it is over, and takes a number when a prompt is broken off; both take tenths of a second.
SLOW = {"hold": 0.5}
PROMPT = 0.7  # "transfer"; digits pressed before it are lost


@scenario()
async def blind_transfer_by_feature_code(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    asked = await callee.press("#1")
    await pause(PROMPT)
    sent_on = await callee.press(second.number)
    target = await second.rings()
    await callee.until_ended()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await target.hang_up()
    await caller.until_ended()

    talk_1, talk_2 = seconds(callee.answered_at, sent_on), seconds(target.answered_at, end)
    hold = seconds(asked, sent_on)
    return [
        inbound(
            caller,
            by=callee,
            last_answered_by=second.number,
            end=end,
            talk=talk_1 + talk_2,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            slack=SLOW | {"talk": 0.3},
            legs=[
                caller_leg(outside, talk=talk_1 + talk_2, hold=hold),
                called_leg(first, talk=talk_1),
                called_leg(second, talk=talk_2),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                {f"transferred {first} kind=blind to={second}", f"?held {first}", f"?unheld {first}"}
                | left(outside, first),
                joined(outside, second),
                hangup(second, "callee") | left(outside, second),
            ],
        )
    ]


@scenario()
async def attended_transfer_by_feature_code_after_the_answer(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    asked = await _consult(callee, second)
    target = await second.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    handed_on = await callee.hang_up()
    await pause(TALK)
    end = await target.hang_up()
    await caller.until_ended()

    hold = seconds(asked, handed_on)
    talk = seconds(callee.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            last_answered_by=second.number,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            slack=SLOW,
            legs=[
                caller_leg(outside, talk=None, hold=hold),
                called_leg(first, talk=None),
                called_leg(second, talk=seconds(target.answered_at, end)),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                *_consulting(outside, first),
                {f"joined {second}", f"?joined {first}"},
                {f"transferred {first} kind=attended to={second}", f"?unheld {first}", f"?hangup {first}"}
                | {f"left {first}", f"?left {outside}", f"?joined {outside}", f"?left {second}", f"?joined {second}"},
                hangup(second, "callee") | left(outside, second),
            ],
        )
    ]


@scenario()
async def attended_transfer_by_feature_code_before_the_answer(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    asked = await _consult(callee, second)
    target = await second.rings()
    await pause(RING)
    handed_on = await callee.hang_up()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await target.hang_up()
    await caller.until_ended()

    hold = seconds(asked, handed_on)
    talk_1, talk_2 = seconds(callee.answered_at, handed_on), seconds(target.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            last_answered_by=second.number,
            end=end,
            talk=talk_1 + talk_2,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="callee",
            transferred=True,
            slack=SLOW,
            legs=[
                caller_leg(outside, talk=None, hold=hold),
                called_leg(first, talk=None),
                called_leg(second, talk=talk_2),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                *_consulting(outside, first),
                {f"transferred {first} kind=attended to={second}", f"?unheld {first}", f"?hangup {first}"}
                | {f"?left {first}", f"?left {outside}", f"?joined {outside}"},
                {f"joined {second}", f"?joined {outside}"},
                hangup(second, "callee") | left(outside, second),
            ],
        )
    ]


@scenario()
async def attended_transfer_by_feature_code_that_comes_back(cast: Cast) -> Sequence[CallTruth]:
    """Who was asked declines after the first had hung up: the PBX calls the first again.

    If nobody answers, Asterisk's own clock may end the target and the new call to the first in one moment.
    """
    return [await _declined_when_handed_on(cast, is_taken_back=True)]


@scenario()
async def attended_transfer_by_feature_code_that_nobody_takes_back(cast: Cast) -> Sequence[CallTruth]:
    """Who was asked declines, and so does the first when the PBX calls again: still one call."""
    return [await _declined_when_handed_on(cast, is_taken_back=False)]


@scenario()
async def consultation_by_feature_code_aborted(cast: Cast) -> Sequence[CallTruth]:
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    asked = await _consult(callee, second)
    target = await second.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    taken_back = await callee.press("*1")
    await target.until_ended()
    await pause(TALK)
    end = await caller.hang_up()
    await callee.until_ended()

    hold, talk = seconds(asked, taken_back), seconds(callee.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            slack=SLOW,
            legs=[
                caller_leg(outside, talk=None, hold=hold),
                called_leg(first, talk=None),
                called_leg(second, talk=seconds(target.answered_at, taken_back)),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                *_consulting(outside, first),
                {f"joined {second}", f"?joined {first}"},
                {f"left {second}", f"?left {first}", f"?unheld {first}", f"?joined {first}", f"?joined {outside}"},
                hangup(outside, "caller") | left(outside, first),
            ],
        )
    ]


@scenario()
async def three_put_together_by_feature_code(cast: Cast) -> Sequence[CallTruth]:
    """*3 ends the consultation with all three talking: nobody is handed on, also when who did it leaves first."""
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    asked = await _consult(callee, second)
    target = await second.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    together = await callee.press("*3")
    await pause(TALK)
    await callee.hang_up()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()

    hold, talk = seconds(asked, together), seconds(callee.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            last_answered_by=second.number,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            slack=SLOW,
            legs=[
                caller_leg(outside, talk=None, hold=hold),
                called_leg(first, talk=None),
                called_leg(second, talk=seconds(target.answered_at, end)),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                *_consulting(outside, first),
                {f"joined {second}", f"?joined {first}", f"?joined {outside}", f"?unheld {first}"},
                {f"left {first}", f"?hangup {first}"},
                # It may be told once, or of the consultation and of the three.
                {f"?joined {first}", f"?joined {outside}", f"?unheld {first}", f"?left {first}", f"?hangup {first}"},
                hangup(outside, "caller") | left(outside, second),
            ],
        )
    ]


@scenario(internal="exten => 4ii2,1,Dial(PJSIP/1ii2,20,tT)\n same => n,Hangup()")
async def consultation_by_feature_code_that_nobody_answers(cast: Cast) -> Sequence[CallTruth]:
    """The PBX gives up on the third and puts the two together again."""
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    asked = await _consult(callee, second)
    target = await second.rings()
    taken_back = await target.until_ended()
    await pause(TALK)
    end = await caller.hang_up()
    await callee.until_ended()

    hold, talk = seconds(asked, taken_back), seconds(callee.answered_at, end)
    return [
        inbound(
            caller,
            by=callee,
            end=end,
            talk=talk,
            hold=hold,
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            slack=SLOW,
            legs=[
                caller_leg(outside, talk=None, hold=hold),
                called_leg(first, talk=None),
                missed_leg(second, None),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                *_consulting(outside, first),
                {f"?unheld {first}", f"?joined {first}", f"?joined {outside}"},
                hangup(outside, "caller") | left(outside, first),
            ],
        )
    ]


async def _consult(call: Call, third: Phone) -> datetime:
    """Asks for somebody; the other side hears music from the moment returned."""
    asked = await call.press("*2")
    await pause(PROMPT)
    await call.press(third.number)
    return asked


def _consulting(waiting: Phone, asking: Phone) -> list[Step]:
    """Whether who consults is still connected with who waits, the words of the record leave open; so are their legs'
    talk times."""
    return [{f"?held {asking}", f"?left {asking}", f"?left {waiting}"}]


async def _declined_when_handed_on(cast: Cast, *, is_taken_back: bool) -> CallTruth:
    """The first hands on and hangs up, the second declines, and the first is called again."""
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    caller, callee = await connect(outside, cast.did(1), first)
    await pause(TALK)
    asked = await _consult(callee, second)
    target = await second.rings()
    await pause(RING)
    handed_on = await callee.hang_up()
    await pause(RING)
    target.refuse(603, "Decline")
    again = await first.rings()
    await pause(RING)
    hold, talk = seconds(asked, handed_on), seconds(callee.answered_at, handed_on)
    steps: list[Step] = []
    if is_taken_back:
        await again.answer()
        await pause(TALK)
        end = await caller.hang_up()
        await again.until_ended()
        talk_again = seconds(again.answered_at, end)
        talk += talk_again
        last = called_leg(first, talk=talk_again)
        steps = [{f"joined {first}", f"?joined {outside}"}, hangup(outside, "caller") | left(outside, first)]
    else:
        again.refuse(603, "Decline")
        end = await caller.until_ended()
        last = missed_leg(first, None)

    return inbound(
        caller,
        by=callee,
        end=end,
        talk=talk,
        hold=hold,
        hangup_cause=NORMAL_CLEARING,
        hangup_source="caller" if is_taken_back else "pbx",
        slack=SLOW,
        open=frozenset({"transferred"}),  # it was handed on and came back
        legs=[caller_leg(outside, talk=None, hold=hold), called_leg(first, talk=None), missed_leg(second, None), last],
        timeline=[
            f"answered {first}",
            joined(outside, first),
            *_consulting(outside, first),
            {f"?transferred {first}", f"?unheld {first}", f"?hangup {first}"}
            | {f"?left {first}", f"?left {outside}", f"?joined {outside}"},
            *steps,
        ],
    )
