"""Calls of a real Asterisk while the agent was stopped: what it wrote down itself brings them, none doubled."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.agent_process import AgentProcess
from tests.pbx.asterisk import Asterisk
from tests.pbx.configuration import CDR_COLUMNS
from tests.pbx.mix import Mix
from tests.pbx.truth import TrueCall, true_calls
from tests.pbx.waiting import wait_until

SITE = "ist-01"
WHOLE_SECONDS = timedelta(seconds=1)


def settings(asterisk: Asterisk, kind: str) -> str:
    if kind == "cel-csv":
        source = f'path = "{asterisk.cel_path}"'
    else:
        source = f'path = "{asterisk.cdr_path}"\ncolumns = {json.dumps(list(CDR_COLUMNS))}'
    return f"""
site = "{SITE}"
[[pbx]]
name = "main"
port = {asterisk.ami_port}
username = "{asterisk.user}"
secret = "{asterisk.secret}"
reconnect_max_seconds = 1
[[pbx.sources]]
kind = "{kind}"
time_zone = "UTC"
settle_seconds = 2
{source}
[tenancy]
rules = [
    {{ tenant = "acme", did_prefix = "90212555" }},
    {{ tenant = "acme", context = "internal-acme" }},
    {{ tenant = "globex", trunk = "PJSIP/trunk-globex" }},
    {{ tenant = "globex", extension_range = [200, 299] }},
]
"""


def differences(true: TrueCall, ours: dict[str, Any], *, exactly: bool) -> list[str]:  # Any: columns
    """What of a call is told otherwise; a CDR does not know all of it."""
    told = {
        "tenant": (true.tenant, ours["tenant"]),
        "direction": (true.direction, ours["direction"]),
        "status": (true.status, ours["status"]),
        "disposition": (true.disposition, ours["disposition"]),
        "answered_by": (true.answered_by, ours["answered_by"]),
    }
    found = [f"{true.intention}: {name} {here} for {theirs}" for name, (theirs, here) in told.items() if theirs != here]
    slack = timedelta(seconds=0.05) if exactly else WHOLE_SECONDS
    for name in ("start_time", "end_time"):
        theirs, here = getattr(true, name), datetime.fromisoformat(ours[name])
        if abs(here - theirs) > slack:
            found.append(f"{true.intention}: {name} {here} for {theirs}")
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["cel-csv", "cdr-csv"])
def test_calls_of_the_time_when_the_agent_was_stopped_are_there(asterisk: Asterisk, tmp_path: Path, kind: str) -> None:
    mix = Mix(seed=41)
    with AgentProcess(tmp_path / "agent", settings(asterisk, kind)) as agent:
        mix.place(asterisk, calls=15, rate=5.0)
        under_way = mix.start(asterisk, calls=40, rate=5.0)
        wait_until(lambda: asterisk.active_channels() > 5, what="calls that live", seconds=20)
        assert agent.stop() == 0
        under_way.wait(seconds=90)
        agent.start()
        mix.place(asterisk, calls=10, rate=5.0)

        def is_filled() -> bool:
            gaps = json.loads(agent.command("gaps", "list", "--json").stdout)
            return bool(gaps) and all(gap["filled_by"] == kind for gap in gaps)

        wait_until(is_filled, what="the gap filled", seconds=60, pause=0.5)
        wait_until(lambda: _is_settled(agent), what="all settled", seconds=60, pause=0.5)
        calls = {call["call_sid"].rpartition(":")[2]: call for call in agent.calls()}
        (gap,) = json.loads(agent.command("gaps", "list", "--json").stdout)

    truth = {call.native_id: call for call in true_calls(asterisk.cel_path, asterisk.cdr_path)}
    assert calls.keys() == truth.keys()
    assert gap["reason"] == "agent_stopped"
    assert gap["calls_found"] > 20
    exactly = kind == "cel-csv"
    wrong = [line for key, true in truth.items() for line in differences(true, calls[key], exactly=exactly)]
    assert wrong == []
    unheard = [call for call in calls.values() if call["source"] != "ami"]
    assert len(unheard) > 20
    assert all(call["revision"] == 1 for call in calls.values() if call["source"] == "ami")


@pytest.mark.timeout(240)
def test_calls_that_asterisk_s_own_restart_hid_are_told_by_cel(asterisk: Asterisk, tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "agent", settings(asterisk, "cel-csv")) as agent:
        placing = Mix(seed=31).start(asterisk, calls=60, rate=10.0)
        wait_until(lambda: asterisk.active_channels() > 10, what="calls that live", seconds=20)
        asterisk.restart_now()
        placing.wait(seconds=60, disturbed=True)
        Mix(seed=32).place(asterisk, calls=20, rate=10.0)
        wait_until(lambda: _is_settled(agent), what="all settled", seconds=60, pause=0.5)

        def is_filled() -> bool:
            gaps = json.loads(agent.command("gaps", "list", "--json").stdout)
            return [gap["filled_by"] for gap in gaps] == ["cel-csv"]

        wait_until(is_filled, what="the gap filled", seconds=60, pause=0.5)
        calls = {call["call_sid"].rpartition(":")[2]: call for call in agent.calls()}
        (gap,) = json.loads(agent.command("gaps", "list", "--json").stdout)

    assert gap["reason"] == "pbx_restarted"
    truth = {call.native_id: call for call in true_calls(asterisk.cel_path, asterisk.cdr_path)}
    assert calls.keys() == truth.keys()
    ended = [true for true in truth.values() if true.ended]
    wrong = [line for true in ended for line in differences(true, calls[true.native_id], exactly=True)]
    assert wrong == []


def _is_settled(agent: AgentProcess) -> bool:
    status = agent.status()
    (source,) = status["pbx"][0]["sources"]
    return bool(status["calls"]["live"] == 0 and source["waiting"] == 0)
