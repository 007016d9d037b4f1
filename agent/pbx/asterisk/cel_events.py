"""The CEL rows of calls that belong together, all of them, as events of the call model; pure.

CEL tells no attempts to reach somebody, no ringing and no hold. An attempt is seen in the channel that was made for it
and in how that channel ended; since every row is there before the first event is told, what a later row says of an
earlier one is known.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from agent.calls.dialling import DIALLING
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
    ChannelUp,
    ConferenceJoined,
    DialBegan,
    DialEnded,
    DialStatus,
    HangupRequested,
    MusicStarted,
    MusicStopped,
    Parked,
    ParkingEnd,
    PickedUp,
    QueueJoined,
    QueueLeft,
    TransferWay,
    Unparked,
)
from agent.calls.rules import dialled_endpoints, endpoint_of, queue_name, resource_of
from agent.calls.services import DIALLED_LEG
from agent.pbx.asterisk.cel import CelRow
from agent.pbx.asterisk.cel_channels import CelCast, CelChannel, are_at_once, cause_of, text_of

_CONFERENCES: Final = frozenset({"confbridge", "meetme"})
_PARKING_ENDS: Final = {
    "ParkedCallUnparked": ParkingEnd.RETRIEVED,
    "ParkedCallTimeOut": ParkingEnd.TIMEOUT,
    "ParkedCallGiveUp": ParkingEnd.GIVEN_UP,
}
# How an attempt ended, by the Q.850 cause of the leg, as Asterisk's own events tell it.
_STATUSES: Final[dict[int | None, DialStatus]] = {
    3: DialStatus.CHANUNAVAIL,
    17: DialStatus.BUSY,
    20: DialStatus.CHANUNAVAIL,
    26: DialStatus.CANCEL,
    34: DialStatus.CONGESTION,
    42: DialStatus.CONGESTION,
    44: DialStatus.CONGESTION,
}
# A leg that was taken back: by the caller or by the PBX, told by who hung up.
_TAKEN_BACK: Final = frozenset({0, 16, 127})


def events_of(rows: Sequence[CelRow]) -> Iterator[CallEvent]:
    """What happened, in order."""
    return _Story(rows).told()


class _Story:
    def __init__(self, rows: Sequence[CelRow]) -> None:
        self._rows = rows
        self._at = 0  # the row that is being told
        cast = CelCast.of(rows)
        self._channels = cast.channels
        self._by_name = cast.by_name
        self._handed_on = cast.handed_on
        self._open: dict[str, None] = {}
        self._hung_up: set[str] = set()
        self._tells: dict[str, Callable[[CelRow, CelChannel], Iterator[CallEvent]]] = {
            "ANSWER": self._answered,
            "APP_START": self._app_started,
            "APP_END": self._app_ended,
            "BRIDGE_ENTER": self._bridge_entered,
            "BRIDGE_EXIT": self._bridge_left,
            "STREAM_BEGIN": self._stream_began,
            "STREAM_END": self._stream_ended,
            "FORWARD": self._forwarded,
            "BLINDTRANSFER": self._blind_transferred,
            "ATTENDEDTRANSFER": self._attended_transferred,
            "PICKUP": self._picked_up,
            "PARK_START": self._parked,
            "PARK_END": self._unparked,
            "HANGUP": self._hangup,
            "CHAN_END": self._closed,
        }

    def told(self) -> Iterator[CallEvent]:
        for number, row in enumerate(self._rows):
            self._at = number
            channel = self._channels.get(row.channel)
            if channel is None or row.event == "LINKEDID_END":
                continue
            if row.event == "CHAN_START" and not channel.is_told:
                yield from self._opened(row, channel)
                continue
            if row.channel not in self._open:
                continue
            yield from self._seen(row, channel)
            tell = self._tells.get(row.event)
            if tell is not None:
                yield from tell(row, channel)

    # A channel begins

    def _opened(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        self._open[row.channel] = None
        channel.is_told = True
        channel.exten, channel.number, channel.caller_name = row.exten, row.number, row.caller_name
        yield ChannelOpened(
            at=row.at,
            channel=row.channel,
            linked=row.linked,
            name=row.name,
            number=row.number,
            caller_name=row.caller_name,
            context=row.context,
            exten=row.exten,
            accountcode=row.accountcode,
        )
        if not channel.is_dialled:
            return
        dialler = None if channel.is_root else self._dialler(row)
        channel.dialler = dialler
        if dialler is not None:
            yield from self._dialled_again(row, dialler)
        dial = self._channels[dialler].dial if dialler is not None else None
        dial_string = _dial_string(endpoint_of(row.name), dial.data) if dial is not None else ""
        yield DialBegan(row.at, dialler, row.channel, row.linked, dial_string)

    def _dialler(self, row: CelRow) -> str | None:
        """Whose Dial or Queue made a channel: of the same linkedid, the latest that names its endpoint, else that is
        in one at all."""
        endpoint = endpoint_of(row.name)
        latest = None
        for name in reversed(self._open):
            channel = self._channels[name]
            if channel.dial is None or channel.dial.linked != row.linked or channel.bridge is not None:
                continue
            if endpoint in dialled_endpoints(channel.dial.data):
                return name
            latest = latest or name
        return latest

    def _dialled_again(self, row: CelRow, dialler: str) -> Iterator[CallEvent]:
        """Two attempts in a row are one Dial to CEL, with other arguments from then on: those that name who is reached
        now."""
        source = self._channels[dialler]
        endpoint = endpoint_of(row.name)
        if source.dial is None or endpoint in dialled_endpoints(source.dial.data):
            return
        for number, later in source.dials:
            if number > self._at and endpoint in dialled_endpoints(later.data):
                yield from self._app_started(replace(later, at=row.at), source)
                return

    def _seen(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        """What every row tells besides: who is behind the channel, and which application it is in."""
        channel.linked = row.linked
        if row.name and row.name != channel.name:
            channel.name = row.name
            self._by_name[row.name] = row.channel
            yield ChannelRenamed(row.at, row.channel, row.name)
        is_new = (channel.number is None and row.number) or (channel.caller_name is None and row.caller_name)
        if is_new:
            channel.number = channel.number or row.number
            channel.caller_name = channel.caller_name or row.caller_name
            yield CallerIdentified(row.at, row.channel, row.linked, row.number, row.caller_name)
        if row.event in {"APP_START", "APP_END"} or row.application in DIALLED_LEG:
            return
        # An application shows itself while something else happens, if `apps` in cel.conf does not name it, or if it is
        # the same one again with other arguments.
        application = row.application.lower()
        if application == "queue" and (channel.dial is None or row.data != channel.dial.data):
            yield from self._queue_left(row, channel)
            yield from self._app_started(row, channel)
        elif application and row.application != channel.application and application not in DIALLING:
            yield from self._queue_left(row, channel)
            channel.application = row.application
            yield _app_event(row, channel, row.application)

    # Applications

    def _app_started(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        application = row.application.lower()
        channel.application = row.application
        yield _app_event(row, channel, row.application)
        if application in DIALLING:
            channel.dial = row
        if application == "queue":
            channel.in_queue = queue_name(row.data) or ""
            yield QueueJoined(row.at, row.channel, row.linked, channel.in_queue)

    def _app_ended(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        if row.application == "Queue" and channel.dial is not None and row.data != channel.dial.data:
            yield from self._queue_left(row, channel)
            yield from self._app_started(row, channel)
        yield from self._queue_left(row, channel)
        if row.application.lower() in DIALLING:
            channel.dial = None
        if channel.application:
            channel.application = ""
            yield _app_event(row, channel, "")

    def _queue_left(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        if channel.in_queue is not None:
            queue, channel.in_queue = channel.in_queue, None
            yield QueueLeft(row.at, row.channel, row.linked, queue)

    def _stream_began(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        """Music for who waits has a class, an announcement has not."""
        if "class" in row.extra:
            channel.hears_music = True
            yield MusicStarted(row.at, row.channel, row.linked)

    def _stream_ended(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        if channel.hears_music:
            channel.hears_music = False
            yield MusicStopped(row.at, row.channel, row.linked)

    # Reaching others

    def _answered(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        yield ChannelUp(row.at, row.channel, row.linked)
        yield from self._dial_ended(row, channel, DialStatus.ANSWER)

    def _forwarded(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        """Told of who dialled: the phone that sent the call on is the one that ends next."""
        for name in self._open:
            phone = self._channels[name]
            if phone.dialler == row.channel and not phone.dial_is_over and phone.ends_at_once(row):
                phone.dial_is_over = True
                forward = text_of(row, "forward") or None
                yield DialEnded(row.at, name, row.linked, DialStatus.CANCEL, forward, row.channel)
                return

    def _dial_ended(self, row: CelRow, channel: CelChannel, status: DialStatus) -> Iterator[CallEvent]:
        if channel.is_dialled and not channel.dial_is_over:
            channel.dial_is_over = True
            yield DialEnded(row.at, row.channel, row.linked, status, None, channel.dialler)

    def _status(self, row: CelRow, channel: CelChannel) -> DialStatus:
        """How the attempt to reach a channel that was never answered ended."""
        cause = cause_of(row)
        if cause in _TAKEN_BACK and not text_of(row, "hangupsource") and self._caller_gave_up(row, channel):
            return DialStatus.CANCEL
        return _STATUSES.get(cause, DialStatus.NOANSWER)

    def _caller_gave_up(self, row: CelRow, channel: CelChannel) -> bool:
        """Whether an attempt ended because who dialled rang off, before it or together with it."""
        dialler = self._channels.get(channel.dialler or "")
        if dialler is None or dialler.hangup is None:
            return False
        if text_of(dialler.hangup, "dialstatus") == DialStatus.CANCEL:
            return True
        by_itself = text_of(dialler.hangup, "hangupsource") == dialler.name
        return by_itself and (dialler.hung_up_in < self._at or dialler.surely_ends_at_once(row))

    # Bridges

    def _bridge_entered(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        bridge = text_of(row, "bridge_id")
        if not bridge:
            return
        yield from self._queue_left(row, channel)
        kind = BridgeKind.TALK
        if text_of(row, "bridge_technology") == "holding_bridge":
            kind = BridgeKind.HOLDING
        elif row.application.lower() in _CONFERENCES:
            kind = BridgeKind.CONFERENCE
            yield ConferenceJoined(row.at, row.channel, row.linked, row.data.partition(",")[0])
        channel.bridge = bridge
        yield BridgeJoined(row.at, row.channel, row.linked, bridge, kind, self._swapped(row, bridge))

    def _swapped(self, row: CelRow, bridge: str) -> str | None:
        """Whose place a channel takes: of a Local channel, or of one that connects others, which leaves right after."""
        for name in self._open:
            other = self._channels[name]
            if other.bridge != bridge or name == row.channel or not (other.is_local or name in self._handed_on):
                continue
            exit_number = other.exits.get(bridge, -1)
            if exit_number > self._at and are_at_once(self._rows[exit_number], row):
                return name
        return None

    def _bridge_left(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        bridge = text_of(row, "bridge_id")
        is_last = self._at == channel.last_exit and row.channel not in self._handed_on
        if is_last and channel.hangup is not None and channel.surely_ends_at_once(row):
            yield from self._hung_up_by(channel.hangup)  # it left because somebody hung up, which is told later
        if channel.bridge == bridge:
            channel.bridge = None
        yield BridgeLeft(row.at, row.channel, row.linked, bridge)

    # What people do with a call

    def _blind_transferred(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        yield BlindTransferred(row.at, row.channel, row.linked, text_of(row, "extension"))

    def _attended_transferred(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        second = text_of(row, "channel2_uniqueid")
        target, transferee = (
            text_of(row, "transfer_target_channel_uniqueid"),
            text_of(row, "transferee_channel_uniqueid"),
        )
        if application := text_of(row, "app"):
            transferee = "" if application == "Queue" else transferee  # it joins the queue by a row of its own
            way = TransferWay.APPLICATION
        elif second == row.channel and channel.bridge == text_of(row, "bridge1_id"):
            way = TransferWay.THREE_WAY  # no row says so, but who consulted is back with who waited
        else:
            way = TransferWay.TALK
        yield AttendedTransferred(row.at, row.channel, row.linked, second, _known(target), _known(transferee), way)

    def _picked_up(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        """Told of the channel that rang."""
        by = text_of(row, "pickup_channel_uniqueid")
        if by in self._open:
            yield PickedUp(row.at, by, self._channels[by].linked, row.channel)

    def _parked(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        """The lot is told, the space is not."""
        parker = resource_of(text_of(row, "parker_dial_string")) or None
        yield Parked(row.at, row.channel, row.linked, "", parker)

    def _unparked(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        end = _PARKING_ENDS.get(text_of(row, "reason"))
        if end is not None:
            retriever = self._by_name.get(text_of(row, "retriever"))
            yield Unparked(row.at, row.channel, row.linked, end, "", retriever)

    # A channel ends

    def _hangup(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        yield from self._hung_up_by(row)
        yield from self._dial_ended(row, channel, self._status(row, channel))

    def _hung_up_by(self, row: CelRow) -> Iterator[CallEvent]:
        """Whose party hung up, as the end of its own or another channel tells."""
        by = self._by_name.get(text_of(row, "hangupsource"))
        if by in self._open and by not in self._hung_up and not self._channels[by].is_refused:
            self._hung_up.add(by)
            yield HangupRequested(row.at, by, self._channels[by].linked)

    def _closed(self, row: CelRow, channel: CelChannel) -> Iterator[CallEvent]:
        del self._open[row.channel]
        cause = cause_of(channel.hangup) if channel.hangup is not None else None
        yield ChannelClosed(row.at, row.channel, row.linked, cause)


def _app_event(row: CelRow, channel: CelChannel, application: str) -> AppStarted:
    data = row.data if application else ""
    # A Local channel begins with the extension where it leads, which is nothing that it dialled.
    exten = "" if channel.is_local and row.exten == channel.exten else row.exten
    return AppStarted(row.at, row.channel, row.linked, row.context, exten, application, data)


def _dial_string(endpoint: str, data: str) -> str:
    """What was dialled of an endpoint, as DialBegin tells it: `05321111011@trunk-acme`."""
    for destination in data.partition(",")[0].split("&"):
        if endpoint in dialled_endpoints(destination):
            return destination.strip().partition("/")[2]
    return ""


def _known(channel: str) -> str | None:
    return None if channel in {"", "N/A"} else channel
