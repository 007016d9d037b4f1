"""One AMI message becomes one event of the call model, or none. Fields as in Asterisk 22's manager events."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from agent.calls.events import (
    AppStarted,
    AttendedTransferred,
    BlindTransferred,
    BridgeJoined,
    BridgeKind,
    BridgeLeft,
    CallerIdentified,
    CallEvent,
    ChannelClosed,
    ChannelOpened,
    ChannelRenamed,
    ChannelRinging,
    ChannelUp,
    ConferenceJoined,
    CutOff,
    DialBegan,
    DialEnded,
    DialStatus,
    HangupRequested,
    Held,
    MusicStarted,
    MusicStopped,
    Parked,
    ParkingEnd,
    PickedUp,
    QueueJoined,
    QueueLeft,
    TransferWay,
    Unheld,
    Unparked,
)
from agent.calls.rules import resource_of
from agent.pbx.asterisk.protocol import AmiMessage
from agent.pbx.text import name_of

_RINGING: Final = "5"
_UP: Final = "6"
_SOFT_HANGUP_SHUTDOWN: Final = "4"
# The years 2000 to 2100: what lies outside is no time of an event.
_OLDEST: Final = 946_684_800.0
_NEWEST: Final = 4_102_444_800.0
_MAX_DIGITS: Final = 9
_UNTOLD: Final = "\0"  # stands for a header that is not there, which says something else than an empty one
_TRANSFER_WAYS: Final = {"App": TransferWay.APPLICATION, "Threeway": TransferWay.THREE_WAY}
# What Asterisk calls the bridge of two (or of three, by Bridge()) parties of a call; FreePBX's intercom uses it too.
_TALKING_BRIDGES: Final = frozenset({"basic", ""})
_DIAL_STATUSES: Final = frozenset(DialStatus)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_DURATION: Final = re.compile(r"(\d{1,5}):(\d{1,2}):(\d{1,2})", re.ASCII)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def translate(message: AmiMessage, arrived_at: datetime) -> CallEvent | None:
    """The event told by `message`, at the PBX's own time where it tells one (timestampevents=yes).

    A message that lacks what an event needs (no Uniqueid, say) tells nothing and gives None.
    """
    make = _TRANSLATIONS.get(message.name)
    return make(message, event_time(message, arrived_at)) if make else None


def event_time(message: AmiMessage, arrived_at: datetime) -> datetime:
    """The `Timestamp` header, else the arrival."""
    seconds = stamp_of(message)
    return arrived_at if seconds is None else datetime.fromtimestamp(seconds, UTC)


def stamp_of(message: AmiMessage) -> float | None:
    """The `Timestamp` header, epoch.microseconds: seconds since 1970; None if it tells no time of an event."""
    try:
        seconds = float(message.get("timestamp"))
    except ValueError:
        return None
    return seconds if _OLDEST < seconds < _NEWEST else None


def text_or_none(value: str) -> str | None:
    """Asterisk writes `<unknown>` (older versions `<Unknown>`) where it knows nothing, and escapes quotes as C does."""
    if not value or value.lower() == "<unknown>":
        return None
    if "\\" in value:
        value = _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), value)
    return name_of(value)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else None


def _newchannel(m: AmiMessage, at: datetime) -> ChannelOpened | None:
    channel = m.get("uniqueid")
    if not channel:
        return None
    return ChannelOpened(
        at=at,
        channel=channel,
        linked=m.get("linkedid") or channel,
        name=m.get("channel"),
        number=text_or_none(m.get("calleridnum")),
        caller_name=text_or_none(m.get("calleridname")),
        context=m.get("context"),
        exten=m.get("exten"),
        accountcode=m.get("accountcode"),
        up=m.get("channelstate") == _UP,
    )


def _core_show_channel(m: AmiMessage, at: datetime) -> ChannelOpened | None:
    """The same block of fields, and what has become of the channel since."""
    opened = _newchannel(m, at)
    if opened is None:
        return None
    return replace(
        opened,
        age_seconds=_seconds(m.get("duration")),
        bridge=None if (bridge := m.get("bridgeid", _UNTOLD)) is _UNTOLD else bridge,
        application=m.get("application"),
        application_data=m.get("applicationdata"),
    )


def _seconds(duration: str) -> float:
    """`HH:MM:SS`, hours beyond a day too."""
    match = _DURATION.fullmatch(duration)
    return int(match[1]) * 3600.0 + int(match[2]) * 60 + int(match[3]) if match else 0.0


def _newstate(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("uniqueid")
    state = m.get("channelstate")
    if not channel or state not in {_UP, _RINGING}:
        return None
    linked = m.get("linkedid") or channel
    return ChannelUp(at, channel, linked) if state == _UP else ChannelRinging(at, channel, linked)


def _newcallerid(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("uniqueid")
    if not channel:
        return None
    number, name = text_or_none(m.get("calleridnum")), text_or_none(m.get("calleridname"))
    return CallerIdentified(at, channel, m.get("linkedid") or channel, number, name)


def _newexten(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("uniqueid")
    if not channel:
        return None
    return AppStarted(
        at=at,
        channel=channel,
        linked=m.get("linkedid") or channel,
        context=m.get("context"),
        exten=m.get("extension") or m.get("exten"),
        application=m.get("application"),
        data=m.get("appdata"),
    )


def _dial_begin(m: AmiMessage, at: datetime) -> CallEvent | None:
    dest = m.get("destuniqueid")
    if not dest:
        return None
    linked = m.get("destlinkedid") or m.get("linkedid") or dest
    channel = m.get("uniqueid") or None
    connected = text_or_none(m.get("destconnectedlinenum")) if channel is None else None
    return DialBegan(at, channel, dest, linked, m.get("dialstring"), connected)


def _dial_end(m: AmiMessage, at: datetime) -> CallEvent | None:
    dest = m.get("destuniqueid")
    status = m.get("dialstatus")
    if not dest or status not in _DIAL_STATUSES:
        return None
    linked = m.get("destlinkedid") or m.get("linkedid") or dest
    return DialEnded(at, dest, linked, DialStatus(status), m.get("forward") or None, m.get("uniqueid") or None)


def _bridge_enter(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel, bridge = m.get("uniqueid"), m.get("bridgeuniqueid")
    if not channel or not bridge:
        return None
    # A call's own bridge is of type "basic"; ConfBridge, parking and the like make others.
    if m.get("bridgetechnology") == "holding_bridge" or m.get("bridgetype") == "parking":
        kind = BridgeKind.HOLDING
    else:
        kind = BridgeKind.TALK if m.get("bridgetype") in _TALKING_BRIDGES else BridgeKind.CONFERENCE
    return BridgeJoined(at, channel, m.get("linkedid") or channel, bridge, kind, m.get("swapuniqueid") or None)


def _bridge_leave(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel, bridge = m.get("uniqueid"), m.get("bridgeuniqueid")
    return BridgeLeft(at, channel, m.get("linkedid") or channel, bridge) if channel and bridge else None


def _about_channel(
    event: type[Held] | type[Unheld] | type[MusicStarted] | type[MusicStopped] | type[HangupRequested],
) -> "_Translation":
    def make(m: AmiMessage, at: datetime) -> CallEvent | None:
        channel = m.get("uniqueid")
        return event(at, channel, m.get("linkedid") or channel) if channel else None

    return make


def _soft_hangup(m: AmiMessage, at: datetime) -> CallEvent | None:
    """`Cause` holds Asterisk's AST_SOFTHANGUP flags here, no Q.850 cause; the flag 4 is a shutdown."""
    channel = m.get("uniqueid")
    if not channel or m.get("cause") != _SOFT_HANGUP_SHUTDOWN:
        return None
    return CutOff(at, channel, m.get("linkedid") or channel)


def _hangup(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("uniqueid")
    if not channel:
        return None
    return ChannelClosed(at, channel, m.get("linkedid") or channel, _number(m.get("cause")))


def _queue_join(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("uniqueid")
    if not channel:
        return None
    return QueueJoined(at, channel, m.get("linkedid") or channel, m.get("queue"), _number(m.get("position")))


def _queue_leave(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("uniqueid")
    if not channel:
        return None
    return QueueLeft(at, channel, m.get("linkedid") or channel, m.get("queue"))


def _rename(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel, name = m.get("uniqueid"), m.get("newname")
    return ChannelRenamed(at, channel, name) if channel and name else None


def _blind_transfer(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("transfereruniqueid")
    if not channel or m.get("result") not in {"Success", ""}:
        return None
    return BlindTransferred(at, channel, m.get("transfererlinkedid") or channel, m.get("extension"))


def _attended_transfer(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel, second = m.get("origtransfereruniqueid"), m.get("secondtransfereruniqueid")
    if not channel or m.get("result") not in {"Success", ""}:
        return None
    linked = m.get("origtransfererlinkedid") or channel
    target, transferee = m.get("transfertargetuniqueid") or None, m.get("transfereeuniqueid") or None
    way = _TRANSFER_WAYS.get(m.get("desttype"), TransferWay.TALK)
    return AttendedTransferred(at, channel, linked, second, target, transferee, way)


def _parked_call(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("parkeeuniqueid")
    if not channel:
        return None
    parker = resource_of(m.get("parkerdialstring")) or None
    return Parked(at, channel, m.get("parkeelinkedid") or channel, m.get("parkingspace"), parker)


def _parking_ended(end: ParkingEnd) -> "_Translation":
    def make(m: AmiMessage, at: datetime) -> CallEvent | None:
        channel = m.get("parkeeuniqueid")
        if not channel:
            return None
        retriever = m.get("retrieveruniqueid") or None
        return Unparked(at, channel, m.get("parkeelinkedid") or channel, end, m.get("parkingspace"), retriever)

    return make


def _pickup(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel, target = m.get("uniqueid"), m.get("targetuniqueid")
    return PickedUp(at, channel, m.get("linkedid") or channel, target) if channel and target else None


def _conference_join(m: AmiMessage, at: datetime) -> CallEvent | None:
    channel = m.get("uniqueid")
    return ConferenceJoined(at, channel, m.get("linkedid") or channel, m.get("conference")) if channel else None


_Translation = Callable[[AmiMessage, datetime], CallEvent | None]

_TRANSLATIONS: Final[dict[str, _Translation]] = {
    "Newchannel": _newchannel,
    "CoreShowChannel": _core_show_channel,
    "Newstate": _newstate,
    "NewCallerid": _newcallerid,
    "Newexten": _newexten,
    "DialBegin": _dial_begin,
    "DialEnd": _dial_end,
    "BridgeEnter": _bridge_enter,
    "BridgeLeave": _bridge_leave,
    "Rename": _rename,
    "MusicOnHoldStart": _about_channel(MusicStarted),
    "MusicOnHoldStop": _about_channel(MusicStopped),
    "BlindTransfer": _blind_transfer,
    "AttendedTransfer": _attended_transfer,
    "ParkedCall": _parked_call,
    "UnParkedCall": _parking_ended(ParkingEnd.RETRIEVED),
    "ParkedCallTimeOut": _parking_ended(ParkingEnd.TIMEOUT),
    "ParkedCallGiveUp": _parking_ended(ParkingEnd.GIVEN_UP),
    "Pickup": _pickup,
    "ConfbridgeJoin": _conference_join,
    "Hold": _about_channel(Held),
    "Unhold": _about_channel(Unheld),
    "HangupRequest": _about_channel(HangupRequested),
    "SoftHangupRequest": _soft_hangup,
    "Hangup": _hangup,
    "QueueCallerJoin": _queue_join,
    "QueueCallerLeave": _queue_leave,
}
