"""Files rotated, agents and Asterisk restarted and killed, all while calls go on: every call told stands once."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.agent_process import AgentProcess
from tests.pbx.asterisk import Asterisk
from tests.pbx.configuration import Options
from tests.pbx.following import (
    CDR_CSV,
    FOLLOWED_CEL,
    calls_by_id,
    differences,
    gaps,
    load_cdr_csv,
    settings,
    truth_of,
    wait_until_told,
)
from tests.pbx.mix import Mix
from tests.pbx.truth import TrueCall
from tests.pbx.waiting import wait_until

JUST = timedelta(seconds=1)
SOON = timedelta(seconds=5)  # after the kill a new channel shows that what was open is over


@pytest.fixture
def asterisk(rig: None) -> Iterator[Asterisk]:
    """It writes Master.csv by `cdr_csv`, and CEL twice: what is followed is rotated, the rig's account is not."""
    asterisk = Asterisk(options=Options(appended={**CDR_CSV, **FOLLOWED_CEL}))
    load_cdr_csv(asterisk)
    with asterisk:
        yield asterisk


class Rotating:
    """The followed files, rotated as logrotate does."""

    def __init__(self, asterisk: Asterisk) -> None:
        self._asterisk = asterisk
        self.cdr = asterisk.home / "log/cdr-csv/Master.csv"
        self.cel = asterisk.home / "log/cel-custom/Followed.csv"

    def rename(self, path: Path) -> None:
        self._make_room(path)
        path.rename(path.with_name(f"{path.name}.1"))
        self._asterisk.cli("logger reload")

    def copy_and_truncate(self, path: Path) -> None:
        """Asterisk is held meanwhile: what it wrote between copy and cut would be lost to everybody."""
        self._make_room(path)
        os.kill(self._asterisk.pid, signal.SIGSTOP)
        try:
            shutil.copy2(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)
        finally:
            os.kill(self._asterisk.pid, signal.SIGCONT)

    def _make_room(self, path: Path) -> None:
        for number in range(8, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.rename(path.with_name(f"{path.name}.{number + 1}"))


@pytest.mark.timeout(300)
def test_no_call_is_lost_or_doubled_by_rotated_files_and_by_restarts_and_kills_of_both_sides(
    asterisk: Asterisk, tmp_path: Path
) -> None:
    files = Rotating(asterisk)
    paths = {"cdr-csv": files.cdr, "cel-csv": files.cel}

    def until_begun(count: int) -> None:
        wait_until(lambda: len(truth_of(asterisk)) >= count, what=f"{count} calls", seconds=60, pause=0.3)

    with ExitStack() as stack:
        agents = {
            kind: stack.enter_context(
                AgentProcess(tmp_path / kind, settings(asterisk, f'kind = "{kind}"\npath = "{path}"'))
            )
            for kind, path in paths.items()
        }
        placing = Mix(seed=51).start(asterisk, calls=170, rate=4.0)
        # Files are rotated while the agents read them,
        until_begun(20)
        files.rename(files.cdr)
        files.copy_and_truncate(files.cel)
        until_begun(35)
        files.copy_and_truncate(files.cdr)
        files.rename(files.cel)
        # while they are down, twice,
        until_begun(45)
        for agent in agents.values():
            assert agent.stop() == 0
        until_begun(55)
        files.rename(files.cdr)
        files.copy_and_truncate(files.cel)
        until_begun(65)
        files.copy_and_truncate(files.cdr)
        files.rename(files.cel)
        until_begun(72)
        for agent in agents.values():
            agent.start()
        # and both sides are restarted and killed.
        until_begun(85)
        for agent in agents.values():
            agent.kill()
        going_down_at = datetime.now(UTC)
        asterisk.restart_now()
        up_at = datetime.now(UTC)
        for agent in agents.values():
            agent.start()
        until_begun(95)
        wait_until(lambda: asterisk.active_channels() > 3, what="calls that live", seconds=20)
        killed_at = datetime.now(UTC)
        asterisk.kill()
        asterisk.start()
        placing.wait(seconds=60, disturbed=True)
        Mix(seed=52).place(asterisk, calls=10, rate=5.0)
        for kind, agent in agents.items():
            wait_until_told(agent, kind)
        told = {kind: calls_by_id(agent) for kind, agent in agents.items()}
        reasons = {kind: [gap["reason"] for gap in gaps(agent)] for kind, agent in agents.items()}

    truth = truth_of(asterisk)
    ended = [true for true in truth.values() if true.ended]
    cut_off = truth.keys() - {true.native_id for true in ended}
    assert len(ended) > 90
    assert len(cut_off) > 1
    for kind, calls in told.items():
        # What was heard in the last moment may not have come into CEL's file.
        unwritten = {key: calls[key] for key in calls.keys() - truth.keys()}
        assert all(_began(call) > killed_at - JUST and call["end_estimated"] for call in unwritten.values()), kind
        assert truth.keys() <= calls.keys(), kind
        # A restart that hangs up looks like a caller who gives up, or phones that did not answer, if nobody hears it.
        knowable = [true for true in ended if not _ended_between(true, going_down_at, up_at)]
        assert differences(knowable, calls, kind) == [], kind
        assert all(calls[key]["end_estimated"] for key in cut_off), kind
        assert all(datetime.fromisoformat(calls[key]["end_time"]) <= killed_at + SOON for key in cut_off), kind
        assert len(reasons[kind]) == 3, kind


def _ended_between(true: TrueCall, begin: datetime, end: datetime) -> bool:
    return true.end_time is not None and begin <= true.end_time <= end


def _began(call: dict[str, str]) -> datetime:
    return datetime.fromisoformat(call["start_time"])
