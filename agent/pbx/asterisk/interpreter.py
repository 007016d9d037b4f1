"""What the frames of one Asterisk mean, live or replayed from the journal: the only state between two frames is the
list of channels being received.

Beside AMI's frames the journal holds marks of the agent's own, which no PBX can send because they begin with NUL.
"""

import logging
from dataclasses import replace
from datetime import datetime
from typing import Final

from agent.calls.events import AppStarted, CallEvent, ChannelOpened, LineLost, SnapshotTaken
from agent.calls.traces import parse_traceparent
from agent.pbx.asterisk.protocol import AmiMessage
from agent.pbx.asterisk.translate import translate
from agent.pbx.clock import event_of_mark
from agent.pbx.feed import LINE_LOST
from agent.pbx.text import DEFAULT_ENCODING

log = logging.getLogger(__name__)

# Everything the PBX said before it listed its channels has been received.
SNAPSHOT_TAKEN: Final = b"\0snapshot taken"

MAX_LISTED: Final = 100_000  # channels; a longer list is no Asterisk's, and tells nothing


class AsteriskInterpreter:
    """Turns frames into events of the call model, in the order of their arrival.

    What is no UTF-8 is in `encoding`; `trace_variable` is the channel variable with a traceparent, empty for none.
    """

    def __init__(self, encoding: str = DEFAULT_ENCODING, *, trace_variable: str = "TRACEPARENT") -> None:
        self._encoding = encoding
        self._trace_variable = trace_variable
        self.untraced_calls: int | None = 0  # that began; None once a channel has borne a trace context
        self._listed: set[str] | None = None  # None: no list is being received
        self._complete = False

    def interpret(self, frame: bytes, arrived_at: datetime) -> CallEvent | None:
        """The event of a frame as it stands in the journal."""
        if frame.startswith(b"\0"):
            return self._mark(frame, arrived_at)
        return self.event_of(AmiMessage(frame, self._encoding), arrived_at)

    def event_of(self, message: AmiMessage, arrived_at: datetime) -> CallEvent | None:
        """The event of a message that is already cut into fields."""
        match message.name:
            case "CoreShowChannel":
                if self._listed is None or self._complete:
                    self._listed, self._complete = set(), False
                self._collect(message)
            case "CoreShowChannelsComplete":
                if self._listed is None or self._complete:  # a list without a channel
                    self._listed = set()
                self._complete = True
                return None
            case "Newchannel":  # after the list was made, so it cannot be in it
                self._collect(message)
            case _:
                pass
        event = translate(message, arrived_at)
        if self._trace_variable and isinstance(event, ChannelOpened | AppStarted):
            return self._traced(event, message)
        return event

    def _traced(self, event: ChannelOpened | AppStarted, message: AmiMessage) -> CallEvent:
        """With the trace context that the channel bears, as every event about it tells if manager.conf says so, and the
        dialplan's Set in any case."""
        text = message.variable(self._trace_variable) or self._set_now(event)
        if not text:
            if self.untraced_calls is not None and isinstance(event, ChannelOpened):
                self.untraced_calls += event.channel == event.linked
            return event
        trace = parse_traceparent(text)
        if trace is not None:
            self.untraced_calls = None
        else:
            log.debug("a channel bears no traceparent but something else", extra={"variable": self._trace_variable})
        return replace(event, trace=trace)

    def _set_now(self, event: ChannelOpened | AppStarted) -> str:
        """What the dialplan is about to set the variable to; underscores before its name hand it on to dialled legs."""
        if not isinstance(event, AppStarted) or event.application.lower() != "set":
            return ""
        name, _, value = event.data.partition("=")
        return value if name.lstrip("_") == self._trace_variable else ""

    def _collect(self, message: AmiMessage) -> None:
        if self._listed is not None and len(self._listed) <= MAX_LISTED:
            self._listed.add(message.get("uniqueid"))

    def _mark(self, frame: bytes, arrived_at: datetime) -> CallEvent | None:
        if frame == LINE_LOST:
            self._listed, self._complete = None, False
            return LineLost(arrived_at)
        if frame == SNAPSHOT_TAKEN and self._listed is not None and self._complete:
            listed, self._listed, self._complete = self._listed, None, False
            return SnapshotTaken(arrived_at, frozenset(listed)) if len(listed) <= MAX_LISTED else None
        return event_of_mark(frame, arrived_at)
