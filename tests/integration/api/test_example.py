"""The example service goes the whole path, and what it noted stands here and at the centre."""

import subprocess
import sys
from pathlib import Path

import pytest

from examples.receptionist import SCRIPT

CHECKOUT = Path(__file__).parents[3]


@pytest.mark.timeout(120)
def test_the_receptionist_answers_a_simulated_call_and_its_transcript_is_at_both_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.receptionist", "--demo"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    here, _, there = done.stdout.partition("In the central PostgreSQL:")
    _, _, here = here.partition("In SQLite on this site")
    for speaker, text in SCRIPT:
        assert any(speaker in line and text in line for line in here.splitlines()), text
        assert any(speaker in line and text in line for line in there.splitlines()), text
    trace_id = "0af7651916cd43dd8448eb211c80319c"  # the trunk's
    assert f"as its child,     00-{trace_id}-" in done.stdout
    assert "7 interactions in all" in there
