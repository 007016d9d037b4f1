"""Old CDR files come in while the agent runs, and while it captures calls."""

import asyncio
import json
import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from agent.cli.client import RunningAgent
from agent.cli.faults import CommandFailed
from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_calls
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.pbx.waiting import wait_until
from tests.unit.agent.cdrs import WIRE

SECRET = "kırk-yedi-anahtar"
FILES = [str(WIRE / "town.master.csv"), str(WIRE / "stage.master.csv")]


def settings(port: int) -> str:
    return f"""
site = "istanbul-1"

[[pbx]]
name = "main"
port = {port}
username = "sentiric"
secret = "{SECRET}"
time_zone = "UTC"

[tenancy]
default = "acme"
"""


async def test_files_are_imported_through_the_running_agent_while_it_captures(tmp_path: Path) -> None:
    async with Simulator(account=Account("sentiric", SECRET), pace=0.02) as simulator:
        agent = AgentProcess(tmp_path, settings(simulator.port))
        await asyncio.to_thread(agent.start)
        try:
            for plan in islice(plan_calls(3), 10):
                simulator.place(plan)
            done = await asyncio.to_thread(agent.command, "import", *FILES, "--json")
            assert done.returncode == 0, done.stderr
            first = json.loads(done.stdout)["calls"]
            assert first["new"] > 80
            again = await asyncio.to_thread(agent.command, "import", *FILES, "--json")
            assert json.loads(again.stdout)["calls"] == {
                "new": 0,
                "amended": 0,
                "unchanged": first["new"],
                "live": 0,
                "gone": 0,
            }
            await simulator.wait_finished()
            wanted = {"ami": simulator.ended_calls, "cdr": first["new"]}
            await asyncio.to_thread(wait_until, lambda: kept(agent) == wanted, what="every call kept", seconds=20)
        finally:
            await asyncio.to_thread(agent.stop)


def kept(agent: AgentProcess) -> dict[str, int]:
    """Calls that wait to be sent, by source."""
    with closing(sqlite3.connect(f"file:{agent.database}?mode=ro", uri=True)) as database:
        return dict(
            database.execute(
                "SELECT source, count(*) FROM call JOIN outbox ON outbox.call_id = call.id GROUP BY source"
            ).fetchall()
        )


def test_the_agent_refuses_what_is_no_list_of_calls_and_goes_on(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, 'site = "istanbul-1"\n') as agent:
        running = RunningAgent(agent.directory / "run" / "api.sock")
        for body in (b"", b"nonsense", b"{}", b"[1]", b'[{"row": {"call_sid": "x"}}]', b'[{"row": {"call_sid": []}}]',
                     b'[{"row": {"call_sid": "x", "colour": "red"}}]',
                     b'[{"row": {"call_sid": "x", "source": "cdr", "legs": []}}]',
                     b"[" + b"{}," * 2000 + b"{}]"):  # fmt: skip
            with pytest.raises(CommandFailed) as refused:
                running.tell("/v1/calls/merge", body)
            assert "HTTP 500" not in str(refused.value), body
        assert agent.status()["verdict"]
