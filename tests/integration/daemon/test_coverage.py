"""The whole agent held against the file in which its PBX writes down its calls: verify, heal, and fill gaps by hand."""

import asyncio
import gzip
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.integration.daemon.test_daemon import SECRET, eventually, settings
from tests.integration.daemon.test_sources import kept, source
from tests.integration.sources.cdr_lines import START, cdr


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(account=Account("sentiric", SECRET), pace=0.02) as simulator:
        yield simulator


def since_start(moment: datetime) -> timedelta:
    """As `cdr` wants it."""
    return moment.replace(tzinfo=None) - START


async def told(agent: AgentProcess, *arguments: str, code: int = 0) -> Any:  # Any: JSON
    done = await asyncio.to_thread(agent.command, *arguments, "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def forget(agent: AgentProcess, number: int) -> None:
    with closing(sqlite3.connect(agent.database)) as database, database:
        database.execute(
            "DELETE FROM outbox WHERE call_id IN (SELECT id FROM call WHERE call_sid LIKE ?)", (f"%.{number}",)
        )
        database.execute("DELETE FROM call WHERE call_sid LIKE ?", (f"%.{number}",))


async def test_a_lost_call_of_yesterday_is_missed_and_brought_back(simulator: Simulator, tmp_path: Path) -> None:
    file = tmp_path / "Master.csv"
    noon = (datetime.now(UTC) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
    lines = [cdr(number, after=since_start(noon + timedelta(minutes=number))) for number in range(40)]
    file.with_name("Master.csv.1").write_text("".join(lines[:30]), encoding="utf-8")
    file.write_text("".join(lines[30:]), encoding="utf-8")
    agent = AgentProcess(tmp_path, settings(simulator, source(file)))
    await asyncio.to_thread(agent.start)
    try:
        await eventually(lambda: len(kept(agent)) == 10, what="the calls of the file")
        (found,) = await told(agent, "verify", "--heal")
        assert (found["known"], found["held"], found["missing"], found["healed"]["new"]) == (40, 40, 0, 30)

        await asyncio.to_thread(forget, agent, 7)
        (found,) = await told(agent, "verify", code=1)
        assert [call["call_sid"].rpartition(":")[2] for call in found["calls"]["missing"]] == ["1795340000.7"]
        status = await asyncio.to_thread(agent.status)
        assert status["pbx"][0]["coverage"]["missing"] == 1
        assert any("knows 1 calls of" in problem for problem in status["problems"])

        (found,) = await told(agent, "verify", "--heal")
        assert found["is_equal"]
        assert ("1795340000.7", "cdr", 1) in kept(agent)
        (row,) = await told(agent, "verify", "--history")
        assert (row["day"], row["known"], row["missing"], row["trouble"]) == (f"{noon:%F}", 40, 0, None)
        assert not [each for each in (await asyncio.to_thread(agent.status))["problems"] if "knows" in each]
    finally:
        assert await asyncio.to_thread(agent.stop) == 0

    (found,) = await told(agent, "verify")  # without an agent as well
    assert found["is_equal"]
    assert "Traceback" not in agent.log()


async def test_what_cannot_be_verified_is_told_with_what_to_do(simulator: Simulator, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, settings(simulator, ""))
    await asyncio.to_thread(agent.start)
    try:
        done = await asyncio.to_thread(agent.command, "verify")
    finally:
        agent.kill()
    assert done.returncode == 2
    assert "has no second source" in done.stderr
    assert 'kind = "cdr-csv"' in done.stderr

    agent.write_settings(settings(simulator, source(tmp_path / "nowhere.csv")))
    done = await asyncio.to_thread(agent.command, "verify")
    assert done.returncode == 2
    assert "nowhere.csv does not exist" in done.stderr


async def test_a_gap_whose_file_was_compressed_before_it_was_read_is_filled_by_hand(
    simulator: Simulator, tmp_path: Path
) -> None:
    file = tmp_path / "Master.csv"
    file.write_text(cdr(0, after=since_start(datetime.now(UTC) - timedelta(hours=5))), encoding="utf-8")
    agent = AgentProcess(tmp_path, settings(simulator, source(file)))
    await asyncio.to_thread(agent.start)
    await eventually(lambda: len(kept(agent)) == 1, what="the call of the file")
    assert await asyncio.to_thread(agent.stop) == 0

    missed = cdr(1, after=since_start(datetime.now(UTC)), seconds=1)
    packed = file.with_name("Master.csv.1.gz")
    packed.write_bytes(gzip.compress((file.read_text(encoding="utf-8") + missed).encode()))
    file.unlink()
    await asyncio.to_thread(agent.start)
    try:
        (gap,) = await told(agent, "gaps", "list")
        (open_gap,) = await told(agent, "gaps", "backfill", "--file", str(packed), code=1)
        assert open_gap["found"] == 1  # what is in it is taken in all the same
        assert "tells nothing later yet" in open_gap["why_open"]

        file.write_text(
            cdr(2, after=since_start(datetime.now(UTC) + timedelta(seconds=2)), seconds=1), encoding="utf-8"
        )

        async def filled() -> bool:
            done = await asyncio.to_thread(agent.command, "gaps", "backfill", str(gap["id"]), "--json")
            return done.returncode == 0

        await eventually(filled, what="the gap filled")
        (gap,) = await told(agent, "gaps", "list")
        assert gap["filled_by"] == "cdr-csv"
        assert {sid for sid, _, _ in kept(agent)} >= {"1795340000.0", "1795340000.1"}
        before = kept(agent)
        assert await told(agent, "gaps", "backfill") == []
    finally:
        assert await asyncio.to_thread(agent.stop) == 0

    (again,) = await told(agent, "gaps", "backfill", str(gap["id"]))  # and without an agent
    assert (again["found"], again["why_open"]) == (0, "")
    assert {sid for sid, _, _ in before} <= {sid for sid, _, _ in kept(agent)}
