"""What the PBX itself does with a call: applications that answer, take messages or play tones, queues, conferences."""

from datetime import datetime
from typing import Final

from agent.calls.dialling import DIALLING, dial_came_to_nothing, dial_started
from agent.calls.events import AppStarted, ChannelUp, ConferenceJoined, QueueJoined, QueueLeft
from agent.calls.leg import Leg
from agent.calls.live_call import LiveCall
from agent.calls.outcome import BUSY, CONGESTION
from agent.calls.rules import queue_name

# Extensions that name no number: start, invalid, timeout, hangup, failed, operator.
SPECIAL_EXTENSIONS: Final = frozenset({"", "s", "i", "t", "T", "h", "e", "o", "a", "failed"})
# What Asterisk shows as the application of a leg that somebody dialled, with an extension that nobody did.
DIALLED_LEG: Final = frozenset({"AppDial", "AppDial2", "AppQueue"})
# What speaks to a caller: who hears it after the other side hung up has not been left.
_SPEAKING: Final = frozenset(
    {
        "background", "backgrounddetect", "controlplayback", "dictate", "directory", "echo", "milliwatt", "musiconhold",
        "playback", "read", "record", "sayalpha", "saydigits", "saynumber", "sayphonetic", "sayunixtime", "waitexten",
    }
)  # fmt: skip
_TONES: Final = {"busy": BUSY, "congestion": CONGESTION}


def app_started(call: LiveCall, leg: Leg, event: AppStarted) -> None:
    """The dialplan goes on with a channel."""
    call.accept_trace(event.trace, leg, event.at)
    dial_came_to_nothing(call, leg)
    application = event.application.lower()
    if leg is call.root and call.callee is None and event.application not in DIALLED_LEG:
        _dialled_number(call, event.exten)
    if application in DIALLING:
        if application == "queue":  # QueueCallerJoin tells the same, to those who may hear it
            call.queue = call.queue or queue_name(event.data)
        dial_started(call, leg, event)
    if application in _SPEAKING and call.hung_up_by != leg.channel and event.exten != "h":
        call.hung_up_by = None
    in_application(call, leg, event.application, event.at)


def _dialled_number(call: LiveCall, exten: str) -> None:
    if exten not in SPECIAL_EXTENSIONS:
        call.callee = exten
        call.facts_changed = True


def in_application(call: LiveCall, leg: Leg, application: str, at: datetime) -> None:
    """A channel is in an application now."""
    if leg.application == application:
        return
    leg.application = application
    call.stop_serving(leg, at)
    if call.rules.is_voicemail(application):
        call.voicemail_at = call.voicemail_at or at
        call.note(at, "service", application=application)
    elif call.rules.is_answering(application):
        call.note(at, "service", application=application)
        service_answers(call, leg, at)
    elif leg.channel == call.caller_channel and call.answered_at is None:
        call.tone = _TONES.get(application.lower(), call.tone)


def service_answers(call: LiveCall, leg: Leg, at: datetime) -> None:
    """A service may be given the call before it picks up, or without ever doing so."""
    if leg.up_at is not None and call.rules.is_answering(leg.application):
        call.serve(leg, at)


def up(call: LiveCall, leg: Leg, event: ChannelUp) -> None:
    """Whoever is behind a channel picked up; of the caller's, that is the PBX itself."""
    mark_up(call, leg, event.at)


def mark_up(call: LiveCall, leg: Leg, at: datetime) -> None:
    """A channel is up."""
    if leg.up_at is not None:
        return
    leg.up_at = at
    if leg.channel == call.caller_channel and not leg.dialled and call.answered_at is None:
        call.pbx_answered_at = at
    service_answers(call, leg, at)


def queue_joined(call: LiveCall, leg: Leg, event: QueueJoined) -> None:
    """The wait in a queue begins."""
    call.enter_queue(leg, event.at, queue=event.queue, position=event.position)


def queue_left(call: LiveCall, leg: Leg, event: QueueLeft) -> None:
    """The wait in a queue is over."""
    call.leave_queue(event.at)


def conference_joined(call: LiveCall, leg: Leg, event: ConferenceJoined) -> None:
    """A party is in a conference room."""
    call.conference = event.room
    call.note(event.at, "conference", room=event.room)
