"""An agent that is frozen, or told to stop in the middle of a salvage."""

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from agent.store.engine import new_database
from config import failpoints
from tests.agent_process import WITHOUT_PBX, AgentProcess
from tests.pbx.waiting import wait_until
from tests.usual_rows import insert_row

CALLS: Final = 5000
PAGE: Final = 8192
STOP_SECONDS: Final = 20.0  # TimeoutStopSec of systemd/sentiric-edge-agent.service
# Before the calls are copied, which takes longest.
IN_THE_SALVAGE: Final = {failpoints.VARIABLE: "salvage.table=freeze@4"}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with closing(AgentProcess(tmp_path, WITHOUT_PBX)) as agent:
        yield agent


@pytest.fixture
def in_the_salvage(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that freezes in the middle of a salvage, over a database of many calls."""
    agent = AgentProcess(tmp_path, WITHOUT_PBX, environ=IN_THE_SALVAGE)
    agent.database.parent.mkdir(parents=True)
    with closing(new_database(agent.database)) as connection:
        connection.execute("BEGIN")
        insert_row(connection, "tenant", 1)
        for number in range(1, CALLS + 1):
            insert_row(connection, "call", number)
        connection.execute("COMMIT")
    with closing(agent):
        yield agent


def test_a_second_start_beside_a_frozen_agent_names_it_and_ends_and_the_frozen_one_goes_on(
    agent: AgentProcess,
) -> None:
    agent.start(connected=False)
    os.kill(agent.pid, signal.SIGSTOP)
    wait_until(lambda: _is_frozen(agent.pid), what="the agent frozen", seconds=5)

    for command in (["run"], ["salvage"]):
        second = agent.command(*command)
        assert second.returncode == 2
        assert f"in use by process {agent.pid} (edge-agent)" in second.stderr
        assert f"which is frozen (kill -CONT {agent.pid} lets it go on)" in second.stderr

    os.kill(agent.pid, signal.SIGCONT)
    assert agent.status()["pid"] == agent.pid
    assert "frozen" not in agent.command("run").stderr
    assert agent.stop() == 0


def test_a_frozen_agent_that_is_killed_is_in_nobody_s_way(agent: AgentProcess) -> None:
    agent.start(connected=False)
    os.kill(agent.pid, signal.SIGSTOP)
    agent.kill()
    agent.start(connected=False)
    assert agent.stop() == 0


def test_a_salvage_at_the_start_ends_with_the_agent_and_the_next_start_does_it(
    in_the_salvage: AgentProcess, tmp_path: Path
) -> None:
    _overwrite_the_gaps(in_the_salvage.database)
    in_the_salvage.database.with_name("edge.db.lock").write_text("{}")  # the last stop was none
    in_the_salvage.launch()
    _check_stop_in_the_salvage(in_the_salvage)
    _check_salvaged_by(AgentProcess(tmp_path, WITHOUT_PBX))


def test_a_salvage_under_the_running_agent_ends_with_it_and_the_next_start_does_it(
    in_the_salvage: AgentProcess, tmp_path: Path
) -> None:
    in_the_salvage.start(connected=False)
    wait_until(lambda: "the agent captures" in in_the_salvage.log(), what="the agent over its database", seconds=15)
    _overwrite_the_gaps(in_the_salvage.database)
    in_the_salvage.command("status")  # reads them
    _check_stop_in_the_salvage(in_the_salvage)
    _check_salvaged_by(AgentProcess(tmp_path, WITHOUT_PBX))


def _check_stop_in_the_salvage(agent: AgentProcess) -> None:
    wait_until(lambda: _is_frozen(agent.pid), what="the agent in the salvage", seconds=20)
    assert "raw capture" in agent.log()
    os.kill(agent.pid, signal.SIGTERM)
    os.kill(agent.pid, signal.SIGCONT)
    began = time.monotonic()
    assert agent.wait(seconds=STOP_SECONDS) == 0
    assert time.monotonic() - began < STOP_SECONDS / 2
    assert "the agent stops" in agent.log()
    assert "Traceback" not in agent.log()
    assert not list(agent.database.parent.glob("edge.db.damaged-*"))


def _check_salvaged_by(agent: AgentProcess) -> None:
    captures = agent.log().count("the agent captures")
    with closing(agent):
        agent.launch()
        wait_until(
            lambda: agent.log().count("the agent captures") > captures, what="the agent over its new one", seconds=20
        )
        assert agent.stop() == 0
    assert len(list(agent.database.parent.glob("edge.db.damaged-*.report.json"))) == 1
    assert not list(agent.database.parent.glob("edge.db.incoming*"))
    with closing(sqlite3.connect(agent.database)) as connection:
        assert connection.execute("SELECT count(*) FROM call").fetchone() == (CALLS,)


def _overwrite_the_gaps(database: Path) -> None:
    """Damage their page; that something else is written makes whoever holds pages in memory read again."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("INSERT INTO counter VALUES ('noted', 1)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gap'").fetchone()

        def is_in_the_file() -> bool:
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

        wait_until(is_in_the_file, what="the write-ahead log moved into the file", seconds=10)
        with database.open("r+b") as stream:
            stream.seek((root - 1) * PAGE)
            stream.write(b"\xff" * PAGE)


def _is_frozen(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
