"""The call model: events of one PBX become logical calls. No I/O, no clock; memory is bounded by live calls.

Channels that ever shared a linkedid, transitively, are one call. It ends when its last channel is gone, not at the
first hangup. A channel whose linkedid becomes another call's goes over to that call; a call all of whose channels went
over or ended is told as merged. Ids are opaque: Asterisk's uniqueids must not be compared as text (1567.10 < 1567.9).
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from agent.calls import connecting, dialling, services
from agent.calls.bridges import Bridges
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
    ClockDoubted,
    ClockStepped,
    ConferenceJoined,
    CutOff,
    DialBegan,
    DialEnded,
    HangupRequested,
    Held,
    LegEvent,
    LineLost,
    MusicStarted,
    MusicStopped,
    Parked,
    PickedUp,
    QueueJoined,
    QueueLeft,
    SnapshotTaken,
    TransferWay,
    Unheld,
    Unparked,
)
from agent.calls.leg import Leg, leg_number
from agent.calls.live_call import MAX_LEGS, MAX_LINKED, LiveCall
from agent.calls.reclocking import Reclocking, moved
from agent.calls.rules import CallRules, endpoint_of, queue_name
from agent.calls.services import DIALLED_LEG, SPECIAL_EXTENSIONS
from agent.calls.tenancy import Assignment, CallFacts

# Channels that only carry sound: an announcer or recorder of a conference, a listener, a service's media.
_PLUMBING: Final = (
    "UnicastRTP/", "MulticastRTP/", "Announcer/", "CBAnn/", "CBRec/", "ConfBridgeRecorder/", "Recorder/", "Snoop/",
    "Message/", "Surrogate/",
)  # fmt: skip
# The kind of a bridge, as the application of a listed channel tells it.
_BRIDGE_KINDS: Final = {
    "Park": BridgeKind.HOLDING, "ParkedCall": BridgeKind.TALK, "ConfBridge": BridgeKind.CONFERENCE,
}  # fmt: skip
# A late or repeated word about a channel that is gone must not bring it back to life.
_REMEMBERED_GONE: Final = 4096

# Far more than any Asterisk carries; beyond it, channels are counted but not followed.
MAX_OPEN_CHANNELS: Final = 50_000


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
        self._bridges = Bridges(self._by_channel)
        self._opened_calls: list[LiveCall] = []
        self._changed: dict[str, LiveCall] = {}
        self._ended: list[LiveCall] = []
        self._forgotten: list[LiveCall] = []
        self._repaired: list[LiveCall] = []
        self._reclocking = Reclocking()
        self._gone_channels = _Recent()
        self._gone_linked = _Recent()
        self._last_heard_at: datetime | None = None
        self._blind_since: datetime | None = (
            None  # words may have been missed between then and the next list of channels
        )
        self._awaits_list = False
        # By their native id: calls whose known channels are gone while the first one may still be to be listed.
        self._unended: dict[str, LiveCall] = {}
        self._awaited: frozenset[str] = frozenset()  # call_sids that a replay has to come to
        self._unlisted: frozenset[str] = frozenset()  # channels that the last list did not know
        self.ignored_channels = 0  # not followed, because there were too many
        self._handlers: dict[type, _Handler] = _OF_CALL | {
            ChannelRenamed: self._renamed,
            CallerIdentified: self._identified,
            DialBegan: self._dial_began,
            DialEnded: self._dial_ended,
            BridgeJoined: self._bridge_joined,
            BridgeLeft: partial(connecting.bridge_left, self._bridges),
            Held: partial(connecting.held, self._bridges),
            Unheld: partial(connecting.unheld, self._bridges),
            MusicStarted: partial(connecting.music_started, self._bridges),
            MusicStopped: partial(connecting.music_stopped, self._bridges),
            AttendedTransferred: self._attended_transferred,
            PickedUp: self._picked_up,
            Unparked: self._unparked,
            ChannelClosed: self._closed,
        }

    def await_list(self) -> None:
        """What is applied next begins in the middle: until a list there may be channels of which nobody told."""
        self._awaits_list = True

    @property
    def _may_lack_channels(self) -> bool:
        return self._awaits_list or self._blind_since is not None

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
                if self._unended.pop(call.native_id, None) is not None:
                    self._end(call, call.started_at)
        self._awaited = frozenset()

    def live_calls(self) -> list[LiveCall]:
        """Calls that have not ended, the oldest first."""
        calls = (*self._by_channel.values(), *self._unended.values())
        return list({call.call_sid: call for call in calls}.values())

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

    def take_forgotten(self) -> list[LiveCall]:
        """Calls since the last time that are none after all, but a leg of another."""
        if not self._forgotten:
            return []
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    @property
    def doubts_clock(self) -> bool:
        """Whether the clock was told to be wrong, and not yet that it is right."""
        return self._reclocking.is_doubted

    def take_repaired(self) -> list[LiveCall]:
        """Calls that ended earlier, and whose times have been put right since the last time."""
        if not self._repaired:
            return []
        repaired, self._repaired = self._repaired, []
        return repaired

    def apply(self, event: CallEvent) -> None:
        """Take in what happened. Events about channels never seen change nothing; no order of events raises."""
        match event:
            case ChannelOpened():
                self._opened(event)
            case LineLost():
                self._last_heard_at = event.at
                self._blind_since = self._blind_since or event.at
            case SnapshotTaken():
                self._snapshot_taken(event)
            case ClockDoubted():
                self._reclocking.doubt()
            case ClockStepped():
                self._clock_stepped(event)
            case DialBegan() | DialEnded():
                self._happened(event.dest, event.linked, event)
            case ChannelRenamed():
                self._happened(event.channel, None, event)
            case _:
                self._happened(event.channel, event.linked, event)

    def _happened(self, channel: str, linked: str | None, event: LegEvent) -> None:
        call = self._by_channel.get(channel)
        if call is None:
            if isinstance(event, ChannelClosed) and self._may_lack_channels:
                self._unlisted_closed(event)
            return
        leg = call.legs[channel]
        if linked is not None and linked not in call.linked and linked not in leg.left_linked:
            call = self._linked_otherwise(call, leg, linked, event.at)
            leg = call.legs[channel]
        self._handlers[type(event)](call, leg, event)
        call = self._by_channel.get(channel, call)  # it may have gone over to another
        if call.ended_at is None:
            self._touch(call, event.at)

    def _touch(self, call: LiveCall, at: datetime) -> None:
        call.last_heard_at = at
        self._changed[call.call_sid] = call
        if call.facts_changed:
            call.facts_changed = False
            call.assignment = self.assign(call.facts())

    # Calls that become one

    def _linked_otherwise(self, call: LiveCall, leg: Leg, linked: str, at: datetime) -> LiveCall:
        """A channel's linkedid changed: the channel is part of the call that bears it."""
        other = self._by_linked.get(linked)
        if other is not None and other is not call and self._has_room(other):
            self._move(leg, call, other, at)
            return other
        if other is None and len(call.linked) < MAX_LINKED:
            call.linked.add(linked)
            self._by_linked[linked] = call
        return call

    def _move(self, leg: Leg, younger: LiveCall, older: LiveCall, at: datetime) -> None:
        """A leg goes on in another call. What it did so far stands in the record of the one it leaves."""
        channel = leg.channel
        is_recall = younger.is_recall()
        was_connected = channel in younger.connected
        arrived = leg.as_arrived(at)
        arrived.left_linked = leg.left_linked | younger.linked
        younger.legs[channel] = leg.as_left(at)
        younger.open_channels.discard(channel)
        for channels in (younger.connected, younger.in_service, younger.waiting, younger.parked):
            channels.discard(channel)
        younger.run_clocks(at)
        younger.went_over(older.call_sid, at)
        arrived.dial_round = older.dial_round
        older.legs[channel] = arrived
        older.open_channels.add(channel)
        self._by_channel[channel] = older
        if not is_recall and not any(entry.get("call_sid") == younger.call_sid for entry in older.timeline):
            older.note(at, "merged", call_sid=younger.call_sid)
        if was_connected:
            older.connect(arrived, at)
        if arrived.waiting_at is not None:
            older.waiting.add(channel)
            older.run_clocks(at)
        older.facts_changed = True
        self._touch(older, at)
        if is_recall:
            self._forget(younger, at)
        elif not younger.open_channels:
            self._end(younger, at)

    def _forget(self, call: LiveCall, at: datetime) -> None:
        """What seemed to be a call of its own is a leg of another."""
        self._unlink(call)
        call.ended_at = max(at, call.started_at)
        self._forgotten.append(call)

    def _bridge_joined(self, call: LiveCall, leg: Leg, event: BridgeJoined) -> None:
        """Those who meet in a bridge are one call; in a conference or a parking lot they only happen to be together."""
        if self._blind_since is not None:
            leg.hears_music = False  # its end may have been missed
        if event.kind is BridgeKind.TALK:
            for other_call, other in list(self._bridges.members(event.bridge)):
                call, leg = self._met(call, leg, other_call, other, event)
        connecting.bridge_joined(self._bridges, call, leg, event)

    def _met(
        self, call: LiveCall, leg: Leg, other_call: LiveCall, other: Leg, event: BridgeJoined
    ) -> tuple[LiveCall, Leg]:
        if other_call is call or other.channel == event.swapped:
            return call, leg
        if other_call.started_at <= call.started_at:
            if not self._has_room(other_call):
                return call, leg
            self._move(leg, call, other_call, event.at)
            return other_call, other_call.legs[leg.channel]
        if self._has_room(call):
            self._move(other, other_call, call, event.at)
        return call, leg

    def _join(self, one: LiveCall, other: LiveCall, channels: Iterable[str], at: datetime) -> LiveCall:
        """Two calls are one from now on: those of `channels` that are in the younger go over to the older."""
        if one is other:
            return one
        older, younger = sorted((one, other), key=_when_started)
        for channel in channels:
            leg = younger.legs.get(channel)
            if leg is not None and channel in younger.open_channels and self._has_room(older):
                self._move(leg, younger, older, at)
        return older

    def _dial_began(self, call: LiveCall, leg: Leg, event: DialBegan) -> None:
        """A phone that the PBX rings by itself may be rung for a call that waits for it: a transfer that comes back."""
        if event.channel is None and event.connected is not None and len(call.legs) == 1:
            waiting = (other for other in self.live_calls() if other.waits_for(leg.endpoint, event.connected))
            if (other := next(waiting, None)) is not None:
                leg.dialled = True  # by which it is known that the PBX rang it
                call = self._join(other, call, [leg.channel], event.at)
        dialling.dial_began(call, call.legs[leg.channel], event)

    def _dial_ended(self, call: LiveCall, leg: Leg, event: DialEnded) -> None:
        """Who picks up a call that rang elsewhere is who was reached in the end."""
        source = self._by_channel.get(event.channel or "", call)
        call = self._join(source, call, [leg.channel], event.at)
        if leg.channel in call.legs:
            dialling.dial_ended(call, call.legs[leg.channel], event)

    def _picked_up(self, call: LiveCall, leg: Leg, event: PickedUp) -> None:
        """Who picks up dialled a code for it, which was a call until now."""
        rung = self._by_channel.get(event.target, call)
        target = rung.legs.get(event.target)
        from_whom = rung.who(target) if target is not None else None
        call = self._join(rung, call, [leg.channel], event.at)  # if they began in one second, what rang was first
        call.note_leg(event.at, "picked_up", call.legs.get(leg.channel, leg), **{"from": from_whom})

    def _unparked(self, call: LiveCall, leg: Leg, event: Unparked) -> None:
        """Who takes a parked call up dialled its space, which was a call until now."""
        retriever = event.retriever or ""
        other = self._by_channel.get(retriever, call)
        by = other.legs.get(retriever)
        by_whom = other.who(by) if by is not None else None
        call = self._join(call, other, [leg.channel, retriever], event.at)
        connecting.unparked(call, call.legs.get(leg.channel, leg), event, by=by_whom)

    def _attended_transferred(self, call: LiveCall, leg: Leg, event: AttendedTransferred) -> None:
        """Told of the call that goes on, the older one. Whoever is still being rung there is rung for it now."""
        if event.way is TransferWay.THREE_WAY:
            connecting.all_together(self._bridges, call, leg, event)
            return
        second_call = self._by_channel.get(event.second, call)
        rung = [other.channel for other in second_call.attempts() if other.up_at is None]
        if second_call is not call and (event.way is TransferWay.APPLICATION or event.target is None):
            self._consultation_goes_on(call, second_call, event, rung=rung)
        if event.target is None and len(rung) == 1:
            event = replace(event, target=rung[0])
        calls = {one.call_sid: one for one in sorted((call, second_call), key=_when_started)}
        connecting.attended_transferred(list(calls.values()), event)

    def _consultation_goes_on(
        self, call: LiveCall, consultation: LiveCall, event: AttendedTransferred, *, rung: Iterable[str]
    ) -> None:
        """The transferee takes the place of who consulted: those rung there are rung for it, it waits in that queue."""
        at = event.at
        waits = consultation.queued_since is not None
        second = consultation.legs.get(event.second)
        room = second.bridge if second is not None and second.bridge_kind is BridgeKind.CONFERENCE else None
        stay = [other.channel for other in call.legs.values() if other.channel != event.channel]
        goes_on = self._join(call, consultation, [*rung, *stay], at)
        if goes_on is call and consultation.merged_into is None:
            consultation.went_over(call.call_sid, at)
            call.note(at, "merged", call_sid=consultation.call_sid)
        transferee = goes_on.legs.get(event.transferee or "")
        if transferee is not None and goes_on is call:
            if waits:
                consultation.leave_queue(at)
                call.enter_queue(transferee, at, queue=consultation.queue, position=consultation.queue_position)
            if room is not None:
                connecting.join_bridge(self._bridges, call, transferee, room, kind=BridgeKind.CONFERENCE, at=at)

    # Channels

    def _opened(self, event: ChannelOpened) -> None:
        call = self._by_channel.get(event.channel)
        if call is not None:
            leg = call.legs[event.channel]
            if event.linked not in call.linked and event.linked not in leg.left_linked:
                call = self._linked_otherwise(call, leg, event.linked, event.at)
            self._seen_again(call, call.legs[event.channel], event)
            self._touch(call, event.at)
            return
        if event.channel in self._gone_channels or event.channel in self._gone_linked:
            return  # it ended, or a call that bears its id did
        if event.name.startswith(_PLUMBING):
            return  # nobody's channel: the PBX's own, for announcements, recordings and services
        call = self._by_linked.get(event.linked) or self._by_linked.get(event.channel)
        if len(self._by_channel) >= MAX_OPEN_CHANNELS or (call is not None and not self._has_room(call)):
            self.ignored_channels += 1
            return
        if call is None:
            call = self._new_call(event)
        self._new_leg(call, event)
        self._touch(call, event.at)

    def _new_leg(self, call: LiveCall, event: ChannelOpened) -> None:
        endpoint = endpoint_of(event.name)
        leg = Leg(
            channel=event.channel,
            name=event.name,
            endpoint=endpoint,
            opened_at=_opened_at(event),
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
        self._unended.pop(call.native_id, None)
        self._bridges.opened(leg)
        root = call.root
        if leg is root and not leg.is_local:
            self._caller_opened(call, event)
            call.note_leg(event.at, "began", leg, to=call.callee)
        else:
            leg.number = leg_number(endpoint, "", event.number, is_trunk=self.rules.is_trunk(endpoint))
            if leg is not root and not leg.is_local and not call.caller_channel and root is not None and root.is_local:
                call.caller_channel = leg.channel  # the phone behind the Local channel that the call began with
                call.caller_number, call.caller_name = leg.number, event.caller_name or root.caller_name
                call.note_leg(event.at, "began", leg)
        is_found = event.age_seconds is not None and call.start_estimated
        call.accept_trace(event.trace, leg, event.at, is_found=is_found)
        if event.up:
            services.mark_up(call, leg, event.at)
        if event.age_seconds is not None:
            call.note_leg(event.at, "found", leg)
            self._seen_again(call, leg, event)
        call.facts_changed = True

    def _new_call(self, event: ChannelOpened) -> LiveCall:
        # A straggler of a call that has ended is a call of its own and must not take the other's record.
        native_id = event.channel if self._is_straggler(event) else event.linked
        is_begun_by_dialplan = event.channel == native_id and event.name.startswith("Local/")
        call = LiveCall(
            call_sid=self._sid(native_id),
            site=self._site,
            pbx=self._pbx,
            native_id=native_id,
            started_at=_opened_at(event),
            rules=self.rules,
            linked={event.linked, native_id},
            caller_channel="" if is_begun_by_dialplan else native_id,
            # A channel of a call whose first one was never told of: it began before anybody listened.
            start_estimated=event.age_seconds is not None or event.channel != native_id,
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
        if event.exten not in SPECIAL_EXTENSIONS:
            call.callee = event.exten

    def _has_room(self, call: LiveCall) -> bool:
        """A call with hundreds of legs is a loop in the dialplan; its first and its open legs are kept."""
        if len(call.legs) < MAX_LEGS:
            return True
        for channel in call.legs:
            if channel not in {call.native_id, call.caller_channel} and channel not in call.open_channels:
                del call.legs[channel]
                return True
        return False

    def _seen_again(self, call: LiveCall, leg: Leg, event: ChannelOpened) -> None:
        """A snapshot lists a channel: what was missed while nobody listened is taken from it."""
        call.accept_trace(event.trace, leg, event.at)
        if leg.listed_only and event.age_seconds is None:
            self._opening_told(call, leg, event)
        if event.up and leg.up_at is None:
            services.mark_up(call, leg, event.at)
        if event.application in DIALLED_LEG and leg is not call.root:
            leg.dialled = True
        if event.application.lower() == "queue" and leg.application.lower() != "queue":
            call.queue = call.queue or queue_name(event.application_data)
            if not event.bridge and call.queued_since is None:
                call.queued_since, call.queued_channel = event.at, leg.channel
        if event.application:
            services.in_application(call, leg, event.application, event.at)
        if event.bridge is not None and (leg.bridge or "") != event.bridge:
            self._elsewhere(call, leg, event, event.bridge)
        call.facts_changed = True

    def _elsewhere(self, call: LiveCall, leg: Leg, event: ChannelOpened, bridge: str) -> None:
        """The list of channels shows one in another bridge than it was heard to be in, or in none."""
        since = self._blind_since
        if since is not None:
            leg.hears_music = False  # whatever it waited for, it is elsewhere now
        if bridge:
            # They may have met at any moment while nobody listened; a call known to be answered has talked since then.
            met_at = since if since is not None and call.answered_at is not None else event.at
            told = _BRIDGE_KINDS.get(event.application)
            if told is BridgeKind.HOLDING and leg.bridge_kind is told:
                told = BridgeKind.TALK  # it was parked before, and somebody took it up
            kind = self._bridges.listed_as(bridge, told)
            connecting.join_bridge(self._bridges, call, leg, bridge, kind=kind, at=min(met_at, event.at))
        elif since is not None:  # else the word that it left may still be on its way
            connecting.leave_bridge(self._bridges, call, leg, min(since, event.at))

    def _opening_told(self, call: LiveCall, leg: Leg, event: ChannelOpened) -> None:
        """The list of channels overtook the word that this one was created."""
        leg.listed_only = False
        leg.opened_at = event.at
        if leg is call.root:
            call.started_at = event.at
            call.start_estimated = False
            self._caller_opened(call, event)

    def _renamed(self, call: LiveCall, leg: Leg, event: ChannelRenamed) -> None:
        """Another phone is behind the channel now."""
        if event.name.endswith(("<ZOMBIE>", "<MASQ>")):
            return
        self._bridges.closed(leg)
        leg.rename(event.name)
        self._bridges.opened(leg)
        leg.number = leg_number(leg.endpoint, "", leg.number, is_trunk=self.rules.is_trunk(leg.endpoint))
        call.facts_changed = True

    def _identified(self, call: LiveCall, leg: Leg, event: CallerIdentified) -> None:
        """The first number told of the caller counts: what the dialplan makes of it later is the PBX's presentation."""
        if leg.channel == call.caller_channel:
            call.caller_name = call.caller_name or event.name
            if call.caller_number is None and event.number is not None:
                call.caller_number = event.number
                call.facts_changed = True
        leg.caller_name = leg.caller_name or event.name
        if leg.number is None and event.number is not None:
            leg.number = event.number
            call.facts_changed = True

    def _closed(self, call: LiveCall, leg: Leg, event: ChannelClosed) -> None:
        self._close_leg(call, leg, event.at, event.cause)

    def _close_leg(self, call: LiveCall, leg: Leg, at: datetime, cause: int | None) -> None:
        dialling.dial_came_to_nothing(call, leg)
        connecting.leave_bridge(self._bridges, call, leg, at)
        call.stop_serving(leg, at)
        leg.held_at = None
        leg.closed_at = at
        leg.cause = cause
        call.note_leg(at, "ended", leg, cause=cause)
        call.open_channels.discard(leg.channel)
        self._by_channel.pop(leg.channel, None)
        self._bridges.closed(leg)
        self._gone_channels.add(leg.channel)
        if call.open_channels:
            return
        if self._may_lack_channels and call.native_id not in call.legs and call.native_id not in self._gone_channels:
            self._unended[call.native_id] = call  # a queue whose caller is not listed yet may go on ringing others
        else:
            self._end(call, at)

    def _unlisted_closed(self, event: ChannelClosed) -> None:
        """A channel that was never told of is gone; if it was a call's first one, the call may be over."""
        self._gone_channels.add(event.channel)
        call = self._unended.pop(event.channel, None)
        if call is not None:
            self._end(call, event.at)

    def _end(self, call: LiveCall, at: datetime) -> None:
        self._note_what_was_not_heard(call, at)
        call.stop_ringing(at)
        call.leave_queue(at)
        if all(leg.is_local for leg in call.attempts()):
            call.answer_as_originated()
        call.ended_at = max(at, call.started_at)
        call.assignment = self.assign(call.facts())
        self._unlink(call)
        self._ended.append(call)
        self._reclocking.ended(call, at)

    def _unlink(self, call: LiveCall) -> None:
        for linked in call.linked:
            if self._by_linked.get(linked) is call:
                del self._by_linked[linked]
                self._gone_linked.add(linked)
        self._changed.pop(call.call_sid, None)

    # The clock

    def _clock_stepped(self, event: ClockStepped) -> None:
        live = self.live_calls()
        self._repaired += self._reclocking.step(event, live)
        by = timedelta(seconds=event.seconds)
        if self._last_heard_at is not None:
            self._last_heard_at = moved(self._last_heard_at, by)
        if self._blind_since is not None:
            self._blind_since = moved(self._blind_since, by)
        self._changed.update((call.call_sid, call) for call in live)

    # Blindness

    def _snapshot_taken(self, event: SnapshotTaken) -> None:
        """Channels that the PBX no longer has ended unseen: at the last moment they were known alive, marked so.

        Unless the line was cut, the word of their end may still be on its way from a busy PBX: until the next list.
        """
        unlisted = self._by_channel.keys() - event.channels
        gone = unlisted if self._blind_since is not None else unlisted & self._unlisted
        self._unlisted = frozenset(unlisted - gone)
        self._awaits_list = False
        if self._blind_since is not None:
            for call in self.live_calls():
                self._note_what_was_not_heard(call, event.at)
                for leg in call.legs.values():
                    leg.hears_music = leg.hears_music and leg.bridge is not None  # its end may have been missed
            self._blind_since = None
        for channel in [channel for channel in self._by_channel if channel in gone]:
            ended = self._by_channel.get(channel)
            if ended is not None:
                self._found_gone(ended, ended.legs[channel], event.at)
        unended, self._unended = list(self._unended.values()), {}
        for call in unended:
            call.end_estimated = True
            self._end(call, call.last_heard_at or event.at)

    def _found_gone(self, call: LiveCall, leg: Leg, at: datetime) -> None:
        heard = [moment for moment in (call.last_heard_at, self._last_heard_at) if moment is not None]
        call.end_estimated = True
        call.note_leg(at, "found_gone", leg)
        self._close_leg(call, leg, min(max(heard, default=at), at), None)

    def _note_what_was_not_heard(self, call: LiveCall, until: datetime) -> None:
        """A call that went on while nobody listened may have been held, transferred or parked meanwhile."""
        since = self._blind_since
        if since is not None and call.started_at <= since:
            call.note_unheard(since, until)


def _opened_at(event: ChannelOpened) -> datetime:
    return event.at if event.age_seconds is None else event.at - timedelta(seconds=event.age_seconds)


def _when_started(call: LiveCall) -> datetime:
    return call.started_at


_Handler = Callable[[LiveCall, Leg, Any], None]  # Any: each its own kind of event; a test holds that none is missing

# What happens to a call that needs nothing but the call.
_OF_CALL: Final[dict[type, _Handler]] = {
    ChannelRinging: dialling.ringing,
    ChannelUp: services.up,
    AppStarted: services.app_started,
    BlindTransferred: connecting.blind_transferred,
    Parked: connecting.parked,
    ConferenceJoined: services.conference_joined,
    QueueJoined: services.queue_joined,
    QueueLeft: services.queue_left,
    HangupRequested: connecting.hangup_requested,
    CutOff: connecting.cut_off,
}
