"""How the agent is, in one value: what `status`, the dashboard and monitoring show."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict

from agent.pbx.feed import LineState

if TYPE_CHECKING:
    from agent.store.upkeep_notes import UpkeepNotes
    from config.settings import Settings

_NEARLY_FULL_BYTES = 1 << 30
_CLOCK_SECONDS = 60.0  # beyond it, calls of one moment stand minutes apart at the centre


class Verdict(StrEnum):
    """OK: nothing to do. DEGRADED: calls are kept, but a person should look. STOPPED: no agent is running."""

    OK = "ok"
    DEGRADED = "degraded"
    STOPPED = "stopped"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class SourceHealth(_Part):
    """What a PBX writes down itself, and how far it was read."""

    name: str
    kind: str
    place: str
    read_until: datetime | None = None
    records: int = 0
    rejects: int = 0
    waiting: int = 0  # calls of which it has not told all
    found: int = 0  # since the agent started: calls that were not known, or not wholly
    confirmed: int = 0
    trouble: str | None = None
    warnings: tuple[str, ...] = ()


class CoverageHealth(_Part):
    """The latest day whose calls were held against what the PBX wrote down itself."""

    day: str
    source: str
    known: int  # to the PBX
    held: int
    missing: int
    extra: int
    untold: int  # held, and the source cannot know them
    differing: int
    trouble: str | None = None  # why it could not be verified
    at: datetime


class PbxHealth(_Part):
    """One PBX's line and what came over it."""

    name: str
    address: str
    state: LineState | None  # None: no agent is running
    since: datetime | None = None
    reason: str | None = None
    version: str | None = None
    last_heard_at: datetime | None = None
    last_call_at: datetime | None = None
    events: int = 0
    live_calls: int = 0
    reconnects: int = 0
    clock_offset_seconds: float | None = None
    open_gap_since: datetime | None = None
    unfilled_gaps: int = 0  # of the last 7 days, those that ended
    unfilled_seconds: float = 0.0
    sources: tuple[SourceHealth, ...] = ()
    coverage: CoverageHealth | None = None  # None: no day was verified yet
    warnings: tuple[str, ...] = ()

    @property
    def has_second_source(self) -> bool:
        """Whether one of the sources tells its calls; a queue log does not."""
        return any(source.kind != "queue-log" for source in self.sources)


class CallsHealth(_Part):
    """Calls now and today (UTC day of the site's clock), by status; unassigned ones wait for a tenant rule."""

    live: int = 0
    today: dict[str, int] = {}
    unassigned: int = 0
    left_out: int = 0  # since the agent started: calls the local database refused to take


class BacklogHealth(_Part):
    """What has not reached the centre."""

    waiting: int = 0
    oldest_at: datetime | None = None
    quarantined: int = 0


class CentralHealth(_Part):
    """The way to the centre; `state` is the syncer's word, "off" without a [central] section."""

    door: str | None = None  # "hub", or "direct" into the database
    address: str | None = None
    state: str = "off"
    last_success_at: datetime | None = None
    last_error: str | None = None
    troubled_since: datetime | None = None
    next_try_at: datetime | None = None
    sent: int = 0  # since the agent started
    refilled: int = 0  # of them sent again because the centre had lost them
    is_fenced: bool = False  # another installation speaks for the site; last_error names it
    centre: str | None = None  # its identity
    lease_until: datetime | None = None
    tenants: tuple[str, ...] | None = None  # granted to this site
    clock_offset_seconds: float | None = None  # how far the centre's clock is ahead
    backlog_goes: tuple[str, ...] = ()  # the hours for which a backlog waits now
    reconciled: dict[str, Any] | None = None  # Any: JSON, what the last reconciliation found


class LiveStoreHealth(_Part):
    """Where contexts live."""

    home: str
    reachable: bool
    since: datetime | None = None
    waiting: int = 0
    error: str | None = None


class DatabaseHealth(_Part):
    """The local database and its disk. Sizes in bytes."""

    file: str
    size: int = 0
    wal_size: int = 0
    journal_size: int = 0
    last_commit_at: datetime | None = None
    error: str | None = None
    is_readable: bool = True  # else what is counted in it is not known
    disk_free: int = 0
    disk_total: int = 0
    unused: int = 0  # of the size: pages that wait to be filled
    spill_size: int = 0  # what waits in a file until the database can be written
    spill_error: str | None = None
    reserve_size: int = 0
    backups_size: int = 0
    budget: int | None = None
    used: int = 0  # what counts against the budget: all of it but unused pages
    used_part: float | None = None  # of the budget, or of the disk where that is nearer to its end
    is_of_budget: bool = True
    level: str = "ok"  # watch, low, full: from 70, 85, 95 % on
    growth_a_day: float = 0.0
    days_left: float | None = None  # that fit in without the centre, at the present rate of calls
    budget_days: float | None = None
    on_full: tuple[str, ...] = ()  # what has been done since the room was used up
    set_aside: int = 0  # spills that could not be read, or not wholly
    checked_at: datetime | None = None  # when SQLite last looked all of it through
    check_found: str | None = None  # then; None: it was sound
    check_trouble: str | None = None  # why it could not be looked through since
    next_check_at: datetime | None = None
    salvaged: str | None = None  # of this last week: when, what was lost, and where the report lies


class BackupHealth(_Part):
    """Backups that are made by the clock."""

    directory: str
    every_hours: int  # 0: none
    keep: int
    last_at: datetime | None = None
    last_file: str | None = None
    last_size: int = 0
    next_at: datetime | None = None
    trouble: str | None = None  # why there is no newer one, or why older ones could not be removed

    @classmethod
    def of(cls, settings: "Settings", notes: "UpkeepNotes", *, next_at: datetime | None = None) -> Self:
        """What is planned, and what is noted of the last one."""
        return cls(
            directory=str(settings.backup_directory),
            every_hours=settings.store.backup_every_hours,
            keep=settings.store.backup_keep,
            last_at=notes.backed_up_at,
            last_file=notes.backup_file,
            last_size=notes.backup_bytes,
            next_at=next_at,
            trouble=notes.backup_trouble,
        )


class AgentStatus(_Part):
    """Everything an operator sees at a glance."""

    verdict: Verdict
    problems: tuple[str, ...] = ()  # plain sentences, the gravest first
    site: str
    version: str
    settings_hash: str
    pid: int | None = None
    started_at: datetime | None = None
    resident_bytes: int | None = None
    pbx: tuple[PbxHealth, ...] = ()
    calls: CallsHealth = CallsHealth()
    backlog: BacklogHealth = BacklogHealth()
    central: CentralHealth = CentralHealth()
    live_store: LiveStoreHealth | None = None
    database: DatabaseHealth
    backup: BackupHealth | None = None  # None: without a database there is nothing to copy


def problems_of(status: AgentStatus) -> tuple[str, ...]:
    """What is wrong, in sentences an operator can act on, the gravest first."""
    found: list[str] = []
    database = status.database
    if database.error:
        spilled = f"; what is heard is kept in {database.file}.spill until then" if database.spill_size else ""
        found.append(f"the local database is in trouble: {database.error}{spilled}")
    if status.calls.left_out:
        found.append(
            f"{status.calls.left_out} calls could not be written and are left out; only the journal holds them: "
            "see the log"
        )
    if database.spill_error:
        found.append(f"not even the spill takes what is heard, the PBX will have to wait: {database.spill_error}")
    if database.set_aside:
        found.append(
            f"{database.set_aside} spills could not be read wholly: keep {database.file}.spill.aside-* for support, "
            "or start the newer version that made them"
        )
    found += [database.salvaged] if database.salvaged else []
    found += _of_upkeep(database, status.backup)
    found += _of_room(database)
    for pbx in status.pbx:
        if pbx.state not in {LineState.CONNECTED, None}:
            found.append(f"PBX {pbx.name} is {pbx.state}: {pbx.reason or 'no connection yet'}")
        found += [f"PBX {pbx.name}: {warning}" for warning in pbx.warnings]
        for source in pbx.sources:
            troubles = [source.trouble] if source.trouble else []
            found += [f"source {source.name} of PBX {pbx.name}: {words}" for words in (*troubles, *source.warnings)]
        if pbx.coverage is not None and pbx.coverage.missing:
            day, count = pbx.coverage.day, pbx.coverage.missing
            found.append(f"PBX {pbx.name} knows {count} calls of {day} that are missing here: "
                         f"edge-agent verify --day {day} --heal")  # fmt: skip
    if not status.pbx:
        found.append("no PBX is configured: add a [[pbx]] section to the settings")
    found += _of_centre(status.central)
    if status.backlog.quarantined:
        found.append(f"{status.backlog.quarantined} calls were refused by the centre: see edge-agent quarantine list")
    if status.calls.unassigned:
        found.append(
            f"{status.calls.unassigned} calls match no tenant rule and are not synced: "
            "mend [tenancy], then edge-agent tenants reassign"
        )
    if status.live_store is not None and not status.live_store.reachable:
        found.append(f"the live context store is away: {status.live_store.error or status.live_store.home}")
    return tuple(found)


def _of_upkeep(database: DatabaseHealth, backup: BackupHealth | None) -> Iterator[str]:
    if database.check_trouble:
        yield f"the local database could not be looked through: {database.check_trouble}"
    if backup is not None and backup.every_hours and backup.trouble:
        yield f"backups of the local database are in trouble: {backup.trouble}"


def _of_room(database: DatabaseHealth) -> Iterator[str]:
    if database.level != "ok" and database.used_part is not None:
        of = "the budget" if database.is_of_budget else "the disk"
        done = f"; {', '.join(database.on_full)}" if database.on_full else ""
        yield f"{database.used_part:.0%} of {of} is used, make room under {database.file}{done}"
    elif database.disk_total and database.disk_free < min(0.05 * database.disk_total, _NEARLY_FULL_BYTES):
        yield f"the disk is nearly full: {database.disk_free // 2**20} MiB left under {database.file}"
    if database.budget_days and database.days_left is not None and database.days_left < database.budget_days:
        yield (
            f"without the centre there is room for {database.days_left:.1f} days of calls, "
            f"fewer than store.budget_days = {database.budget_days:g}"
        )


def _of_centre(central: CentralHealth) -> Iterator[str]:
    if central.state in {"waiting", "paused"} and central.last_error:
        if central.is_fenced:
            yield f"another installation speaks for this site, calls wait here: {central.last_error}"
        else:
            yield f"calls wait here, the centre does not take them: {central.last_error}"
    if central.clock_offset_seconds is not None and abs(central.clock_offset_seconds) > _CLOCK_SECONDS:
        yield (
            f"the centre's clock and this machine's differ by {abs(central.clock_offset_seconds):.0f} s: "
            "look which is wrong"
        )
    if central.reconciled and central.reconciled.get("differing"):
        yield (f"{central.reconciled['differing']} calls were not the same at the centre: see edge-agent reconcile")
