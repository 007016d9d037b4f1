"""Why a PBX was not heard, told by the whole agent as a process."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.integration.daemon.test_daemon import SECRET, eventually, settings


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(account=Account("sentiric", SECRET), pace=0.02) as simulator:
        yield simulator


def gaps(agent: AgentProcess) -> list[dict[str, Any]]:  # Any: columns
    """The earliest first."""
    done = agent.command("gaps", "list", "--json")
    assert done.returncode == 0, done.stderr
    return list(reversed(json.loads(done.stdout)))


async def connected_again(agent: AgentProcess, reconnects: int) -> None:
    async def again() -> bool:
        pbx = (await asyncio.to_thread(agent.status))["pbx"][0]
        return bool(pbx["state"] == "connected" and pbx["reconnects"] == reconnects and not pbx["open_gap_since"])

    await eventually(again, what="connected again")


async def test_every_gap_tells_why_the_pbx_was_not_heard(simulator: Simulator, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, settings(simulator))
    await asyncio.to_thread(agent.start)
    await connected_again(agent, 0)
    assert await asyncio.to_thread(agent.stop) == 0
    await asyncio.to_thread(agent.start)
    await connected_again(agent, 0)
    agent.kill()
    await asyncio.to_thread(agent.start)
    try:
        await simulator.restart()
        await connected_again(agent, 1)
        simulator.drop_lines()
        await connected_again(agent, 2)

        found = await asyncio.to_thread(gaps, agent)
        reasons = [gap["reason"] for gap in found]
        assert reasons == ["agent_stopped", "agent_down", "pbx_restarted", "line_lost"]
        assert all(gap["to_at"] and gap["seconds"] >= 0 for gap in found)
        told = (await asyncio.to_thread(agent.status))["pbx"][0]
        assert told["unfilled_gaps"] == 4
    finally:
        await asyncio.to_thread(agent.stop)
