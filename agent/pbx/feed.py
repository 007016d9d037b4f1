"""Where a connector hands over what it heard, and how it tells how it is."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from agent.calls.events import CallEvent

# Stands in the journal where nobody listened for a while, whatever kind of PBX it is.
LINE_LOST: Final = b"\0line lost"


class BlindReason(StrEnum):
    """Why a PBX was not heard for a while, as a gap tells it."""

    LINE_LOST = "line_lost"
    PBX_RESTARTED = "pbx_restarted"  # it had announced its end; whoever stopped it may have started it again later
    AGENT_STOPPED = "agent_stopped"
    AGENT_DOWN = "agent_down"  # it ended without a word: killed, crashed, or the power failed


@dataclass(frozen=True, slots=True)
class Blind:
    """Why nothing is heard from now on, with a sentence for the operator."""

    reason: BlindReason
    detail: str | None = None


class Feed(Protocol):
    """Takes what one PBX said, in order. Never blocks and never fails: what cannot be stored yet is kept."""

    def heard(self, frame: bytes, event: CallEvent | None, at: datetime, *, blind: Blind | None = None) -> None:
        """One frame as received (or a mark of the connector's) and what it means; `at` is its arrival.

        `blind` comes with the mark of a lost line.
        """
        ...

    def clock_set(self, at: datetime, seconds: float) -> None:
        """The clock by which this PBX is timed was set by so many seconds, and what comes next is timed by it so."""
        ...

    async def wait_for_room(self) -> None:
        """Return at once while there is room; else when the store has caught up. Reading stops meanwhile."""
        ...

    def has_room(self) -> bool:
        """Whether reading may go on."""
        ...


class Interpreter(Protocol):
    """Turns stored frames of one kind of PBX into events again."""

    def interpret(self, frame: bytes, arrived_at: datetime) -> CallEvent | None:
        """What a frame means; frames have to come in the order of their arrival."""
        ...


class LineState(StrEnum):
    """How the connection to a PBX is."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"
    REFUSED = "refused"


@dataclass(slots=True)
class LineStatus:
    """What an operator wants to know of one PBX's connection; changed in place by its connector."""

    pbx: str
    address: str
    state: LineState = LineState.CONNECTING
    since: datetime | None = None
    reason: str | None = None  # why it is lost or refused, a sentence
    version: str | None = None
    last_heard_at: datetime | None = None
    events: int = 0
    reconnects: int = 0
    oversized_frames: int = 0
    clock_offset_seconds: float | None = None  # the PBX's clock minus ours
    warnings: dict[str, str] = field(default_factory=dict)  # settings of the PBX that keep us from hearing or acting
