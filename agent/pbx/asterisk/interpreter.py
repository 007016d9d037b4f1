"""What the frames of one Asterisk mean, live or replayed from the journal: the only state between two frames is the
list of channels being received.

Beside AMI's frames the journal holds two marks of the agent's own, which no PBX can send because they begin with NUL.
"""

from datetime import datetime
from typing import Final

from agent.calls.events import CallEvent, LineLost, SnapshotTaken
from agent.pbx.asterisk.protocol import AmiMessage
from agent.pbx.asterisk.translate import translate

LINE_LOST: Final = b"\0line lost"
# Everything the PBX said before it listed its channels has been received.
SNAPSHOT_TAKEN: Final = b"\0snapshot taken"


class AsteriskInterpreter:
    """Turns frames into events of the call model, in the order of their arrival."""

    def __init__(self) -> None:
        self._listed: set[str] = set()
        self._complete = False

    def interpret(self, frame: bytes, arrived_at: datetime) -> CallEvent | None:
        """The event of a frame as it stands in the journal."""
        if frame.startswith(b"\0"):
            return self._mark(frame, arrived_at)
        return self.event_of(AmiMessage(frame), arrived_at)

    def event_of(self, message: AmiMessage, arrived_at: datetime) -> CallEvent | None:
        """The event of a message that is already cut into fields."""
        match message.name:
            case "CoreShowChannel":
                if self._complete:
                    self._listed, self._complete = set(), False
                self._listed.add(message.get("uniqueid"))
            case "CoreShowChannelsComplete":
                if self._complete:  # no channel at all since the last list
                    self._listed = set()
                self._complete = True
                return None
            case _:
                pass
        return translate(message, arrived_at)

    def _mark(self, frame: bytes, arrived_at: datetime) -> CallEvent | None:
        if frame == LINE_LOST:
            self._listed, self._complete = set(), False
            return LineLost(arrived_at)
        if frame == SNAPSHOT_TAKEN and self._complete:
            listed, self._listed, self._complete = frozenset(self._listed), set(), False
            return SnapshotTaken(arrived_at, listed)
        return None
