"""The whole agent as a process, between a simulated PBX and a real PostgreSQL and Valkey."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agent.cli.faults import ExitCode
from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_calls
from agent.simulator.server import Simulator
from agent.simulator.truth import SimulatedCall
from sync.central.embedded import EmbeddedPostgres
from tests.agent_process import AgentProcess
from tests.crash.blindness import PROMISED_SECONDS, Blind, Blindness
from tests.crash.starving import watching
from tests.postgres import PostgresDatabase
from tests.valkey_server import Valkey, valkey, valkey_server

__all__ = ["valkey", "valkey_server"]

SECRET = "kırk-yedi-anahtar"
RULES = """
[tenancy]
rules = [{ tenant = "acme", context = "*-acme" }, { tenant = "globex", context = "*-globex" }]
"""


def settings(simulator: Simulator, *sections: str) -> str:
    pbx = f'[[pbx]]\nname = "main"\nport = {simulator.port}\nusername = "sentiric"\nsecret = "{SECRET}"\n'
    return "\n".join(['site = "istanbul-1"', pbx, "reconnect_max_seconds = 1", *sections])


def central_section(database: PostgresDatabase, **changes: object) -> str:
    chosen = database.settings()
    assert chosen.password is not None
    told = {"url": chosen.url, "password": chosen.password.get_secret_value(), "retry_max_seconds": 1} | changes
    return "[central]\n" + "\n".join(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
                                     for key, value in told.items())  # fmt: skip


@dataclass
class Differing:
    """What of a truth is not so in a row."""

    truth: SimulatedCall
    row: dict[str, Any] | None  # Any: columns

    def __bool__(self) -> bool:
        row = self.row
        return row is None or (
            row["tenant"], row["direction"], row["caller_id"], row["callee_id"], row["answered_by"], row["status"],
            row["disposition"], row["start_time"], row["answer_time"], row["end_time"],
        ) != (
            self.truth.tenant, self.truth.direction, self.truth.caller, self.truth.callee, self.truth.answered_by,
            self.truth.status, self.truth.disposition, self.truth.start_time, self.truth.answer_time,
            self.truth.end_time,
        )  # fmt: skip


def differing(truths: list[SimulatedCall], rows: list[dict[str, Any]]) -> list[Differing]:
    by_sid = {row["call_sid"]: row for row in rows}
    assert len(by_sid) == len(rows), "a call stands there twice"
    pairs = (Differing(truth, by_sid.get(truth.call_sid("istanbul-1", "main"))) for truth in truths)
    return [pair for pair in pairs if pair]


async def central_rows(database: PostgresDatabase) -> list[dict[str, Any]]:
    rows = await database.fetch("SELECT call.*, tenant.name AS tenant FROM call JOIN tenant ON tenant.id = tenant_id")
    return [dict(row) for row in rows]


async def eventually(condition: Any, *, what: str, seconds: float = 20) -> None:  # Any: a condition, or one to await
    deadline = time.monotonic() + seconds
    while not ((await found) if asyncio.iscoroutine(found := condition()) else found):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.05)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(account=Account("sentiric", SECRET), pace=0.02) as simulator:
        yield simulator


async def place(simulator: Simulator, calls: int, *, seed: int = 3) -> None:
    for plan in islice(plan_calls(seed), calls):
        simulator.place(plan)


async def test_simulated_calls_stand_in_the_centre_exactly_as_they_were(
    simulator: Simulator, central_database: PostgresDatabase, tmp_path: Path
) -> None:
    await central_database.add_site("istanbul-1", "acme", "globex")
    agent = AgentProcess(tmp_path, settings(simulator, RULES, central_section(central_database)))
    await asyncio.to_thread(agent.start)
    try:
        await place(simulator, 300)
        await simulator.wait_finished()

        async def arrived() -> bool:
            return len(await central_rows(central_database)) >= simulator.ended_calls

        await eventually(arrived, what="every call in the centre")
        assert differing(simulator.ended, await central_rows(central_database)) == []
    finally:
        await asyncio.to_thread(agent.stop)


async def test_told_to_stop_it_sends_what_ended_and_is_gone_within_ten_seconds(
    simulator: Simulator, central_database: PostgresDatabase, tmp_path: Path
) -> None:
    await central_database.add_site("istanbul-1", "acme", "globex")
    agent = AgentProcess(tmp_path, settings(simulator, RULES, central_section(central_database)))
    await asyncio.to_thread(agent.start)
    await place(simulator, 100)
    await simulator.wait_ended(60)
    started = time.monotonic()
    assert await asyncio.to_thread(agent.stop) == 0
    assert time.monotonic() - started < 10
    kept = await asyncio.to_thread(agent.calls)
    assert len(kept) >= 60
    assert {row["call_sid"] for row in await central_rows(central_database)} == {call["call_sid"] for call in kept}
    assert "Traceback" not in agent.log()


async def test_killed_again_and_again_it_loses_no_kept_call_doubles_none_and_tells_the_others_right(
    simulator: Simulator, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, settings(simulator, RULES))
    await asyncio.to_thread(agent.start)
    seen = Blindness()
    seen.heard_again(simulator.now_us(), listing_seconds=0.0)
    kept: set[str] = set()
    for seed in range(5):
        with watching(agent.pid) as starving:
            await place(simulator, 60, seed=seed)
            await simulator.wait_ended(simulator.ended_calls + 30)
            known = {call["call_sid"] for call in await asyncio.to_thread(agent.calls)}
            assert kept <= known
            kept = known
        seen.killed(simulator.now_us(), unsaved_seconds=starving.stretched(PROMISED_SECONDS))
        agent.kill()
        await asyncio.to_thread(agent.start)
        seen.heard_again(simulator.now_us(), listing_seconds=0.0)
    await simulator.wait_finished()

    async def settled() -> bool:
        status = await asyncio.to_thread(agent.status)
        kept, heard = status["database"]["last_commit_at"], status["pbx"][0]["last_heard_at"]
        return bool(status["calls"]["live"] == 0 and kept > heard)

    await eventually(settled, what="every call ended", seconds=30)
    rows = await asyncio.to_thread(_rows, agent)
    assert await asyncio.to_thread(agent.stop) == 0
    assert kept <= {row["call_sid"] for row in rows}
    whole = [truth for truth in simulator.ended if seen.of(truth) is Blind.NOT]
    assert len(whole) > 100
    assert differing(whole, rows) == []


def _rows(agent: AgentProcess) -> list[dict[str, Any]]:
    """Exported calls with their moments as moments."""
    rows = agent.calls()
    for row in rows:
        for name in ("start_time", "answer_time", "end_time"):
            row[name] = datetime.fromisoformat(row[name]) if row[name] else None
    return rows


async def test_reloaded_it_gives_new_calls_to_the_tenants_of_the_mended_rules(
    simulator: Simulator, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, settings(simulator))
    await asyncio.to_thread(agent.start)
    try:
        await place(simulator, 10)
        await simulator.wait_finished()
        await eventually(lambda: agent.status()["calls"]["unassigned"] == 10, what="ten unassigned calls")
        agent.write_settings(settings(simulator, RULES))
        agent.reload()
        await eventually(lambda: "read again" in agent.log(), what="the reload")
        await place(simulator, 10, seed=4)
        await simulator.wait_ended(20)
        await eventually(lambda: len(agent.calls()) == 20, what="twenty calls")
        assert agent.status()["calls"]["unassigned"] == 10
        agent.write_settings("site = 5")
        agent.reload()
        await eventually(lambda: "the old ones stay" in agent.log(), what="the refusal of wrong settings")
        assert agent.status()["pbx"][0]["state"] == "connected"
    finally:
        await asyncio.to_thread(agent.stop)


async def test_a_refused_password_pauses_the_way_to_the_centre_and_nothing_else(
    simulator: Simulator, central_database: PostgresDatabase, tmp_path: Path
) -> None:
    section = central_section(central_database, password="falsches-wort")
    agent = AgentProcess(tmp_path, settings(simulator, RULES, section))
    await asyncio.to_thread(agent.start)
    try:
        await place(simulator, 5)
        await simulator.wait_finished()
        await eventually(lambda: agent.status()["central"]["state"] == "paused", what="the pause")
        status = agent.status()
        assert status["backlog"]["waiting"] == 5
        assert status["backlog"]["quarantined"] == 0
        assert any("password" in problem for problem in status["problems"])
        assert "falsches-wort" not in agent.log() + str(status)
        assert "Traceback" not in agent.log()
    finally:
        await asyncio.to_thread(agent.stop)


async def test_while_the_centre_refuses_connections_calls_wait_and_then_arrive(
    simulator: Simulator, central_database: PostgresDatabase, postgres_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    await central_database.add_site("istanbul-1", "acme", "globex")
    agent = AgentProcess(tmp_path, settings(simulator, RULES, central_section(central_database)))
    await asyncio.to_thread(postgres_server.stop_hard)
    await asyncio.to_thread(agent.start)
    try:
        await place(simulator, 50)
        await simulator.wait_finished()
        await eventually(lambda: agent.status()["backlog"]["waiting"] == 50, what="fifty waiting calls")
        status = agent.status()
        assert (status["verdict"], status["central"]["state"]) == ("degraded", "waiting")
        await asyncio.to_thread(postgres_server.start)
        await eventually(lambda: agent.status()["backlog"]["waiting"] == 0, what="an empty outbox")
        assert differing(simulator.ended, await central_rows(central_database)) == []
    finally:
        await asyncio.to_thread(agent.stop)


async def test_a_second_agent_over_the_same_database_is_refused_in_one_sentence(
    simulator: Simulator, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, settings(simulator))
    await asyncio.to_thread(agent.start)
    try:
        done = await asyncio.to_thread(agent.command, "run")
        assert done.returncode == ExitCode.ERROR
        assert str(agent.pid) in done.stderr
        assert "Traceback" not in done.stderr
        assert agent.status()["pbx"][0]["state"] == "connected"
    finally:
        await asyncio.to_thread(agent.stop)


async def test_while_the_disk_takes_nothing_calls_wait_in_memory_and_none_is_lost(
    simulator: Simulator, tmp_path: Path
) -> None:
    agent = AgentProcess(tmp_path, settings(simulator, RULES))
    await asyncio.to_thread(agent.start)
    try:
        await place(simulator, 20)
        await simulator.wait_finished()
        await eventually(lambda: len(agent.calls()) == 20, what="twenty calls")
        unlimited = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        await place(simulator, 30, seed=8)
        await simulator.wait_ended(50)
        await eventually(lambda: agent.status()["database"]["error"] is not None, what="a disk that takes nothing")
        assert agent.status()["verdict"] == "degraded"
        resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, unlimited)
        await eventually(lambda: len(agent.calls()) == 50, what="fifty calls")
        assert differing(simulator.ended, await asyncio.to_thread(_rows, agent)) == []
        assert agent.status()["database"]["error"] is None
    finally:
        await asyncio.to_thread(agent.stop)


async def test_live_calls_are_in_a_shared_store_and_come_back_after_it_was_away(
    simulator: Simulator, valkey: Valkey, tmp_path: Path
) -> None:
    live = valkey.settings(valkey.unix_url)
    assert live.password is not None
    section = (
        f'[live]\nurl = "{live.url}"\nusername = "{live.username}"\npassword = "{live.password.get_secret_value()}"'
    )
    agent = AgentProcess(tmp_path, settings(simulator, RULES, section))
    await asyncio.to_thread(agent.start)
    simulator.exchange.pace = 1000.0  # the calls stay where they are

    def live_contexts() -> int:
        return sum(int(valkey.say("SCARD", f"smcp:{tenant}:live").lstrip(b":")) for tenant in ("acme", "globex"))

    try:
        await place(simulator, 6)
        await eventually(lambda: live_contexts() == 6, what="six contexts")
        await asyncio.to_thread(valkey.stop)
        await eventually(lambda: not agent.status()["live_store"]["reachable"], what="the store missed")
        await place(simulator, 2, seed=9)
        await eventually(lambda: agent.status()["calls"]["live"] == 8, what="eight live calls")
        await asyncio.to_thread(valkey.start)
        await eventually(lambda: live_contexts() == 8, what="eight contexts", seconds=60)
    finally:
        await asyncio.to_thread(agent.stop)
        await asyncio.to_thread(valkey.start)
