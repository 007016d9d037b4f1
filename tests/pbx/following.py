"""Agents beside a real Asterisk, each with one second source: what they tell, held against Asterisk's own account."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from tests.agent_process import AgentProcess
from tests.pbx.asterisk import Asterisk
from tests.pbx.configuration import CEL_COLUMNS
from tests.pbx.truth import TrueCall, true_calls
from tests.pbx.waiting import wait_until

SITE = "ist-01"
_CLOSE = timedelta(seconds=0.05)
_SECOND = timedelta(seconds=1)
# How far start and end may be off: several agents beside one Asterisk hear late, CDRs are cut to whole seconds, and in
# tables of CDRs the end is the start and a length.
_HEARD = (_SECOND, _SECOND)
_SLACK = {"cel-csv": (_CLOSE, _CLOSE), "cdr-csv": (_SECOND, _SECOND), "cdr-mariadb": (_SECOND, 2 * _SECOND)}
# What `cdr_csv` writes as docs/asterisk.md recommends it; the rig's cdr.conf ends in its section.
CDR_CSV = {"cdr.conf": "loguniqueid=yes\nloguserfield=yes\nnewcdrcolumns=yes\n"}
# CEL files beside the one that the rig keeps its account in.
FOLLOWED_CEL = {
    "cel_custom.conf": "Followed.csv => "
    + ",".join("${CSV_QUOTE(${" + source + "})}" for source in CEL_COLUMNS.values())
    + "\n"
}


def load_cdr_csv(asterisk: Asterisk) -> None:
    """Has it write Master.csv by `cdr_csv` too, from its next start on."""
    (asterisk.home / "log/cdr-csv").mkdir()
    modules = asterisk.home / "etc/modules.conf"
    modules.write_text(modules.read_text().replace("noload => cdr_csv.so\n", ""))


def settings(asterisk: Asterisk, source: str) -> str:
    """`source`: the lines of [[pbx.sources]] that are its own."""
    return f"""
site = "{SITE}"
[[pbx]]
name = "main"
port = {asterisk.ami_port}
username = "{asterisk.user}"
secret = "{asterisk.secret}"
reconnect_max_seconds = 1
[[pbx.sources]]
time_zone = "UTC"
settle_seconds = 2
{source}
[tenancy]
rules = [
    {{ tenant = "acme", trunk = "PJSIP/trunk-acme" }},
    {{ tenant = "acme", context = "internal-acme" }},
    {{ tenant = "globex", trunk = "PJSIP/trunk-globex" }},
    {{ tenant = "globex", extension_range = [200, 299] }},
]
"""


def gaps(agent: AgentProcess) -> list[dict[str, Any]]:  # Any: JSON
    found: list[dict[str, Any]] = json.loads(agent.command("gaps", "list", "--json").stdout)
    return found


def wait_until_told(agent: AgentProcess, kind: str) -> None:
    """Until the source has told all, and no gap is left that it could fill."""

    def is_told() -> bool:
        status = agent.status()
        (source,) = status["pbx"][0]["sources"]
        assert source["trouble"] is None, source["trouble"]
        if status["calls"]["live"] or source["waiting"]:
            return False
        found = gaps(agent)
        return bool(found) and all(gap["filled_by"] == kind for gap in found)

    try:
        wait_until(is_told, what=f"every gap filled by {kind}", seconds=60, pause=0.5)
    except AssertionError as late:
        raise AssertionError(f"{late}: {gaps(agent)} {agent.status()['pbx']}") from None


def calls_by_id(agent: AgentProcess) -> dict[str, dict[str, Any]]:  # Any: columns
    """By the id of each call's first channel; none stands there twice."""
    told = agent.calls()
    calls = {call["call_sid"].rpartition(":")[2]: call for call in told}
    assert len(calls) == len(told)
    return calls


def truth_of(asterisk: Asterisk) -> dict[str, TrueCall]:
    return {call.native_id: call for call in true_calls(asterisk.cel_path, asterisk.cdr_path)}


def differences(truth: Iterable[TrueCall], calls: dict[str, dict[str, Any]], kind: str) -> list[str]:  # Any: columns
    """A line for everything that is told otherwise, as far as who told it can know."""
    return [
        f"{true.native_id} ({true.intention}, {calls[true.native_id]['source']}): {line}"
        for true in truth
        for line in _in_fields(true, calls[true.native_id], kind)
    ]


def _in_fields(true: TrueCall, ours: dict[str, Any], kind: str) -> list[str]:  # Any: columns
    is_exact = kind == "cel-csv" or ours["source"] == "ami"
    told = {
        "tenant": (true.tenant, ours["tenant"]),
        "direction": (true.direction, ours["direction"]),
        "status": (true.status, ours["status"]),
        "disposition": (true.disposition, ours["disposition"]),
        "answered_by": (true.answered_by, ours["answered_by"]),
        "queue": (true.queue, ours["queue"]),
        "caller": (true.caller, ours["caller_id"]),
    }
    if is_exact:  # the dialplan may have changed what a CDR tells
        told["callee"] = (true.callee, ours["callee_id"])
    found = [
        f"{name} is {theirs!r} to Asterisk, {here!r} here" for name, (theirs, here) in told.items() if theirs != here
    ]
    slack = _HEARD if ours["source"].startswith("ami") and is_exact else _SLACK[kind]
    moments = {"start_time": slack[0], "end_time": slack[1]} | ({"answer_time": slack[0]} if is_exact else {})
    for name, off in moments.items():
        theirs_at, here_at = getattr(true, name), ours[name] and datetime.fromisoformat(ours[name])
        if (theirs_at is None) != (here_at is None) or (theirs_at and abs(here_at - theirs_at) > off):
            found.append(f"{name} is {theirs_at} to Asterisk, {here_at} here")
    return found
