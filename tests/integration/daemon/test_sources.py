"""The whole agent as a process beside a file in which the PBX writes down its calls."""

import asyncio
import csv
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.integration.daemon.test_daemon import SECRET, eventually, settings
from tests.integration.sources.cdr_lines import START, cdr, shifted
from tests.pbx.record import WIRE

RECORDED = WIRE / "cdr" / "town.master.csv"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(account=Account("sentiric", SECRET), pace=0.02) as simulator:
        yield simulator


def source(file: Path) -> str:
    return (
        f'[[pbx.sources]]\nkind = "cdr-csv"\npath = "{file}"\ntime_zone = "UTC"\n'
        "settle_seconds = 1\nhistory_days = 36500\n"
    )


def recorded(begin: datetime) -> tuple[str, set[str]]:
    """What a real Asterisk wrote of its calls, as if it had begun then, and the calls' ids."""
    text = RECORDED.read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))
    first = min(datetime.fromisoformat(row[9]) for row in rows)
    return shifted(text, begin.replace(tzinfo=None, microsecond=0) - first), {row[19] for row in rows}


def kept(agent: AgentProcess) -> list[tuple[str, str, int]]:
    with closing(sqlite3.connect(agent.database)) as database:
        query = "SELECT call_sid, source, revision FROM call ORDER BY call_sid"
        return [(sid.rpartition(":")[2], told_by, revision) for sid, told_by, revision in database.execute(query)]


async def test_calls_of_a_file_that_came_while_the_agent_was_down_are_there_after_its_start(
    simulator: Simulator, tmp_path: Path
) -> None:
    file = tmp_path / "Master.csv"
    agent = AgentProcess(tmp_path, settings(simulator, source(file)))
    await asyncio.to_thread(agent.start)
    (waiting,) = (await asyncio.to_thread(agent.status))["pbx"][0]["sources"]
    assert "does not exist" in waiting["trouble"]
    agent.kill()

    now = datetime.now(UTC)
    text, ids = recorded(now - timedelta(hours=1))
    missed = cdr(1, after=now.replace(tzinfo=None) - START, seconds=1)
    file.write_text(text + missed, encoding="utf-8")
    await asyncio.to_thread(agent.start)
    with file.open("a", encoding="utf-8") as growing:  # the PBX goes on writing
        growing.write(cdr(2, after=datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=2) - START))
    ids |= {"1795340000.1", "1795340000.2"}

    async def filled() -> bool:
        done = await asyncio.to_thread(agent.command, "gaps", "list", "--json")
        return bool(gaps := json.loads(done.stdout)) and gaps[0]["filled_by"] is not None

    try:
        await eventually(filled, what="the gap filled")
        await eventually(lambda: len(kept(agent)) == len(ids), what="every call")
        first = await asyncio.to_thread(kept, agent)
        assert [sid for sid, _, _ in first] == sorted(ids)
        assert {(told_by, revision) for _, told_by, revision in first} == {("cdr", 1)}
        done = await asyncio.to_thread(agent.command, "gaps", "list", "--json")
        (gap,) = json.loads(done.stdout)
        assert (gap["reason"], gap["filled_by"], gap["calls_found"]) == ("agent_down", "cdr-csv", 1)
        told = (await asyncio.to_thread(agent.status))["pbx"][0]
        assert told["unfilled_gaps"] == 0
        assert told["sources"][0]["found"] == len(ids)
        assert told["sources"][0]["trouble"] is None
    finally:
        agent.kill()

    # Read again from the beginning, nothing is doubled and nothing is changed.
    with closing(sqlite3.connect(agent.database)) as database, database:
        database.execute("DELETE FROM source_place")
    await asyncio.to_thread(agent.start)

    async def read_again() -> bool:
        status = await asyncio.to_thread(agent.status)
        return bool(status["pbx"][0]["sources"][0]["confirmed"] == len(ids))

    await eventually(read_again, what="the file read again")
    assert await asyncio.to_thread(agent.stop) == 0
    assert kept(agent) == first
    assert "Traceback" not in agent.log()


async def test_a_queue_log_tells_who_waited_before_the_agent_first_came(simulator: Simulator, tmp_path: Path) -> None:
    file, began = tmp_path / "queue_log", int((datetime.now(UTC) - timedelta(hours=1)).timestamp())
    file.write_text(
        f"{began}|{began}.7|sales|NONE|ENTERQUEUE||02125551001|2\n{began + 7}|{began}.7|sales|NONE|ABANDON|1|2|7\n"
    )
    source = f'[[pbx.sources]]\nkind = "queue-log"\npath = "{file}"\nhistory_days = 1\nsettle_seconds = 0\n'
    agent = AgentProcess(tmp_path, settings(simulator, source))
    await asyncio.to_thread(agent.start)

    async def is_told() -> bool:
        status = await asyncio.to_thread(agent.status)
        return bool(status["pbx"][0]["sources"][0]["found"] == 1)

    await eventually(is_told, what="the call of the queue log")
    (call,) = await asyncio.to_thread(agent.calls)
    agent.kill()
    assert (call["source"], call["disposition"], call["direction"]) == ("queue_log", "cancelled", "inbound")
    assert (call["queue"], call["queue_position"], call["queue_wait_seconds"]) == ("sales", 2, 7.0)


async def test_killed_again_and_again_while_it_reads_it_loses_nothing_and_doubles_nothing(
    simulator: Simulator, tmp_path: Path
) -> None:
    file, calls = tmp_path / "Master.csv", 3000
    begin = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1) - START
    lines = [cdr(number, after=begin + timedelta(seconds=5 * number)) for number in range(calls)]
    file.write_text("".join(lines[:1000]), encoding="utf-8")
    agent = AgentProcess(tmp_path, settings(simulator, source(file)))
    rest = iter(lines[1000:])
    for round_ in range(4):
        await asyncio.to_thread(agent.start)
        with file.open("a", encoding="utf-8") as growing:
            growing.writelines(next(rest) for _ in range(500))
        least = 300 * (round_ + 1)
        await eventually(lambda least=least: len(kept(agent)) >= least, what="some calls")
        agent.kill()
        if round_ == 1:
            file.rename(file.with_name("Master.csv.1"))
    await asyncio.to_thread(agent.start)
    await eventually(lambda: len(kept(agent)) == calls, what="every call", seconds=30)
    assert await asyncio.to_thread(agent.stop) == 0
    found = kept(agent)
    assert {sid for sid, _, _ in found} == {f"1795340000.{number}" for number in range(calls)}
    assert {(told_by, revision) for _, told_by, revision in found} == {("cdr", 1)}
