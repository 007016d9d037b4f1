"""Calls told word by word, as a PBX tells them, in as few words as a test needs."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from agent.calls.events import (
    AppStarted,
    BridgeJoined,
    BridgeLeft,
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
    LineLost,
    QueueJoined,
    QueueLeft,
    SnapshotTaken,
    Unheld,
)
from agent.calls.live_call import LiveCall
from agent.calls.model import CallModel
from agent.calls.traces import TraceParent

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DID = "902125551001"
MOBILE = "905300000001"


class Story:
    """What one PBX says of one call; `id` keeps the channels of several stories apart."""

    def __init__(self, ident: str = "1", *, at: datetime = NOON) -> None:
        self.ident = ident
        self.at = at
        self.events: list[CallEvent] = []

    def channel(self, name: str) -> str:
        return f"{self.ident}.{name}"

    @property
    def linked(self) -> str:
        return self.channel("a")

    def wait(self, seconds: float) -> Self:
        self.at += timedelta(seconds=seconds)
        return self

    def say(self, event: CallEvent) -> Self:
        self.events.append(event)
        return self

    def opens(self, name: str, endpoint: str, **facts: Any) -> Self:  # Any: the facts of ChannelOpened, of many types
        facts.setdefault("linked", self.linked)
        return self.say(ChannelOpened(self.at, self.channel(name), name=f"{endpoint}-{self.ident}{name}", **facts))

    def from_trunk(self, did: str = DID, *, number: str | None = MOBILE) -> Self:
        return self.opens("a", "PJSIP/trunk-acme", number=number, exten=did, context="from-trunk-acme")

    def from_phone(self, dialled: str, *, phone: str = "101") -> Self:
        return self.opens("a", f"PJSIP/{phone}", number=phone, exten=dialled, context="internal")

    def app(
        self, application: str, data: str = "", *, name: str = "a", exten: str = "s", trace: TraceParent | None = None
    ) -> Self:
        return self.say(AppStarted(self.at, self.channel(name), self.linked, "c", exten, application, data, trace))

    def dials(self, name: str, endpoint: str, *, by: str | None = "a", string: str | None = None) -> Self:
        number = endpoint.partition("/")[2]
        self.opens(name, endpoint, number=number, exten="s", context="internal")
        source = self.channel(by) if by else None
        return self.say(DialBegan(self.at, source, self.channel(name), self.linked, string or number))

    def rings(self, name: str) -> Self:
        return self.say(ChannelRinging(self.at, self.channel(name), self.linked))

    def up(self, name: str) -> Self:
        return self.say(ChannelUp(self.at, self.channel(name), self.linked))

    def dial_ends(self, name: str, status: DialStatus) -> Self:
        return self.say(DialEnded(self.at, self.channel(name), self.linked, status))

    def bridged(self, *names: str, bridge: str = "b") -> Self:
        for name in names:
            self.say(BridgeJoined(self.at, self.channel(name), self.linked, self.channel(bridge)))
        return self

    def parted(self, *names: str, bridge: str = "b") -> Self:
        for name in names:
            self.say(BridgeLeft(self.at, self.channel(name), self.linked, self.channel(bridge)))
        return self

    def holds(self, name: str) -> Self:
        return self.say(Held(self.at, self.channel(name), self.linked))

    def takes_off_hold(self, name: str) -> Self:
        return self.say(Unheld(self.at, self.channel(name), self.linked))

    def queues(self, queue: str) -> Self:
        return self.say(QueueJoined(self.at, self.channel("a"), self.linked, queue, 1))

    def leaves_queue(self, queue: str) -> Self:
        return self.say(QueueLeft(self.at, self.channel("a"), self.linked, queue))

    def hangs_up(self, name: str) -> Self:
        return self.say(HangupRequested(self.at, self.channel(name), self.linked))

    def cut_off(self, *names: str) -> Self:
        for name in names:
            self.say(CutOff(self.at, self.channel(name), self.linked))
        return self

    def closes(self, *names: str, cause: int | None = 16) -> Self:
        for name in names:
            self.say(ChannelClosed(self.at, self.channel(name), self.linked, cause))
        return self

    def line_lost(self) -> Self:
        return self.say(LineLost(self.at))

    def snapshot(self, *names: str) -> Self:
        return self.say(SnapshotTaken(self.at, frozenset(self.channel(name) for name in names)))

    # Whole pieces

    def answers(self, name: str) -> Self:
        """Who was dialled picks up and talks with the caller."""
        return self.up(name).dial_ends(name, DialStatus.ANSWER).up("a").bridged(name, "a")

    def talk_ends(self, name: str, *, by: str = "a") -> Self:
        """One of the two hangs up."""
        return self.hangs_up(by).parted(by).parted(name if by == "a" else "a").closes(name, "a")

    def gives_up(self, name: str) -> Self:
        """The caller hangs up while it rings."""
        return self.hangs_up("a").dial_ends(name, DialStatus.CANCEL).closes(name, "a", cause=127)


def tell(model: CallModel, *stories: Story) -> list[LiveCall]:
    """The calls that ended in these stories, told one after the other."""
    return tell_events(model, (event for story in stories for event in story.events))


def tell_events(model: CallModel, events: Iterable[CallEvent]) -> list[LiveCall]:
    """The calls that ended in these events."""
    for event in events:
        model.apply(event)
    return model.take_ended()
