"""Calls that the PBX begins: click to call, a wake-up call. Who is rung first is the caller."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tests.pbx.stage.phone import Call
from tests.pbx.stage.scenario import RING, TALK, Cast, pause, scenario
from tests.pbx.stage.telling import called_leg, hangup, joined, left
from tests.pbx.stage.truth import CallTruth, LegTruth, seconds

PHONES = "internal-stage"


@scenario()
async def click_to_call(cast: Cast) -> Sequence[CallTruth]:
    return await _click_to_call(cast, f"PJSIP/{cast.extension(1)}")


@scenario()
async def click_to_call_over_a_local_channel(cast: Cast) -> Sequence[CallTruth]:
    """As FreePBX and most CRMs do it."""
    return await _click_to_call(cast, f"Local/{cast.extension(1)}@{PHONES}")


@scenario()
async def click_to_call_over_a_local_channel_that_stays(cast: Cast) -> Sequence[CallTruth]:
    return await _click_to_call(cast, f"Local/{cast.extension(1)}@{PHONES}/n")


async def _click_to_call(cast: Cast, channel: str) -> Sequence[CallTruth]:
    first, outside = cast.phone(1), cast.outside(2)
    await _originate(cast, channel=channel, context=PHONES, exten=outside.number)
    clicked = await first.rings()
    await pause(RING)
    await clicked.answer()
    target = await outside.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await clicked.hang_up()
    await target.until_ended()

    talk = seconds(target.answered_at, end)
    rung = seconds(clicked.rang_at, clicked.answered_at) + seconds(target.rang_at, target.answered_at)
    return [
        _begun_by_the_pbx(
            clicked,
            direction="outbound",
            callee_id=outside.number,
            answered_by=outside.number,
            last_answered_by=outside.number,
            status="completed",
            disposition="answered",
            answer=target.answered_at,
            end=end,
            ring=rung,
            talk=talk,
            hangup_source="caller",
            hangup_cause=16,
            legs=[_rung_first(clicked, talk=talk), called_leg(outside, talk=talk)],
            timeline=[
                f"answered {outside}",
                joined(first, outside),
                hangup(first, "caller") | left(first, outside),
            ],
        )
    ]


@scenario()
async def call_back_to_somebody_outside(cast: Cast) -> Sequence[CallTruth]:
    """The other way round: the number outside is rung first, and then a phone of the house."""
    outside, second = cast.outside(1), cast.phone(2)
    await _originate(cast, channel=f"Local/{outside}@{PHONES}", context=PHONES, exten=second.number)
    called = await outside.rings()
    await pause(RING)
    await called.answer()
    target = await second.rings()
    await pause(RING)
    await target.answer()
    await pause(TALK)
    end = await called.hang_up()
    await target.until_ended()

    talk = seconds(target.answered_at, end)
    return [
        _begun_by_the_pbx(
            called,
            direction="outbound",
            callee_id=second.number,
            answered_by=second.number,
            last_answered_by=second.number,
            status="completed",
            disposition="answered",
            answer=target.answered_at,
            end=end,
            ring=seconds(called.rang_at, called.answered_at) + seconds(target.rang_at, target.answered_at),
            talk=talk,
            hangup_source="caller",
            hangup_cause=16,
            legs=[_rung_first(called, talk=talk), called_leg(second, talk=talk)],
            timeline=[
                f"answered {second}",
                joined(outside, second),
                hangup(outside, "caller") | left(outside, second),
            ],
            # Names of people outside are told by them when they call, and made up by the PBX when they are called.
            open=frozenset({"caller_name"}),
        )
    ]


@scenario()
async def click_to_call_and_the_phone_is_not_answered(cast: Cast) -> Sequence[CallTruth]:
    """Nothing was dialled yet, so nobody was called."""
    return await _in_vain(cast, f"PJSIP/{cast.extension(1)}")


@scenario()
async def click_to_call_over_a_local_channel_and_the_phone_is_not_answered(cast: Cast) -> Sequence[CallTruth]:
    return await _in_vain(cast, f"Local/{cast.extension(1)}@{PHONES}/n")


async def _in_vain(cast: Cast, channel: str) -> Sequence[CallTruth]:
    first = cast.phone(1)
    await _originate(cast, channel=channel, context=PHONES, exten=cast.outside_number(2), timeout=2)
    clicked = await first.rings()
    end = await clicked.until_ended()
    return [
        _begun_by_the_pbx(
            clicked,
            direction="internal",
            callee_id=None,
            status="failed",
            disposition="no_answer",
            end=end,
            ring=seconds(clicked.rang_at, end),
            hangup_source="pbx",
            legs=[_rung_first(clicked, answered=False)],
            timeline=[],
        )
    ]


@scenario()
async def click_to_call_of_a_busy_number(cast: Cast) -> Sequence[CallTruth]:
    first, outside = cast.phone(1), cast.outside(2)
    await _originate(cast, channel=f"PJSIP/{first}", context=PHONES, exten=outside.number)
    clicked = await first.rings()
    await pause(RING)
    await clicked.answer()
    (await outside.wait_for_call()).refuse()
    end = await clicked.until_ended()
    return [
        _begun_by_the_pbx(
            clicked,
            direction="outbound",
            callee_id=outside.number,
            status="failed",
            disposition="busy",
            end=end,
            ring=seconds(clicked.rang_at, clicked.answered_at),
            hangup_source="pbx",
            hangup_cause=17,
            legs=[
                _rung_first(clicked),
                LegTruth(number=outside.number, dial_status="BUSY", rung=False, answered=False),
            ],
            timeline=[],
        )
    ]


@scenario()
async def wake_up_call(cast: Cast) -> Sequence[CallTruth]:
    """The PBX rings somebody and plays something: he answered, but there is nobody to talk with."""
    woken = await _wake_up(cast, f"PJSIP/{cast.extension(1)}", "vm-goodbye")
    return [_woken(woken, end=await woken.until_ended(), by="pbx")]


@scenario()
async def wake_up_call_over_a_local_channel(cast: Cast) -> Sequence[CallTruth]:
    woken = await _wake_up(cast, f"Local/{cast.extension(1)}@{PHONES}/n", "vm-goodbye")
    return [_woken(woken, end=await woken.until_ended(), by="pbx")]


@scenario()
async def wake_up_call_that_is_not_heard_out(cast: Cast) -> Sequence[CallTruth]:
    woken = await _wake_up(cast, f"PJSIP/{cast.extension(1)}", "basic-pbx-ivr-main")
    await pause(TALK)
    return [_woken(woken, end=await woken.hang_up(), by="caller")]


async def _wake_up(cast: Cast, channel: str, sound: str) -> Call:
    await _originate(cast, channel=channel, application="Playback", data=sound)
    woken = await cast.phone(1).rings()
    await pause(RING)
    await woken.answer()
    return woken


def _woken(woken: Call, *, end: datetime, by: str) -> CallTruth:
    first = woken.phone
    return _begun_by_the_pbx(
        woken,
        direction="internal",
        callee_id=None,
        answered_by=first.number,
        last_answered_by=first.number,
        status="completed",
        disposition="answered",
        answer=woken.answered_at,
        end=end,
        ring=seconds(woken.rang_at, woken.answered_at),
        hangup_source=by,
        legs=[_rung_first(woken)],
        timeline=[f"answered {first}", *([hangup(first, by)] if by == "caller" else [])],
    )


async def _originate(cast: Cast, **what: Any) -> None:  # Any: Asterisk.originate's
    """In a thread: the log-in waits for Asterisk, and the phones must not."""
    await asyncio.to_thread(cast.originate, caller_id=f"{cast.phone(1).name} <{cast.phone(1)}>", **what)


def _begun_by_the_pbx(first: Call, **rest: Any) -> CallTruth:  # Any: fields of CallTruth
    return CallTruth(
        name=f"to {first.phone}",
        caller_id=first.phone.number,
        caller_name=first.phone.name,
        start=first.asked_at,
        **rest,
    )


def _rung_first(call: Call, *, talk: float = 0.0, answered: bool = True) -> LegTruth:
    return LegTruth(number=call.phone.number, rung=True, answered=answered, talk=talk)
