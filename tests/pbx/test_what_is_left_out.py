"""What the agent finds wrong with a real Asterisk's configuration, and that what it recommends mends it."""

from pathlib import Path

import pytest

from tests.agent_process import AgentProcess
from tests.pbx.asterisk import VERSIONS, Asterisk
from tests.pbx.configuration import Options
from tests.pbx.waiting import wait_until

OFF = {"cdr.conf": "[general](+)\nenable=no\nunanswered=no\n", "cel.conf": "[general](+)\nevents=ANSWER\n"}


def settings(asterisk: Asterisk) -> str:
    lines = [
        'site = "istanbul-1"',
        "[[pbx]]",
        'name = "main"',
        f"port = {asterisk.ami_port}",
        f'username = "{asterisk.user}"',
        f'secret = "{asterisk.secret}"',
        f'config_directory = "{asterisk.home / "etc"}"',
    ]
    for kind, path in (("cdr-csv", asterisk.cdr_path), ("cel-csv", asterisk.cel_path)):
        lines += ["[[pbx.sources]]", f'kind = "{kind}"', f'path = "{path}"']
    return "\n".join(lines)


@pytest.mark.usefixtures("rig")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("appended", "words"), [(OFF, ("Asterisk writes no CDRs", "write events = CHAN_START,")), ({}, ())]
)
def test_status_tells_version_and_what_is_left_out(
    tmp_path: Path, version: int, appended: dict[str, str], words: tuple[str, ...]
) -> None:
    with (
        Asterisk(version=version, options=Options(appended=appended)) as asterisk,
        AgentProcess(tmp_path, settings(asterisk)) as agent,
    ):
        wait_until(
            lambda: str(agent.status()["pbx"][0]["version"]).startswith(f"Asterisk {version}."),
            what="version",
            seconds=20,
        )
        wait_until(lambda: len(agent.status()["pbx"][0]["warnings"]) == len(words), what="warnings", seconds=20)
        pbx = agent.status()["pbx"][0]
        assert abs(pbx["clock_offset_seconds"]) < 1
        assert all(any(word in warning for warning in pbx["warnings"]) for word in words)
