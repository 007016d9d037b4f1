"""Attended transfers whose consultation is with no person: the customer takes the place of who consulted there."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tests.pbx.stage.phone import Call, Phone
from tests.pbx.stage.queueing import a_queue, left_queue, queued
from tests.pbx.stage.scenario import TALK, Cast, connect, pause, scenario
from tests.pbx.stage.scenarios.attended_transfers import connect_the_two
from tests.pbx.stage.scenarios.conferences import SERVICE
from tests.pbx.stage.telling import NORMAL_CLEARING, called_leg, caller_leg, hangup, inbound, internal, joined, left
from tests.pbx.stage.truth import CallTruth, seconds


@scenario(internal="exten => 4ii1,1,Answer()\n same => n,Queue(6ii1)\n same => n,Hangup()", queues=a_queue(1))
async def attended_transfer_into_a_queue_that_nobody_serves(cast: Cast) -> Sequence[CallTruth]:
    """The wait of who consulted is over with the transfer, and that of the customer begins."""
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee, held = await _held(outside, cast.did(1), first)
    consulting = await _consult(first, cast.special(4, 1))
    handed_on = await connect_the_two(callee, consulting)
    await pause(TALK)
    end = await caller.hang_up()
    return [
        _customer(
            caller,
            callee,
            consulting,
            held=held,
            handed_on=handed_on,
            end=end,
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(handed_on, end),
            waiting={queued(cast, caller)},
            ending={left_queue(cast, caller)},
        ),
        _consultation(
            consulting,
            handed_on,
            queue=cast.special(6, 1),
            queue_position=1,
            queue_wait=seconds(consulting.answered_at, handed_on),
            timeline=[queued(cast, consulting), left_queue(cast, consulting)],
        ),
    ]


@scenario(internal="exten => 4ii1,1,Answer()\n same => n,WaitExten(20)\n same => n,Hangup()")
async def attended_transfer_into_a_menu(cast: Cast) -> Sequence[CallTruth]:
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee, held = await _held(outside, cast.did(1), first)
    consulting = await _consult(first, cast.special(4, 1))
    handed_on = await connect_the_two(callee, consulting)
    await pause(TALK)
    end = await caller.hang_up()
    return [
        _customer(caller, callee, consulting, held=held, handed_on=handed_on, end=end),
        _consultation(consulting, handed_on),
    ]


@scenario(
    internal="exten => 4ii1,1,VoiceMail(1ii2@default,su)\n same => n,Hangup()", voicemail="1ii2 => 4711,Mailbox\n"
)
async def attended_transfer_to_a_voicemail(cast: Cast) -> Sequence[CallTruth]:
    """A person answered the customer before, so that the call stays answered."""
    outside, first = cast.outside(1), cast.phone(1)
    caller, callee, held = await _held(outside, cast.did(1), first)
    consulting = await _consult(first, cast.special(4, 1))
    handed_on = await connect_the_two(callee, consulting)
    await pause(1.5)
    end = await caller.hang_up()
    return [
        _customer(caller, callee, consulting, held=held, handed_on=handed_on, end=end),
        _consultation(consulting, handed_on),  # it was no message: the customer goes on in its place
    ]


@scenario()
async def attended_transfer_into_a_conference(cast: Cast) -> Sequence[CallTruth]:
    """Somebody is in the room already, who then talks with the customer."""
    outside, first, second = cast.outside(1), cast.phone(1), cast.phone(2)
    room = cast.special(8, 1)
    other = await second.call(room)
    await other.until_answered()
    await pause(0.3)
    caller, callee, held = await _held(outside, cast.did(1), first)
    consulting = await _consult(first, room)
    handed_on = await connect_the_two(callee, consulting)
    await pause(TALK)
    end = await caller.hang_up()
    await pause(0.5)
    await other.hang_up()

    talk, in_the_room = seconds(callee.answered_at, end), seconds(consulting.answered_at, handed_on)
    return [
        internal(
            other,
            **_by_the_room(other, room),
            end=other.ended_at,
            talk=seconds(other.answered_at, other.ended_at),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            legs=[caller_leg(second, talk=seconds(consulting.answered_at, end))],
            timeline=[_in_the_room(second, room), hangup(second, "caller") | left(second)],
        ),
        inbound(
            caller,
            by=callee,
            name="the call",
            end=end,
            talk=talk,
            hold=seconds(held, handed_on),
            hangup_cause=NORMAL_CLEARING,
            hangup_source="caller",
            conference=room,
            transferred=True,
            open=frozenset({"last_answered_by"}),  # nobody picked up for the customer, who was brought into the room
            legs=[
                caller_leg(outside, talk=talk, hold=seconds(held, handed_on)),
                called_leg(first, talk=seconds(callee.answered_at, handed_on)),
            ],
            timeline=[
                f"answered {first}",
                joined(outside, first),
                f"held {first}",
                {f"transferred {first} kind=attended to={room}", "merged -", f"?unheld {first}"}
                | {f"conference - room={room}", f"?left {outside}", f"?joined {outside}"}
                | left(first),
                hangup(outside, "caller") | left(outside),
            ],
        ),
        internal(
            consulting,
            **_by_the_room(consulting, room),
            end=handed_on,
            talk=in_the_room,
            hangup_source=None,
            merged_into="the call",
            legs=[caller_leg(first, talk=in_the_room)],
            timeline=[_in_the_room(first, room), left(first)],
        ),
    ]


async def _held(outside: Phone, number: str, first: Phone) -> tuple[Call, Call, datetime]:
    """A customer talks with somebody, who then lets him wait."""
    caller, callee = await connect(outside, number, first)
    await pause(TALK)
    held = await callee.hold()
    await pause(0.3)
    return caller, callee, held


async def _consult(first: Phone, number: str) -> Call:
    consulting = await first.call(number)
    await consulting.until_answered()
    await pause(TALK)
    return consulting


def _customer(
    caller: Call,
    callee: Call,
    consulting: Call,
    *,
    held: datetime,
    handed_on: datetime,
    end: datetime,
    waiting: frozenset[str] | set[str] = frozenset(),
    ending: frozenset[str] | set[str] = frozenset(),
    **rest: Any,  # Any: fields of CallTruth
) -> CallTruth:
    """The customer talked with a person, then was alone with the PBX until he had enough of it."""
    outside, first = caller.phone, callee.phone
    talk, hold = seconds(callee.answered_at, handed_on), seconds(held, handed_on)
    return inbound(
        caller,
        by=callee,
        name="the call",
        end=end,
        talk=talk,
        hold=hold,
        hangup_source="caller",
        transferred=True,
        legs=[caller_leg(outside, talk=talk, hold=hold), called_leg(first, talk=talk)],
        timeline=[
            f"answered {first}",
            joined(outside, first),
            f"held {first}",
            {f"transferred {first} kind=attended to={consulting.number}", "merged -", f"?unheld {first}", *waiting}
            | left(outside, first),
            hangup(outside, "caller") | set(ending),
        ],
        **rest,
    )


def _consultation(consulting: Call, handed_on: datetime, **rest: Any) -> CallTruth:  # Any: fields of CallTruth
    """The PBX picked up, nobody else, and it went on in the customer's call."""
    usual: dict[str, Any] = {
        "disposition": None,
        "pbx_answer": consulting.answered_at,
        "end": handed_on,
        "hangup_source": None,
        "merged_into": "the call",
        "legs": [caller_leg(consulting.phone)],
        "timeline": [],
    }
    return internal(consulting, **usual | rest)


def _by_the_room(call: Call, room: str) -> dict[str, Any]:  # Any: fields of CallTruth
    """The room is the other party of the call."""
    return {"answered_by": SERVICE, "last_answered_by": SERVICE, "answer": call.answered_at, "conference": room}


def _in_the_room(phone: Phone, room: str) -> set[str]:
    return {f"answered {SERVICE}", f"conference - room={room}", f"joined {phone}"}
