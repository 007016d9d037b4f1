"""The agent beside a real Asterisk that writes its CDRs and CEL into tables: what it did not hear, they tell."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.agent_process import AgentProcess
from tests.mariadb_server import DATABASE, READER, READER_PASSWORD, MariaDb
from tests.pbx.asterisk import Asterisk, RigUnavailable
from tests.pbx.mix import Mix
from tests.pbx.odbc import asterisk_with_tables, environment_of, load_back_ends
from tests.pbx.truth import TrueCall, true_calls
from tests.pbx.waiting import wait_until

KINDS = ("cel-mariadb", "cdr-mariadb", "cdr-sqlite")
COLUMNS = (
    "accountcode", "clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer",
    "end", "duration", "billsec", "disposition", "uniqueid", "linkedid", "sequence",
)  # fmt: skip


@pytest.fixture
def asterisk(rig: None, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asterisk]:
    values = ",".join(f"'${{CDR({column})}}'" for column in COLUMNS)
    mapping = f"[master]\ntable = cdr\ncolumns = {', '.join(COLUMNS)}\nvalues = {values}\n"
    try:
        asterisk = asterisk_with_tables(mariadb, more={"cdr_sqlite3_custom.conf": mapping})
    except RigUnavailable as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    for name, value in environment_of(asterisk).items():
        monkeypatch.setenv(name, value)
    with asterisk:
        load_back_ends(asterisk, "cdr_sqlite3_custom")
        yield asterisk


def settings(asterisk: Asterisk, mariadb: MariaDb, kind: str) -> str:
    if kind == "cdr-sqlite":
        source = f'path = "{asterisk.home / "log/master.db"}"'
    else:
        source = f'url = "mariadb://{READER}@127.0.0.1:{mariadb.port}/{DATABASE}"\npassword = "{READER_PASSWORD}"'
    return f"""
site = "ist-01"
[[pbx]]
name = "main"
port = {asterisk.ami_port}
username = "{asterisk.user}"
secret = "{asterisk.secret}"
reconnect_max_seconds = 1
[[pbx.sources]]
kind = "{kind}"
time_zone = "UTC"
poll_seconds = 0.5
settle_seconds = 2
{source}
[tenancy]
default = "acme"
"""


def is_filled(agent: AgentProcess, kind: str) -> bool:
    status = agent.status()
    (source,) = status["pbx"][0]["sources"]
    assert source["trouble"] is None
    gaps = json.loads(agent.command("gaps", "list", "--json").stdout)
    is_settled = status["calls"]["live"] == 0 and source["waiting"] == 0
    return is_settled and [gap["filled_by"] for gap in gaps] == [kind]


def differences(true: TrueCall, ours: dict[str, Any]) -> list[str]:  # Any: columns
    """What of a call is told otherwise, as far as whole seconds and CDRs can tell it."""
    names = ("direction", "status", "disposition", "answered_by")
    told = {name: (getattr(true, name), ours[name]) for name in names}
    found = [f"{true.intention}: {name} {here} for {theirs}" for name, (theirs, here) in told.items() if theirs != here]
    # Where an end is only a length after the beginning, both were cut to whole seconds.
    for name, slack in (("start_time", timedelta(seconds=1)), ("end_time", timedelta(seconds=2))):
        theirs, here = getattr(true, name), datetime.fromisoformat(ours[name])
        if abs(here - theirs) > slack:
            found.append(f"{true.intention}: {name} {here} for {theirs}")
    return found


@pytest.mark.timeout(240)
def test_calls_that_the_agent_did_not_hear_are_told_by_each_kind_of_table(
    asterisk: Asterisk, mariadb: MariaDb, tmp_path: Path
) -> None:
    mix = Mix(seed=43)
    with ExitStack() as stack:
        agents = {
            kind: stack.enter_context(AgentProcess(tmp_path / kind, settings(asterisk, mariadb, kind)))
            for kind in KINDS
        }
        mix.place(asterisk, calls=5, rate=5.0)
        under_way = mix.start(asterisk, calls=30, rate=5.0)
        wait_until(lambda: asterisk.active_channels() > 5, what="calls that live", seconds=20)
        for agent in agents.values():
            agent.kill()
        under_way.wait(seconds=90)
        for agent in agents.values():
            agent.start()
        mix.place(asterisk, calls=5, rate=5.0)
        for kind, agent in agents.items():
            wait_until(partial(is_filled, agent, kind), what=f"{kind} filled", seconds=60, pause=0.5)
        told = {
            kind: {call["call_sid"].rpartition(":")[2]: call for call in agent.calls()}
            for kind, agent in agents.items()
        }

    truth = {call.native_id: call for call in true_calls(asterisk.cel_path, asterisk.cdr_path)}
    for kind, calls in told.items():
        assert calls.keys() == truth.keys(), kind
        wrong = [line for key, true in truth.items() for line in differences(true, calls[key])]
        assert wrong == [], kind
        assert sum(call["source"] != "ami" for call in calls.values()) > 10, kind
