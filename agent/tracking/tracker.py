"""From what the PBXes say to what is kept: journal and calls in one commit, contexts in the live store.

Whatever a PBX said within some 50 ms is committed together with the calls that ended by it, so the database is always
what the journal up to some segment tells. After a crash the journal is replayed from where the oldest live call
began; calls that end in the replay were committed before and are left as they are.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
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
from agent.store.writer import CommitResult, FinishedCall, Group, Writer
from agent.tracking.feed import FRAME_OVERHEAD_BYTES, MAX_WAITING_BYTES, PbxFeed
from config import failpoints
from config.settings import TenancySettings

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_STUCK_SECONDS: Final = 20.0  # a commit that neither ends nor fails
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
        on_ended: Callable[[FinishedCall], None] = lambda _: None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._site = site
        self._tenancy = tenancy
        self._writer = writer
        self._journal = journal
        self._live = live
        self._interval = commit_interval.total_seconds()
        self._on_commit = on_commit
        self._on_ended = on_ended
        self._now = now
        self._boot_id = read_boot_id()
        self._feeds: dict[str, PbxFeed] = {}
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

    def ignored_channels(self, pbx: str) -> int:
        """Channels of a PBX that were not followed, because more were open than can be honest."""
        return self._feeds[pbx].model.ignored_channels

    def clock_doubt(self, pbx: str) -> str | None:
        """Why the clock that a PBX's calls are timed by must be wrong, a sentence."""
        return self._feeds[pbx].clock_doubt

    def listed(self, pbx: str) -> SnapshotTaken | None:
        """The channels that a PBX told last that it has; None while it is not heard."""
        return self._feeds[pbx].listed

    async def restore(self, *, interpreter: Callable[[], Interpreter]) -> None:
        """Replay what was said since the oldest call that was live when the agent last stopped.

        A PBX that has left the settings is replayed too (by `interpreter`), and its live calls end.
        """
        for feed in self._feeds.values():
            await feed.restore(self._journal)
        for name in await self._journal.anchored_pbxes():
            if name not in self._feeds:
                log.warning("the PBX is no longer in the settings: its live calls end", extra={"pbx": name})
                feed = self.add_pbx(name, rules=CallRules(), interpreter=interpreter())
                await feed.restore(self._journal)
                feed.abandon(self._now())
        self._live.committed(opened=[call.call_sid for call in self.live_calls()], ended=(), moved=())

    async def run(self) -> None:
        """Commit what comes, as soon as it comes but not more often than the interval; return after `finish`."""
        while not self._finish.is_set():
            await self._work.wait()
            self._work.clear()
            started = time.monotonic()
            await self.commit_heard()
            await self._pause(self._interval - (time.monotonic() - started))
        await self.commit_heard()

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
        """Commit what has been heard, trying again while the disk does not take it; on the way out only once."""
        group = self._gather()
        for delay in chain(_RETRY_SECONDS, repeat(_RETRY_SECONDS[-1])):
            is_last_try = self._finish.is_set()
            try:
                await self._commit(group)
            except StoreUnavailable as exc:
                self._cannot_write(exc)
                if is_last_try:
                    log.error("the agent stops although the local database cannot be written: %s", exc)
                    return
                await self._pause(delay)
                group = Group()  # the failed one is kept and comes first
            else:
                return

    async def _pause(self, seconds: float) -> None:
        """Cut short by `finish`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._finish.wait()

    async def _commit(self, group: Group) -> None:
        if self._failed:
            group = _joined(self._failed, group)
        self._committing_since = time.monotonic()
        try:
            result = await self._write(group)
        except StoreUnavailable:
            self._keep_for_later(group)
            raise
        finally:
            self._committing_since = None
        self._keep_for_later(Group())
        failpoints.hit("tracker.committed")  # and the live store still holds what has ended
        status = self.status
        if status.store_error is not None:
            log.info("the local database can be written again")
            status.store_error = None
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

    def _keep_for_later(self, group: Group) -> None:
        self._failed = group
        frames = (frame for segment in group.segments for frame in segment.frames)
        self._failed_bytes = sum(len(frame.data) + FRAME_OVERHEAD_BYTES for frame in frames)
        self.check_room()

    async def _write(self, group: Group) -> CommitResult:
        """Write the group; a call that cannot be written at all is left out, so that it stops nobody else.

        What the PBX said of it stays in the journal.
        """
        try:
            return await self._writer.commit(group)
        except (ValueError, TypeError, OverflowError):
            good = []
            for call in group.finished:
                try:
                    await self._writer.commit(Group(finished=[call]))
                except (ValueError, TypeError, OverflowError) as exc:
                    sid = str(call.row.get("call_sid"))
                    log.error("a call cannot be written and is left out: %s", exc, extra={"call_sid": sid})
                    self.status.calls_left_out += 1
                    group = replace(group, forgotten=[*group.forgotten, sid])
                else:
                    good.append(call)
            return await self._writer.commit(replace(group, finished=good))

    def _cannot_write(self, exc: StoreUnavailable) -> None:
        if self.status.store_error is None:
            log.error("the local database cannot be written; what is heard waits in memory: %s", exc)
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
