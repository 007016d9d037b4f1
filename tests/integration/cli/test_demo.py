"""The demonstration shows the main job for real, and leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.cli.faults import ExitCode

PROGRAM = str(Path(sys.executable).with_name("edge-agent"))
SECONDS = 12


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary directory that PostgreSQL's own user can reach; in the end nothing may be in it or run from it."""
    place = Path(tempfile.mkdtemp(prefix="demo-test-"))
    place.chmod(0o755)
    yield place
    left = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"]) if _is_of(process, place)]
    found = sorted(place.iterdir())
    shutil.rmtree(place)
    assert (found, left) == ([], [])


def _is_of(process: psutil.Process, place: Path) -> bool:
    return any(str(place) in word for word in process.info["cmdline"] or [])


def demo(place: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [PROGRAM, "demo", "--rate", "10", *options],
        env=os.environ | {"TMPDIR": str(place), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_every_call_placed_is_captured_and_arrives_although_the_centre_goes_away(place: Path, tmp_path: Path) -> None:
    with demo(place, "--seconds", str(SECONDS), "--keep", str(tmp_path / "kept")) as running:
        output, errors = running.communicate(timeout=120)
    assert (running.returncode, errors) == (ExitCode.OK, ""), output
    told = output.splitlines()
    turns = [told.index(f"PostgreSQL is {word}.") for word in ("taken away", "back")]
    assert turns == sorted(turns)
    counts = {
        line.rsplit(maxsplit=3)[0].strip(): line.split()[-3:] for line in told if line.startswith(("pl", "ca", "in"))
    }
    assert counts["placed"] == counts["captured in SQLite"] == counts["in PostgreSQL"]
    assert int(counts["placed"][-1]) > SECONDS
    assert told[-1] == "The demo is fine."
    kept = {file.name for file in (tmp_path / "kept").iterdir()}
    assert {"agent.log", "agent.toml", "edge.db", "postgres.log"} <= kept


def test_ctrl_c_while_the_centre_is_away_drains_and_compares_as_well(place: Path) -> None:
    with demo(place, "--seconds", str(SECONDS * 3)) as running:
        assert running.stdout is not None
        while running.stdout.readline() != "PostgreSQL is taken away.\n":
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=120)
    assert (running.returncode, errors) == (ExitCode.OK, ""), output
    assert "PostgreSQL is back." in output
    assert output.endswith("The demo is fine.\n")


def test_a_second_ctrl_c_breaks_off_and_tidies_up(place: Path) -> None:
    with demo(place, "--seconds", "0") as running:
        assert running.stdout is not None
        while "placed" not in running.stdout.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        while "Waiting until" not in running.stdout.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=120)
    assert running.returncode == ExitCode.ERROR
    assert errors == "edge-agent: the demo was broken off; everything it started is gone\n"


def test_a_place_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [PROGRAM, "demo", "--keep", str(tmp_path / "file")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == ExitCode.ERROR
    assert done.stderr == f"edge-agent: {tmp_path / 'file'}: File exists\n"
