"""The laboratory's short form: 200 kills at random; `scripts/crash` is the long one."""

from pathlib import Path
from typing import Final

from tests.crash.centre import Centre
from tests.crash.laboratory import break_sites, plans
from tests.crash.nursery import Nursery
from tests.postgres import PostgresDatabase

_RUNS: Final = 10
_KILLS: Final = 20  # of each run
_SEED: Final = 7


async def test_two_hundred_kills_lose_nothing_and_double_nothing_here_and_at_the_centre(
    central_database: PostgresDatabase, nursery: Nursery, tmp_path: Path
) -> None:
    async with Centre.open(central_database, seed=_SEED) as centre:
        account = await break_sites(
            plans(_SEED, runs=_RUNS, kills=_KILLS), centre=centre, nursery=nursery, directory=tmp_path, at_once=3
        )

    print(account)
    assert [str(finding) for finding in account.findings] == []
    assert account.kills == _RUNS * _KILLS
    assert account.calls > 10 * _KILLS
