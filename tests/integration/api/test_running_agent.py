"""Services beside a real agent and a simulated PBX: from the command line to a kill and back."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from redis import Redis
from redis.client import Pipeline

from agent.client import AsyncEdgeClient
from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_calls
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.integration.daemon.test_daemon import eventually
from tests.valkey_server import PASSWORD, USER, Valkey, valkey, valkey_server

__all__ = ["valkey", "valkey_server"]

T = TypeVar("T")

SETTINGS = """
site = "istanbul-1"
[[pbx]]
name = "main"
port = {port}
username = "sentiric"
secret = "{secret}"
reconnect_max_seconds = 1
[tenancy]
rules = [{{ tenant = "acme", context = "*-acme" }}, {{ tenant = "globex", context = "*-globex" }}]
"""
SECRET = "for tests only"


@dataclass(frozen=True, slots=True)
class Stage:
    """A PBX and an agent beside it."""

    simulator: Simulator
    agent: AgentProcess

    @property
    def socket(self) -> Path:
        return self.agent.directory / "run" / "services.sock"

    async def token(self, *arguments: str) -> str:
        """As an operator gives one out."""
        done = await asyncio.to_thread(self.agent.command, "services", "add", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Simulator(account=Account("sentiric", SECRET), pace=1.0) as simulator:
        agent = AgentProcess(tmp_path, SETTINGS.format(port=simulator.port, secret=SECRET))
        await asyncio.to_thread(agent.start)
        try:
            yield Stage(simulator, agent)
        finally:
            await asyncio.to_thread(agent.stop)


async def test_a_service_resumes_after_a_kill_and_what_it_sent_meanwhile_is_done_once(stage: Stage) -> None:
    token = await stage.token("dialogue", "--all-tenants")
    async with AsyncEdgeClient(stage.socket, token=token, patience_seconds=60) as service:
        events = service.events()
        assert (await _next(events)).kind == "resync"
        stage.simulator.place(next(plan_calls(3)))
        started = await _next(events)
        assert (started.kind, started.state) == ("call.started", "ringing")
        sid = started.call_sid
        assert sid is not None
        await service.say(sid, "caller", "before")

        stage.agent.kill()
        meanwhile = asyncio.create_task(service.say(sid, "caller", "meanwhile"))
        await asyncio.to_thread(stage.agent.start)
        await meanwhile
        kinds = [(await _next(events)).kind]
        while "resync" not in kinds:
            kinds.append((await _next(events)).kind)

        assert kinds[-1] == "resync"
        context = await service.context(sid)
        assert [entry["text"] for entry in context.interactions] == ["before", "meanwhile"]
        await events.aclose()


async def test_beside_a_shared_valkey_services_by_http_and_by_redis_hear_each_other(
    valkey: Valkey, tmp_path: Path
) -> None:
    home = f'[live]\nurl = "{valkey.unix_url}"\nusername = "{USER}"\npassword = "{PASSWORD}"\n'
    async with Simulator(account=Account("sentiric", SECRET), pace=5) as simulator:
        agent = AgentProcess(tmp_path, SETTINGS.format(port=simulator.port, secret=SECRET) + home)
        await asyncio.to_thread(agent.start)
        try:
            token = await Stage(simulator, agent).token("dialogue", "--all-tenants")
            async with AsyncEdgeClient(tmp_path / "run" / "services.sock", token=token) as service:
                start = await service.now()
                simulator.place(next(plan_calls(3)))
                call = await _next(service.new_calls(after=start))
                await service.say(call.call_sid, "caller", "by HTTP")
                key = f"smcp:{call.tenant_id}:call:{call.call_sid}"
                await eventually(lambda: b"by HTTP" in valkey.say("GET", key), what="what was said in Valkey")
                await asyncio.to_thread(_say_by_redis, valkey, key, f"smcp:{call.tenant_id}:changes")

                async def heard() -> bool:
                    said = [entry["text"] for entry in (await service.context(call.call_sid)).interactions]
                    return said == ["by HTTP", "by Redis"]

                await eventually(heard, what="what was written by Redis")
        finally:
            await asyncio.to_thread(agent.stop)


async def test_the_operator_adds_lists_and_removes_services_with_and_without_a_running_agent(stage: Stage) -> None:
    def command(*arguments: str) -> tuple[int, str, str]:
        done = stage.agent.command("services", *arguments)
        return done.returncode, done.stdout, done.stderr

    async def told(token: str) -> int:
        transport = httpx.AsyncHTTPTransport(uds=str(stage.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            return (await client.get("/v1/calls", headers={"Authorization": f"Bearer {token}"})).status_code

    token = await stage.token("dialogue", "--tenant", "acme", "--tenant", "globex")
    assert await told(token) == 200
    assert command("add", "dialogue", "--tenant", "acme")[::2] == (
        2, "edge-agent: there is a service 'dialogue' already; remove it first\n")  # fmt: skip
    code, other, warned = command("add", "other", "--tenant", "acmee", "--read-only")
    assert (code, len(other.strip())) == (0, len(token))
    assert "name no tenant acmee" in warned
    listed = json.loads(command("list", "--json")[1])["services"]
    assert [(each["name"], each["tenants"], each["may_write"]) for each in listed] == [
        ("dialogue", ["acme", "globex"], True), ("other", ["acmee"], False)]  # fmt: skip
    assert command("remove", "dialogue")[0] == 0
    assert await told(token) == 401

    await asyncio.to_thread(stage.agent.stop)
    assert command("add", "other", "--all-tenants")[0] == 2
    later = command("add", "later", "--all-tenants")[1].strip()
    assert command("remove", "dialogue")[0] == 2
    assert "later  all" in command("list")[1]
    await asyncio.to_thread(stage.agent.start)
    assert await told(later) == 200
    with closing(sqlite3.connect(stage.agent.database)) as database:
        kept = "".join(database.iterdump())
    assert later not in kept
    assert token not in stage.agent.log()


def _say_by_redis(valkey: Valkey, key: str, channel: str) -> None:
    """As docs/live-context.md tells services to: begin again when somebody was faster, as the agent may be."""

    def say(transaction: Pipeline) -> None:
        context = json.loads(transaction.get(key) or b"{}")
        context["interaction_history"].append({"id": "r-1", "text": "by Redis"})
        context["revision"] += 1
        transaction.multi()
        transaction.set(key, json.dumps(context), keepttl=True)
        transaction.publish(channel, json.dumps({name: context[name] for name in ("call_sid", "revision", "state")}))

    with Redis(unix_socket_path=str(valkey.socket_file), username=USER, password=PASSWORD) as redis:
        redis.transaction(say, key)


async def _next(values: AsyncIterator[T]) -> T:
    return await anext(values)
