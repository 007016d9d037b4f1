"""SIGKILL at any moment: every group that was told durable is there, no group is there by half, nothing is doubled."""

import asyncio
import random
import sys
from pathlib import Path

from agent.store.engine import open_store, quick_check
from agent.store.writer import CommitResult, Writer
from tests.crash.store_groups import group, last_whole_group, sids_of

_KILLS = 12


async def test_killed_again_and_again_it_keeps_every_group_it_told_and_no_half_one(tmp_path: Path) -> None:
    database = tmp_path / "edge.db"
    chance = random.Random(7)
    kept = 0
    for _ in range(_KILLS):
        told = await _commit_until_killed(database, first=max(kept, 1), after=chance.randrange(40))
        async with open_store(database) as store:
            kept = await last_whole_group(store)
            assert kept >= told

            writer = await Writer.over(store.connection)
            again = await writer.commit(group(kept))
            assert again == CommitResult(unchanged=len(sids_of(kept)) + (kept > 1))
            assert await last_whole_group(store) == kept
        assert await quick_check(database) == []


async def test_killed_while_it_makes_the_database_it_starts_again(tmp_path: Path) -> None:
    for attempt, step in enumerate((0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)):
        database = tmp_path / str(attempt) / "edge.db"
        child = await _start(database, 1)
        try:
            async with asyncio.timeout(step):  # a moment of its start, not a wait for anything
                await child.wait()
        except TimeoutError:
            child.kill()
        await child.communicate()

        async with open_store(database) as store:
            if await last_whole_group(store) == 0:  # a child that was quick got further
                await (await Writer.over(store.connection)).commit(group(1))
            assert await last_whole_group(store) >= 1


async def _start(database: Path, first: int) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "tests.crash.store_groups", str(database), str(first))
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def _commit_until_killed(database: Path, *, first: int, after: int) -> int:
    """Kill the child once it has told `after` groups more; the last group it told before it died."""
    child = await _start(database, first)
    assert child.stdout is not None
    told = 0
    for _ in range(after + 1):
        told = int(await child.stdout.readline())
    child.kill()
    rest, _ = await child.communicate()
    return max([told, *(int(line) for line in rest.split(b"\n")[:-1])])
