"""Failpoints: nothing without the variable, the end of the process at the named step with it."""

import os
import signal
import subprocess
import sys

import pytest

from config import failpoints


def _run(wishes: str) -> subprocess.CompletedProcess[str]:
    steps = "from config.failpoints import hit\nfor step in ('a', 'b', 'b', 'b'): hit(step); print(step, flush=True)"
    return subprocess.run(
        [sys.executable, "-c", steps],
        env=os.environ | {failpoints.VARIABLE: wishes},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_wishes_every_step_passes() -> None:
    assert failpoints.armed("") is failpoints.armed(" ")
    assert failpoints.hit is failpoints.armed("")


def test_the_process_is_killed_when_it_comes_to_the_step_for_that_time() -> None:
    done = _run("b=kill@2, c=kill")
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["a", "b"])


@pytest.mark.parametrize("wishes", ["a", "a=stop", "=kill", "a=kill@often"])
def test_a_wish_that_cannot_be_read_is_refused_instead_of_passed_over(wishes: str) -> None:
    with pytest.raises(ValueError, match=r"kill|invalid"):
        failpoints.armed(wishes)
