"""Calls of a real Asterisk, held against what it wrote down of them itself: nothing is missing, and a loss is seen."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.agent_process import AgentProcess
from tests.pbx.asterisk import Asterisk
from tests.pbx.configuration import CDR_COLUMNS
from tests.pbx.following import settings
from tests.pbx.mix import Mix
from tests.pbx.waiting import wait_until


def with_both_sources(asterisk: Asterisk) -> str:
    """CEL and CDRs: each is held against what was heard."""
    cdr = f"""[[pbx.sources]]
kind = "cdr-csv"
time_zone = "UTC"
settle_seconds = 2
path = "{asterisk.cdr_path}"
columns = {json.dumps(list(CDR_COLUMNS))}
"""
    head, tenancy, rest = settings(asterisk, f'kind = "cel-csv"\npath = "{asterisk.cel_path}"').partition("[tenancy]")
    return f"{head}{cdr}{tenancy}{rest}"


def verified(agent: AgentProcess, day: str, *arguments: str) -> tuple[int, dict[str, Any]]:  # Any: JSON
    done = agent.command("verify", "--day", day, "--json", *arguments)
    assert done.returncode in {0, 1}, done.stderr
    (found,) = json.loads(done.stdout)
    return done.returncode, found


def forget_one(agent: AgentProcess) -> str:
    """Lose a call, as no fault of ours shall; its id."""
    with closing(sqlite3.connect(agent.database)) as database, database:
        (key, sid) = database.execute("SELECT id, call_sid FROM call WHERE merged_into IS NULL LIMIT 1").fetchone()
        database.execute("DELETE FROM outbox WHERE call_id = ?", (key,))
        database.execute("DELETE FROM call WHERE id = ?", (key,))
    return str(sid)


@pytest.mark.timeout(180)
def test_what_was_heard_is_what_asterisk_wrote_and_a_lost_call_comes_back(asterisk: Asterisk, tmp_path: Path) -> None:
    day = f"{datetime.now(UTC):%F}"
    with AgentProcess(tmp_path / "agent", with_both_sources(asterisk)) as agent:
        Mix(seed=71).place(asterisk, calls=35, rate=6.0)
        wait_until(lambda: agent.status()["calls"]["live"] == 0, what="no live call", seconds=60)
        heard = len(agent.calls())
        assert heard > 30

        def all_ended_a_while_ago() -> bool:
            return bool(verified(agent, day)[1]["waiting"] == 0)

        wait_until(all_ended_a_while_ago, what="all calls old enough to be compared", seconds=60, pause=1.0)
        code, found = verified(agent, day)
        assert (code, found["known"], found["held"]) == (0, heard, heard), found

        lost = forget_one(agent)
        code, found = verified(agent, day)
        assert code == 1
        assert [call["call_sid"] for call in found["calls"]["missing"]] == [lost]

        code, found = verified(agent, day, "--heal")
        assert (code, found["known"], found["healed"]["new"]) == (0, heard, 1)
        (back,) = [call for call in agent.calls() if call["call_sid"] == lost]
        assert "cel" in back["source"].split("+")
