"""How things stand while no agent runs, as far as the database and the disk tell."""

import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.local import LocalCalls
from agent.cli.version import DISTRIBUTION
from agent.errors import StoreUnavailable
from agent.health import (
    AgentStatus,
    BacklogHealth,
    BackupHealth,
    CallsHealth,
    CentralHealth,
    CoverageHealth,
    DatabaseHealth,
    PbxHealth,
    SourceHealth,
    Verdict,
    problems_of,
)
from agent.store import coverage
from agent.store.files import reserve_file, size_of, spill_file, wal_file
from agent.store.upkeep_notes import UpkeepNotes
from config.describe import fingerprint

if TYPE_CHECKING:
    from agent.store.coverage import DayCounts
    from config.settings import PbxSettings, Settings

_GAPS_SHOWN = timedelta(days=7)


def status_without_agent(settings: "Settings") -> AgentStatus:
    """The status of a stopped agent; never fails, since a database that cannot be read is part of the answer."""
    pbx = tuple(
        PbxHealth(name=each.name, address=f"{each.host}:{each.port}", state=None, sources=_sources(each, {}))
        for each in settings.pbx
    )
    notes = UpkeepNotes.of(settings.database_file)
    status = AgentStatus(
        verdict=Verdict.STOPPED,
        site=settings.site,
        version=version(DISTRIBUTION),
        settings_hash=fingerprint(settings),
        pbx=pbx,
        central=_central(settings),
        database=_database(settings.database_file, notes),
        backup=BackupHealth.of(settings, notes),
    )
    try:
        with LocalCalls.of(settings) as calls:
            status = _with_calls(status, calls, settings)
    except StoreUnavailable as exc:
        if settings.database_file.exists():
            database = status.database.model_copy(update={"error": str(exc), "is_readable": False})
            status = status.model_copy(update={"database": database})
    return status.model_copy(update={"problems": ("no agent is running: calls are not captured", *problems_of(status))})


def _central(settings: "Settings") -> CentralHealth:
    central = settings.central
    if central is None:
        return CentralHealth()
    return CentralHealth(door="hub" if central.is_hub else "direct", address=central.address)


def _with_calls(status: AgentStatus, calls: LocalCalls, settings: "Settings") -> AgentStatus:
    gaps = [gap for gap in calls.gaps(since=datetime.now(UTC) - _GAPS_SHOWN, unfilled=True) if gap["to_at"]]
    read = {(row["pbx"], row["source"]): row for row in calls.source_places()}
    by_name = {pbx.name: pbx for pbx in settings.pbx}
    verified = coverage.latest(calls.connection)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return status.model_copy(
        update={
            "pbx": tuple(
                pbx.model_copy(
                    update={
                        "last_call_at": calls.last_call_at(pbx.name),
                        "open_gap_since": calls.open_gap_since(pbx.name),
                        "unfilled_gaps": sum(gap["pbx"] == pbx.name for gap in gaps),
                        "unfilled_seconds": sum(_seconds(gap) for gap in gaps if gap["pbx"] == pbx.name),
                        "coverage": _coverage(verified.get(pbx.name)),
                        "sources": _sources(by_name[pbx.name], read),
                    }
                )
                for pbx in status.pbx
            ),
            "calls": CallsHealth(today=calls.count_since(today), unassigned=calls.count_unassigned()),
            "backlog": BacklogHealth(**calls.backlog()),
            "database": status.database.model_copy(update={"journal_size": calls.counter("journal_bytes")}),
        }
    )


def _coverage(counts: "DayCounts | None") -> CoverageHealth | None:
    return CoverageHealth.model_validate(counts.as_dict()) if counts is not None else None


def _seconds(gap: dict[str, Any]) -> float:  # Any: columns
    length: timedelta = gap["to_at"] - gap["from_at"]
    return length.total_seconds()


def _sources(pbx: "PbxSettings", read: dict[tuple[str, str], dict[str, Any]]) -> tuple[SourceHealth, ...]:
    """The configured sources, and how far they were read."""
    return tuple(
        SourceHealth(
            name=source.called,
            kind=source.kind,
            place=source.place,
            **{
                name: value
                for name, value in read.get((pbx.name, source.called), {}).items()
                if name in {"read_until", "records", "rejects"}
            },
        )
        for source in pbx.sources
    )


def _database(file: Path, notes: UpkeepNotes) -> DatabaseHealth:
    """Sizes, of what is there; the disk's are those of the nearest directory that exists."""
    place = next((parent for parent in file.parents if os.path.isdir(parent)), Path("/"))
    free = total = 0
    with suppress(OSError):
        usage = shutil.disk_usage(place)
        free, total = usage.free, usage.total
    return DatabaseHealth(
        file=str(file),
        size=size_of(file),
        wal_size=size_of(wal_file(file)),
        spill_size=size_of(spill_file(file)),
        reserve_size=size_of(reserve_file(file)),
        disk_free=free,
        disk_total=total,
        checked_at=notes.checked_at,
        check_found=notes.found,
        check_trouble=notes.check_trouble,
    )
