"""The command line over a real agent that hears a simulated PBX."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agent.cli.faults import ExitCode
from agent.cli.status_text import MAX_LINES
from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_calls
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.pbx.waiting import wait_until
from tests.postgres import PostgresDatabase

SECRET = "kırk-yedi-anahtar"
NOBODY_THERE = "postgresql://edge@127.0.0.1:9/sentiric"  # the port of a service that no machine offers any more


class Site:
    """A simulated PBX and the agent beside it."""

    def __init__(self, simulator: Simulator, agent: AgentProcess) -> None:
        self.simulator = simulator
        self.agent = agent

    async def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(self.agent.command, *arguments)

    async def json(self, *arguments: str) -> Any:  # Any: JSON
        done = await self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    async def place_and_wait(self, calls: int) -> None:
        """So many calls, all ended and kept."""
        for plan in islice(plan_calls(3), calls):
            self.simulator.place(plan)
        await self.simulator.wait_finished()

        def kept() -> bool:
            return bool(sum(self.agent.status()["calls"]["today"].values()) == self.simulator.ended_calls)

        await asyncio.to_thread(wait_until, kept, what="every call kept", seconds=20)


def settings(simulator: Simulator, *, rules: str = "", central: str = "") -> str:
    return f"""
site = "istanbul-1"

[[pbx]]
name = "main"
port = {simulator.port}
username = "sentiric"
secret = "{SECRET}"

{rules}
{central}
"""


RULES = """
[[tenancy.rules]]
tenant = "acme"
context = "*-acme"
[[tenancy.rules]]
tenant = "globex"
context = "*-globex"
"""


@asynccontextmanager
async def running(agent: AgentProcess) -> AsyncIterator[AgentProcess]:
    """Started and stopped while the loop, and with it the simulated PBX, goes on."""
    await asyncio.to_thread(agent.start)
    try:
        yield agent
    finally:
        await asyncio.to_thread(agent.stop)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(account=Account("sentiric", SECRET), pace=0.002) as simulator:
        yield simulator


@pytest.fixture
async def site(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Site]:
    """Without tenant rules, and with a centre that is away."""
    central = f'[central]\nurl = "{NOBODY_THERE}"\npassword = "{SECRET}"\nretry_max_seconds = 600\n'
    async with running(AgentProcess(tmp_path, settings(simulator, central=central))) as agent:
        yield Site(simulator, agent)


async def test_status_of_a_running_agent_is_told_and_exits_with_0_unless_asked(site: Site) -> None:
    done = await site.command("status")
    assert done.returncode == ExitCode.OK
    assert len(done.stdout.splitlines()) <= MAX_LINES
    assert "PBX main    connected" in done.stdout
    told = await site.json("status")
    assert (told["site"], told["pid"], told["pbx"][0]["state"]) == ("istanbul-1", site.agent.pid, "connected")
    await site.place_and_wait(5)
    degraded = await site.command("status", "--fail-on-warning")
    assert degraded.returncode == ExitCode.WARNING
    assert degraded.stdout.startswith("DEGRADED: ")
    assert SECRET not in degraded.stdout + degraded.stderr + site.agent.log()


async def test_live_calls_are_shown_and_then_listed(site: Site) -> None:
    assert (await site.command("live")).stdout == "No call is under way.\n"
    site.simulator.exchange.pace = 1000.0  # the calls stay where they are
    for plan in islice(plan_calls(3), 4):
        site.simulator.place(plan)

    def heard() -> bool:
        return len(site.agent.ask("/v1/calls")["calls"]) == 4

    await asyncio.to_thread(wait_until, heard, what="four live calls", seconds=20)
    text = (await site.command("live")).stdout
    assert text.startswith("4 live calls\n")
    told = (await site.json("live"))["calls"]
    assert {call["call_sid"] for call in told} <= set(text.split())
    assert all(call["participants"] for call in told)


async def test_unassigned_calls_get_their_tenants_once_a_rule_is_mended(site: Site) -> None:
    await site.place_and_wait(20)
    assert len((await site.json("calls", "list", "--unassigned"))["calls"]) == 20
    assert (await site.json("outbox"))["waiting"] == 0
    site.agent.write_settings(settings(site.simulator, rules=RULES))
    done = await site.command("tenants", "reassign")
    assert done.stdout.splitlines()[0] == "20 unassigned calls looked at, 20 assigned, 0 left"
    assert (await site.json("outbox"))["waiting"] == 20
    counts = {each["tenant"]: each["calls"] for each in (await site.json("tenants", "list"))["tenants"]}
    truth = [call.tenant for call in site.simulator.ended]
    assert counts == {tenant: truth.count(tenant) for tenant in ("acme", "globex")}


async def test_a_rule_that_is_wrong_is_told_and_changes_nothing(site: Site) -> None:
    await site.place_and_wait(3)
    good = site.agent.settings_file.read_text()
    site.agent.settings_file.write_text(f'{good}\n[[tenancy.rules]]\ntenant = "acme"\n')
    done = await site.command("tenants", "reassign")
    assert done.returncode == ExitCode.ERROR
    assert "the rule has no condition" in done.stderr
    site.agent.settings_file.write_text(good)
    assert len((await site.json("calls", "list", "--unassigned"))["calls"]) == 3


async def test_sync_now_says_why_nothing_was_sent(site: Site) -> None:
    site.agent.write_settings(settings(site.simulator, rules=RULES))
    site.agent.reload()
    done = await site.command("sync", "now")
    assert done.returncode == ExitCode.ERROR  # nothing waits, and nothing could be sent
    assert done.stdout.startswith("Not sent, 0 calls waiting: 127.0.0.1:9/sentiric cannot be reached")
    await asyncio.to_thread(
        wait_until, lambda: "rules were read again" in site.agent.log(), what="the rules read", seconds=10
    )
    await site.place_and_wait(5)
    done = await site.command("sync", "now")
    assert done.returncode == ExitCode.ERROR
    assert done.stdout.startswith("Not sent, 5 calls waiting: 127.0.0.1:9/sentiric cannot be reached")
    told = json.loads((await site.command("sync", "now", "--json")).stdout)
    assert (told["outcome"], told["waiting"], told["sent"]) == ("failed", 5, 0)
    assert (await site.command("status")).stdout.startswith("DEGRADED: calls wait here")


async def test_sync_now_without_a_centre_is_one_sentence(simulator: Simulator, tmp_path: Path) -> None:
    async with running(AgentProcess(tmp_path, settings(simulator))) as agent:
        done = await asyncio.to_thread(agent.command, "sync", "now")
    assert done.returncode == ExitCode.ERROR
    assert done.stderr == "edge-agent: the settings have no [central] section: calls are kept here\n"


async def test_calls_arrive_and_refused_ones_are_sent_again(
    simulator: Simulator, central_database: PostgresDatabase, tmp_path: Path
) -> None:
    await central_database.add_site("istanbul-1", "acme")
    central = f"""[central]
url = "{central_database.server.url(central_database.name)}"
password = "{central_database.server.password}"
"""
    async with running(AgentProcess(tmp_path, settings(simulator, rules=RULES, central=central))) as agent:
        site = Site(simulator, agent)
        await site.place_and_wait(20)
        strangers = sum(call.tenant == "globex" for call in simulator.ended)
        done = await site.json("sync", "now")
        assert (done["outcome"], done["waiting"], done["quarantined"]) == ("done", 0, strangers)
        refused = await site.json("quarantine", "list")
        assert {entry["tenant"] for entry in refused} == {"globex"}
        assert all(entry["code"] and entry["reason"] for entry in refused)

        one, other = refused[0]["call_sid"], refused[1]["call_sid"]
        assert await site.json("quarantine", "retry", one) == {"requeued": 1}
        assert (await site.json("sync", "now"))["quarantined"] == strangers
        assert await site.json("quarantine", "drop", other, "--yes") == {"dropped": 1}
        # What was refused for its tenant's sake goes by itself as soon as the centre knows the tenant.
        await central_database.grant("istanbul-1", "globex")
        assert (await site.json("sync", "now"))["quarantined"] == 0
        (row,) = await central_database.fetch("SELECT count(*) FROM call")
        assert row["count"] == 19
        assert (await site.json("reconcile"))["differing"] == 0  # given up is given up
        assert (await site.command("status")).stdout.startswith(
            "OK: istanbul-1 captures; 0 live calls, nothing waiting"
        )
