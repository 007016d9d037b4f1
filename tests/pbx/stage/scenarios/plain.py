"""Plain calls and their ends: who hangs up, what is refused, who does not say who he is."""

import asyncio
from collections.abc import Sequence

from tests.pbx.stage.phone import Phone
from tests.pbx.stage.scenario import RING, TALK, Cast, connect, pause, scenario
from tests.pbx.stage.telling import caller_leg, hangup, inbound, internal, missed_leg, outbound
from tests.pbx.stage.truth import CallTruth
from tests.pbx.stage.usual import talked


@scenario()
async def call_that_the_callee_ends(cast: Cast) -> Sequence[CallTruth]:
    caller, callee = await connect(cast.phone(1), cast.extension(2), cast.phone(2))
    await pause(TALK)
    end = await callee.hang_up()
    await caller.until_ended()
    return [talked(internal, caller, callee, end=end, by="callee")]


@scenario(inbound="exten => 902165551ii1,1,Dial(PJSIP/1ii1,20,S(2))\n same => n,Hangup()")
async def call_that_may_last_so_long_only(cast: Cast) -> Sequence[CallTruth]:
    caller, callee = await connect(cast.outside(1), cast.did(1), cast.phone(1))
    end = await callee.until_ended()
    await caller.until_ended()
    return [talked(inbound, caller, callee, end=end, by="pbx")]


@scenario()
async def call_that_an_operator_ends(cast: Cast) -> Sequence[CallTruth]:
    """By `channel request hangup` for the callee's channel."""
    callee_phone = cast.phone(1)
    caller, callee = await connect(cast.outside(1), cast.did(1), callee_phone)
    channels = await asyncio.to_thread(cast.cli, "core show channels concise")
    names = [line.partition("!")[0] for line in channels.splitlines()]
    (channel,) = [name for name in names if name.startswith(f"PJSIP/{callee_phone}-")]
    await asyncio.to_thread(cast.cli, f"channel request hangup {channel}")
    end = await callee.until_ended()
    await caller.until_ended()
    return [talked(inbound, caller, callee, end=end, by="pbx")]


@scenario()
async def two_calls_at_once_from_one_number(cast: Cast) -> Sequence[CallTruth]:
    outside = cast.outside(1)
    first = await connect(outside, cast.did(1), cast.phone(1))
    second = await connect(outside, cast.did(2), cast.phone(2))
    await pause(TALK)
    end_first = await first[0].hang_up()
    await first[1].until_ended()
    end_second = await second[0].hang_up()
    await second[1].until_ended()
    return [talked(inbound, *first, end=end_first), talked(inbound, *second, end=end_second)]


@scenario()
async def call_from_somebody_anonymous(cast: Cast) -> Sequence[CallTruth]:
    anonymous = Phone(cast.trunk, "anonymous", "Anonymous")
    caller, callee = await connect(anonymous, cast.did(1), cast.phone(1))
    await pause(TALK)
    end = await caller.hang_up()
    await callee.until_ended()
    return [talked(inbound, caller, callee, end=end, caller_presentation="restricted")]


@scenario()
async def early_media_and_the_caller_gives_up(cast: Cast) -> Sequence[CallTruth]:
    """The network says something before any answer, as `the number cannot be reached at present`."""
    first, outside = cast.phone(1), cast.outside(2)
    caller = await first.call(outside.number)
    target = await outside.wait_for_call()
    target.announce()
    await pause(TALK)
    end = await caller.hang_up()
    await target.until_ended()
    return [
        outbound(
            caller,
            status="abandoned",
            disposition="cancelled",
            end=end,
            hangup_source="caller",
            legs=[caller_leg(first, answered=False), missed_leg(outside, "CANCEL", rung=False)],
            timeline=[hangup(first, "caller")],
            open=frozenset({"ring"}),
        )
    ]


@scenario()
async def early_media_and_then_a_refusal(cast: Cast) -> Sequence[CallTruth]:
    first, outside = cast.phone(1), cast.outside(2)
    caller = await first.call(outside.number)
    target = await outside.wait_for_call()
    target.announce()
    await pause(RING)
    target.refuse(404, "Not Found")
    end = await caller.until_refused()
    return [
        outbound(
            caller,
            status="failed",
            disposition="failed",
            end=end,
            hangup_source="pbx",
            legs=[caller_leg(first, answered=False), missed_leg(outside, None, rung=False, cause=1)],
            timeline=[],
            open=frozenset({"ring"}),
        )
    ]
