"""Settings of a real Asterisk that keep calls out of its files: `status` tells each with the line that mends it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_process import AgentProcess
from tests.pbx.asterisk import Asterisk
from tests.pbx.configuration import Options
from tests.pbx.following import FOLLOWED_CEL
from tests.pbx.waiting import wait_until

BLIND = {
    "cdr.conf": "[general]\nenable=yes\nunanswered=no\nbatch=yes\n[csv]\nusegmtime=yes\n",
    "cel.conf": "[general]\nenable=no\n",
}
SEEING = {
    "cdr.conf": "[general]\nenable=yes\nunanswered=yes\nbatch=no\n[csv]\nloguniqueid=yes\nnewcdrcolumns=yes\n",
    "cel.conf": "[general]\nenable=yes\napps=dial,queue\nevents=ALL\n",
}
MAY_ASK = "[curious]\nsecret=merakli\nread=system,call\nwrite=reporting,system\n"


@pytest.fixture
def asterisk(rig: None) -> Iterator[Asterisk]:
    asterisk = Asterisk(options=Options(appended={**FOLLOWED_CEL, "manager.conf": MAY_ASK}))
    (asterisk.home / "log/cdr-csv").mkdir()
    write(asterisk, BLIND)
    try:
        asterisk.start()
        yield asterisk
    finally:
        asterisk.close()


def write(asterisk: Asterisk, files: dict[str, str]) -> None:
    for name, text in files.items():
        (asterisk.home / "etc" / name).write_text(text)


def settings(asterisk: Asterisk, *, user: str, secret: str, more: str = "") -> str:
    return f"""
site = "ist-01"
[[pbx]]
name = "main"
port = {asterisk.ami_port}
username = "{user}"
secret = "{secret}"
ping_seconds = 1
snapshot_seconds = 2
{more}
[[pbx.sources]]
kind = "cdr-csv"
path = "{asterisk.home / "log/cdr-csv/Master.csv"}"
[[pbx.sources]]
kind = "cel-csv"
path = "{asterisk.home / "log/cel-custom/Followed.csv"}"
"""


def wait_until_said(agent: AgentProcess, *lines: str) -> None:
    """In `status`, these lines to write and no other."""

    def said() -> bool:
        warnings = agent.status()["pbx"][0]["warnings"]
        return len(warnings) == len(lines) and all(any(line in text for text in warnings) for line in lines)

    try:
        wait_until(said, what="what is left out", seconds=20, pause=0.2)
    except AssertionError:
        assert agent.status()["pbx"][0]["warnings"] == list(lines)
    shown = agent.command("status").stdout
    assert all(line in shown for line in lines) or "more; see --json" in shown


@pytest.mark.timeout(120)
def test_each_setting_that_blinds_us_is_told_with_the_line_to_write_until_it_is_mended(
    asterisk: Asterisk, tmp_path: Path
) -> None:
    readable = f'config_directory = "{asterisk.home / "etc"}"'
    text = settings(asterisk, user=asterisk.user, secret=asterisk.secret, more=readable)
    unloaded = "in modules.conf, section [modules], write load = cdr_csv.so"
    with AgentProcess(tmp_path / "agent", text) as agent:
        wait_until_said(
            agent,
            "in cdr.conf, section [general], write unanswered = yes",
            "in cdr.conf, section [general], write batch = no",
            "in cdr.conf, section [csv], write loguniqueid = yes",
            "in cdr.conf, section [csv], write newcdrcolumns = yes",
            "in cel.conf, section [general], write enable = yes",
            unloaded,
        )
        write(asterisk, SEEING)
        asterisk.cli("core reload")
        wait_until_said(agent, unloaded)
        write(asterisk, {"cdr.conf": "[general]\nenable=no\n"})
        asterisk.cli("core reload")
        wait_until_said(agent, "in cdr.conf, section [general], write enable = yes", unloaded)


@pytest.mark.timeout(120)
def test_an_asterisk_whose_files_cannot_be_read_is_asked_as_far_as_its_user_may(
    asterisk: Asterisk, tmp_path: Path
) -> None:
    """Which modules are loaded only a user with write=system may ask, whether CDRs are on the usual one too."""
    write(asterisk, {"cdr.conf": "[general]\nenable=no\n"})
    asterisk.cli("core reload")
    off = "in cdr.conf, section [general], write enable = yes"
    with (
        AgentProcess(tmp_path / "usual", settings(asterisk, user=asterisk.user, secret=asterisk.secret)) as usual,
        AgentProcess(tmp_path / "curious", settings(asterisk, user="curious", secret="merakli")) as curious,
    ):
        wait_until_said(usual, off)
        wait_until_said(curious, off, "in modules.conf, section [modules], write load = cdr_csv.so")
        write(asterisk, SEEING)
        asterisk.cli("core reload")
        asterisk.cli("module load cdr_csv.so")
        wait_until_said(usual)
        wait_until_said(curious)
        asterisk.cli("module unload cel_custom.so")
        wait_until_said(curious, "in modules.conf, section [modules], write load = cel_custom.so")
        wait_until_said(usual)
