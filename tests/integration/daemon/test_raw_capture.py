"""Without a usable database the agent captures into the spill, and takes it up once there is one."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from agent.store.engine import new_database
from tests.agent_process import AgentProcess
from tests.pbx.waiting import wait_until

SETTINGS = """
site = "here"
[[pbx]]
name = "pbx"
kind = "asterisk"
host = "127.0.0.1"
port = 1
username = "u"
secret = "p"
"""


def _version(path: Path, number: str | None = None) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if number is not None:
            connection.execute("UPDATE alembic_version SET version_num = ?", (number,))
        return str(found)


@contextmanager
def closing_agent(agent: AgentProcess) -> Iterator[None]:
    try:
        yield
    finally:
        agent.__exit__(None, None, None)


def test_with_a_database_of_a_newer_program_the_agent_stays_up_and_says_so(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, SETTINGS)
    agent.database.parent.mkdir(parents=True)
    new_database(agent.database).close()
    known = _version(agent.database, "9999")
    with closing_agent(agent):
        agent.start(connected=False)
        problem = agent.status()["problems"][0]
        assert problem.startswith("raw capture: ")
        assert "newer version" in problem
        assert agent.stop() == 0
    _version(agent.database, known)
    with closing_agent(agent):
        agent.start(connected=False)
        assert not any("raw capture" in each for each in agent.status()["problems"])


def test_a_database_found_damaged_at_the_start_is_salvaged_and_kept_aside(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, SETTINGS)
    agent.database.parent.mkdir(parents=True)
    with closing(new_database(agent.database)) as connection:
        connection.execute("INSERT INTO tenant VALUES (1, 'acme', 1)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gap'").fetchone()
    with agent.database.open("r+b") as stream:
        stream.seek((root - 1) * 8192)
        stream.write(b"\xff" * 8192)
    (agent.database.parent / "edge.db.lock").write_text(json.dumps({"pid": 1}))
    with closing_agent(agent):
        agent.start(connected=False)
        assert "raw capture" in agent.log()
        wait_until(lambda: "the agent captures" in agent.log(), what="the agent over its new database", seconds=15)
    with closing(sqlite3.connect(agent.database)) as connection:
        assert connection.execute("SELECT name FROM tenant").fetchall() == [("acme",)]
    assert len(list(agent.database.parent.glob("edge.db.damaged-*.report.json"))) == 1
