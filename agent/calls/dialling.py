"""Reaching others: attempts, who rings, who declined, who sent the call on."""

from typing import Final

from agent.calls.events import AppStarted, ChannelRinging, DialBegan, DialEnded, DialStatus
from agent.calls.leg import Leg, leg_number
from agent.calls.live_call import LiveCall
from agent.calls.rules import dialled_endpoints

DIALLING: Final = frozenset({"dial", "queue", "followme", "retrydial"})


def dial_started(call: LiveCall, leg: Leg, event: AppStarted) -> None:
    """The dialplan begins an attempt. What a Local channel's far half dials belongs to the attempt it is part of."""
    call.tone = None
    if not leg.name.endswith(";2"):
        call.dial_round += 1
    if event.application.lower() != "dial":
        return
    leg.is_dialling = True
    if any(call.rules.is_trunk(endpoint) for endpoint in dialled_endpoints(event.data)):
        call.dialled_trunk = True
        call.facts_changed = True


def dial_came_to_nothing(call: LiveCall, leg: Leg) -> None:
    """The dialplan went on (or the channel ended) after a Dial that made no leg: nobody could be reached."""
    if leg.is_dialling:
        leg.is_dialling = False
        call.dial_reached_nobody = True


def dial_began(call: LiveCall, leg: Leg, event: DialBegan) -> None:
    """Somebody is being reached."""
    source = call.legs.get(event.channel or "")
    if source is not None and source.is_dialling:
        source.is_dialling = False
        call.dial_reached_nobody = False
    leg.dialled = True
    leg.dial_round = call.dial_round
    leg.dial_string = event.dial_string
    leg.dial_status = None
    leg.number = leg_number(leg.endpoint, event.dial_string, leg.number, is_trunk=call.rules.is_trunk(leg.endpoint))
    if leg.channel == call.caller_channel:
        call.caller_number = leg.number
    if call.ringing_since is None and call.answered_at is None:
        call.ringing_since = event.at
    if call.answered_at is not None:
        call.hung_up_by = None  # the call goes on
    call.note_leg(event.at, "dialled", leg)
    call.facts_changed = True


def ringing(call: LiveCall, leg: Leg, event: ChannelRinging) -> None:
    """A phone rings."""
    if leg.ringing_at is None:
        leg.ringing_at = event.at
        call.note_leg(event.at, "ringing", leg)


def dial_ended(call: LiveCall, leg: Leg, event: DialEnded) -> None:
    """An attempt to reach somebody is over."""
    if leg.dial_status is None:  # Asterisk tells CANCEL twice when a queue's caller gives up
        leg.dial_status = event.status
        call.note_leg(event.at, "dial_ended", leg, status=event.status)
        if event.forward:
            leg.sent_on = True
            call.note_leg(event.at, "forwarded", leg, to=event.forward)
    if event.status is DialStatus.ANSWER and not leg.is_local and leg.channel != call.caller_channel:
        call.mark_answered(leg, leg.up_at or event.at, by=leg.number)
    open_attempts = (other for other in call.legs.values() if other.dialled and other.dial_status is None)
    if call.ringing_since is not None and next(open_attempts, None) is None:
        call.stop_ringing(event.at)
