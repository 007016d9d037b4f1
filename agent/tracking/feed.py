"""One PBX's frames on their way into the call model and the journal."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from agent.calls.events import CallEvent, ClockDoubted, ClockStepped, LineLost, SnapshotTaken
from agent.calls.live_call import LiveCall
from agent.calls.model import CallModel
from agent.pbx.clock import mark_of
from agent.pbx.feed import LINE_LOST, Blind, BlindReason, Interpreter
from agent.store.segment import Frame, Segment
from agent.store.writer import FinishedCall, GapClosed, GapOpened, Group, LiveAnchor
from agent.tracking.doubt import ClockDoubt

log = logging.getLogger(__name__)

# What may wait in memory while SQLite cannot write; beyond it reading from the PBX stops, so that the PBX waits for us.
MAX_WAITING_BYTES: Final = 24 * 1024 * 1024
FRAME_OVERHEAD_BYTES: Final = 200  # what Python needs to hold one frame
# Stands in the journal where a PBX left the settings.
ABANDONED: Final = b"\0abandoned"


class Keeper(Protocol):
    """Who commits what feeds have heard."""

    def wake(self) -> None:
        """There is something to commit."""
        ...

    def tell_live(self, call: LiveCall) -> None:
        """The live store is to know the call as it is now."""
        ...

    def settled(self, pbx: str) -> None:
        """The PBX has listed its channels: every live call of it is known."""
        ...

    def has_room(self) -> bool:
        """Whether more may be heard before the store has caught up."""
        ...

    async def wait_for_room(self) -> None:
        """Return when there is room."""
        ...

    def check_room(self) -> None:
        """A feed holds much; see whether reading has to stop."""
        ...


class Memory(Protocol):
    """What the store knows of a PBX: `agent.store.journal`, and beside it what is spilled."""

    async def anchors(self, pbx: str) -> dict[str, int]:
        """The live calls of a PBX by call_sid, each with the segment from which a replay finds all of it."""
        ...

    async def anchored_pbxes(self) -> list[str]:
        """The PBXes that have live calls."""
        ...

    def replay_from(self, pbx: str, journal_id: int) -> AsyncIterator[Segment]:
        """Every segment of a PBX from `journal_id` on."""
        ...

    async def last_heard_at(self, pbx: str) -> datetime | None:
        """When a PBX last said anything that was kept."""
        ...


class _Stretch(NamedTuple):
    """Frames in the order in which they came, by one clock."""

    boot_id: str
    first_at: datetime
    monotonic_ns: int
    frames: Sequence[Frame]


class PbxFeed:
    """One PBX's frames on their way into the model and the journal; implements `agent.pbx.feed.Feed`."""

    def __init__(
        self,
        pbx: str,
        *,
        model: CallModel,
        interpreter: Interpreter,
        keeper: Keeper,
        boot_id: str,
        now: Callable[[], datetime],
    ) -> None:
        self._keeper = keeper
        self._now = now
        self._boot_id = boot_id
        self.pbx = pbx
        self.model = model
        self._interpreter = interpreter  # only for the replay; live, the connector interprets
        self._doubt = ClockDoubt()
        self._began_blind: datetime | None = None  # the gap that was open when the clock was first looked at
        self._heard: list[_Stretch] = []  # by clocks that were set since
        self._frames: list[Frame] = []
        self._first_at: datetime | None = None
        self._first_monotonic_ns = 0
        self._connection = 1
        self._gaps: list[GapOpened | GapClosed] = []
        self._ended: list[LiveCall] = []  # ended in the replay, but not yet told
        self._gone: list[str] = []  # call_sids that were live and cannot be found again
        self._heard_last_at: datetime | None = None  # when the last raw segment ended
        self._blind_since: datetime | None = None  # a gap is open: nothing was heard since
        self._telling = False
        self.waiting_bytes = 0
        self.listed: SnapshotTaken | None = None  # the channels the PBX told last that it has, while it is heard

    async def restore(self, journal: Memory) -> None:
        """Bring the model to where it was when the agent stopped; the database's anchors say which calls were live."""
        self.model.await_list()
        anchors = await journal.anchors(self.pbx)
        last_at = await journal.last_heard_at(self.pbx)
        if anchors:
            self.model.replay_towards(frozenset(anchors))
            async for segment in journal.replay_from(self.pbx, min(anchors.values())):
                self._replay(segment)
            # What ended in the replay is told already, unless the database still takes it for live.
            self._ended = [call for call in self.model.take_ended() if call.call_sid in anchors]
            self.model.replayed()
            self.model.take_ended()
            self.model.take_opened()
            self.model.take_changed()
            self.model.take_forgotten()
            self.model.take_repaired()
            self._gone = sorted(anchors.keys() - {call.call_sid for call in (*self.model.live_calls(), *self._ended)})
        self._look_at_clock(self._now(), last_at)
        if last_at is not None:
            self._be_blind_since(last_at)
            self._began_blind = last_at
        restored = self.model.live_calls()
        for call in restored:
            self._keeper.tell_live(call)
        if restored:
            log.info("live calls restored from the journal", extra={"pbx": self.pbx, "calls": len(restored)})
        if self._gone:
            facts = {"pbx": self.pbx, "calls": len(self._gone)}
            log.error("live calls cannot be found in the journal; those the PBX still has are followed", extra=facts)

    def _be_blind_since(self, last_at: datetime) -> None:
        self._append(LINE_LOST)
        self.model.apply(LineLost(last_at))
        self._gaps.append(GapOpened(self.pbx, last_at, BlindReason.AGENT_DOWN, "the agent was not running"))
        self._blind_since = last_at

    def hear_again(self, segment: Segment) -> None:
        """What was kept raw while nobody could interpret it, in its order; after `restore`."""
        self._close_stretch()
        self._heard.append(_Stretch(segment.boot_id, segment.first_at, segment.monotonic_ns, segment.frames))
        self.waiting_bytes += sum(len(frame.data) + FRAME_OVERHEAD_BYTES for frame in segment.frames)
        for number, frame in enumerate(segment.frames):
            with self._surviving(segment, number):
                at = _moment_in(segment, frame)
                event = self._interpreter.interpret(frame.data, at)
                self._note_blindness(event, at, Blind(BlindReason.LINE_LOST))
                if event is not None:
                    self._apply(event)
        self._heard_last_at = segment.last_at

    def fall_silent(self) -> None:
        """The raw segments have ended, and nobody has listened since."""
        self.listed = None
        if self._heard_last_at is not None and self._blind_since is None:
            self._be_blind_since(self._heard_last_at)

    def _look_at_clock(self, now: datetime, last_at: datetime | None) -> None:
        if self._doubt.begin(now, last_at):
            log.error("the clock is wrong: %s", self._doubt.words, extra={"pbx": self.pbx})
            self._mark(ClockDoubted(now))
        elif self.model.doubts_clock:  # it was put right while nobody listened
            self._mark(ClockStepped(now, 0.0, is_trusted=True))

    def _mark(self, event: ClockDoubted | ClockStepped) -> None:
        self._append(mark_of(event), event.at)
        self.model.apply(event)

    def abandon(self, at: datetime) -> None:
        """Nobody will hear this PBX any more: its live calls end where they were last heard of."""
        self.heard(ABANDONED, SnapshotTaken(at, frozenset()), at)

    def _replay(self, segment: Segment) -> None:
        for number, frame in enumerate(segment.frames):
            with self._surviving(segment, number):
                event = self._interpreter.interpret(frame.data, _moment_in(segment, frame))
                if event is not None:
                    self.model.apply(event)

    @contextmanager
    def _surviving(self, segment: Segment, number: int) -> Iterator[None]:
        """A frame that ended the agent once must not do so at every start."""
        try:
            yield
        except Exception:
            facts = {"pbx": self.pbx, "segment": segment.id, "frame": number}
            log.exception("a frame cannot be replayed and is left out; please report this", extra=facts)

    # agent.pbx.feed.Feed

    @property
    def clock_doubt(self) -> str | None:
        """Why this machine's clock must be wrong, a sentence; None if nothing speaks against it."""
        return self._doubt.words

    def clock_set(self, at: datetime, seconds: float) -> None:
        """Live calls are told by the clock as it is now, and what waited for a clock that is right."""
        settled = self._doubt.is_settled_at(at)
        event = ClockStepped(at, seconds, is_trusted=settled)
        log.warning(
            "the clock was set" if seconds else "the clock is right again",
            extra={"pbx": self.pbx, "seconds": round(seconds, 3)},
        )
        self._close_stretch()  # the moments of a segment's frames are told from its first one
        self._append(mark_of(event), at)
        if settled:
            self._gaps += self._doubt.settle(seconds, blind_since=self._began_blind)
        self._apply(event)

    def _tell_gap(self, gap: GapOpened | GapClosed) -> None:
        if not self._doubt.holds(gap):
            self._gaps.append(gap)

    def heard(self, frame: bytes, event: CallEvent | None, at: datetime, *, blind: Blind | None = None) -> None:
        """One frame and what it means; why nothing is heard after it."""
        if self._doubt.is_settled_at(at):
            self.clock_set(at, 0.0)  # nobody set it: it has come by itself to where it must have been
        self._append(frame, at)
        self._note_blindness(event, at, blind or Blind(BlindReason.LINE_LOST))
        if event is not None:
            self._apply(event)
        if self.waiting_bytes > MAX_WAITING_BYTES:
            self._keeper.check_room()

    def _note_blindness(self, event: CallEvent | None, at: datetime, blind: Blind) -> None:
        if isinstance(event, LineLost):
            self._tell_gap(GapOpened(self.pbx, event.at, blind.reason, blind.detail))
            self._blind_since = event.at
            self.listed = None
        elif self._blind_since is not None:
            if not self._doubt.holds(GapClosed(self.pbx, at)):
                # A clock that was set back meanwhile must not keep the gap open.
                self._gaps.append(GapClosed(self.pbx, max(at, self._blind_since)))
            self._blind_since = None

    def has_room(self) -> bool:
        """Whether reading may go on."""
        return self._keeper.has_room()

    async def wait_for_room(self) -> None:
        """Return when reading may go on."""
        await self._keeper.wait_for_room()

    def _close_stretch(self) -> None:
        if self._first_at is not None:
            self._heard.append(_Stretch(self._boot_id, self._first_at, self._first_monotonic_ns, self._frames))
            self._frames, self._first_at = [], None

    def _append(self, frame: bytes, at: datetime | None = None) -> None:
        monotonic_ns = time.monotonic_ns()
        if self._first_at is None:
            self._first_at, self._first_monotonic_ns = at or self._now(), monotonic_ns
        self._frames.append(Frame((monotonic_ns - self._first_monotonic_ns) // 1000, frame))
        self.waiting_bytes += len(frame) + FRAME_OVERHEAD_BYTES
        self._keeper.wake()

    def _apply(self, event: CallEvent) -> None:
        self.model.apply(event)
        if isinstance(event, SnapshotTaken):
            self.listed = event
            self._tell_live()
            self._keeper.settled(self.pbx)
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_live)

    def _tell_live(self) -> None:
        self._telling = False
        for call in self.model.take_changed():
            self._keeper.tell_live(call)

    # For the tracker's commit

    def take(self, next_segment_id: Callable[[], int]) -> Group:
        """What was heard since the last time, to be committed."""
        gaps, self._gaps = self._gaps, []
        self._close_stretch()
        if not self._heard:
            return Group(gaps=gaps)
        heard, self._heard, self.waiting_bytes = self._heard, [], 0
        segments = [
            Segment(
                id=next_segment_id(),
                pbx=self.pbx,
                boot_id=stretch.boot_id,
                connection=self._connection,
                first_at=stretch.first_at,
                monotonic_ns=stretch.monotonic_ns,
                frames=stretch.frames,
            )
            for stretch in heard
        ]
        self._connection += any(isinstance(gap, GapOpened) for gap in gaps)
        opened = [call for call in self.model.take_opened() if call.ended_at is None]
        ended, self._ended = [*self._ended, *self.model.take_ended()], []
        forgotten = self.model.take_forgotten()
        gone, self._gone = [*self._gone, *(call.call_sid for call in forgotten)], []
        for call in (*ended, *forgotten):
            self._keeper.tell_live(call)
        told = [*ended, *(call for call in self.model.take_repaired() if call not in ended)]
        return Group(
            segments=segments,
            opened=[LiveAnchor(call.call_sid, self.pbx, segments[0].id, call.started_at) for call in opened],
            finished=[FinishedCall(call.to_row(), call.assignment.tenant) for call in told],
            forgotten=gone,
            moved=[(call.call_sid, call.merged_into) for call in forgotten if call.merged_into is not None],
            gaps=gaps,
        )


def _moment_in(segment: Segment, frame: Frame) -> datetime:
    return segment.first_at + timedelta(microseconds=frame.offset_us)
