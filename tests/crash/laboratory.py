"""`scripts/crash`: breaks running agents at random, by a seed, and tells what was lost, doubled or different."""

import argparse
import asyncio
import itertools
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from sync.central.embedded import EmbeddedPostgres
from sync.central.migrate import migrate
from tests.crash.centre import Centre, Door
from tests.crash.comparing import Finding
from tests.crash.nursery import Nursery
from tests.crash.site import Outcome, Plan, Site
from tests.postgres import PostgresDatabase

_CALM_SECONDS: Final = 0.11  # what may be unsaved at a kill, when others hardly kept the agent waiting


@dataclass
class Account:
    """All runs so far."""

    runs: int = 0
    kills: int = 0
    calls: int = 0
    cdr_calls: int = 0
    written: int = 0
    unsaved: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        self.runs += 1
        self.kills += outcome.kills
        self.calls += outcome.calls
        self.cdr_calls += outcome.cdr_calls
        self.written += outcome.written
        self.unsaved += outcome.unsaved
        self.findings += outcome.findings

    def __str__(self) -> str:
        found = Counter(finding.what for finding in self.findings)
        faults = ", ".join(f"{name} {times}" for name, times in sorted(self.faults.items()))
        calm = sum(each <= _CALM_SECONDS for each in self.unsaved)
        return (
            f"runs {self.runs}, kills {self.kills}, calls {self.calls} ({self.cdr_calls} by the second source alone), "
            f"writes of services answered {self.written}; lost {found['lost']}, doubled {found['doubled']}, "
            f"differing {found['differing']}, site and centre unequal {found['unequal']}, crashed {found['crashed']}; "
            f"{calm} kills with the processor free, else up to {max(self.unsaved, default=0.0):.2f} s were excused; "
            f"at the centre meanwhile: {faults or 'nothing'}"
        )


def plans(seed: int, *, runs: int, kills: int) -> Iterator[Plan]:
    """Both doors, with and without a second source, in turns."""
    kinds = itertools.cycle(itertools.product(Door, (True, False)))
    for number, (door, second_source) in zip(range(runs), kinds, strict=False):
        yield Plan(seed * 1_000_000 + number, kills, door, second_source)


async def break_sites(
    todo: Iterator[Plan],
    *,
    centre: Centre,
    nursery: Nursery,
    directory: Path,
    at_once: int,
    told: Callable[[Account, Outcome], None] = lambda account, outcome: None,
) -> Account:
    """Run the plans, some at once, while the centre has its troubles; a run without findings leaves no files."""
    account = Account(faults=centre.faults)

    async def lane() -> None:
        for plan in todo:
            began = time.monotonic()
            async with Site.open(plan, directory / plan.site, nursery=nursery, centre=centre) as site:
                await site.kill_at_random()
                outcome = await site.finish()
            outcome.seconds = time.monotonic() - began
            account.add(outcome)
            if not outcome.findings:
                site.discard()
            told(account, outcome)

    trouble = asyncio.create_task(centre.trouble(), name="trouble")
    try:
        async with asyncio.TaskGroup() as lanes:
            for _ in range(at_once):
                lanes.create_task(lane())
    finally:
        trouble.cancel()
        await asyncio.wait({trouble})
    if not trouble.cancelled():
        trouble.result()
    return account


@asynccontextmanager
async def own_centre(seed: int) -> AsyncIterator[Centre]:
    """A PostgreSQL and a hub for the laboratory alone."""
    with EmbeddedPostgres(options={"fsync": "off"}) as server:
        connection = await asyncpg.connect(server.dsn())
        await connection.execute("CREATE DATABASE crash")
        await connection.close()
        await migrate(server.dsn("crash"))
        async with Centre.open(PostgresDatabase(server, "crash"), seed=seed) as centre:
            yield centre


async def _main(wishes: argparse.Namespace) -> int:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # what was started is ended then
    directory = Path(tempfile.mkdtemp(prefix="sentiric-crash-"))
    began = time.monotonic()

    def told(account: Account, outcome: Outcome) -> None:
        minutes = (time.monotonic() - began) / 60
        for finding in outcome.findings:
            print(f"FOUND at {outcome.plan}: {finding}", flush=True)
        print(f"{minutes:6.1f} min  {account}", flush=True)

    async with own_centre(wishes.seed) as centre, Nursery.open() as nursery:
        todo = plans(wishes.seed, runs=wishes.runs, kills=wishes.kills)
        account = await break_sites(
            todo, centre=centre, nursery=nursery, directory=directory, at_once=wishes.at_once, told=told
        )
    if account.findings:
        print(f"what broke is kept in {directory}", flush=True)
        return 1
    shutil.rmtree(directory)
    return 0


def _wishes() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/crash", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="sites, one after the other")
    parser.add_argument("--kills", type=int, default=20, help="kills of each site's agent")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same calls and plans")
    parser.add_argument("--at-once", type=int, default=3, help="sites at the same time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(_wishes())))
