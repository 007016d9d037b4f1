"""What happens on a PBX, in telephony's words, as small frozen values the call model understands.

`at` is an aware UTC moment: the PBX's own if it tells one, else the arrival. `channel` is the PBX's id of a leg,
`linked` the id that legs of one call share. Numbers and names are as the PBX told them, None when unknown.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agent.calls.traces import TraceParent


class DialStatus(StrEnum):
    """How the attempt to reach one leg ended (Asterisk's DialStatus, other PBXes are mapped to it)."""

    ANSWER = "ANSWER"
    BUSY = "BUSY"
    NOANSWER = "NOANSWER"
    CANCEL = "CANCEL"
    CONGESTION = "CONGESTION"
    CHANUNAVAIL = "CHANUNAVAIL"
    ABORT = "ABORT"
    CONTINUE = "CONTINUE"
    GOTO = "GOTO"


class BridgeKind(StrEnum):
    """What being in a bridge means: to talk with the others, to be in a conference room, or to wait in it."""

    TALK = "talk"
    CONFERENCE = "conference"
    HOLDING = "holding"  # a parking lot: those in it do not hear each other


class TransferWay(StrEnum):
    """Where the others are after an attended transfer."""

    TALK = "talk"  # connected with who was consulted
    APPLICATION = "application"  # where the consultation was: still ringing, in a queue, a menu, a conference
    THREE_WAY = "three_way"  # all together, who consulted included


class ParkingEnd(StrEnum):
    """How a call came out of the parking lot."""

    RETRIEVED = "retrieved"
    TIMEOUT = "park_timeout"
    GIVEN_UP = "given_up"  # the parked party hung up


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """A channel is there: just created, or found in a snapshot (`age_seconds` is then how long it has lived)."""

    at: datetime
    channel: str
    linked: str
    name: str
    number: str | None = None
    caller_name: str | None = None
    context: str = ""
    exten: str = ""
    accountcode: str = ""
    up: bool = False
    age_seconds: float | None = None
    bridge: str | None = None
    """Empty: it is in none; None: nothing is told of it."""
    application: str = ""
    application_data: str = ""
    trace: TraceParent | None = None
    """The trace context that the channel bears."""


@dataclass(frozen=True, slots=True)
class ChannelRenamed:
    """Another phone is behind the channel now (a pickup, a transfer by masquerade)."""

    at: datetime
    channel: str
    name: str


@dataclass(frozen=True, slots=True)
class ChannelRinging:
    """The phone behind the channel rings."""

    at: datetime
    channel: str
    linked: str


@dataclass(frozen=True, slots=True)
class ChannelUp:
    """The channel was answered, by whoever is behind it."""

    at: datetime
    channel: str
    linked: str


@dataclass(frozen=True, slots=True)
class CallerIdentified:
    """The PBX learned or changed who is behind a channel."""

    at: datetime
    channel: str
    linked: str
    number: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class AppStarted:
    """A dialplan application begins on a channel."""

    at: datetime
    channel: str
    linked: str
    context: str
    exten: str
    application: str
    data: str
    trace: TraceParent | None = None
    """The trace context that the channel bears."""


@dataclass(frozen=True, slots=True)
class DialBegan:
    """`channel` (None for a call the PBX makes by itself) tries to reach `dest`.

    `connected` is whose number the PBX shows to a phone that it rings by itself.
    """

    at: datetime
    channel: str | None
    dest: str
    linked: str
    dial_string: str
    connected: str | None = None


@dataclass(frozen=True, slots=True)
class DialEnded:
    """The attempt to reach `dest` ended; `forward` is where the phone sent the call instead.

    `channel` is who tried (None for a call the PBX makes by itself). `dest` may be another channel than the one that
    rang, if somebody picked the call up.
    """

    at: datetime
    dest: str
    linked: str
    status: DialStatus
    forward: str | None = None
    channel: str | None = None


@dataclass(frozen=True, slots=True)
class BridgeJoined:
    """A channel is in a bridge with others; `swapped` is the channel whose place it takes."""

    at: datetime
    channel: str
    linked: str
    bridge: str
    kind: BridgeKind = BridgeKind.TALK
    swapped: str | None = None


@dataclass(frozen=True, slots=True)
class BridgeLeft:
    """A channel left a bridge."""

    at: datetime
    channel: str
    linked: str
    bridge: str


@dataclass(frozen=True, slots=True)
class Held:
    """The party behind a channel put the other on hold."""

    at: datetime
    channel: str
    linked: str


@dataclass(frozen=True, slots=True)
class Unheld:
    """The party behind a channel took the other off hold."""

    at: datetime
    channel: str
    linked: str


@dataclass(frozen=True, slots=True)
class MusicStarted:
    """A channel hears music while it waits."""

    at: datetime
    channel: str
    linked: str


@dataclass(frozen=True, slots=True)
class MusicStopped:
    """The music has ended."""

    at: datetime
    channel: str
    linked: str


@dataclass(frozen=True, slots=True)
class BlindTransferred:
    """The party behind `channel` sent the others to `exten` and is out of it."""

    at: datetime
    channel: str
    linked: str
    exten: str


@dataclass(frozen=True, slots=True)
class AttendedTransferred:
    """The party behind `channel` (and `second`, in the consultation) connected those it talked with.

    `target` is the channel consulted, None when it is no phone's; `transferee` the one that was waiting.
    """

    at: datetime
    channel: str
    linked: str
    second: str
    target: str | None = None
    transferee: str | None = None
    way: TransferWay = TransferWay.TALK


@dataclass(frozen=True, slots=True)
class Parked:
    """A channel waits in a parking lot; `parker` is who put it there, as its dial string tells."""

    at: datetime
    channel: str
    linked: str
    space: str
    parker: str | None = None


@dataclass(frozen=True, slots=True)
class Unparked:
    """A channel is out of the parking lot; `retriever` is the channel that took it up."""

    at: datetime
    channel: str
    linked: str
    end: ParkingEnd
    space: str = ""
    retriever: str | None = None


@dataclass(frozen=True, slots=True)
class PickedUp:
    """The phone behind `channel` took the call that was ringing on `target`."""

    at: datetime
    channel: str
    linked: str
    target: str


@dataclass(frozen=True, slots=True)
class ConferenceJoined:
    """A channel is in a conference room."""

    at: datetime
    channel: str
    linked: str
    room: str


@dataclass(frozen=True, slots=True)
class QueueJoined:
    """A caller begins to wait in a queue."""

    at: datetime
    channel: str
    linked: str
    queue: str
    position: int | None = None


@dataclass(frozen=True, slots=True)
class QueueLeft:
    """A caller waits no longer: connected, gave up or was sent on.

    Asterisk's QueueCallerAbandon is no proof that the caller gave up: it comes as well when the queue's time ran out.
    """

    at: datetime
    channel: str
    linked: str
    queue: str


@dataclass(frozen=True, slots=True)
class HangupRequested:
    """The party behind a channel hung up (the PBX's own hangups are not announced so)."""

    at: datetime
    channel: str
    linked: str


@dataclass(frozen=True, slots=True)
class CutOff:
    """The PBX stops under a channel, whoever talks."""

    at: datetime
    channel: str
    linked: str


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """A channel is gone; `cause` is Q.850 (0 and 127 mean that the PBX does not say)."""

    at: datetime
    channel: str
    linked: str
    cause: int | None = None


@dataclass(frozen=True, slots=True)
class LineLost:
    """The feed ended: `at` is the last moment at which the PBX was heard."""

    at: datetime


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The PBX listed its channels: those known from before and not among them are gone."""

    at: datetime
    channels: frozenset[str]


@dataclass(frozen=True, slots=True)
class ClockDoubted:
    """The clock is certainly wrong: it shows a time before what was seen already, or before there was this program."""

    at: datetime


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The clock was set by so many `seconds`, and shows `at` now; `is_trusted` if no doubt about it is left."""

    at: datetime
    seconds: float
    is_trusted: bool


# What happens to one leg that is known already.
LegEvent = (
    ChannelRenamed
    | ChannelRinging
    | ChannelUp
    | CallerIdentified
    | AppStarted
    | DialBegan
    | DialEnded
    | BridgeJoined
    | BridgeLeft
    | Held
    | Unheld
    | MusicStarted
    | MusicStopped
    | BlindTransferred
    | AttendedTransferred
    | Parked
    | Unparked
    | PickedUp
    | ConferenceJoined
    | QueueJoined
    | QueueLeft
    | HangupRequested
    | CutOff
    | ChannelClosed
)
CallEvent = ChannelOpened | LegEvent | LineLost | SnapshotTaken | ClockDoubted | ClockStepped
