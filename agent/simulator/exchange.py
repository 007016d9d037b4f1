"""The simulated Asterisk itself, without I/O and without a clock: channels, bridges, queues, and calls being played.

A call is a generator that makes things happen and yields the seconds until the next; `advance` plays all calls up to
a moment and hands back the AMI events of that time. Events are worded as Asterisk 22.10 words them, field for field.
"""

import heapq
import random
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from agent.simulator.channel import CAUSES, UP, Bridge, Channel
from agent.simulator.events import HEADS, Event
from agent.simulator.master_csv import RecordKeeper, line_of
from agent.simulator.site import UNKNOWN
from agent.simulator.truth import Cut, SimulatedCall

Script = Generator[float, None, None]

# Two events never share a stamp; Asterisk's own lie 3 to 300 µs apart.
_STEP_MICROSECONDS: Final = 3

_QUALITY: Final = tuple(
    (f"RTPAUDIOQOS{kind}", value)
    for kind, value in (
        (
            "",
            "ssrc=1138406243;themssrc=851047012;lp=0;rxjitter=0.000000;rxcount=512;txjitter=0.000000;txcount=508;"
            "rlp=0;rtt=0.000000;rxmes=87.000000;txmes=0.000000",
        ),
        ("JITTER", "minrxjitter=000.000000;maxrxjitter=000.000000;avgrxjitter=000.000000;stdevrxjitter=000.000000;"),
        ("LOSS", "  minrxlost=000.000000;  maxrxlost=000.000000;  avgrxlost=000.000000;  stdevrxlost=000.000000;"),
        ("RTT", "     minrtt=000.000000;     maxrtt=000.000000;     avgrtt=000.000000;     stdevrtt=000.000000;"),
        ("MES", "   minrxmes=087.000000;   maxrxmes=087.000000;   avgrxmes=087.000000;   stdevrxmes=000.000000;"),
    )
)


@dataclass(slots=True)
class _Device:
    ringing: int = 0
    used: int = 0

    def state(self) -> str:
        if self.used:
            return "RINGINUSE" if self.ringing else "INUSE"
        return "RINGING" if self.ringing else "NOT_INUSE"


_MEMBER_STATUS: Final = {"NOT_INUSE": 1, "INUSE": 2, "RINGING": 6, "RINGINUSE": 7}


class Play(Protocol):
    """A call being played. `script` ends with every channel hung up and `truth` known."""

    def script(self) -> Script: ...

    def cut(self, by: Cut) -> SimulatedCall: ...

    def truth(self) -> SimulatedCall: ...


@dataclass(slots=True, eq=False)
class _Playing:
    play: Play
    script: Script
    began: bool = False


@dataclass(slots=True)
class Queue:
    """Callers waiting, in their order."""

    name: str
    waiting: list[Channel] = field(default_factory=list)


class Exchange:
    """Everything that a restart of Asterisk begins anew.

    `unwanted` names the events that nobody listens to: they are not even written. `pace` stretches (or below 1
    shortens) every length of time in a call.
    """

    def __init__(
        self,
        *,
        now_us: int,
        pace: float = 1.0,
        seed: int = 0,
        timestamps: bool = True,
        system_name: str = "",
        members: dict[str, list[tuple[str, str]]] | None = None,
        ids_from_second: int = 0,
        records: RecordKeeper | None = None,
    ) -> None:
        self.started_us = now_us
        self.stamp = now_us
        self.pace = pace
        self.unwanted: frozenset[str] = frozenset()
        self.channels: dict[str, Channel] = {}
        self.processed = 0
        self._timestamps = timestamps
        self.system_name = system_name
        self._ids = random.Random(seed)
        self._events: list[Event] = []
        self._ids_from_second = ids_from_second
        self._records = records
        self._uniqueids = 0
        self._names = 0
        self._sequence = 0
        self._timeline: list[tuple[int, int, _Playing]] = []
        self._order = 0
        self._playing: dict[_Playing, None] = {}
        self._live = 0
        self._ended: list[SimulatedCall] = []
        self._devices: dict[str, _Device] = {}
        self._queues: dict[str, Queue] = {}
        self._members = members or {}  # endpoint -> (queue, the member's name)

    # The timeline

    @property
    def live_calls(self) -> int:
        """How many calls are going on."""
        return self._live

    @property
    def idle(self) -> bool:
        """Whether no call is going on or to begin."""
        return not self._playing

    def next_due(self) -> int | None:
        """When something will happen next, in microseconds since the epoch."""
        return self._timeline[0][0] if self._timeline else None

    def begin(self, play: Play, *, at_us: int) -> None:
        """Let a call begin at a moment, now at the earliest."""
        playing = _Playing(play, play.script())
        self._playing[playing] = None
        self._schedule(playing, at_us)

    def advance(self, now_us: int, *, steps: int | None = None) -> list[Event]:
        """Play everything that is due, or so many steps of it, and return what Asterisk says about it."""
        timeline = self._timeline
        while timeline and timeline[0][0] <= now_us and steps != 0:
            due, _, playing = heapq.heappop(timeline)
            self.stamp = max(self.stamp, now_us)
            if not playing.began:
                playing.began = True
                self._live += 1
            try:
                delay = next(playing.script)
            except StopIteration:
                del self._playing[playing]
                self._live -= 1
                self._ended.append(playing.play.truth())
            else:
                self._schedule(playing, due + int(delay * self.pace * 1_000_000))
            if steps is not None:
                steps -= 1
        return self.take_events()

    def take_events(self) -> list[Event]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def take_ended(self) -> list[SimulatedCall]:
        """The calls that ended since the last time."""
        ended, self._ended = self._ended, []
        return ended

    def cut_all(self, now_us: int, by: Cut) -> list[Event]:
        """End all calls at once: with hangups for a restart, without a word for a kill."""
        self.stamp = max(self.stamp + _STEP_MICROSECONDS, now_us)
        playing, self._playing, self._timeline, self._live = list(self._playing), {}, [], 0
        for each in playing:
            each.script.close()
            if each.began:
                self._ended.append(each.play.cut(by))
        events = self.take_events()
        return events if by is Cut.RESTART else []

    def _schedule(self, playing: _Playing, at_us: int) -> None:
        self._order += 1
        heapq.heappush(self._timeline, (at_us, self._order, playing))

    # Saying things

    def say(self, name: str, fields: str) -> int:
        """One event; returns its moment."""
        self.stamp += _STEP_MICROSECONDS
        if name not in self.unwanted:
            head = HEADS[name]
            if self._timestamps:
                seconds, rest = divmod(self.stamp, 1_000_000)
                head = f"{head}Timestamp: {seconds}.{rest:06}\r\n"
            if self.system_name:
                head = f"{head}SystemName: {self.system_name}\r\n"
            self._events.append(Event(name, f"{head}{fields}\r\n".encode()))
        return self.stamp

    def cel(self, kind: str, channel: Channel, *, extra: str = "", peer: str = "") -> None:
        """A channel event log entry, told over AMI."""
        if "CEL" in self.unwanted:
            return
        first = kind == "CHAN_START"
        self.say(
            "CEL",
            f"EventName: {kind}\r\nAccountCode: \r\nCallerIDnum: {_known(channel.number)}\r\n"
            f"CallerIDname: {_known(channel.caller_name)}\r\nCallerIDani: {'' if first else _known(channel.number)}\r\n"
            f"CallerIDrdnis: \r\nCallerIDdnid: {channel.dialled}\r\nExten: {channel.exten}\r\n"
            f"Context: {channel.context}\r\nChannel: {channel.name}\r\nApplication: {channel.application}\r\n"
            f"AppData: {channel.application_data}\r\nEventTime: {local_time(self.stamp)}\r\nAMAFlags: DOCUMENTATION\r\n"
            f"UniqueID: {channel.uniqueid}\r\nLinkedID: {channel.linkedid}\r\nUserfield: {channel.userfield}\r\n"
            f"Peer: {peer}\r\nPeerAccount: \r\nExtra: {extra}\r\n",
        )

    def cdr(
        self,
        channel: Channel,
        *,
        destination: str,
        callee: str,
        application: tuple[str, str],
        start_us: int,
        answer_us: int | None,
        disposition: str,
    ) -> None:
        """A call detail record, written down and told over AMI; its times are the server's local ones, here UTC."""
        self._sequence += 1
        if "Cdr" in self.unwanted and self._records is None:
            return
        end_us = self.stamp
        number, name = _known(channel.number), _known(channel.caller_name)
        caller_id = f'"{name}" <{number}>'
        billable = 0 if answer_us is None else (end_us - answer_us) // 1_000_000
        if self._records is not None:
            answered = "" if answer_us is None else local_time(answer_us)
            told = (
                "", number, callee, channel.context, caller_id, channel.name, destination, *application,
                local_time(start_us), answered, local_time(end_us),
            )  # fmt: skip
            rest = (disposition, "DOCUMENTATION", channel.uniqueid, "", "", channel.linkedid)
            duration = (end_us - start_us) // 1_000_000
            self._records(line_of(told, seconds=(duration, billable), rest=rest, sequence=self._sequence))
        if "Cdr" in self.unwanted:
            return
        self.say(
            "Cdr",
            f"AccountCode: \r\nSource: {number}\r\nDestination: {callee}\r\nDestinationContext: {channel.context}\r\n"
            f"CallerID: {caller_id}\r\nChannel: {channel.name}\r\nDestinationChannel: {destination}\r\n"
            f"LastApplication: {application[0]}\r\nLastData: {application[1]}\r\nStartTime: {local_time(start_us)}\r\n"
            f"AnswerTime: {local_time(answer_us) if answer_us is not None else ''}\r\nEndTime: {local_time(end_us)}\r\n"
            f"Duration: {(end_us - start_us) // 1_000_000}\r\nBillableSeconds: {billable}\r\n"
            f"Disposition: {disposition}\r\nAMAFlags: DOCUMENTATION\r\nUniqueID: {channel.uniqueid}\r\nUserField: \r\n"
            f"Linkedid: {channel.linkedid}\r\nSequence: {self._sequence}\r\nPeerAccount: \r\n",
        )

    # Channels

    def open_channel(
        self,
        endpoint: str,
        *,
        state: int,
        number: str,
        caller_name: str,
        context: str,
        exten: str,
        linked_to: Channel | None = None,
    ) -> Channel:
        """A new channel; without `linked_to` it is the first of a call."""
        uniqueid = f"{self.id_second()}.{self._uniqueids}"
        if self.system_name:
            uniqueid = f"{self.system_name}-{uniqueid}"
        channel = Channel(
            endpoint=endpoint,
            name=f"{endpoint}-{self._names:08x}",
            uniqueid=uniqueid,
            linkedid=linked_to.linkedid if linked_to else uniqueid,
            opened_us=self.stamp,
            state=state,
            number=number,
            caller_name=caller_name,
            context=context,
            exten=exten,
        )
        self._uniqueids += 1
        self._names += 1
        self.processed += linked_to is None
        self.channels[uniqueid] = channel
        self.cel("CHAN_START", channel)
        channel.opened_us = self.say("Newchannel", channel.fields())
        if linked_to is None:
            channel.dialled = exten
        return channel

    def id_second(self) -> int:
        """The second in the next Uniqueid. A PBX that is back within a second must not give the same ids again."""
        return max(self.stamp // 1_000_000, self._ids_from_second)

    def set_variable(self, channel: Channel, variable: str, value: str = "") -> None:
        """A channel variable changed."""
        if "VarSet" not in self.unwanted:
            self.say("VarSet", f"{channel.fields()}Variable: {variable}\r\nValue: {value}\r\n")

    def run(self, channel: Channel, application: str, data: str = "", *, exten: str | None = None) -> None:
        """The channel runs an application at its present place in the dialplan."""
        channel.application, channel.application_data = application, data
        if exten is not None:
            channel.exten = exten
        if "Newexten" not in self.unwanted:
            self.say(
                "Newexten",
                f"{channel.fields()}Extension: {channel.exten}\r\nApplication: {application}\r\nAppData: {data}\r\n",
            )

    def change_state(self, channel: Channel, state: int) -> int:
        """Ringing or up; returns the moment."""
        channel.state = state
        at = self.say("Newstate", channel.fields())
        if state == UP:
            self.cel("ANSWER", channel)
        return at

    def identify(self, channel: Channel, number: str) -> None:
        """The dialplan gives the caller another number, or a dialled line gets the number dialled."""
        channel.number = number
        self.say("NewCallerid", f"{channel.fields()}CID-CallingPres: 0 (Presentation Allowed, Not Screened)\r\n")

    def connect_line(self, channel: Channel, other: Channel) -> None:
        """The channel learns who is at the other end."""
        channel.connected_number, channel.connected_name = other.number, other.caller_name
        self.say("NewConnectedLine", channel.fields())

    def request_hangup(self, channel: Channel, cause: int | None, tech_cause: int | None = None) -> None:
        """Whoever is behind the channel hung up, declined, was busy."""
        cause_text = "" if cause is None else f"Cause: {cause}\r\n"
        self.say("HangupRequest", f"{channel.fields()}{cause_text}{_tech(tech_cause)}")

    def soft_hangup(self, channel: Channel, *, cause: int = 16, tech_cause: int | None = None) -> None:
        """The PBX asks the channel to end."""
        self.say("SoftHangupRequest", f"{channel.fields()}Cause: {cause}\r\n{_tech(tech_cause)}")

    def hang_up(self, channel: Channel, cause: int, *, source: str = "", tech_cause: int | None = None) -> int:
        """The channel is gone; returns the moment."""
        at = self.say(
            "Hangup", f"{channel.fields()}Cause: {cause}\r\nCause-txt: {CAUSES[cause]}\r\n{_tech(tech_cause)}"
        )
        del self.channels[channel.uniqueid]
        self.cel("HANGUP", channel, extra=f'{{"hangupcause":{cause},"hangupsource":"{source}","dialstatus":""}}')
        self.cel("CHAN_END", channel)
        return at

    def tell_quality(self, channel: Channel, *, bridged_with: Channel | None = None) -> None:
        """What Asterisk tells of the sound when a channel with sound ends."""
        if "VarSet" in self.unwanted:
            return
        for variable, value in _QUALITY:
            self.set_variable(channel, variable, value)
            if bridged_with is not None:
                self.set_variable(bridged_with, f"{variable}BRIDGED", value)

    # Devices and queues

    def ring_device(self, endpoint: str) -> None:
        """A phone begins to ring."""
        self._change_device(endpoint, ringing=1, used=0)

    def use_device(self, endpoint: str, *, rang: bool = False) -> None:
        """A phone or trunk is in use; `rang` if it rang before."""
        self._change_device(endpoint, ringing=-rang, used=1)

    def silence_device(self, endpoint: str) -> None:
        """A phone rings no more."""
        self._change_device(endpoint, ringing=-1, used=0)

    def free_device(self, endpoint: str) -> None:
        """A phone or trunk has one call less."""
        self._change_device(endpoint, ringing=0, used=-1)

    def _change_device(self, endpoint: str, *, ringing: int, used: int) -> None:
        device = self._devices.setdefault(endpoint, _Device())
        before = device.state()
        device.ringing = max(0, device.ringing + ringing)
        device.used = max(0, device.used + used)
        state = device.state()
        if state == before:
            return
        self.say("DeviceStateChange", f"Device: {endpoint}\r\nState: {state}\r\n")
        for queue, name in self._members.get(endpoint, ()):
            self.say(
                "QueueMemberStatus",
                f"Queue: {queue}\r\nMemberName: {name}\r\nInterface: {endpoint}\r\nStateInterface: {endpoint}\r\n"
                "Membership: static\r\nPenalty: 0\r\nCallsTaken: 0\r\nLastCall: 0\r\nLastPause: 0\r\n"
                f"LoginTime: {self.started_us // 1_000_000}\r\nInCall: 0\r\nStatus: {_MEMBER_STATUS[state]}\r\n"
                "Paused: 0\r\nPausedReason: \r\nRinginuse: 1\r\nWrapuptime: 0\r\n",
            )

    def join_queue(self, channel: Channel, name: str) -> None:
        """A caller begins to wait."""
        queue = self._queues.setdefault(name, Queue(name))
        queue.waiting.append(channel)
        count = len(queue.waiting)
        self.say("QueueCallerJoin", f"{channel.fields()}Queue: {name}\r\nPosition: {count}\r\nCount: {count}\r\n")
        if count == 1:
            self.say("DeviceStateChange", f"Device: Queue:{name}\r\nState: RINGING\r\n")

    def abandon_queue(self, channel: Channel, name: str, *, hold_seconds: int) -> None:
        """A caller gives up; Asterisk says so too when the queue's own time is over."""
        position = self._queues[name].waiting.index(channel) + 1
        self.say(
            "QueueCallerAbandon",
            f"{channel.fields()}Queue: {name}\r\nPosition: {position}\r\nOriginalPosition: {position}\r\n"
            f"HoldTime: {hold_seconds}\r\n",
        )

    def leave_queue(self, channel: Channel, name: str) -> None:
        """A caller waits no longer, for whatever reason."""
        waiting = self._queues[name].waiting
        position = waiting.index(channel) + 1
        waiting.remove(channel)
        if not waiting:
            self.say("DeviceStateChange", f"Device: Queue:{name}\r\nState: NOT_INUSE\r\n")
        self.say(
            "QueueCallerLeave", f"{channel.fields()}Queue: {name}\r\nPosition: {position}\r\nCount: {len(waiting)}\r\n"
        )

    # Bridges

    def create_bridge(self) -> Bridge:
        """An empty bridge."""
        bridge = Bridge(str(uuid.UUID(int=self._ids.getrandbits(128), version=4)))
        self.say("BridgeCreate", bridge.fields())
        return bridge

    def enter_bridge(self, channel: Channel, bridge: Bridge, *, peer: str = "") -> int:
        """The channel begins to exchange sound; returns the moment."""
        bridge.members += 1
        channel.bridge = bridge
        at = self.say("BridgeEnter", bridge.fields() + channel.fields())
        self.cel("BRIDGE_ENTER", channel, extra=_of_bridge(bridge), peer=peer)
        return at

    def leave_bridge(self, channel: Channel, *, peer: str = "") -> int:
        """The channel leaves its bridge; returns the moment."""
        bridge = channel.bridge
        if bridge is None:
            return self.stamp
        bridge.members -= 1
        at = self.say("BridgeLeave", bridge.fields() + channel.fields())
        self.cel("BRIDGE_EXIT", channel, extra=_of_bridge(bridge), peer=peer)
        channel.bridge = None
        if bridge.members == 0:
            self.say("BridgeDestroy", bridge.fields())
        return at


def _of_bridge(bridge: Bridge) -> str:
    return f'{{"bridge_id":"{bridge.id}","bridge_technology":"{bridge.technology}"}}'


def _known(text: str) -> str:
    return "" if text == UNKNOWN else text


def _tech(cause: int | None) -> str:
    return "" if cause is None else f"TechCause: {cause}\r\n"


def local_time(microseconds: int) -> str:
    """As Asterisk writes times of records: to the second, in the server's zone, which here is UTC."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
