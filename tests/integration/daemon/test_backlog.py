"""Many calls that wait: the agent captures beside them, and what is fresh does not stand behind them."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_calls
from agent.simulator.server import Simulator
from agent.store.engine import open_store
from tests.agent_process import AgentProcess
from tests.many_calls import NOW, fill
from tests.pbx.waiting import wait_until
from tests.postgres import PostgresDatabase

_BACKLOG = 10_000
_FRESH = 10
_SETTINGS = """
site = "bench"
[[pbx]]
name = "main"
port = {port}
username = "sentiric"
secret = "kırk-yedi"
[tenancy]
default = "acme"
[central]
url = "{url}"
password = "{password}"
"""


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(account=Account("sentiric", "kırk-yedi"), pace=0.002) as simulator:
        yield simulator


async def test_fresh_calls_do_not_stand_behind_a_long_backlog(
    simulator: Simulator, central_database: PostgresDatabase, tmp_path: Path
) -> None:
    await central_database.add_site("bench", "acme")
    port, password = simulator.port, central_database.server.password
    agent = AgentProcess(tmp_path, _SETTINGS.format(port=port, url="postgresql://edge@127.0.0.1:9/x", password="x"))
    try:
        async with open_store(agent.database):
            pass
        await asyncio.to_thread(fill, agent.database, _BACKLOG)
        await asyncio.to_thread(agent.start)
        for plan in islice(plan_calls(3), _FRESH):
            simulator.place(plan)
        await simulator.wait_finished()
        await asyncio.to_thread(wait_until, lambda: _waiting(agent) > _BACKLOG, what="fresh calls kept", seconds=20)
        await asyncio.to_thread(agent.stop)
        kept = _waiting_here(agent.database)
        url = central_database.server.url(central_database.name)
        agent.write_settings(_SETTINGS.format(port=port, url=url, password=password))
        await asyncio.to_thread(agent.start)
        await asyncio.to_thread(wait_until, lambda: not _waiting(agent), what="everything sent", seconds=60)
    finally:
        await asyncio.to_thread(agent.__exit__, None, None, None)

    assert [tuple(row) for row in await central_database.fetch("SELECT count(*), max(revision) FROM call")] == [
        (kept, 1)
    ]
    fresh, last = _receipts(agent.database)
    assert fresh < last / 2


def _waiting(agent: AgentProcess) -> int:
    return int(agent.status()["backlog"]["waiting"])


def _waiting_here(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])


def _receipts(database: Path) -> tuple[int, int]:
    """The last receipt that confirmed a fresh call, and the last of all."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(
            "SELECT max(number) FILTER (WHERE start_time > ?), max(number) FROM call_receipt "
            "JOIN call ON call.id = call_id",
            (NOW.replace(tzinfo=None).isoformat(" ", "microseconds"),),
        ).fetchone()
    return int(found[0]), int(found[1])
