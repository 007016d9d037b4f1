"""A full or broken disk at every write and sync: the agent goes on or refuses in a sentence, and loses nothing."""

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.crash import powercut
from tests.crash.blindness import PROMISED_SECONDS
from tests.crash.centre import Centre, Door
from tests.crash.nursery import Nursery
from tests.crash.site import Plan, Site
from tests.postgres import PostgresDatabase

_SHORT_WRITE: Final = 0
_FAULTS: Final = (("write", errno.ENOSPC), ("write", errno.EIO), ("write", _SHORT_WRITE), ("sync", errno.EIO))
_CALLS: Final = {"write": 160, "sync": 60}  # of a start and some capture
_STEPS: Final = 8  # of each kind
_IN_A_ROW: Final = 3
_CAPTURE_SECONDS: Final = 0.5
# Where not even the spill took it, what was heard waits in memory for the second try, a fifth of a second later.
_PROMISED_SECONDS: Final = PROMISED_SECONDS + 0.2

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None and os.environ.get("CI") != "true",
    reason="a shim is compiled: apt-get install gcc libc6-dev",
)


def _wishes() -> Iterator[str]:
    """CLASS:FIRST:COUNT:ERRNO, the first calls one by one, as there the database is made; later ones in steps."""
    for kind, code in _FAULTS:
        for step in range(_STEPS):
            first = step + 1 if step < 2 else 2 + _CALLS[kind] * (step - 1) // (_STEPS - 2)
            yield f"{kind}:{first}:{_IN_A_ROW}:{code}"


async def test_a_disk_that_fails_at_any_call_costs_nothing_that_a_second_source_tells(
    central_database: PostgresDatabase, tmp_path: Path
) -> None:
    shim = powercut.build(tmp_path)
    plan = Plan(seed=31, kills=0, door=Door.DIRECT, second_source=True)
    refused = []
    async with (
        Nursery.open({"LD_PRELOAD": str(shim)}) as nursery,
        Centre.open(central_database, seed=1, hub=False) as centre,
        Site.open(plan, tmp_path / "site", nursery=nursery, centre=centre) as site,
    ):
        for wish in _wishes():
            site.powercut = f"{site.database.parent}\n\n{wish}"
            await site.start()
            await site.hear()
            await asyncio.sleep(_CAPTURE_SECONDS)
            if (code := site.ended_with) is not None:
                refused.append((wish, code))
            await site.kill(promised_seconds=_PROMISED_SECONDS)
        site.powercut = ""
        outcome = await site.finish()

    assert refused
    assert {code for _, code in refused} <= {1, 2}, refused  # a sentence and an exit code, never a signal
    assert [str(each) for each in outcome.findings if each.what != "crashed"] == []
    assert "Traceback" not in site.log_text
