"""`edge-agent erase` on a running agent that heard a simulated PBX, and on a stopped one."""

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_calls
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.pbx.waiting import wait_until

SECRET = "kırk-yedi-anahtar"


def files_with(agent: AgentProcess, form: str) -> list[str]:
    """The database's files that hold it."""
    return [file.name for file in agent.database.parent.iterdir() if form.encode() in file.read_bytes()]


async def test_a_person_is_erased_while_the_agent_runs_and_while_it_is_stopped(tmp_path: Path) -> None:
    async with Simulator(account=Account("sentiric", SECRET), pace=0.002) as simulator, AsyncExitStack() as stack:
        settings = f"""site = "istanbul-1"
country = "TR"
[[pbx]]
name = "main"
port = {simulator.port}
username = "sentiric"
secret = "{SECRET}"
[tenancy]
default = "acme"
"""
        agent = AgentProcess(tmp_path, settings)

        async def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
            return await asyncio.to_thread(agent.command, *arguments)

        async def told(*arguments: str) -> Any:  # Any: JSON
            done = await command(*arguments, "--json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        await asyncio.to_thread(agent.start)
        stack.push_async_callback(asyncio.to_thread, agent.stop)
        for plan in islice(plan_calls(3), 40):
            simulator.place(plan)
        await simulator.wait_finished()

        def kept() -> bool:
            return bool(sum(agent.status()["calls"]["today"].values()) == simulator.ended_calls)

        await asyncio.to_thread(wait_until, kept, what="every call kept", seconds=20)
        calls = (await told("calls", "list", "--limit", "100"))["calls"]
        callers = {str(call["caller_e164"]) for call in calls}
        first, second = sorted(caller for caller in callers if caller.startswith("+90532"))[:2]
        national = first.removeprefix("+90")
        assert files_with(agent, national)

        refused = await command("erase", "--caller", first)
        assert (refused.returncode, "nothing was erased" in refused.stderr) == (2, True)
        would = await told("erase", "--caller", f"0{national}", "--dry-run")
        done = await told("erase", "--caller", f"0{national}", "--yes")
        assert done["calls"] == would["calls"] == sum(first in json.dumps(call) for call in calls)
        assert done["frames"] == would["frames"] > 0
        assert files_with(agent, national) == []
        rebuilt = await told("calls", "rebuild", "--since", "1h")
        assert files_with(agent, national) == []
        assert rebuilt["changed"] == 0

        await stack.aclose()
        stopped = await told("erase", "--caller", second, "--yes")
        assert stopped["calls"] >= 1
        assert files_with(agent, second.removeprefix("+90")) == []
        history = await command("erase", "--history")
        assert len(history.stdout.splitlines()) == 3
        assert national not in history.stdout + agent.log()
        wrong = await command("erase", "--caller", "nobody")
        assert (wrong.returncode, "this is no number" in wrong.stderr) == (2, True)
