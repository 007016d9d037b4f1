"""The clock of a machine with a real Asterisk and the agent on it is set, back and forward, while people talk."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from tests.agent_process import AgentProcess
from tests.pbx.asterisk import INSTANCES, Asterisk
from tests.pbx.following import gaps
from tests.pbx.intention import Intention
from tests.pbx.mix import Plan, place
from tests.pbx.waiting import wait_until

_LIBRARY: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
HOUR: Final = timedelta(hours=1)
NOTHING: Final = timedelta()
JUST: Final = timedelta(milliseconds=50)  # Asterisk's threads stamp what happens at once in either order


class Clock:
    """The clock of Asterisk and the agent, by libfaketime; the time since boot goes on whatever it is set to."""

    def __init__(self, directory: Path) -> None:
        shutil.copy2(_LIBRARY, directory / _LIBRARY.name)
        self._directory = directory
        self.set(NOTHING)

    def set(self, ahead: timedelta) -> None:
        """How far it is ahead of the true time from now on."""
        new = self._directory / "clock.new"
        new.write_text(f"{ahead.total_seconds():+.0f}")
        new.rename(self._directory / "clock")

    def environment(self, directory: Path) -> dict[str, str]:
        """Of a process that sees the clock's directory there."""
        return {
            "LD_PRELOAD": str(directory / _LIBRARY.name),
            "FAKETIME_TIMESTAMP_FILE": str(directory / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }


@pytest.fixture
def machine(rig: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Asterisk, Clock]]:
    if not _LIBRARY.exists():
        reason = "no libfaketime; install Debian's faketime"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    asterisk = Asterisk()
    try:
        clock = Clock(asterisk.home)
        with monkeypatch.context() as patch:
            for name, value in clock.environment(Path("/") / INSTANCES / asterisk.name).items():
                patch.setenv(name, value)
            asterisk.start()
        asterisk.start_far_ends()
        yield asterisk, clock
    finally:
        asterisk.close()


def settings(asterisk: Asterisk) -> str:
    return f"""
site = "ist-01"
[[pbx]]
name = "main"
port = {asterisk.ami_port}
username = "{asterisk.user}"
secret = "{asterisk.secret}"
[tenancy]
default = "acme"
"""


@pytest.mark.timeout(180)
def test_calls_under_which_the_clock_is_set_are_told_with_their_true_lengths(
    machine: tuple[Asterisk, Clock], tmp_path: Path
) -> None:
    asterisk, clock = machine
    plan = Plan(seed=71)
    began = datetime.now(UTC)
    with AgentProcess(tmp_path, settings(asterisk), environ=clock.environment(asterisk.home)) as agent:
        placed: list[Intention] = []
        for ahead in (-HOUR, HOUR, NOTHING):
            planned = [plan.one("inbound_answered", talk=timedelta(seconds=6)) for _ in range(4)]
            placing = place(asterisk, planned, over=timedelta(seconds=2))
            wait_until(lambda: _talking(agent) == 4, what="four calls that talk", seconds=20)
            clock.set(ahead)
            placed += placing.wait(seconds=60)
        wait_until(lambda: agent.status()["calls"]["live"] == 0, what="all calls told", seconds=20)
        calls = {call["caller_id"]: call for call in agent.calls()}
        noted = gaps(agent)
    ended = datetime.now(UTC)

    assert calls.keys() == {intention.caller for intention in placed}
    for intention in placed:
        call = calls[intention.caller]
        assert intention.talk is not None
        assert abs(call["talk_seconds"] - intention.talk.total_seconds()) < 2, call["timeline"]
        moments = [datetime.fromisoformat(entry["at"]) for entry in call["timeline"]]
        assert all(later - earlier > -JUST for earlier, later in pairwise(moments)), moments
        assert [entry["event"] for entry in call["timeline"]].count("clock_stepped") == 1
        assert (call["status"], call["end_estimated"]) == ("completed", False)
    # The clock was wrong from its first to its last setting; what ended meanwhile is told as it was known to be.
    last = [calls[intention.caller] for intention in placed[-4:]]
    assert all(began < datetime.fromisoformat(call["start_time"]) < ended for call in last)
    assert noted == []


def _talking(agent: AgentProcess) -> int:
    return sum(call["state"] == "answered" for call in agent.ask("/v1/calls")["calls"])
