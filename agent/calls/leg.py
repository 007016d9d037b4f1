"""One channel's part in a call."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from agent.calls.events import BridgeKind, DialStatus
from agent.calls.rules import dialled_number, endpoint_of, extension_of


@dataclass(slots=True)
class Leg:
    """One channel's part in the call."""

    channel: str
    name: str
    endpoint: str
    opened_at: datetime
    number: str | None = None
    caller_name: str | None = None
    context: str = ""
    exten: str = ""
    accountcode: str = ""
    dialled: bool = False  # somebody tried to reach it
    dial_string: str = ""
    dial_status: DialStatus | None = None
    dial_round: int = 0  # legs dialled together share one
    sent_on: bool = False  # the phone forwarded the call
    is_dialling: bool = False  # its Dial has not yet begun to reach anybody
    ringing_at: datetime | None = None
    up_at: datetime | None = None
    bridge: str | None = None
    bridge_kind: BridgeKind = BridgeKind.TALK
    talking_at: datetime | None = None  # connected with somebody else since then
    met_at: datetime | None = None  # when it was so the first time
    talk_seconds: float = 0.0
    held_at: datetime | None = None  # it put the others on hold
    held_bridge: str | None = None  # those in this bridge
    hears_music: bool = False
    waiting_at: datetime | None = None  # it is on hold, parked or left alone with music
    hold_seconds: float = 0.0
    left_linked: frozenset[str] = frozenset()  # linkedids of calls it went away from; late words may still bear them
    handed_on: bool = False  # it transferred the call and is out of it
    application: str = ""
    closed_at: datetime | None = None
    listed_only: bool = False  # known from a list of channels, its opening was not told
    cause: int | None = None

    is_local: bool = field(init=False)  # a piece of dialplan, nobody's phone

    def __post_init__(self) -> None:
        self.is_local = self.name.startswith("Local/")

    def rename(self, name: str) -> None:
        """Another phone is behind the channel now."""
        self.name = name
        self.endpoint = endpoint_of(name)
        self.is_local = name.startswith("Local/")

    def talk(self, at: datetime) -> None:
        """It is connected with somebody."""
        if self.talking_at is None:
            self.talking_at = at
            self.met_at = self.met_at or at

    def stop_talking(self, at: datetime) -> None:
        """It is alone."""
        if self.talking_at is not None:
            self.talk_seconds += seconds_between(self.talking_at, at)
            self.talking_at = None

    def wait(self, at: datetime) -> None:
        """It begins to wait, on hold or parked."""
        if self.waiting_at is None:
            self.waiting_at = at

    def stop_waiting(self, at: datetime) -> None:
        """It waits no longer."""
        if self.waiting_at is not None:
            self.hold_seconds += seconds_between(self.waiting_at, at)
            self.waiting_at = None

    def as_left(self, at: datetime) -> Self:
        """How it stands in the record of the call it went away from."""
        left = replace(self, closed_at=at)
        left.stop_talking(at)
        left.stop_waiting(at)
        return left

    def as_arrived(self, at: datetime) -> Self:
        """How it goes on in the call it has come to: what it did before stands in the other's record."""
        arrived = replace(self, talk_seconds=0.0, hold_seconds=0.0, met_at=None, talking_at=None)
        arrived.waiting_at = at if self.waiting_at else None
        return arrived

    def told(self) -> dict[str, Any]:
        """As it stands in `Call.legs`; what is not known is left out."""
        facts: dict[str, Any] = {
            "channel": self.channel,
            "name": self.name,
            "endpoint": self.endpoint,
            "number": self.number,
            "caller_name": self.caller_name,
            "context": self.context,
            "exten": self.exten,
            "accountcode": self.accountcode,
            "dial_status": self.dial_status,
            "start_time": iso_text(self.opened_at),
            "ring_time": iso_text(self.ringing_at),
            "answer_time": iso_text(self.up_at),
            "end_time": iso_text(self.closed_at),
            "talk_seconds": round(self.talk_seconds, 3),
            "hold_seconds": round(self.hold_seconds, 3),
            "hangup_cause": self.cause,
        }
        return {name: value for name, value in facts.items() if value is not None and value != ""}


def iso_text(moment: datetime | None) -> str | None:
    """A moment as it stands in legs and timeline."""
    if moment is None or moment.tzinfo is not UTC:
        return moment.isoformat(timespec="microseconds") if moment else None
    text = orjson.dumps(moment)[1:33].decode()  # the same, in a sixth of the time
    return text if moment.microsecond else f"{text[:19]}.000000+00:00"


def seconds_between(start: datetime, end: datetime) -> float:
    """Never negative, whatever a clock did meanwhile."""
    return max(0.0, (end - start).total_seconds())


def leg_number(endpoint: str, dial_string: str, told: str | None, *, is_trunk: bool) -> str | None:
    """The number behind a dialled leg: on a trunk the number dialled there, else the phone's own.

    The PBX shows the *called* number as the caller id of a dialled channel, so the endpoint's name is asked first.
    """
    if is_trunk:
        return dialled_number(dial_string) or told
    return extension_of(endpoint) or told
