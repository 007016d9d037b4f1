"""Without a usable database the agent captures into the spill, and takes it up once there is one."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from agent.store.engine import new_database
from agent.store.pages import Pages
from tests.agent_process import WITHOUT_PBX, AgentProcess
from tests.crash.blindness import Blind, Blindness
from tests.crash.comparing import differing, local_calls
from tests.integration.daemon.test_daemon import eventually
from tests.pbx.waiting import wait_until

SECRET = "for tests only"
OVER_SIMULATOR = """
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


def _version(path: Path, number: str | None = None) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if number is not None:
            connection.execute("UPDATE alembic_version SET version_num = ?", (number,))
        return str(found)


def test_with_a_database_of_a_newer_program_the_agent_stays_up_and_says_so(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, WITHOUT_PBX)
    agent.database.parent.mkdir(parents=True)
    new_database(agent.database).close()
    known = _version(agent.database, "9999")
    with closing(agent):
        agent.start(connected=False)
        problem = agent.status()["problems"][0]
        assert problem.startswith("raw capture: ")
        assert "newer version" in problem
        assert agent.stop() == 0
    _version(agent.database, known)
    with closing(agent):
        agent.start(connected=False)
        assert not any("raw capture" in each for each in agent.status()["problems"])


def test_a_database_found_damaged_at_the_start_is_salvaged_and_kept_aside(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, WITHOUT_PBX)
    agent.database.parent.mkdir(parents=True)
    with closing(new_database(agent.database)) as connection:
        connection.execute("INSERT INTO tenant VALUES (1, 'acme', 1)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gap'").fetchone()
    with agent.database.open("r+b") as stream:
        stream.seek((root - 1) * 8192)
        stream.write(b"\xff" * 8192)
    (agent.database.parent / "edge.db.lock").write_text(json.dumps({"pid": 1}))
    with closing(agent):
        agent.start(connected=False)
        assert "raw capture" in agent.log()
        wait_until(lambda: "the agent captures" in agent.log(), what="the agent over its new database", seconds=15)
    with closing(sqlite3.connect(agent.database)) as connection:
        assert connection.execute("SELECT name FROM tenant").fetchall() == [("acme",)]
    assert len(list(agent.database.parent.glob("edge.db.damaged-*.report.json"))) == 1


def test_what_is_no_database_at_all_is_kept_aside_and_capture_begins_anew(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, WITHOUT_PBX)
    agent.database.parent.mkdir(parents=True)
    agent.database.write_bytes(b"somebody's letter" * 1000)
    with closing(agent):
        agent.start(connected=False)
        wait_until(lambda: "the agent captures" in agent.log(), what="the agent over its new database", seconds=15)
        assert any("was damaged and salvaged at" in each for each in agent.status()["problems"])
        assert agent.stop() == 0
    (aside,) = agent.database.parent.glob("edge.db.damaged-*[0-9]")
    assert aside.read_bytes().startswith(b"somebody's letter")


async def test_calls_whose_tenant_s_name_was_lost_are_given_back_by_the_rules(tmp_path: Path) -> None:
    async with Simulator(account=Account("sentiric", SECRET), rate=20.0, pace=0.02, seed=8) as simulator:
        agent = AgentProcess(tmp_path, OVER_SIMULATOR.format(port=simulator.port, secret=SECRET))
        with closing(agent):
            await asyncio.to_thread(agent.start)
            await simulator.wait_ended(20)
            assert await asyncio.to_thread(agent.stop) == 0
            with closing(sqlite3.connect(agent.database)) as connection, connection:
                connection.execute("DELETE FROM tenant")
            assert agent.command("salvage", "--force").returncode == 0
            assert _calls_of_nobody(agent.database)
            await asyncio.to_thread(agent.start)
            await eventually(lambda: not _calls_of_nobody(agent.database), what="every call its tenant's", seconds=20)


def _calls_of_nobody(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM call WHERE tenant_id IS NULL").fetchone()[0])


async def test_calls_over_a_newer_program_s_database_are_told_once_it_can_be_read(tmp_path: Path) -> None:
    async with Simulator(account=Account("sentiric", SECRET), rate=20.0, pace=0.02, seed=6) as simulator:
        agent = AgentProcess(tmp_path, OVER_SIMULATOR.format(port=simulator.port, secret=SECRET))
        agent.database.parent.mkdir(parents=True)
        new_database(agent.database).close()
        known = _version(agent.database, "9999")
        with closing(agent):
            seen = Blindness()
            await asyncio.to_thread(agent.start)
            seen.heard_again(simulator.now_us())
            await simulator.wait_ended(70)
            seen.killed(simulator.now_us(), unsaved_seconds=0.0)
            assert await asyncio.to_thread(agent.stop) == 0
            assert agent.database.with_name("edge.db.spill").exists()
            _version(agent.database, known)
            await asyncio.to_thread(agent.start)
            seen.heard_again(simulator.now_us())
            simulator.stop_placing()
            await simulator.wait_finished()
            truths = {truth.call_sid("istanbul-1", "main"): truth for truth in simulator.ended}
            heard = {sid for sid, truth in truths.items() if seen.of(truth) is not Blind.WHOLLY}
            await eventually(lambda: heard <= local_calls(agent.database).keys(), what="every call", seconds=20)
            whole = [sid for sid, truth in truths.items() if seen.of(truth) is Blind.NOT]
            assert len(whole) > 20
            assert differing(truths, local_calls(agent.database), of=whole) == []
            assert not local_calls(agent.database).keys() - truths.keys()
            assert not agent.database.with_name("edge.db.spill").exists()


@pytest.mark.timeout(120)
async def test_pages_that_are_overwritten_under_the_running_agent_cost_what_stood_on_them_and_no_call_that_comes(
    tmp_path: Path,
) -> None:
    async with Simulator(account=Account("sentiric", SECRET), rate=20.0, pace=0.02, seed=4) as simulator:
        agent = AgentProcess(tmp_path, OVER_SIMULATOR.format(port=simulator.port, secret=SECRET))
        with closing(agent):
            await asyncio.to_thread(agent.start)
            seen = Blindness()
            seen.heard_again(simulator.now_us())
            await simulator.wait_ended(30)
            before = set(await asyncio.to_thread(_damage_calls, agent.database))
            # The line is made anew twice: calls that lie wholly in this time may be missed.
            seen.killed(simulator.now_us(), unsaved_seconds=0.5)
            await asyncio.to_thread(agent.status)  # reads it
            await eventually(lambda: "raw capture" in agent.log(), what="the damage met", seconds=10)
            await eventually(
                lambda: agent.log().count("the agent captures") == 2, what="the agent over its new database", seconds=20
            )
            await eventually(
                lambda: [pbx["state"] for pbx in agent.status()["pbx"]] == ["connected"], what="the line", seconds=10
            )
            seen.heard_again(simulator.now_us())
            simulator.stop_placing()
            await simulator.wait_finished()
            heard = {
                truth.call_sid("istanbul-1", "main") for truth in simulator.ended if seen.of(truth) is not Blind.WHOLLY
            }
            placed = {truth.call_sid("istanbul-1", "main") for truth in simulator.ended}
            (report,) = agent.database.parent.glob("edge.db.damaged-*.report.json")
            told = json.loads(report.read_text())
            assert told["lost_row_ids"], told  # the writer still knows some of the pages, and writes them again
            await eventually(
                lambda: not (heard - before) - local_calls(agent.database).keys(), what="later calls", seconds=20
            )
            found = local_calls(agent.database).keys()
            assert not found - placed
            assert not agent.database.with_name("edge.db.spill").exists()
            assert any(str(report) in each for each in (await asyncio.to_thread(agent.status))["problems"])
            assert await asyncio.to_thread(agent.stop) == 0
    with closing(sqlite3.connect(agent.database)) as connection:
        assert connection.execute("SELECT count(*) - count(DISTINCT call_sid) FROM call").fetchone() == (0,)
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]


def _damage_calls(database: Path) -> list[str]:
    """Overwrite the oldest calls' pages and that of the gaps, and tell which calls there were."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:

        def root(table: str) -> int:
            return int(connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0])

        def is_in_the_file() -> bool:
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

        wait_until(is_in_the_file, what="the write-ahead log moved into the file", seconds=10)
        sids = [sid for (sid,) in connection.execute("SELECT call_sid FROM call")]
        with database.open("rb") as whole, database.open("r+b") as stream:
            pages = Pages(whole, size=database.stat().st_size, wal=None)
            leaves = pages.walk(root("call"), bytearray(pages.count + 1)).leaves
            for page in [*leaves[:2], root("gap")]:
                stream.seek((page - 1) * 8192)
                stream.write(b"\xff" * 8192)
    return sids
