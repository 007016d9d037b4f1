"""The call model: events of one PBX become logical calls. No I/O, no clock; memory is bounded by live calls.

Channels that ever shared a linkedid, transitively, are one call. It ends when its last channel is gone, not at the
first hangup. Ids are opaque: Asterisk's uniqueids must not be compared as strings (1567.10 < 1567.9).
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import assert_never

from agent.calls.bridges import Bridges
from agent.calls.events import (
    AppStarted,
    BridgeJoined,
    BridgeLeft,
    CallerIdentified,
    CallEvent,
    ChannelClosed,
    ChannelOpened,
    ChannelRinging,
    ChannelUp,
    CutOff,
    DialBegan,
    DialEnded,
    DialStatus,
    HangupRequested,
    Held,
    LegEvent,
    LineLost,
    QueueJoined,
    QueueLeft,
    SnapshotTaken,
    Unheld,
)
from agent.calls.leg import Leg, leg_number
from agent.calls.live_call import MAX_LEGS, MAX_LINKED, LiveCall
from agent.calls.rules import CallRules, dialled_endpoints, endpoint_of, queue_name
from agent.calls.tenancy import Assignment, CallFacts
from sync.models import HangupSource

# Extensions that name no number: start, invalid, timeout, hangup, failed, operator.
_SPECIAL_EXTENSIONS = frozenset({"", "s", "i", "t", "T", "h", "e", "o", "a", "failed"})
_DIALLING = frozenset({"dial", "queue", "followme", "retrydial"})
# What Asterisk shows as the application of a leg that somebody dialled.
_DIALLED_LEG = frozenset({"AppDial", "AppQueue"})
# A late or repeated word about a channel that is gone must not bring it back to life.
_REMEMBERED_GONE = 4096


# Far more than any Asterisk carries; beyond it, channels are counted but not followed.
MAX_OPEN_CHANNELS = 50_000


class _Recent:
    """The last few ids, to know them again."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def add(self, item: str) -> None:
        self._ids[item] = None
        if len(self._ids) > _REMEMBERED_GONE:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, item: str) -> bool:
        return item in self._ids


class CallModel:
    """All live calls of one PBX.

    `assign` tells whose call it is; it is asked again whenever more is known of the call, so that the order of events
    does not decide. After `apply`, `take_changed` and `take_ended` give what is new.
    """

    def __init__(self, *, site: str, pbx: str, rules: CallRules, assign: Callable[[CallFacts], Assignment]) -> None:
        self._site = site
        self._pbx = pbx
        self.rules = rules
        self.assign = assign
        self._by_channel: dict[str, LiveCall] = {}
        self._by_linked: dict[str, LiveCall] = {}
        self._bridges = Bridges()
        self._opened_calls: list[LiveCall] = []
        self._changed: dict[str, LiveCall] = {}
        self._ended: list[LiveCall] = []
        self._gone_channels = _Recent()
        self._gone_linked = _Recent()
        self._last_heard_at: datetime | None = None
        self._blind = False  # words may have been missed since the last list of channels
        self._awaited: frozenset[str] = frozenset()  # call_sids that a replay has to come to
        self._unlisted: frozenset[str] = frozenset()  # channels that the last list did not know
        self.ignored_channels = 0  # not followed, because there were too many

    def replay_towards(self, call_sids: frozenset[str]) -> None:
        """What is applied next was heard before, and led to these calls being live."""
        self._awaited = call_sids

    def replayed(self) -> None:
        """The replay is over: calls it should not have come to are let go. It began in the middle of them, and they
        are told already."""
        for call in self.live_calls():
            if call.call_sid not in self._awaited:
                for channel in list(call.open_channels):
                    self._close_leg(call, call.legs[channel], call.started_at, None)
        self._awaited = frozenset()

    def live_calls(self) -> list[LiveCall]:
        """Calls that have not ended, the oldest first."""
        return list({call.call_sid: call for call in self._by_channel.values()}.values())

    def take_opened(self) -> list[LiveCall]:
        """Calls that began since the last time, whether or not they ended meanwhile."""
        if not self._opened_calls:
            return []
        opened, self._opened_calls = self._opened_calls, []
        return opened

    def take_changed(self) -> list[LiveCall]:
        """Live calls that changed in a way services care about, since the last time."""
        if not self._changed:
            return []
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def take_ended(self) -> list[LiveCall]:
        """Calls that ended since the last time."""
        if not self._ended:
            return []
        ended, self._ended = self._ended, []
        return ended

    def apply(self, event: CallEvent) -> None:
        """Take in what happened. Events about channels never seen change nothing; no order of events raises."""
        match event:
            case ChannelOpened():
                self._opened(event)
            case LineLost():
                self._last_heard_at = event.at
                self._blind = True
            case SnapshotTaken():
                self._snapshot_taken(event)
            case DialBegan() | DialEnded():
                self._happened(event.dest, event)
            case _:
                self._happened(event.channel, event)

    def _happened(self, channel: str, event: LegEvent) -> None:  # noqa: PLR0912 - one line per kind of event
        found = self._leg(channel, event.linked)
        if found is None:
            return
        call, leg = found
        match event:
            case AppStarted():
                self._app_started(call, leg, event)
            case DialBegan():
                self._dial_began(call, leg, event)
            case DialEnded():
                self._dial_ended(call, leg, event)
            case ChannelRinging():
                self._ringing(call, leg, event)
            case ChannelUp():
                self._up(call, leg, event)
            case CallerIdentified():
                self._identified(call, leg, event)
            case BridgeJoined():
                self._bridge_joined(call, leg, event)
            case BridgeLeft():
                self._bridge_left(call, leg, event)
            case Held() | Unheld():
                self._held(call, leg, event)
            case QueueJoined():
                self._queue_joined(call, leg, event)
            case QueueLeft():
                self._queue_left(call, leg, event)
            case HangupRequested():
                self._hangup_requested(call, leg, event)
            case CutOff():
                self._cut_off(call, leg, event)
            case ChannelClosed():
                self._closed(call, leg, event)
            case _:
                assert_never(event)

    # Finding the call and the leg

    def _leg(self, channel: str, linked: str) -> tuple[LiveCall, Leg] | None:
        call = self._by_channel.get(channel)
        if call is None:
            return None
        if linked not in call.linked:
            call = self._joined_by(call, linked)
        return call, call.legs[channel]

    def _joined_by(self, call: LiveCall, linked: str) -> LiveCall:
        """A channel's linkedid changed, as when an attended transfer makes one call of two: the older goes on."""
        other = self._by_linked.get(linked)
        if other is None or other is call:
            if len(call.linked) >= MAX_LINKED:
                return call
            call.linked.add(linked)
            self._by_linked[linked] = call
            return call
        older, younger = (other, call) if other.started_at <= call.started_at else (call, other)
        self._merge(older, younger)
        return older

    def _merge(self, older: LiveCall, younger: LiveCall) -> None:
        at = younger.last_heard_at or older.started_at
        for channel, leg in younger.legs.items():
            older.legs.setdefault(channel, leg)
        for channel in younger.open_channels:
            older.open_channels.add(channel)
            self._by_channel[channel] = older
        for linked in younger.linked:
            older.linked.add(linked)
            self._by_linked[linked] = older
        older.note(at, "merged", call_sid=younger.call_sid)
        younger.merged_into = older.call_sid
        younger.open_channels = set()
        self._end(younger, at)
        self._bridges.count_talk(older, at)
        older.assignment = self.assign(older.facts())
        self._changed[older.call_sid] = older

    def _touch(self, call: LiveCall, at: datetime) -> None:
        call.last_heard_at = at
        self._changed[call.call_sid] = call

    def _learned(self, call: LiveCall, at: datetime) -> None:
        """Something that tenant rules look at may be known now: what came first must not decide."""
        call.assignment = self.assign(call.facts())
        self._touch(call, at)

    # Channels

    def _opened(self, event: ChannelOpened) -> None:
        found = self._leg(event.channel, event.linked)
        if found is not None:
            self._seen_again(*found, event)
            return
        if event.channel in self._gone_channels or event.channel in self._gone_linked:
            return  # it ended, or a call that bears its id did
        call = self._by_linked.get(event.linked) or self._by_linked.get(event.channel)
        if len(self._by_channel) >= MAX_OPEN_CHANNELS or (call is not None and not self._has_room(call)):
            self.ignored_channels += 1
            return
        if call is None:
            call = self._new_call(event)
        endpoint = endpoint_of(event.name)
        opened_at = event.at if event.age_seconds is None else event.at - timedelta(seconds=event.age_seconds)
        leg = Leg(
            channel=event.channel,
            name=event.name,
            endpoint=endpoint,
            opened_at=opened_at,
            number=event.number,
            caller_name=event.caller_name,
            context=event.context,
            exten=event.exten,
            accountcode=event.accountcode,
            listed_only=event.age_seconds is not None,
        )
        call.legs[event.channel] = leg
        call.open_channels.add(event.channel)
        self._by_channel[event.channel] = call
        if leg is call.root:
            self._caller_opened(call, event)
        else:
            leg.number = leg_number(endpoint, "", event.number, is_trunk=self.rules.is_trunk(endpoint))
        call.note(event.at, "channel", name=event.name, found=True if event.age_seconds is not None else None)
        if event.up:
            self._mark_up(call, leg, event.at)
        if event.age_seconds is not None:
            self._seen_again(call, leg, event)
        self._learned(call, event.at)

    def _new_call(self, event: ChannelOpened) -> LiveCall:
        started_at = event.at if event.age_seconds is None else event.at - timedelta(seconds=event.age_seconds)
        # A straggler of a call that has ended is a call of its own and must not take the other's record.
        native_id = event.channel if self._is_straggler(event) else event.linked
        call = LiveCall(
            call_sid=self._sid(native_id),
            site=self._site,
            pbx=self._pbx,
            native_id=native_id,
            started_at=started_at,
            rules=self.rules,
            linked={event.linked, native_id},
            start_estimated=event.age_seconds is not None,
        )
        for linked in call.linked:
            self._by_linked[linked] = call
        self._opened_calls.append(call)
        return call

    def _is_straggler(self, event: ChannelOpened) -> bool:
        """Whether its linkedid belongs to a call that has ended; a replay may have begun after that end."""
        if event.linked in self._gone_linked:
            return True
        return self._sid(event.channel) in self._awaited and self._sid(event.linked) not in self._awaited

    def _sid(self, native_id: str) -> str:
        return f"{self._site}:{self._pbx}:{native_id}"

    def _caller_opened(self, call: LiveCall, event: ChannelOpened) -> None:
        call.caller_number = event.number
        call.caller_name = event.caller_name
        if event.exten not in _SPECIAL_EXTENSIONS:
            call.callee = event.exten

    def _has_room(self, call: LiveCall) -> bool:
        """A call with hundreds of legs is a loop in the dialplan; its first and its open legs are kept."""
        if len(call.legs) < MAX_LEGS:
            return True
        for channel in call.legs:
            if channel != call.native_id and channel not in call.open_channels:
                del call.legs[channel]
                return True
        return False

    def _seen_again(self, call: LiveCall, leg: Leg, event: ChannelOpened) -> None:
        """A snapshot lists a channel: what was missed while nobody listened is taken from it."""
        if leg.listed_only and event.age_seconds is None:
            self._opening_told(call, leg, event)
        if event.up and leg.up_at is None:
            self._mark_up(call, leg, event.at)
        if event.application in _DIALLED_LEG and leg is not call.root:
            leg.dialled = True
        if event.application.lower() == "queue":
            call.queue = call.queue or queue_name(event.application_data)
            call.in_queue = event.bridge is None
        if event.application:
            self._application(call, leg, event.application, event.at)
        if event.bridge is not None and leg.bridge != event.bridge:
            # They may have met at any moment while nobody listened; a call known to be answered has talked since then.
            met_at = self._last_heard_at if self._blind and call.answered_at is not None else None
            self._bridges.join(call, leg, event.bridge, min(met_at or event.at, event.at))
        self._learned(call, event.at)

    def _opening_told(self, call: LiveCall, leg: Leg, event: ChannelOpened) -> None:
        """The list of channels overtook the word that this one was created."""
        leg.listed_only = False
        leg.opened_at = event.at
        if leg is call.root:
            call.started_at = event.at
            call.start_estimated = False
            self._caller_opened(call, event)

    def _ringing(self, call: LiveCall, leg: Leg, event: ChannelRinging) -> None:
        if leg.ringing_at is None:
            leg.ringing_at = event.at
            call.note(event.at, "ringing", channel=leg.name)
        self._touch(call, event.at)

    def _up(self, call: LiveCall, leg: Leg, event: ChannelUp) -> None:
        self._mark_up(call, leg, event.at)
        self._touch(call, event.at)

    def _mark_up(self, call: LiveCall, leg: Leg, at: datetime) -> None:
        if leg.up_at is not None:
            return
        leg.up_at = at
        call.note(at, "up", channel=leg.name)
        if leg is call.root and call.answered_at is None:
            call.pbx_answered_at = at
        self._service_answers(call, leg, at)

    def _identified(self, call: LiveCall, leg: Leg, event: CallerIdentified) -> None:
        """The first number told of the caller counts: what the dialplan makes of it later is the PBX's presentation."""
        if leg is call.root:
            call.caller_number = call.caller_number or event.number
            call.caller_name = call.caller_name or event.name
        leg.number = leg.number or event.number
        self._learned(call, event.at)

    def _app_started(self, call: LiveCall, leg: Leg, event: AppStarted) -> None:
        self._dial_came_to_nothing(call, event.channel)
        if leg is call.root and call.callee is None and event.exten not in _SPECIAL_EXTENSIONS:
            call.callee = event.exten
            self._learned(call, event.at)
        if event.application.lower() in _DIALLING:
            self._dialling(call, event)
        self._application(call, leg, event.application, event.at)
        call.last_heard_at = event.at

    def _dialling(self, call: LiveCall, event: AppStarted) -> None:
        call.dial_round += 1
        if event.application.lower() == "queue":  # QueueCallerJoin tells the same, to those who may hear it
            call.queue = call.queue or queue_name(event.data)
        if event.application.lower() != "dial":
            return
        call.pending_dial = event.channel
        if any(self.rules.is_trunk(endpoint) for endpoint in dialled_endpoints(event.data)):
            call.dialled_trunk = True
            self._learned(call, event.at)

    def _dial_came_to_nothing(self, call: LiveCall, channel: str) -> None:
        """The dialplan went on (or the channel ended) after a Dial that made no leg: nobody could be reached."""
        if call.pending_dial == channel:
            call.pending_dial = None
            call.dial_reached_nobody = True

    def _application(self, call: LiveCall, leg: Leg, application: str, at: datetime) -> None:
        if leg.application == application:
            return
        leg.application = application
        if self.rules.is_voicemail(application):
            call.voicemail_at = call.voicemail_at or at
        elif self.rules.is_answering(application):
            self._service_answers(call, leg, at)
        else:
            self._bridges.count_talk(call, at)
            return
        call.note(at, "application", application=application)
        self._touch(call, at)

    def _service_answers(self, call: LiveCall, leg: Leg, at: datetime) -> None:
        """A service may be given the call before it picks up, or without ever doing so."""
        if leg.up_at is not None and self.rules.is_answering(leg.application):
            call.mark_answered(leg, at, by=leg.application)
            self._bridges.count_talk(call, at)

    def _hangup_requested(self, call: LiveCall, leg: Leg, event: HangupRequested) -> None:
        call.last_heard_at = event.at
        if call.hangup_source is not None:
            return
        if leg is call.root:
            call.hangup_source = HangupSource.CALLER
        elif call.answered_at is not None and leg.bridge is not None:
            call.hangup_source = HangupSource.CALLEE
        else:
            return  # a phone that declined or was busy does not end the call
        call.note(event.at, "hangup", by=call.hangup_source)

    def _cut_off(self, call: LiveCall, leg: Leg, event: CutOff) -> None:
        call.last_heard_at = event.at
        if leg is call.root and call.hangup_source is None:
            call.is_cut_off = True
            call.note(event.at, "cut_off")

    def _closed(self, call: LiveCall, leg: Leg, event: ChannelClosed) -> None:
        self._close_leg(call, leg, event.at, event.cause)

    def _close_leg(self, call: LiveCall, leg: Leg, at: datetime, cause: int | None) -> None:
        self._dial_came_to_nothing(call, leg.channel)
        self._bridges.leave(call, leg, at)
        call.unhold(leg, at)
        leg.closed_at = at
        leg.cause = cause
        call.note(at, "gone", channel=leg.name, cause=cause)
        call.open_channels.discard(leg.channel)
        self._by_channel.pop(leg.channel, None)
        self._gone_channels.add(leg.channel)
        if call.open_channels:
            self._touch(call, at)
        else:
            self._end(call, at)

    def _end(self, call: LiveCall, at: datetime) -> None:
        if call.ringing_since is not None:
            call.stop_ringing(at)
        self._bridges.count_talk(call, at)
        if not call.attempts():
            call.answer_as_originated(at)
        self._learned(call, at)
        call.ended_at = max(at, call.started_at)
        for linked in call.linked:
            if self._by_linked.get(linked) is call:
                del self._by_linked[linked]
                self._gone_linked.add(linked)
        self._changed.pop(call.call_sid, None)
        self._ended.append(call)

    # Reaching others

    def _dial_began(self, call: LiveCall, leg: Leg, event: DialBegan) -> None:
        if call.pending_dial == event.channel:
            call.pending_dial = None
            call.dial_reached_nobody = False
        leg.dialled = True
        leg.dial_round = call.dial_round
        leg.dial_string = event.dial_string
        leg.dial_status = None
        is_trunk = self.rules.is_trunk(leg.endpoint)
        leg.number = leg_number(leg.endpoint, event.dial_string, leg.number, is_trunk=is_trunk)
        if call.ringing_since is None and call.answered_at is None:
            call.ringing_since = event.at
        call.note(event.at, "dialled", channel=leg.name, number=leg.number)
        self._learned(call, event.at)

    def _dial_ended(self, call: LiveCall, leg: Leg, event: DialEnded) -> None:
        if leg.dial_status is None:  # Asterisk tells CANCEL twice when a queue's caller gives up
            leg.dial_status = event.status
            call.note(event.at, "dial_ended", channel=leg.name, status=event.status, forward=event.forward)
        if event.status is DialStatus.ANSWER and not leg.is_local and leg is not call.root:
            call.mark_answered(leg, leg.up_at or event.at, by=leg.number)
        open_attempts = (other for other in call.legs.values() if other.dialled and other.dial_status is None)
        if call.ringing_since is not None and next(open_attempts, None) is None:
            call.stop_ringing(event.at)
        self._touch(call, event.at)

    # Talking

    def _bridge_joined(self, call: LiveCall, leg: Leg, event: BridgeJoined) -> None:
        self._bridges.join(call, leg, event.bridge, event.at)
        self._touch(call, event.at)

    def _bridge_left(self, call: LiveCall, leg: Leg, event: BridgeLeft) -> None:
        if leg.bridge == event.bridge:
            self._bridges.leave(call, leg, event.at)
        self._touch(call, event.at)

    def _held(self, call: LiveCall, leg: Leg, event: Held | Unheld) -> None:
        if isinstance(event, Held):
            if leg.held_at is None:
                leg.held_at = event.at
                call.held_since = call.held_since or event.at
                call.note(event.at, "held", channel=leg.name)
        else:
            call.unhold(leg, event.at)
        self._touch(call, event.at)

    # Queues

    def _queue_joined(self, call: LiveCall, leg: Leg, event: QueueJoined) -> None:
        call.queue = event.queue or call.queue
        call.in_queue = True
        call.note(event.at, "queued", queue=event.queue, position=event.position)
        self._touch(call, event.at)

    def _queue_left(self, call: LiveCall, leg: Leg, event: QueueLeft) -> None:
        if call.in_queue:
            call.in_queue = False
            call.note(event.at, "left_queue", queue=event.queue)
        self._touch(call, event.at)

    # Blindness

    def _snapshot_taken(self, event: SnapshotTaken) -> None:
        """Channels that the PBX no longer has ended unseen: at the last moment they were known alive, marked so.

        Unless the line was cut, the word of their end may still be on its way from a busy PBX: until the next list.
        """
        unlisted = self._by_channel.keys() - event.channels
        gone = unlisted if self._blind else unlisted & self._unlisted
        self._unlisted = frozenset(unlisted - gone)
        self._blind = False
        for channel in [channel for channel in self._by_channel if channel in gone]:
            call = self._by_channel.get(channel)
            if call is None:
                continue
            heard = [moment for moment in (call.last_heard_at, self._last_heard_at) if moment is not None]
            at = min(max(heard, default=event.at), event.at)
            call.end_estimated = True
            call.note(event.at, "found_gone", channel=call.legs[channel].name)
            self._close_leg(call, call.legs[channel], at, None)
