"""What the running agent says of itself when the ground is gone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.disk import DiskState
from agent.errors import StoreUnavailable
from agent.health import Verdict
from agent.live.feed import LiveStatus
from agent.probe import Probe
from agent.store.upkeep_notes import UpkeepNotes
from agent.tracking.tracker import TrackerStatus
from tests.unit.cli.local_site import NOON
from tests.unit.config.files import GOOD, read


async def _away(*_: object) -> None:
    raise StoreUnavailable("edge.db cannot be read")


def _probe(directory: Path) -> Probe:
    outbox: Any = None  # Any, here and below: stand-ins
    tracker: Any = SimpleNamespace(status=TrackerStatus(calls_left_out=3), live_calls=list, spilled_bytes=0)
    repository: Any = SimpleNamespace(counts_since=_away)
    live: Any = SimpleNamespace(status=lambda: LiveStatus("memory://", True, NOON, 0, 0, None))
    upkeep: Any = SimpleNamespace(notes=UpkeepNotes(), directory=directory, next_check_at=None, next_backup_at=None)
    settings = read(directory, GOOD).model_copy(update={"state_directory": directory / "gone"})
    return Probe(
        settings, version="1", tracker=tracker, lines=[], live_feed=live, syncer=None, repository=repository,
        outbox=outbox, disk=SimpleNamespace(state=DiskState()), tally=outbox, upkeep=upkeep,
    )  # fmt: skip


async def test_a_state_directory_that_is_gone_is_told_and_does_not_end_the_answer(tmp_path: Path) -> None:
    status = await _probe(tmp_path).status()

    assert status.verdict is Verdict.DEGRADED
    assert status.database.error is not None
    assert status.database.disk_total == 0
    assert status.calls.left_out == 3
