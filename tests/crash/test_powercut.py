"""Power cuts: what was told durable is on every disk that a cut could leave, and the database opens on each of them."""

import asyncio
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from agent.errors import AgentError
from agent.store.engine import open_store, quick_check
from tests.crash import powercut
from tests.crash.centre import Centre, Door
from tests.crash.nursery import Nursery
from tests.crash.powercut import Disk, Unsynced
from tests.crash.site import Plan, Site
from tests.crash.store_groups import last_whole_group
from tests.postgres import PostgresDatabase

_GROUPS: Final = 60
_CUTS: Final = 60
_CAREFUL: Final = ("--checkpoint-pages", "60")  # often, so that many cuts fall into checkpoints
_ROUNDS: Final = 8
_CAPTURE_SECONDS: Final = 0.7

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None and os.environ.get("CI") != "true",
    reason="a shim is compiled: apt-get install gcc libc6-dev",
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return powercut.build(tmp_path_factory.mktemp("shim"))


async def test_after_a_power_cut_at_any_moment_every_group_that_was_told_is_there_and_whole(
    shim: Path, tmp_path: Path
) -> None:
    lost = [found async for found in _lost_after_cuts(shim, tmp_path, *_CAREFUL)]

    assert lost == []


async def test_the_laboratory_finds_what_is_lost_without_syncing(shim: Path, tmp_path: Path) -> None:
    lost = [found async for found in _lost_after_cuts(shim, tmp_path, *_CAREFUL, "--synchronous", "OFF")]

    assert len(lost) > _CUTS / 4


async def _lost_after_cuts(shim: Path, directory: Path, *options: str) -> AsyncIterator[str]:
    """What is wrong on the disks that cuts leave while groups are committed."""
    state, log = directory / "state", directory / "log"
    state.mkdir()
    disk = Disk.at_rest(state)
    told = await _commit_groups(shim, state, log, *options)
    operations, dice = list(powercut.read_log(log)), random.Random(5)
    cuts = sorted(dice.sample(range(len(operations)), _CUTS))
    done = 0
    for number, cut in enumerate(cuts):
        for operation in operations[done:cut]:
            disk.happened(operation)
        done = cut
        expected = max((group for at, group in told if at <= operations[cut - 1].end), default=0)
        target = directory / f"cut-{number}"
        powercut.write_image(disk.after_cut(dice.choice(list(Unsynced)), dice), state, target)
        if (wrong := await _wrong(target / "edge.db", expected)) is not None:
            yield f"cut {cut} of {len(operations)}: {wrong}"
        shutil.rmtree(target)


async def _wrong(database: Path, expected: int) -> str | None:
    try:
        async with open_store(database) as store:
            found = await last_whole_group(store)
        problems = await quick_check(database)
    except (AgentError, AssertionError) as exc:
        return f"group {expected} was told, and {exc}"
    return f"group {expected} was told, {found} is the last" if found < expected else "; ".join(problems) or None


async def _commit_groups(shim: Path, state: Path, log: Path, *options: str) -> list[tuple[int, int]]:
    """How long the log was at most when each group was told, and the group."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.crash.store_groups", str(state / "edge.db"), "1", *options),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"LD_PRELOAD": str(shim), "POWERCUT": f"{state}\n{log}"},
    )
    assert child.stdout is not None
    told = []
    for _ in range(_GROUPS):
        group = int(await child.stdout.readline())
        told.append((log.stat().st_size, group))
    child.kill()
    await child.communicate()
    return told


async def test_an_agent_goes_on_after_each_of_many_power_cuts_with_all_that_it_kept(
    shim: Path, central_database: PostgresDatabase, tmp_path: Path
) -> None:
    plan, dice = Plan(seed=23, kills=0, door=Door.DIRECT, second_source=True), random.Random(23)
    async with (
        Nursery.open({"LD_PRELOAD": str(shim)}) as nursery,
        Centre.open(central_database, seed=1, hub=False) as centre,
        Site.open(plan, tmp_path / "site", nursery=nursery, centre=centre) as site,
    ):
        state = site.database.parent
        state.mkdir(mode=0o700)
        for number in range(_ROUNDS):
            disk, log = Disk.at_rest(state), tmp_path / f"log-{number}"
            site.powercut = f"{state}\n{log}"
            await site.start()
            await site.hear()
            await asyncio.sleep(dice.uniform(0, _CAPTURE_SECONDS))
            await site.kill()
            for operation in powercut.read_log(log):
                disk.happened(operation)
            image = disk.after_cut(dice.choice((Unsynced.LOST, Unsynced.TORN)), dice)
            shutil.rmtree(state)
            powercut.write_image(image, state, state)
        site.powercut = ""
        outcome = await site.finish()

    assert [str(finding) for finding in outcome.findings] == []
    assert outcome.calls > 10 * _ROUNDS
