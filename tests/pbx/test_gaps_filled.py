"""Calls of a real Asterisk while the agent was stopped: what it wrote down itself brings them, none doubled."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.agent_process import AgentProcess
from tests.mariadb_server import DATABASE, READER, READER_PASSWORD, MariaDb
from tests.pbx.asterisk import Asterisk, RigUnavailable
from tests.pbx.following import (
    CDR_CSV,
    calls_by_id,
    differences,
    gaps,
    load_cdr_csv,
    settings,
    truth_of,
    wait_until_told,
)
from tests.pbx.mix import Mix
from tests.pbx.odbc import asterisk_with_tables, environment_of, load_back_ends
from tests.pbx.waiting import wait_until

A_MINUTE = timedelta(minutes=1)


@pytest.fixture
def asterisk(rig: None, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asterisk]:
    """It writes Master.csv by `cdr_csv` and tables too."""
    try:
        asterisk = asterisk_with_tables(mariadb, more=CDR_CSV)
    except RigUnavailable as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    for name, value in environment_of(asterisk).items():
        monkeypatch.setenv(name, value)
    load_cdr_csv(asterisk)
    with asterisk:
        load_back_ends(asterisk)
        yield asterisk


@pytest.mark.timeout(300)
def test_two_hundred_calls_while_every_agent_was_down_for_a_minute_are_told_by_each_source_alone(
    asterisk: Asterisk, mariadb: MariaDb, tmp_path: Path
) -> None:
    url = f"mariadb://{READER}@127.0.0.1:{mariadb.port}/{DATABASE}"
    sources = {
        "cdr-csv": f'path = "{asterisk.home / "log/cdr-csv/Master.csv"}"',
        "cel-csv": f'path = "{asterisk.cel_path}"',
        "cdr-mariadb": f'url = "{url}"\npassword = "{READER_PASSWORD}"\npoll_seconds = 0.5',
    }
    with ExitStack() as stack:
        agents = {
            kind: AgentProcess(tmp_path / kind, settings(asterisk, f'kind = "{kind}"\n{lines}'))
            for kind, lines in sources.items()
        }
        for agent in agents.values():
            stack.enter_context(agent)
        mix = Mix(seed=41)
        placing = mix.start(asterisk, calls=200, rate=3.0)
        # What a source told before the gap shows that it tells all that came after.
        wait_until(lambda: all(map(_has_told_some, agents.values())), what="each source read", seconds=30, pause=0.2)
        for agent in agents.values():
            assert agent.stop() == 0
        down_until = datetime.now(UTC) + A_MINUTE
        wait_until(lambda: datetime.now(UTC) > down_until, what="the minute over", seconds=70, pause=0.5)
        for agent in agents.values():
            agent.start()
        placing.wait(seconds=90)
        # Only what is written down later shows that all before it was.
        mix.place(asterisk, calls=8, rate=4.0)
        for kind, agent in agents.items():
            wait_until_told(agent, kind)
        told = {kind: calls_by_id(agent) for kind, agent in agents.items()}
        found = {kind: gaps(agent) for kind, agent in agents.items()}

    truth = truth_of(asterisk)
    assert len(truth) == 208
    for kind, calls in told.items():
        assert calls.keys() == truth.keys(), kind
        assert differences(truth.values(), calls, kind) == [], kind
        assert all(call["revision"] == 1 for call in calls.values() if call["source"] == "ami")
        assert sum(call["source"] != "ami" for call in calls.values()) > 130, kind
        (gap,) = found[kind]
        assert (gap["reason"], gap["calls_found"] > 130) == ("agent_stopped", True)


@pytest.mark.timeout(240)
def test_calls_that_asterisk_s_own_restart_hid_are_told_by_cel(asterisk: Asterisk, tmp_path: Path) -> None:
    source = f'kind = "cel-csv"\npath = "{asterisk.cel_path}"'
    with AgentProcess(tmp_path / "agent", settings(asterisk, source)) as agent:
        placing = Mix(seed=31).start(asterisk, calls=60, rate=10.0)
        wait_until(lambda: asterisk.active_channels() > 10, what="calls that live", seconds=20)
        asterisk.restart_now()
        placing.wait(seconds=60, disturbed=True)
        Mix(seed=32).place(asterisk, calls=20, rate=10.0)
        wait_until_told(agent, "cel-csv")
        calls, (gap,) = calls_by_id(agent), gaps(agent)

    assert gap["reason"] == "pbx_restarted"
    truth = truth_of(asterisk)
    assert calls.keys() == truth.keys()
    assert differences([true for true in truth.values() if true.ended], calls, "cel-csv") == []


def _has_told_some(agent: AgentProcess) -> bool:
    (source,) = agent.status()["pbx"][0]["sources"]
    return bool(source["records"] > 5)
