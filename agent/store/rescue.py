"""A damaged database is salvaged into a new one, which takes its place; the damaged one and a report are kept."""

import json
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from agent.errors import StoreDamaged, StoreUnavailable
from agent.store import schema
from agent.store.engine import reading
from agent.store.faults import faults_of
from agent.store.files import sync_directory
from agent.store.lease import Lease
from agent.store.salvage import REPORT_FORMAT, Salvaged, salvage
from agent.store.swap import aside_of, finish_swap, incoming_file, part_file, swap_in

log = logging.getLogger(__name__)

_REPORT: Final = ".report.json"
_TOLD_FOR: Final = timedelta(days=7)
_MAX_REPORT_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Rescued:
    """What became of a damaged database."""

    result: Salvaged
    aside: Path
    report: Path


def rescue(database: Path) -> Rescued:
    """Salvage a database in its place. Raises StoreHeld while an agent runs, StoreUnavailable if it cannot be done."""
    lease = _lease_of(database)
    try:
        finish_swap(database)
        return rescue_held(database)
    finally:
        lease.leave()


def rescue_if_damaged(database: Path) -> Rescued | None:
    """As `rescue`, but None, with nothing changed, if SQLite finds nothing wrong with the database."""
    lease = _lease_of(database)
    try:
        finish_swap(database)
        if not _is_sound(database):
            return rescue_held(database)
        if lease.was_clean:
            lease.leave_clean()
        return None
    finally:
        lease.leave()


def rescue_held(database: Path, *, is_stopped: Callable[[], bool] = lambda: False) -> Rescued:
    """As `rescue`, for the holder of the lease. Raises SalvageStopped if it is to end before anything was replaced."""
    result = salvage(database, part_file(database), is_stopped=is_stopped)
    aside = aside_of(database, "damaged")
    report = aside.with_name(f"{aside.name}{_REPORT}")
    # Before anything is replaced: whoever dies in between must not leave losses that nobody can list.
    with faults_of(report):
        handle = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(result.as_dict(), stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        sync_directory(report.parent)
    if not swap_in(database, aside=aside):
        raise StoreUnavailable(f"{database} is not there any more")
    log.error(
        "the database was salvaged; what could be read of it is in a new one, which has taken its place",
        extra={"damaged": str(aside), "report": str(report), "calls": result.rows["call"]},
    )
    return Rescued(result, aside, report)


def _lease_of(database: Path) -> Lease:
    if not database.exists() and not incoming_file(database).exists():
        raise StoreUnavailable(f"there is no database {database}")
    return Lease.take(database)


def _is_sound(database: Path) -> bool:
    """By the longest look: whoever salvages by hand has a reason to, and a quick check does not hold an index against
    its table.
    """
    try:
        with reading(database) as connection:
            schema.check_known(schema.revision_of(connection), connection, database)
            return connection.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]
    except (StoreDamaged, sqlite3.Error):  # what is left of the latter is a description SQLite makes nothing of
        return False


def told_of_last(database: Path, now: datetime) -> str | None:
    """One sentence on the last rescue, if that was within a week: when, what is lost, and where the report lies."""
    reports = sorted(database.parent.glob(f"{database.name}.damaged-*{_REPORT}"))
    if not reports:
        return None
    report = reports[-1]
    try:
        with report.open(encoding="utf-8") as stream:
            told = json.loads(stream.read(_MAX_REPORT_BYTES))
        if told["format"] > REPORT_FORMAT:
            return (
                f"the local database was damaged and salvaged; {report} was written by a newer version of this program"
            )
        at = datetime.fromisoformat(told["at"])
        if now - at > _TOLD_FOR:
            return None
        rows = sum(told["unreadable_rows"].values()) + sum(told["rows_without_their_call"].values())
        ranges = sum(len(found) for found in told["lost_row_ids"].values())
        lost = (
            f"lost are {rows} rows, {ranges} ranges of rows and {told['damaged_pages']} pages of no known table"
            if told["damaged_pages"] or rows or ranges
            else "nothing is known to be lost"
        )
        saved = told["saved"].get("call", 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        return f"the local database was damaged and salvaged; its report {report} cannot be read: {exc}"
    return (
        f"the local database was damaged and salvaged at {at:%Y-%m-%d %H:%M} UTC: "
        f"{saved} calls saved, {lost}; see {report}"
    )
