"""Features of a real Asterisk, played by phones: does the whole record of each call say what people did?"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.cli.faults import NotRunning
from tests.agent_process import AgentProcess
from tests.pbx.asterisk import VERSIONS
from tests.pbx.configuration import PRODUCT_SECRET, PRODUCT_USER
from tests.pbx.stage.pulse import Pulse
from tests.pbx.stage.scenario import Scenario
from tests.pbx.stage.scenarios import SCENARIOS
from tests.pbx.stage.theatre import Played, Theatre
from tests.pbx.stage.truth import differences
from tests.pbx.waiting import wait_until

pytestmark = pytest.mark.timeout(420)

Row = dict[str, Any]  # Any: columns


@dataclass(frozen=True, slots=True)
class Evening:
    """Everything that was played on one Asterisk, and what the agent says of it."""

    played: dict[str, Played]
    calls: list[Row]
    live_calls: int
    agent_log: str
    pulse: Pulse

    def of(self, scenario: Scenario) -> list[Row]:
        """The calls in which one of the scenario's numbers stands."""
        return [call for call in self.calls if _owner(call) == scenario.digits]


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: f"asterisk-{version}")
def evening(request: pytest.FixtureRequest, rig: None, tmp_path_factory: pytest.TempPathFactory) -> Evening:
    """Plays what was selected of the scenarios, once for each Asterisk."""
    version = request.param
    selected = _selected(request, version)
    with Theatre(list(SCENARIOS.values()), version=version) as theatre:
        settings = _settings(theatre.asterisk.ami_port)
        with AgentProcess(tmp_path_factory.mktemp(f"stage-{version}"), settings) as agent:
            played = theatre.play(selected)
            try:
                _wait_until_told(agent)
                live = agent.status()["calls"]["live"]
            except NotRunning:
                pytest.fail(f"the agent ended:\n{agent.log()[-3000:]}")
            calls = list(_rows(agent.database))
            return Evening({one.scenario.name: one for one in played}, calls, live, agent.log(), theatre.pulse)


def _selected(request: pytest.FixtureRequest, version: int) -> list[Scenario]:
    names = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and item.callspec.params.get("evening") == version
        and "name" in item.callspec.params
    }
    return [scenario for scenario in SCENARIOS.values() if scenario.name in names and version not in scenario.skips]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_record_says_what_people_did(evening: Evening, name: str) -> None:
    if name not in evening.played:
        pytest.skip(f"not on this Asterisk: {SCENARIOS[name].skips}")
    played = evening.played[name]
    assert played.failure is None
    wrong = differences(played.calls, evening.of(played.scenario), slowest=evening.pulse.slowest)
    assert not wrong, "\n".join(wrong)


def test_no_call_is_told_that_nobody_made_and_none_lives_on(evening: Evening) -> None:
    played = {one.scenario.digits for one in evening.played.values()}
    strays = [f"{call['caller_id']} to {call['callee_id']}" for call in evening.calls if _owner(call) not in played]
    assert strays == []
    assert evening.live_calls == 0
    assert "Traceback" not in evening.agent_log


def _settings(port: int) -> str:
    """What an operator would write for a start; trunks and contexts are found by the default patterns."""
    return f"""
site = "stage"
country = "TR"

[[pbx]]
name = "main"
port = {port}
username = "{PRODUCT_USER}"
secret = "{PRODUCT_SECRET}"
"""


def _wait_until_told(agent: AgentProcess) -> None:
    """Until the agent knows of no live call and all it heard is committed; a call that it never ends is a finding."""
    with suppress(AssertionError):
        wait_until(lambda: agent.status()["calls"]["live"] == 0, what="no live call", seconds=5, pause=0.1)
    wait_until(lambda: _is_all_kept(agent), what="everything committed", seconds=10, pause=0.1)


def _is_all_kept(agent: AgentProcess) -> bool:
    status = agent.status()
    heard, kept = status["pbx"][0]["last_heard_at"], status["database"]["last_commit_at"]
    return kept > heard and datetime.now(UTC) - datetime.fromisoformat(heard) > timedelta(seconds=0.3)


def _rows(database: Path) -> Iterator[Row]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT * FROM call ORDER BY start_time").fetchall():
            told = dict(row)
            for name in ("start_time", "pbx_answer_time", "answer_time", "end_time"):
                told[name] = datetime.fromisoformat(told[name]).replace(tzinfo=UTC) if told[name] else None
            for name in ("legs", "timeline"):
                told[name] = json.loads(told[name])
            yield told


def _owner(call: Row) -> str | None:
    """The digits of the scenario that a call belongs to, from the first of its numbers that is long enough."""
    numbers = [call["callee_id"], call["caller_id"], *(leg.get("number") for leg in call["legs"])]
    return next((number[-3:-1] for number in numbers if number and len(number) >= 4 and number[-3:].isdecimal()), None)
