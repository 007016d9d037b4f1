"""From what the PBXes say to what is kept: journal and calls in one commit, contexts in the live store.

Whatever a PBX said within some 50 ms is committed together with the calls that ended by it, so the database is always
what the journal up to some segment tells. After a crash the journal is replayed from where the oldest live call
began; calls that end in the replay were committed before and are left as they are.

While the database cannot be written, groups go into the spill instead, and the database takes them up in their order.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Final, Protocol

from agent.calls.context import CallContext
from agent.calls.events import SnapshotTaken
from agent.calls.live_call import LiveCall
from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment, CallFacts, assign
from agent.errors import StoreUnavailable
from agent.pbx.feed import Interpreter
from agent.store.context_log import finished_with
from agent.store.journal import Journal
from agent.store.segment import Segment
from agent.store.spill import Spill
from agent.store.spilled import pack_group
from agent.store.spilled_journal import SpilledJournal
from agent.store.writer import CommitResult, FinishedCall, Group, Writer
from agent.tracking.feed import FRAME_OVERHEAD_BYTES, MAX_WAITING_BYTES, Memory, PbxFeed
from config import failpoints
from config.settings import TenancySettings

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_STUCK_SECONDS: Final = 20.0  # a commit that neither ends nor fails
_TAKE_UP_RETRY_SECONDS: Final = 2.0  # what is spilled is on the disk already
# Taking up goes in steps: so much of the file in one transaction, and so long until new groups have their turn.
_TAKE_UP_BYTES: Final = 256 * 1024
_TAKE_UP_SECONDS: Final = 0.04
_HEAR_BYTES: Final = 256 * 1024
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class LiveContexts(Protocol):
    """Where contexts are told; never waits, never fails."""

    def mark(self, context: CallContext) -> None:
        """A live call is now so."""
        ...

    def ended(self, context: CallContext) -> None:
        """A call has ended."""
        ...

    def settled(self, pbx: str) -> None:
        """All live calls of this PBX have been marked; what the store holds of others is of the past."""
        ...

    def noted(self, call_sid: str) -> CallContext | None:
        """The context of a call that has ended, for its row; None if no service wrote anything."""
        ...

    def committed(self, *, opened: Iterable[str], ended: Iterable[str], moved: Iterable[tuple[str, str]]) -> None:
        """The beginnings of these calls are durable, and the rows of these; and what seemed to be calls goes on in
        others."""
        ...


@dataclass(slots=True)
class TrackerStatus:
    """Numbers for the operator, since the start of the agent."""

    calls_ended: int = 0
    last_commit_at: datetime | None = None
    store_error: str | None = None  # why nothing can be written at present
    calls_left_out: int = 0  # that could not be written at all
    spill_error: str | None = None  # why not even the spill takes what is heard


def _utc_now() -> datetime:
    return datetime.now(UTC)


def read_boot_id() -> str:
    """The kernel's id of this boot: monotonic times of different boots cannot be compared."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


class Tracker:
    """All PBXes' calls. One task (`run`) commits; feeds only append."""

    def __init__(
        self,
        *,
        site: str,
        tenancy: TenancySettings,
        writer: Writer,
        journal: Journal,
        live: LiveContexts,
        commit_interval: timedelta,
        on_commit: Callable[[], None],
        spill: Spill | None = None,
        on_ended: Callable[[FinishedCall], None] = lambda _: None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._site = site
        self._tenancy = tenancy
        self._writer = writer
        self._journal = journal
        self._live = live
        self._spill = spill  # None: what cannot be committed waits in memory only
        self._next_take_up = 0.0
        self._interval = commit_interval.total_seconds()
        self._on_commit = on_commit
        self._on_ended = on_ended
        self._now = now
        self._boot_id = read_boot_id()
        self._feeds: dict[str, PbxFeed] = {}
        self._gone_pbxes: list[str] = []  # no longer in the settings
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._finish = asyncio.Event()
        self._committing_since: float | None = None
        self._failed = Group()  # to be committed again before anything newer
        self._failed_bytes = 0
        self.status = TrackerStatus()

    def add_pbx(self, name: str, *, rules: CallRules, interpreter: Interpreter) -> PbxFeed:
        """The feed of one PBX, to be restored before its connector starts."""
        model = CallModel(site=self._site, pbx=name, rules=rules, assign=self._assign)
        feed = PbxFeed(name, model=model, interpreter=interpreter, keeper=self, boot_id=self._boot_id, now=self._now)
        self._feeds[name] = feed
        return feed

    def use_rules(self, tenancy: TenancySettings, rules: dict[str, CallRules]) -> None:
        """Rules changed: tenant rules count for every call from its next fact on, PBX rules for calls yet to begin."""
        self._tenancy = tenancy
        for name, feed in self._feeds.items():
            if name in rules:
                feed.model.rules = rules[name]

    def live_calls(self) -> list[LiveCall]:
        """Every live call of every PBX."""
        return [call for feed in self._feeds.values() for call in feed.model.live_calls()]

    @property
    def spilled_bytes(self) -> int:
        """How much waits in a file until the database can be written."""
        return self._spill.size if self._spill is not None else 0

    def ignored_channels(self, pbx: str) -> int:
        """Channels of a PBX that were not followed, because more were open than can be honest."""
        return self._feeds[pbx].model.ignored_channels

    def clock_doubt(self, pbx: str) -> str | None:
        """Why the clock that a PBX's calls are timed by must be wrong, a sentence."""
        return self._feeds[pbx].clock_doubt

    def listed(self, pbx: str) -> SnapshotTaken | None:
        """The channels that a PBX told last that it has; None while it is not heard."""
        return self._feeds[pbx].listed

    async def take_up(self) -> None:
        """Commit what an earlier process spilled, as far as the database can be written now; before `restore`."""
        if self._spill is None:
            return
        self._writer.skip_segment_ids(self._spill.last_segment_id)
        with suppress(StoreUnavailable):
            while self._spill.holds_groups:
                await self._take_up_step(self._spill)
            if not self._spill.holds_raw:
                await self._spill.clear()

    async def restore(self, *, interpreter: Callable[[], Interpreter]) -> None:
        """Replay what was said since the oldest call that was live when the agent last stopped, then hear what was
        spilled without being interpreted.

        A PBX that has left the settings is replayed too (by `interpreter`), and its live calls end. Raises
        StoreUnavailable.
        """
        journal: Memory = self._journal
        if self._spill is not None and self._spill.holds_groups:
            journal = SpilledJournal(self._journal, self._spill)
        for feed in self._feeds.values():
            await feed.restore(journal)
        gone = await journal.anchored_pbxes()
        for name in gone:
            if name not in self._feeds:
                log.warning("the PBX is no longer in the settings: its live calls end", extra={"pbx": name})
                await self._add_gone(name, interpreter()).restore(journal)
        await self._hear_raw(interpreter)
        for name in self._gone_pbxes:
            self._feeds[name].abandon(self._now())
        self._live.committed(opened=[call.call_sid for call in self.live_calls()], ended=(), moved=())

    def _add_gone(self, name: str, interpreter: Interpreter) -> PbxFeed:
        self._gone_pbxes.append(name)
        return self.add_pbx(name, rules=CallRules(), interpreter=interpreter)

    async def _hear_raw(self, interpreter: Callable[[], Interpreter]) -> None:
        spill = self._spill
        if spill is None:
            return
        heard: set[PbxFeed] = set()
        while pending := await spill.raw(max_bytes=_HEAR_BYTES):
            for each in pending:
                if isinstance(each.content, Segment):
                    name = each.content.pbx
                    feed = self._feeds.get(name) or self._add_gone(name, interpreter())
                    feed.hear_again(each.content)
                    heard.add(feed)
            await self._commit_heard_again(spill, pending[-1].end)
        for feed in heard:
            log.info("what was spilled as it came was heard now", extra={"pbx": feed.pbx})
            feed.fall_silent()
        if not spill.holds_groups:
            await spill.clear()

    async def _commit_heard_again(self, spill: Spill, end: int) -> None:
        """What came of raw segments, with their place in the spill: in the database, or at the spill's end."""
        group = self._gather()
        if not spill.holds_groups:
            with suppress(StoreUnavailable):
                self._told(group, await self._write(group, also=spill.mark(raw=end)))
                spill.taken_up(raw=end)
                return
        await spill.append(group, heard=end)

    async def run(self) -> None:
        """Commit what comes, as soon as it comes but not more often than the interval; return after `finish`."""
        while not self._finish.is_set():
            await self._work_or_turn()
            self._work.clear()
            started = time.monotonic()
            await self.commit_heard()
            await self._pause(self._interval - (time.monotonic() - started))
        await self.commit_heard()

    async def _work_or_turn(self) -> None:
        """Until something is heard, or it is time to take up something of the spill."""
        if self._spill is None or not self._spill.holds_groups:
            await self._work.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._next_take_up - time.monotonic())):
                await self._work.wait()

    def finish(self) -> None:
        """Let `run` commit what has been heard so far and return; connectors have ended before."""
        self._finish.set()
        self._work.set()

    def is_alive(self) -> bool:
        """Whether commits come to an end, well or with a fault of the world's; what the watchdog wants to know."""
        return self._committing_since is None or time.monotonic() - self._committing_since < _STUCK_SECONDS

    def _assign(self, facts: CallFacts) -> Assignment:
        return assign(self._tenancy, facts)

    # Called by feeds

    def wake(self) -> None:
        """There is something to commit."""
        self._work.set()

    def tell_live(self, call: LiveCall) -> None:
        """The live store is to know the call as it is now."""
        context = call.context(self._now())
        if call.ended_at is None:
            self._live.mark(context)
        else:
            self._live.ended(context)

    def settled(self, pbx: str) -> None:
        """The PBX has listed its channels: every live call of it is known."""
        self._live.settled(pbx)

    def has_room(self) -> bool:
        """Whether more may be heard before the store has caught up."""
        return self._room.is_set()

    async def wait_for_room(self) -> None:
        """Return when there is room."""
        await self._room.wait()

    # Committing

    async def commit_heard(self) -> None:
        """Keep what has been heard, trying again while no disk takes it; on the way out only once."""
        group = self._gather()
        for delay in chain(_RETRY_SECONDS, repeat(_RETRY_SECONDS[-1])):
            is_last_try = self._finish.is_set()
            try:
                await self._keep(group)
            except StoreUnavailable as exc:
                if self._spill is None:
                    self._cannot_write(exc)
                if is_last_try:
                    log.error("the agent stops although the local database cannot be written: %s", exc)
                    return
                is_taking_up = self.status.store_error is None
                await self._pause(self._interval if is_taking_up else delay)
                group = Group()  # the failed one is kept and comes first
            else:
                return

    async def _keep(self, group: Group) -> None:
        """In the database, or behind what is spilled already. Raises StoreUnavailable if it stands in neither."""
        spill = self._spill
        if spill is None:
            await self._commit(group)
            return
        if not spill.holds_groups:
            try:
                await self._commit(group)
            except StoreUnavailable as exc:
                self._cannot_write(exc)
                self._next_take_up = time.monotonic() + _TAKE_UP_RETRY_SECONDS
                group = Group()  # kept as the failed one
            else:
                return
        try:
            await self._put_aside(spill, group)
        finally:
            await self._take_up_some(spill)

    async def _pause(self, seconds: float) -> None:
        """Cut short by `finish`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._finish.wait()

    async def _commit(self, group: Group) -> None:
        if self._failed:
            group = _joined(self._failed, group)
        try:
            result = await self._write(group)
        except StoreUnavailable:
            self._keep_for_later(group)
            raise
        self._keep_for_later(Group())
        failpoints.hit("tracker.committed")  # and the live store still holds what has ended
        self._told(group, result)

    def _told(self, group: Group, result: CommitResult) -> None:
        """The group stands in the database."""
        status = self.status
        if status.store_error is not None:
            log.info("the local database can be written again")
            status.store_error = None
        status.spill_error = None
        status.last_commit_at = self._now()
        self._live.committed(
            opened=[call.call_sid for call in group.opened],
            ended=[str(call.row["call_sid"]) for call in group.finished],
            moved=group.moved,
        )
        for call in group.finished:
            self._on_ended(call)
        if result.enqueued:
            self._on_commit()

    # The spill

    async def _put_aside(self, spill: Spill, group: Group) -> None:
        group = _joined(self._failed, group)
        if not group:
            return
        try:
            with self._watched():
                try:
                    await spill.append(group)
                except (ValueError, TypeError, OverflowError):
                    group = self._without_unwritable(group)
                    await spill.append(group)
        except StoreUnavailable as exc:
            self._keep_for_later(group)
            if self.status.spill_error is None:
                log.error("not even the spill can be written; what is heard waits in memory: %s", exc)
            self.status.spill_error = str(exc)
            raise
        self.status.spill_error = None
        self._keep_for_later(Group())

    def _without_unwritable(self, group: Group) -> Group:
        good = []
        for call in group.finished:
            try:
                pack_group(Group(finished=[call]), heard=0)
            except (ValueError, TypeError, OverflowError) as exc:
                group = self._leave_out(call, exc, group)
            else:
                good.append(call)
        return replace(group, finished=good)

    async def _take_up_some(self, spill: Spill) -> None:
        """A few steps, so that what is heard meanwhile is soon on the disk; none while the database does not write."""
        until = time.monotonic() + _TAKE_UP_SECONDS
        if time.monotonic() < self._next_take_up:
            return
        try:
            while spill.holds_groups and time.monotonic() < until:
                await self._take_up_step(spill)
            if not spill.holds_groups:
                size = spill.size
                await spill.clear()
                log.info("all that was spilled stands in the local database", extra={"bytes": size})
        except StoreUnavailable as exc:
            self._cannot_write(exc)
            self._next_take_up = time.monotonic() + _TAKE_UP_RETRY_SECONDS

    async def _take_up_step(self, spill: Spill) -> None:
        pending = await spill.groups(max_bytes=_TAKE_UP_BYTES)
        end = pending[-1].end if pending else spill.size
        group = Group()
        for each in pending:
            if isinstance(each.content, Group):
                group = _joined(group, each.content)
        result = await self._write(group, also=spill.mark(groups=end))
        spill.taken_up(groups=end)
        self._told(group, result)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._committing_since = time.monotonic()
        try:
            yield
        finally:
            self._committing_since = None

    def _keep_for_later(self, group: Group) -> None:
        self._failed = group
        frames = (frame for segment in group.segments for frame in segment.frames)
        self._failed_bytes = sum(len(frame.data) + FRAME_OVERHEAD_BYTES for frame in frames)
        self.check_room()

    async def _write(self, group: Group, *, also: Callable[[sqlite3.Connection], None] | None = None) -> CommitResult:
        """Write the group; a call that cannot be written at all is left out, so that it stops nobody else.

        What the PBX said of it stays in the journal.
        """
        with self._watched():
            try:
                return await self._writer.commit(group, also=also)
            except (ValueError, TypeError, OverflowError):
                good = []
                for call in group.finished:
                    try:
                        await self._writer.commit(Group(finished=[call]))
                    except (ValueError, TypeError, OverflowError) as exc:
                        group = self._leave_out(call, exc, group)
                    else:
                        good.append(call)
                return await self._writer.commit(replace(group, finished=good), also=also)

    def _leave_out(self, call: FinishedCall, exc: Exception, group: Group) -> Group:
        sid = str(call.row.get("call_sid"))
        log.error("a call cannot be written and is left out: %s", exc, extra={"call_sid": sid})
        self.status.calls_left_out += 1
        return replace(group, forgotten=[*group.forgotten, sid])

    def _cannot_write(self, exc: StoreUnavailable) -> None:
        if self.status.store_error is None:
            place = "waits in memory" if self._spill is None else "is spilled into a file beside it"
            log.error("the local database cannot be written; what is heard %s: %s", place, exc)
        self.status.store_error = str(exc)

    def _gather(self) -> Group:
        """Take what all feeds have heard since the last time."""
        group = Group()
        for feed in self._feeds.values():
            group = _joined(group, feed.take(self._writer.next_segment_id))
        self.status.calls_ended += len(group.finished)
        return replace(group, finished=[self._with_notes(call) for call in group.finished])

    def _with_notes(self, call: FinishedCall) -> FinishedCall:
        context = self._live.noted(str(call.row["call_sid"]))
        return finished_with(call, context) if context is not None else call

    def check_room(self) -> None:
        """Stop reading, or go on."""
        waiting = self._failed_bytes + sum(feed.waiting_bytes for feed in self._feeds.values())
        if waiting < MAX_WAITING_BYTES:
            self._room.set()
        elif self._room.is_set():
            self._room.clear()
            log.error("too much waits for the local database: the PBX is not read until it can be written")


def _joined(first: Group, second: Group) -> Group:
    return Group(
        segments=[*first.segments, *second.segments],
        opened=[*first.opened, *second.opened],
        finished=[*first.finished, *second.finished],
        forgotten=[*first.forgotten, *second.forgotten],
        moved=[*first.moved, *second.moved],
        gaps=[*first.gaps, *second.gaps],
    )
