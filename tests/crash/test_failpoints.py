"""SIGKILL at every named step: whatever `failpoints.hit` the source has is come to, and nothing is lost there."""

import asyncio
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from agent.store.engine import open_store, quick_check
from agent.store.outbox import SqliteOutbox
from agent.store.rescue import told_of_last
from agent.store.writer import Writer
from config import failpoints
from sync.records import Receipt, RecordReceipt, Verdict
from tests.crash.centre import Centre, Door
from tests.crash.nursery import Nursery
from tests.crash.site import Plan, Site
from tests.crash.store_groups import group
from tests.postgres import PostgresDatabase

_ROOT: Final = Path(__file__).parents[2]
_HIT: Final = re.compile(r'failpoints\.hit\(\s*"([^"]+)"')
_FLOORS: Final = ("agent", "sync", "config")
# Steps that a running agent comes to once in ten minutes or once a day: `upkeep` does them at once.
_OF_UPKEEP: Final = ("journal.prune", "retention.", "store.checkpoint.")
_OF_BACKUPS: Final = ("upkeep.", "backup.")
# Steps of commands for a stopped agent, by what the steps' names begin with.
_OF_COMMANDS: Final = {"backup.": ("backup",), "salvage.": ("salvage", "--force"), "swap.": ("salvage", "--force")}
_AT_A_START: Final = (
    "lease.", "store.migrate.", "syncer.greeted", "syncer.lease_kept", "outbox.refill", "syncer.refilled",
)  # fmt: skip
_LATER: Final = 3  # the step is come to so often before the kill
_REACHED_SECONDS: Final = 20.0
_CAPTURED_SECONDS: Final = 0.3
_FULL_SECONDS: Final = 2.0
_TRIED_SECONDS: Final = 0.6  # on a full disk a group is tried in the database, with the reserve given up, then spilled


def _steps() -> list[str]:
    sources = (file for floor in _FLOORS for file in sorted((_ROOT / floor).rglob("*.py")))
    return sorted({step for file in sources for step in _HIT.findall(file.read_text(encoding="utf-8"))})


def _in_the_daemon() -> Iterator[tuple[str, int]]:
    # The schema first: it is made once in the life of a database.
    for step in sorted(_steps(), key=lambda step: (not step.startswith("store.migrate"), step.endswith("after"))):
        if not step.startswith((*_OF_UPKEEP, *_OF_BACKUPS, *_OF_COMMANDS)):
            yield step, 1
            if not step.startswith((*_AT_A_START, "spill.")):
                yield step, _LATER


async def test_an_agent_killed_at_each_of_its_steps_loses_nothing_and_doubles_nothing(
    central_database: PostgresDatabase, nursery: Nursery, tmp_path: Path
) -> None:
    plan = Plan(seed=11, kills=0, door=Door.DIRECT, second_source=True)
    not_reached = []
    async with (
        Centre.open(central_database, seed=1, hub=False) as centre,
        Site.open(plan, tmp_path / "site", nursery=nursery, centre=centre) as site,
    ):
        for step, time in _in_the_daemon():
            if step.endswith((".refill", ".refilled")):
                await centre.forget_receipts(plan.site, 5)
            await site.start(**{failpoints.VARIABLE: f"{step}=kill@{time}"})
            if step.startswith("spill."):
                await _fill_the_disk(site)
            if not await site.killed_by_itself(_REACHED_SECONDS):
                not_reached.append(f"{step}@{time}")
                await site.kill()
        outcome = await site.finish()

    assert not_reached == []
    assert [str(finding) for finding in outcome.findings] == []


async def _fill_the_disk(site: Site) -> None:
    """Let files grow no further for a while, as on a full disk: far below the end of the write-ahead log."""
    await site.hear()
    await asyncio.sleep(_CAPTURED_SECONDS)
    pid = site.pid
    try:
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (65_536, unlimited[1]))
        await asyncio.sleep(_FULL_SECONDS)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    except ProcessLookupError:  # it has come to its step
        return


@pytest.fixture
async def settled(tmp_path: Path) -> Path:
    """A database half of whose calls the centre has confirmed."""
    database = tmp_path / "settled" / "edge.db"
    async with open_store(database) as store:
        writer = await Writer.over(store.connection)
        for number in range(1, 21):
            await writer.commit(group(number))
        outbox = SqliteOutbox(store, writer, site="here")
        batch = await outbox.next_batch(limit=100)
        assert batch is not None
        stored = [RecordReceipt(one.call_sid, one.revision, Verdict.ACCEPTED) for one in batch.records]
        await outbox.settle(Receipt(stored, 1))
        outbox.release(batch)
    return database


@pytest.mark.parametrize("step", [step for step in _steps() if step.startswith(_OF_UPKEEP)])
async def test_a_kill_in_the_middle_of_upkeep_takes_nothing_that_has_not_arrived(
    step: str, settled: Path, tmp_path: Path
) -> None:
    database = tmp_path / "killed" / "edge.db"
    shutil.copytree(settled.parent, database.parent)
    waiting = _waiting(database)
    assert waiting

    done = await asyncio.to_thread(_keep_up, database, f"{step}=kill")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, ""), done.stderr
    assert await quick_check(database) == []
    assert _waiting(database) == waiting

    again = await asyncio.to_thread(_keep_up, database, "")
    assert again.stdout == "done\n", again.stderr
    assert _waiting(database) == waiting


@pytest.mark.parametrize("step", [step for step in _steps() if step.startswith(_OF_BACKUPS)])
async def test_a_kill_at_any_step_of_a_backup_by_the_clock_leaves_whole_backups_and_the_next_start_tidies_up(
    step: str, settled: Path, tmp_path: Path
) -> None:
    database = tmp_path / "killed" / "edge.db"
    shutil.copytree(settled.parent, database.parent)
    backups, waiting = database.parent / "backups", _waiting(database)

    done = await asyncio.to_thread(_keep_up, database, f"{step}=kill@2")  # when there is one already
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, ""), done.stderr
    found = list(backups.glob("*.scheduled.db"))
    assert found
    for whole in found:
        assert await quick_check(whole) == []
        assert _waiting(whole) == waiting

    again = await asyncio.to_thread(_keep_up, database, "")
    assert again.stdout == "done\n", again.stderr
    assert [file.name.endswith(".scheduled.db") for file in backups.iterdir()] == [True]
    assert _waiting(database) == waiting


@pytest.mark.parametrize("step", [step for step in _steps() if step.startswith(tuple(_OF_COMMANDS))])
async def test_a_command_killed_in_its_middle_leaves_a_database_that_opens_with_all_that_waits(
    step: str, settled: Path, tmp_path: Path
) -> None:
    waiting = _waiting(settled)
    settings = tmp_path / "agent.toml"
    settings.write_text(f'state_directory = "{settled.parent}"\nsite = "here"\n', encoding="utf-8")
    settings.chmod(0o600)
    command = next(command for begin, command in _OF_COMMANDS.items() if step.startswith(begin))
    edge_agent = [str(Path(sys.executable).with_name("edge-agent")), *command, "--config", str(settings)]

    done = await asyncio.to_thread(_run, edge_agent, f"{step}=kill")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, ""), done.stderr
    async with open_store(settled):
        assert _waiting(settled) == waiting
    if step.startswith("swap."):
        # What was replaced can be listed, wherever the replacing ended.
        assert "damaged and salvaged at" in (told_of_last(settled, datetime.now(UTC)) or "")

    again = await asyncio.to_thread(_run, edge_agent, "")
    assert again.returncode == 0, again.stderr
    async with open_store(settled):
        assert _waiting(settled) == waiting


def _keep_up(database: Path, wishes: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "tests.crash.upkeep", str(database)], wishes)


def _run(command: Sequence[str], wishes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=os.environ | {failpoints.VARIABLE: wishes},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _waiting(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT call_sid, outbox.revision FROM outbox JOIN call ON call.id = call_id"
        return dict(connection.execute(query).fetchall())
