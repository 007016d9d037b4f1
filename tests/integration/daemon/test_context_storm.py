"""Fifty services write while a hundred calls go on, the agent is killed, the store restarted: nothing answered is lost.

CONTEXT_STORM_SECONDS makes it longer than the few seconds it has in the usual run.
"""

import asyncio
import contextlib
import os
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.client.asynchronous import AsyncEdgeClient
from agent.client.errors import CallNotFound
from agent.simulator.manager import Account
from agent.simulator.plan import CallPlan
from agent.simulator.scenarios import plan_call
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.integration.daemon.test_daemon import RULES, SECRET, eventually, settings
from tests.valkey_server import PASSWORD, USER, Valkey, valkey, valkey_server

__all__ = ["valkey", "valkey_server"]

CALLS, SERVICES, KILLS, RESTARTS = 100, 50, 3, 2
SECONDS = float(os.environ.get("CONTEXT_STORM_SECONDS", "3"))
OPEN_API = '[api]\ngroup = "no-such-group"\nsocket_access = "write"\n'


@dataclass
class Answered:
    """What services were told is kept: by call, in the order of their asking."""

    said: dict[str, list[str]] = field(default_factory=dict)
    tasks: dict[str, list[str]] = field(default_factory=dict)
    over: bool = False


def long_calls() -> Iterator[CallPlan]:
    """Calls that go on until the PBX is killed."""
    for seed in count(1):
        plan = plan_call("inbound_answered", seed)
        yield replace(
            plan, talk_seconds=3600.0, parties=tuple(replace(each, after_seconds=0.2) for each in plan.parties)
        )


async def serve(name: int, agent: AgentProcess, calls: list[str], answered: Answered) -> None:
    dice = random.Random(name)
    async with AsyncEdgeClient(agent.directory / "run" / "services.sock", patience_seconds=60) as client:
        for number in count():
            if answered.over:
                return
            call, text = dice.choice(calls), f"{name:02}.{number:06}"
            if number % 10 == 9:
                await client.push_task(call, text)
                answered.tasks.setdefault(call, []).append(text)
                if dice.random() < 0.9:
                    with contextlib.suppress(CallNotFound):  # others have popped all there was
                        await client.pop_task(call)
            else:
                await client.say(call, f"service {name}", text)
                answered.said.setdefault(call, []).append(text)


async def disturb(agent: AgentProcess, store: Valkey | None) -> None:
    async def kill() -> None:
        for _ in range(KILLS):
            await asyncio.sleep(SECONDS / (KILLS + 1))
            await asyncio.to_thread(agent.kill)
            await asyncio.to_thread(agent.start)

    async def restart(server: Valkey) -> None:
        for _ in range(RESTARTS):
            await asyncio.sleep(SECONDS / (RESTARTS + 1))
            await asyncio.to_thread(server.restart)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kill())
        if store is not None:
            tasks.create_task(restart(store))


def noted(database: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Interactions and tasks in the calls' rows."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        said: dict[str, list[str]] = {}
        for sid, data in connection.execute(
            "SELECT call_sid, data FROM interaction JOIN call ON call.id = call_id ORDER BY call_id, position"
        ):
            said.setdefault(sid, []).append(orjson.loads(data)["text"])
        tasks: dict[str, list[str]] = {}
        for sid, name in connection.execute(
            "SELECT call_sid, task_name FROM task JOIN call ON call.id = call_id ORDER BY call_id, position"
        ):
            tasks.setdefault(sid, []).append(name)
    return said, tasks


def told_tasks(context: dict[str, Any]) -> list[str]:
    """What is being done and what was."""
    return [task["task_name"] for task in (*context["tasks_done"], *context["task_stack"])]


def check(said: dict[str, list[str]], tasks: dict[str, list[str]], answered: Answered) -> None:
    """Everything once, and of each service in the order in which it wrote."""
    assert {sid: sorted(texts) for sid, texts in said.items() if texts} == {
        sid: sorted(texts) for sid, texts in answered.said.items()
    }
    for texts in said.values():
        for name in {text.partition(".")[0] for text in texts}:
            own = [text for text in texts if text.startswith(f"{name}.")]
            assert own == sorted(own)
    assert {sid: sorted(names) for sid, names in tasks.items() if names} == {
        sid: sorted(names) for sid, names in answered.tasks.items()
    }


@pytest.mark.parametrize("home", ["memory", "valkey"])
async def test_what_services_were_answered_outlives_kills_and_restarts_and_stands_in_the_calls(
    request: pytest.FixtureRequest, tmp_path: Path, home: str
) -> None:
    server: Valkey | None = request.getfixturevalue("valkey") if home == "valkey" else None
    live = ""
    if server is not None:
        live = f'[live]\nurl = "{server.unix_url}"\nusername = "{USER}"\npassword = "{PASSWORD}"\n'
    async with Simulator(account=Account("sentiric", SECRET)) as simulator:
        agent = AgentProcess(tmp_path, settings(simulator, RULES, live, OPEN_API))
        await asyncio.to_thread(agent.start)
        try:
            for _, plan in zip(range(CALLS), long_calls(), strict=False):
                simulator.place(plan)
            await simulator.wait_live(CALLS)
            calls = await live_calls(agent)
            answered = Answered()
            async with asyncio.TaskGroup() as services:
                for name in range(SERVICES):
                    services.create_task(serve(name, agent, calls, answered))
                await disturb(agent, server)
                answered.over = True
            async with AsyncEdgeClient(agent.directory / "run" / "services.sock") as client:
                contexts = {sid: await client.context(sid) for sid in calls}
            check(
                {sid: [entry["text"] for entry in context.interactions] for sid, context in contexts.items()},
                {sid: told_tasks(context.raw) for sid, context in contexts.items()},
                answered,
            )
            assert sum(map(len, answered.said.values())) > SERVICES
            await simulator.kill(down_seconds=0.2, boot_seconds=0.1)
            await eventually(lambda: not agent.ask("/v1/calls")["calls"], what="every call ended")
            await eventually(lambda: sum(map(len, noted(agent.database)[0].values())), what="rows")
            check(*noted(agent.database), answered)
        finally:
            await asyncio.to_thread(agent.kill)


async def live_calls(agent: AgentProcess) -> list[str]:
    """When the agent knows all of them."""
    found: list[Any] = []

    async def all_known() -> bool:
        nonlocal found
        found = (await asyncio.to_thread(agent.ask, "/v1/calls"))["calls"]
        return len(found) == CALLS

    await eventually(all_known, what="every call live")
    return [call["call_sid"] for call in found]
