"""One channel's part in a call."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.calls.events import DialStatus
from agent.calls.rules import dialled_number, extension_of


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
    ringing_at: datetime | None = None
    up_at: datetime | None = None
    bridge: str | None = None
    bridged_at: datetime | None = None
    talk_seconds: float = 0.0
    held_at: datetime | None = None
    application: str = ""
    closed_at: datetime | None = None
    listed_only: bool = False  # known from a list of channels, its opening was not told
    cause: int | None = None

    @property
    def is_local(self) -> bool:
        """A Local channel is a piece of dialplan, nobody's phone."""
        return self.name.startswith("Local/")

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
            "hangup_cause": self.cause,
        }
        return {name: value for name, value in facts.items() if value is not None and value != ""}


def iso_text(moment: datetime | None) -> str | None:
    """A moment as it stands in legs and timeline."""
    return moment.isoformat(timespec="microseconds") if moment else None


def leg_number(endpoint: str, dial_string: str, told: str | None, *, is_trunk: bool) -> str | None:
    """The number behind a dialled leg: on a trunk the number dialled there, else the phone's own.

    The PBX shows the *called* number as the caller id of a dialled channel, so the endpoint's name is asked first.
    """
    if is_trunk:
        return dialled_number(dial_string) or told
    return extension_of(endpoint) or told
