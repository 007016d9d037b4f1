"""A damaged database is salvaged into a new one, which takes its place; the damaged one and a report are kept."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from agent.errors import StoreUnavailable
from agent.store.faults import faults_of
from agent.store.lease import Lease
from agent.store.salvage import Salvaged, salvage
from agent.store.swap import finish_swap, part_file, swap_in

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rescued:
    """What became of a damaged database."""

    result: Salvaged
    aside: Path
    report: Path


def rescue(database: Path) -> Rescued:
    """Salvage a database in its place. Raises StoreHeld while an agent runs, StoreUnavailable if it cannot be done."""
    lease = Lease.take(database)
    try:
        finish_swap(database)
        return rescue_held(database)
    finally:
        lease.leave()


def rescue_held(database: Path) -> Rescued:
    """As `rescue`, for the holder of the lease."""
    result = salvage(database, part_file(database))
    aside = swap_in(database, kept_as="damaged")
    if aside is None:
        raise StoreUnavailable(f"{database} is not there any more")
    report = aside.with_name(f"{aside.name}.report.json")
    with faults_of(report):
        handle = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(result.as_dict(), stream, indent=1)
    log.error(
        "the database was damaged; what could be read of it is in a new one, and capture goes on with that",
        extra={"damaged": str(aside), "report": str(report), "calls": result.rows["call"]},
    )
    return Rescued(result, aside, report)
