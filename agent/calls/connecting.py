"""Who talks with whom and who waits: bridges, hold, parking, transfers, pickups, hangups."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from agent.calls.bridges import Bridges
from agent.calls.events import (
    AttendedTransferred,
    BlindTransferred,
    BridgeJoined,
    BridgeKind,
    BridgeLeft,
    CutOff,
    HangupRequested,
    Held,
    MusicStarted,
    MusicStopped,
    Parked,
    ParkingEnd,
    TransferWay,
    Unheld,
    Unparked,
)
from agent.calls.leg import Leg
from agent.calls.live_call import LiveCall
from sync.models import HangupSource

# Where a call that was sent on may arrive.
_OF_A_JOURNEY: Final = frozenset({"queued", "dialled", "service", "conference"})
_JUST_BEFORE: Final = timedelta(microseconds=1)
# What may be told between a transfer to the parking lot and the parking itself.
_OF_A_PARTING: Final = frozenset({"left", "hangup", "ended", "held", "unheld"})


def bridge_joined(bridges: Bridges, call: LiveCall, leg: Leg, event: BridgeJoined) -> None:
    """A party is in a bridge."""
    join_bridge(bridges, call, leg, event.bridge, kind=event.kind, at=event.at)


def join_bridge(bridges: Bridges, call: LiveCall, leg: Leg, bridge: str, *, kind: BridgeKind, at: datetime) -> None:
    """A party is in a bridge, and out of the one it was in."""
    leave_bridge(bridges, call, leg, at)
    bridges.join(call, leg, bridge, kind, at)
    _see_who_waits(bridges, bridge, at)


def bridge_left(bridges: Bridges, call: LiveCall, leg: Leg, event: BridgeLeft) -> None:
    """A party is out of a bridge, unless it is in another one already."""
    if leg.bridge == event.bridge:
        leave_bridge(bridges, call, leg, event.at)


def leave_bridge(bridges: Bridges, call: LiveCall, leg: Leg, at: datetime) -> None:
    """A party is in no bridge any more."""
    bridge = leg.bridge
    if bridge is None:
        return
    bridges.leave(call, leg, at)
    _waits(call, leg, at, is_so=False)
    _see_who_waits(bridges, bridge, at)


def held(bridges: Bridges, call: LiveCall, leg: Leg, event: Held) -> None:
    """A party put the others on hold."""
    if leg.held_at is None:
        leg.held_at, leg.held_bridge = event.at, leg.bridge
        call.note_leg(event.at, "held", leg)
        _see_who_waits(bridges, leg.bridge, event.at)


def unheld(bridges: Bridges, call: LiveCall, leg: Leg, event: Unheld) -> None:
    """A party took the others off hold."""
    if leg.held_at is not None:
        leg.held_at = None
        call.note_leg(event.at, "unheld", leg)
        _see_who_waits(bridges, leg.bridge, event.at)


def music_started(bridges: Bridges, call: LiveCall, leg: Leg, event: MusicStarted) -> None:
    """A party hears music; in a bridge that means that it waits."""
    leg.hears_music = True
    _see_who_waits(bridges, leg.bridge, event.at)


def music_stopped(bridges: Bridges, call: LiveCall, leg: Leg, event: MusicStopped) -> None:
    """The music has ended."""
    leg.hears_music = False
    _see_who_waits(bridges, leg.bridge, event.at)


def _see_who_waits(bridges: Bridges, bridge: str | None, at: datetime) -> None:
    """On hold is who another holds, who hears music in a bridge, and who is parked; nobody in a conference."""
    match bridges.kind_of(bridge):
        case BridgeKind.HOLDING:
            for call, leg in bridges.members(bridge):
                call.parked.add(leg.channel)
                _waits(call, leg, at, is_so=True)
        case BridgeKind.TALK:
            parties = list(bridges.parties(bridge))
            holders = [leg.channel for _, leg in parties if leg.held_at is not None and leg.held_bridge == leg.bridge]
            for call, leg in parties:
                is_held = any(holder != leg.channel for holder in holders)
                _waits(call, leg, at, is_so=leg.hears_music or is_held)
        case BridgeKind.CONFERENCE | None:
            pass


def _waits(call: LiveCall, leg: Leg, at: datetime, *, is_so: bool) -> None:
    if is_so == (leg.channel in call.waiting):
        return
    if is_so:
        leg.wait(at)
        call.waiting.add(leg.channel)
    else:
        leg.stop_waiting(at)
        call.waiting.discard(leg.channel)
        call.parked.discard(leg.channel)
    call.run_clocks(at)


def blind_transferred(call: LiveCall, leg: Leg, event: BlindTransferred) -> None:
    """A party sent the others elsewhere. Where they went may have been told before."""
    _hand_on(call, leg)
    consequences = list(call.latest(event.at))
    if any(entry["event"] == "parked" for entry in consequences):
        return
    call.transferred = True
    if leg.channel != call.caller_channel:
        call.mark_answered(leg, leg.up_at or event.at, by=leg.number)  # who hands a call on has taken it
    first = next((entry for entry in consequences if entry["event"] in _OF_A_JOURNEY), None)
    at = event.at if first is None else datetime.fromisoformat(first["at"]) - _JUST_BEFORE
    call.note_leg(at, "transferred", leg, kind="blind", to=event.exten)
    call.put_last_note_in_its_place()


def attended_transferred(calls: Sequence[LiveCall], event: AttendedTransferred) -> None:
    """A party connected the others with whom it had consulted. `calls` are those it was in, the older one goes on."""
    legs = {channel: (call, leg) for call in reversed(calls) for channel, leg in call.legs.items()}
    names: dict[str, str | None] = {}
    for channel in (event.channel, event.second, event.target or ""):
        if channel in legs:
            call, leg = legs[channel]
            names[channel] = call.who(leg)
            if channel != event.target:
                _hand_on(call, leg)
    goes_on = calls[0]
    goes_on.transferred = True
    to = names.get(event.target or "")
    if to is None and event.way is TransferWay.APPLICATION:
        to = calls[-1].callee if len(calls) > 1 else None
    elif to is None:  # the feature code's event does not tell who was consulted
        newest = goes_on.newest_party(but=event.channel)
        to = goes_on.who(newest) if newest is not None else None
    who = names.get(event.channel)
    goes_on.note(event.at, "transferred", who=who, kind="attended", to=to)


def all_together(bridges: Bridges, call: LiveCall, leg: Leg, event: AttendedTransferred) -> None:
    """Who consulted put all three together and talks on; nobody was handed to anybody."""
    leg.held_at = None  # Asterisk does not tell that it took the others off hold
    _see_who_waits(bridges, leg.bridge, event.at)


def _hand_on(call: LiveCall, leg: Leg) -> None:
    leg.handed_on = True
    if call.hung_up_by == leg.channel:
        call.hung_up_by = None


def parked(call: LiveCall, leg: Leg, event: Parked) -> None:
    """A party waits in the parking lot. A blind transfer there is no transfer to anybody."""
    for number in range(len(call.timeline) - 1, -1, -1):
        word = call.timeline[number]["event"]
        if word == "transferred":
            del call.timeline[number]
            call.transferred = any(entry["event"] == "transferred" for entry in call.timeline)
        if word not in _OF_A_PARTING:
            break
    call.note_leg(event.at, "parked", leg, space=event.space or None, by=event.parker)


def unparked(call: LiveCall, leg: Leg, event: Unparked, *, by: str | None) -> None:
    """A party waits in the parking lot no longer; who gave up waiting is told by the hangup."""
    if event.end is not ParkingEnd.GIVEN_UP:
        call.note_leg(event.at, event.end, leg, space=event.space or None, by=by)


def hangup_requested(call: LiveCall, leg: Leg, event: HangupRequested) -> None:
    """A party hung up. That ends the call, unless it goes on between others, one of whom will hang up later."""
    goes_on = call.hung_up_by not in call.connected and leg.channel in call.connected | call.in_service
    if leg.is_local or leg.handed_on or (call.hung_up_by is not None and not goes_on):
        return
    is_caller = leg.channel == call.caller_channel
    if is_caller and leg.up_at is None and call.tone is not None:
        return  # the far end was told that it is busy, and rang off
    if not is_caller and leg.met_at is None:
        return  # a phone that declined, was busy or did not accept the call does not end it
    call.hung_up_by = leg.channel
    by = HangupSource.CALLER if is_caller else HangupSource.CALLEE
    call.note_leg(event.at, "hangup", leg, by=by)


def cut_off(call: LiveCall, leg: Leg, event: CutOff) -> None:
    """The PBX stops."""
    if leg.channel == call.caller_channel and call.hung_up_by is None and not call.is_cut_off:
        call.is_cut_off = True
        call.note(event.at, "cut_off")
