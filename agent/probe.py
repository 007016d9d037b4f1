"""Asks every part of the running agent how it is."""

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from agent.errors import StoreUnavailable
from agent.health import (
    AgentStatus,
    BacklogHealth,
    BackupHealth,
    CallsHealth,
    CentralHealth,
    CoverageHealth,
    DatabaseHealth,
    LiveStoreHealth,
    PbxHealth,
    SourceHealth,
    Verdict,
    problems_of,
)
from agent.live.feed import LiveFeed
from agent.pbx.feed import LineState, LineStatus
from agent.sources.status import SourceStatus
from agent.store.coverage import DayCounts
from agent.store.outbox import SqliteOutbox
from agent.store.repository import Repository
from agent.store.rescue import told_of_last
from agent.store.room import Level, Room
from agent.store.tally import SqliteTally
from agent.store.upkeep import Upkeep
from agent.tracking.tracker import Tracker
from config.describe import fingerprint
from config.settings import Settings
from sync.errors import OutboxUnavailable
from sync.outbox import Backlog
from sync.syncer import Syncer

_STATM = Path("/proc/self/statm")
GAPS_SHOWN: Final = timedelta(days=7)


class Watched(Protocol):
    """What is known of the room for local data."""

    room: Room
    level: Level
    bytes_a_day: float
    days_left: float | None
    backfill_stopped: bool
    calls_dropped: int
    segments_dropped: int
    set_aside: int


class Watching(Protocol):
    """Watches it: `agent.disk`, on the same floor as this."""

    @property
    def state(self) -> Watched:
        """What was found last."""
        ...


class Probe:
    """Makes the status on demand; holds no state but when the agent started."""

    def __init__(
        self,
        settings: Settings,
        *,
        version: str,
        tracker: Tracker,
        lines: Sequence[LineStatus],
        live_feed: LiveFeed,
        syncer: Syncer | None,
        repository: Repository,
        outbox: SqliteOutbox,
        disk: Watching,
        tally: SqliteTally,
        upkeep: Upkeep,
        sources: Sequence[SourceStatus] = (),
    ) -> None:
        self._settings = settings
        self._version = version
        self._tracker = tracker
        self._lines = lines
        self._live_feed = live_feed
        self._syncer = syncer
        self._repository = repository
        self._outbox = outbox
        self._disk = disk
        self._tally = tally
        self._upkeep = upkeep
        self._sources = sources
        self._started_at = datetime.now(UTC)
        self._settings_hash = fingerprint(settings)

    def settings_changed(self, settings: Settings) -> None:
        """The agent goes by these settings now."""
        self._settings_hash = fingerprint(settings)

    def line(self) -> str:
        """One line for `systemctl status`, from what is at hand without asking the disk."""
        up = sum(line.state is LineState.CONNECTED for line in self._lines)
        parts = [
            f"{up} of {len(self._lines)} PBXes connected",
            f"{len(self._tracker.live_calls())} live calls",
            f"{self._tracker.status.calls_ended} ended",
        ]
        if self._syncer is not None:
            parts.append(f"centre {self._syncer.status.state}")
        if self._tracker.status.store_error:
            parts.append("local database cannot be written, what is heard is spilled")
        return ", ".join(parts)

    async def status(self) -> AgentStatus:
        """Everything; where the local database cannot be read, its part says so instead of failing."""
        error = self._tracker.status.store_error
        # Before the backlog is counted: what an idle syncer was wished to do is in the count.
        central = self._central()
        calls, backlog = self._live_calls(), BacklogHealth()
        reconciled: dict[str, object] | None = None
        sizes, is_readable = None, True
        gaps: dict[str, datetime] = {}
        unfilled: dict[str, tuple[int, float]] = {}
        latest: dict[str, datetime] = {}
        verified: dict[str, DayCounts] = {}
        try:
            calls = await self._calls()
            backlog = _backlog(await self._outbox.backlog())
            reconciled = await self._tally.last()
            sizes = await self._repository.sizes()
            gaps = {gap.pbx: gap.from_at for gap in await self._repository.gaps(limit=100) if gap.to_at is None}
            unfilled = await self._repository.unfilled_gaps(datetime.now(UTC) - GAPS_SHOWN)
            verified = await self._repository.coverage()
            for line in self._lines:
                last = await self._repository.last_call_time(line.pbx)
                if last is not None:
                    latest[line.pbx] = last
        except (StoreUnavailable, OutboxUnavailable) as exc:
            error, is_readable = error or str(exc), False
        disk_free = disk_total = 0
        try:
            disk_total, _, disk_free = shutil.disk_usage(self._settings.state_directory)
        except OSError as exc:
            error = error or f"{self._settings.state_directory} cannot be looked at: {exc.strerror}"
        status = AgentStatus(
            verdict=Verdict.OK,
            site=self._settings.site,
            version=self._version,
            settings_hash=self._settings_hash,
            pid=os.getpid(),
            started_at=self._started_at,
            resident_bytes=_resident_bytes(),
            pbx=tuple(
                self._pbx(line, gaps=gaps, unfilled=unfilled, latest=latest, verified=verified) for line in self._lines
            ),
            calls=calls,
            backlog=backlog,
            central=central.model_copy(update={"reconciled": reconciled}),
            live_store=self._live_store(),
            database=DatabaseHealth(
                file=str(self._settings.database_file),
                size=sizes.database_bytes if sizes else 0,
                wal_size=sizes.wal_bytes if sizes else 0,
                journal_size=sizes.journal_bytes if sizes else 0,
                last_commit_at=self._tracker.status.last_commit_at,
                error=error,
                is_readable=is_readable,
                disk_free=disk_free,
                disk_total=disk_total,
                salvaged=await asyncio.to_thread(told_of_last, self._settings.database_file, datetime.now(UTC)),
                **self._room(),
                **self._checked(),
            ),
            backup=BackupHealth.of(self._settings, self._upkeep.notes, next_at=self._upkeep.next_backup_at),
        )
        problems = problems_of(status)
        verdict = Verdict.DEGRADED if problems else Verdict.OK
        return status.model_copy(update={"problems": problems, "verdict": verdict})

    def _room(self) -> dict[str, Any]:  # Any: the fields' own types
        disk, room = self._disk.state, self._disk.state.room
        return {
            "unused": room.unused,
            "spill_size": self._tracker.spilled_bytes,
            "spill_error": self._tracker.status.spill_error,
            "reserve_size": room.reserve,
            "backups_size": room.backups,
            "budget": room.budget,
            "used": room.used,
            "used_part": round(room.part, 4),
            "is_of_budget": room.is_of_budget,
            "level": str(disk.level),
            "growth_a_day": round(disk.bytes_a_day),
            "days_left": None if disk.days_left is None else round(disk.days_left, 2),
            "budget_days": self._settings.store.budget_days,
            "on_full": tuple(self._done()),
            "set_aside": disk.set_aside,
        }

    def _checked(self) -> dict[str, Any]:  # Any: as above
        notes = self._upkeep.notes
        return {
            "checked_at": notes.checked_at,
            "check_found": notes.found,
            "check_trouble": notes.check_trouble,
            "next_check_at": self._upkeep.next_check_at,
        }

    def _done(self) -> Iterator[str]:
        disk = self._disk.state
        if disk.backfill_stopped:
            yield "past records wait"
        if disk.calls_dropped:
            yield f"{disk.calls_dropped} calls that the centre has were deleted"
        if disk.segments_dropped:
            yield f"{disk.segments_dropped} segments of the journal were deleted"

    async def _calls(self) -> CallsHealth:
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return self._live_calls().model_copy(
            update={
                "today": await self._repository.counts_since(midnight),
                "unassigned": await self._repository.count_unassigned(),
            }
        )

    def _live_calls(self) -> CallsHealth:
        """What is known without the local database."""
        return CallsHealth(live=len(self._tracker.live_calls()), left_out=self._tracker.status.calls_left_out)

    def _pbx(
        self,
        line: LineStatus,
        *,
        gaps: dict[str, datetime],
        unfilled: dict[str, tuple[int, float]],
        latest: dict[str, datetime],
        verified: dict[str, DayCounts],
    ) -> PbxHealth:
        counts = verified.get(line.pbx)
        count, seconds = unfilled.get(line.pbx, (0, 0.0))
        return PbxHealth(
            name=line.pbx,
            address=line.address,
            state=line.state,
            since=line.since,
            reason=line.reason,
            version=line.version,
            last_heard_at=line.last_heard_at,
            last_call_at=latest.get(line.pbx),
            events=line.events,
            live_calls=sum(call.pbx == line.pbx for call in self._tracker.live_calls()),
            reconnects=line.reconnects,
            clock_offset_seconds=line.clock_offset_seconds,
            open_gap_since=gaps.get(line.pbx),
            unfilled_gaps=count,
            unfilled_seconds=seconds,
            sources=tuple(_source(source) for source in self._sources if source.pbx == line.pbx),
            coverage=CoverageHealth.model_validate(counts.as_dict()) if counts is not None else None,
            warnings=(*self._doubts(line.pbx), *line.warnings.values(), *self._ignored(line.pbx)),
        )

    def _doubts(self, pbx: str) -> Iterator[str]:
        if (doubt := self._tracker.clock_doubt(pbx)) is not None:
            yield doubt

    def _ignored(self, pbx: str) -> Iterator[str]:
        if ignored := self._tracker.ignored_channels(pbx):
            yield f"{ignored} channels were not followed, because too many are open at once"

    def _central(self) -> CentralHealth:
        if self._syncer is None or self._settings.central is None:
            return CentralHealth()
        status = self._syncer.status
        return CentralHealth(
            door="hub" if self._settings.central.is_hub else "direct",
            address=self._settings.central.address,
            state=status.state,
            last_success_at=status.last_success_at,
            last_error=status.last_error,
            troubled_since=status.troubled_since,
            next_try_at=status.next_try_at,
            sent=status.sent,
            refilled=status.refilled,
            is_fenced=status.is_fenced,
            centre=status.centre,
            lease_until=status.lease_until,
            tenants=status.tenants,
            clock_offset_seconds=status.clock_offset_seconds,
            backlog_goes=status.backlog_goes,
        )

    def _live_store(self) -> LiveStoreHealth:
        status = self._live_feed.status()
        return LiveStoreHealth(
            home=status.home,
            reachable=status.reachable is not False,  # not tried yet is no trouble
            since=status.since,
            waiting=status.waiting,
            error=status.problem,
        )


def _source(status: SourceStatus) -> SourceHealth:
    return SourceHealth(
        name=status.name,
        kind=status.kind,
        place=status.place,
        read_until=status.read_until,
        records=status.records,
        rejects=status.rejects,
        waiting=status.waiting,
        found=status.found,
        confirmed=status.confirmed,
        trouble=status.trouble,
        warnings=tuple(status.warnings.values()),
    )


def _backlog(backlog: Backlog) -> BacklogHealth:
    return BacklogHealth(waiting=backlog.records, oldest_at=backlog.oldest_at, quarantined=backlog.quarantined)


def _resident_bytes() -> int | None:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None
