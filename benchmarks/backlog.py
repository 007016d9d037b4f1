"""A week offline with a million calls waiting: what it costs, and what happens when the centre is back.

    python -m benchmarks.backlog [--calls 1000000] [--rate 10] [--direct]

The real daemon as a process, with the simulator as its PBX, the real hub (none with --direct) and PostgreSQL. Beside
each other, in one run: starts and memory with nothing and with the backlog; how soon an ended call is committed while
nothing drains and while the backlog does; how fast it drains, against a raw COPY + merge of the same rows; when a fresh
call is at the centre.
"""

import argparse
import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg

from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from agent.store.moments import moment_of, moment_text
from agent.store.outbox_rows import RECORD, record_of
from benchmarks.central import raw_sender, seconds_for, site_login
from sync.central.credentials import Credential
from sync.central.embedded import EmbeddedPostgres
from sync.central.migrate import migrate
from tests.agent_process import AgentProcess
from tests.hub_process import hub_process
from tests.many_calls import NOW, fill

_ROUNDS: Final = 3
_RAW_AT_ONCE: Final = 20_000  # in memory
_RAW_BATCH: Final = 1000
_BEFORE_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1
# One row, so that looking costs little; a site's batches are stored one after the other, so ids come in their order.
_ARRIVED: Final = """SELECT max(id), array_agg(call_sid) FILTER (WHERE start_time > $1) FROM call
    WHERE tenant_id = (SELECT id FROM tenant) AND id > $2"""
_SETTINGS: Final = """
site = "bench"
[[pbx]]
name = "main"
port = {port}
username = "sentiric"
secret = "benchmark"
[tenancy]
default = "acme"
[central]
url = "{scheme}://{user}127.0.0.1:{centre}/{path}"
{secret}
"""


@dataclass(frozen=True)
class Ways:
    """Where the agent finds everything."""

    pbx: int  # ports of this machine
    centre: int
    scheme: str
    secret: str  # a line of the settings
    user: str = ""
    path: str = ""

    def settings(self, *, is_away: bool = False) -> str:
        """The agent's, with the centre there or away."""
        return _SETTINGS.format(**asdict(self) | ({"centre": 9} if is_away else {}), port=self.pbx)


@dataclass
class Found:
    """What was measured of the daemon in one state."""

    ready: list[float] = field(default_factory=list)  # seconds
    idle: list[float] = field(default_factory=list)  # MiB

    def text(self, name: str) -> str:
        """A line."""
        ready, idle = statistics.median(self.ready), statistics.median(self.idle)
        return f"{name:<28}ready {ready:6.2f} s   resident {idle:6.1f} MiB"


async def starts(agent: AgentProcess, found: Found, *, rounds: int) -> None:
    """Start and stop some times, with the centre away."""
    for _ in range(rounds):
        began = time.perf_counter()
        await asyncio.to_thread(agent.start, seconds=120)
        found.ready.append(time.perf_counter() - began)
        found.idle.append((await asyncio.to_thread(agent.status))["resident_bytes"] / 2**20)
        await asyncio.to_thread(agent.stop)


class Fresh:
    """When calls of the simulator are seen at the centre."""

    def __init__(self, centre: asyncpg.Connection) -> None:
        self._centre = centre
        self.seen: dict[str, datetime] = {}

    async def watch(self) -> None:
        """Until cancelled. Fresh calls are those that began after the run did."""
        last = 0
        while True:
            found = await self._centre.fetchrow(_ARRIVED, NOW, last)
            now = datetime.now(UTC)
            if found is not None and found[0] is not None:
                last = found[0]
                for sid in found[1] or ():
                    self.seen.setdefault(sid, now)
            await asyncio.sleep(_LOOK_SECONDS)


def committed(path: Path, since: datetime) -> dict[str, tuple[datetime, float]]:
    """Calls that began since then: when each was committed, and how many seconds after its end was heard."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute(
            "SELECT call_sid, created_at, end_time FROM call WHERE start_time > ? AND NOT end_estimated",
            (moment_text(since),),
        ).fetchall()
    return {sid: (moment_of(at), (moment_of(at) - moment_of(ended)).total_seconds()) for sid, at, ended in found}


def of(times: Sequence[float]) -> str:
    """p50, p99 and longest."""
    if len(times) < 2:
        return "too few calls"
    p99 = statistics.quantiles(times, n=100)[98]
    return f"p50 {statistics.median(times):.3f} s   p99 {p99:.3f} s   longest {max(times):.3f} s   ({len(times)} calls)"


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors, its threads together (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> Sequence[int]:
    """A process and its children: PostgreSQL's."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (pid, *map(int, children))


def waiting(agent: AgentProcess) -> tuple[int, float]:
    """How many calls wait, and the daemon's resident MiB; not by its status, which would count a busy day's calls."""
    with closing(sqlite3.connect(f"{agent.database.as_uri()}?mode=ro", uri=True)) as connection:
        (calls,) = connection.execute("SELECT value FROM counter WHERE name = 'outbox_records'").fetchone()
    pages = int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1])
    return calls, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(server: EmbeddedPostgres, directory: Path, *, calls: int, rate: float, direct: bool) -> None:
    """The whole run."""
    async with AsyncExitStack() as held:
        pbx = await held.enter_async_context(
            Simulator(account=Account(username="sentiric", secret="benchmark"), rate=rate, pace=0.05)
        )
        centre = await _database(server, "centre", held)
        postmaster = await centre.fetchval("SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::integer")
        processes: dict[str, Callable[[], Sequence[int]]] = {
            "PBX and looking": lambda: (os.getpid(),),
            "PostgreSQL": partial(family, postmaster),
        }
        if direct:
            login = await site_login(centre, "bench")
            secret = f'password = "{login.password}"'
            ways = Ways(pbx.port, server.port, "postgresql", secret, f"{login.role}@", "centre")
        else:
            credential = await _hub_login(centre)
            dsn = f"postgresql://hub_of_benchmarks:only@{server.host}:{server.port}/centre"
            hub = await held.enter_async_context(hub_process(dsn))
            processes["hub"] = lambda: (hub.pid,)
            ways = Ways(pbx.port, hub.port, "http", f'credential = "{credential}"')
        agent = AgentProcess(directory, ways.settings(is_away=True))
        processes["agent"] = lambda: (agent.pid,)
        empty, full = Found(), Found()
        await starts(agent, Found(), rounds=1)
        await starts(agent, empty, rounds=_ROUNDS)
        began = time.perf_counter()
        await asyncio.to_thread(fill, agent.database, calls)
        print(f"{calls:,} calls put in line in {time.perf_counter() - began:.0f} s, "
              f"{agent.database.stat().st_size / 2**20:,.0f} MiB")  # fmt: skip
        await starts(agent, full, rounds=_ROUNDS)
        print(empty.text("nothing waits"))
        print(full.text(f"{calls:,} calls wait"))
        print(f"ratios: ready {statistics.median(full.ready) / statistics.median(empty.ready):.2f}, "
              f"resident {statistics.median(full.idle) / statistics.median(empty.idle):.2f}")  # fmt: skip
        raw = await _raw(server, agent.database, held)
        held.callback(agent.__exit__, None, None, None)
        await _drain(agent, Fresh(centre), ways, raw=raw, processes=processes)


async def _drain(
    agent: AgentProcess, fresh: Fresh, ways: Ways, *, raw: float, processes: Mapping[str, Callable[[], Sequence[int]]]
) -> None:
    await asyncio.to_thread(agent.start, seconds=120)
    since = datetime.now(UTC)
    await asyncio.sleep(_BEFORE_SECONDS)
    before = [seconds for _, seconds in committed(agent.database, since).values()]
    await asyncio.to_thread(agent.stop)
    agent.write_settings(ways.settings())
    watching = asyncio.create_task(fresh.watch())
    await asyncio.to_thread(agent.start, seconds=120)
    began, since = time.perf_counter(), datetime.now(UTC)
    used = {name: sum(map(cpu_seconds, pids())) for name, pids in processes.items()}
    first, peak = waiting(agent)
    left = first
    while left > 100:  # what comes just now
        await asyncio.sleep(0.25)
        left, resident = waiting(agent)
        peak = max(peak, resident)
    seconds = time.perf_counter() - began
    used = {name: sum(map(cpu_seconds, pids())) - used[name] for name, pids in processes.items()}
    await asyncio.sleep(2)
    watching.cancel()
    during = committed(agent.database, since)
    sent = (first - left) / seconds
    visible = [(fresh.seen[sid] - at).total_seconds() for sid, (at, _) in during.items() if sid in fresh.seen]
    unseen = [at for sid, (at, _) in during.items() if sid not in fresh.seen]
    print(f"drained in {seconds:.0f} s: {sent:,.0f} calls/s, raw COPY + merge {raw:,.0f} rows/s, "
          f"ratio {sent / raw:.2f}; resident at most {peak:.1f} MiB")  # fmt: skip
    each = "   ".join(f"{name} {part * 1e5 / (first - left):.1f} s" for name, part in used.items())
    print(f"processor per 100,000 calls    {each}")
    print(f"end heard → commit, before     {of(before)}")
    print(f"end heard → commit, draining   {of([late for _, late in during.values()])}")
    print(f"commit → centre, draining      {of(visible)}; {len(unseen)} of the last seconds not seen yet")


async def _raw(server: EmbeddedPostgres, database: Path, held: AsyncExitStack) -> float:
    """Rows a second of the same calls, all of them, copied and merged and nothing else; read beforehand."""
    owner = await _database(server, "raw", held)
    send = raw_sender(owner)
    count, seconds = 0, 0.0
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            f"SELECT {RECORD} FROM call JOIN tenant ON tenant.id = call.tenant_id ORDER BY call.id"
        )
        while part := [record_of(row) for row in rows.fetchmany(_RAW_AT_ONCE)]:
            count += len(part)
            seconds += await seconds_for(send, part, _RAW_BATCH)
    await owner.execute("TRUNCATE call CASCADE")
    await owner.execute("CHECKPOINT")  # or the drain would wait for the disk to take these rows
    os.sync()
    return count / seconds


async def _hub_login(owner: asyncpg.Connection) -> str:
    credential = Credential.make()
    await owner.execute("CREATE ROLE hub_of_benchmarks LOGIN IN ROLE sentiric_hub PASSWORD 'only'")
    await owner.execute("INSERT INTO site (name) VALUES ('bench')")
    await owner.execute("INSERT INTO site_tenant (site, tenant_id) SELECT 'bench', id FROM tenant")
    await owner.execute(
        "INSERT INTO credential (id, site, secret_sha256) VALUES ($1, 'bench', $2)",
        credential.id,
        credential.secret_sha256,
    )
    return credential.text


async def _database(server: EmbeddedPostgres, name: str, held: AsyncExitStack) -> Any:  # Any: asyncpg's connection
    administration = await asyncpg.connect(server.dsn())
    await administration.execute(f'CREATE DATABASE "{name}"')
    await administration.close()
    await migrate(server.dsn(name))
    owner = await asyncpg.connect(server.dsn(name))
    held.push_async_callback(owner.close)
    await owner.execute("INSERT INTO tenant (name, is_active) VALUES ('acme', true)")
    return owner


def main() -> None:
    """Start a PostgreSQL, a hub, a PBX and the agent, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=10.0, help="fresh calls a second")
    parser.add_argument("--direct", action="store_true", help="into PostgreSQL without a hub")
    arguments = parser.parse_args()
    options = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
    with EmbeddedPostgres(options=options) as server, tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(server, Path(directory), **vars(arguments)))


if __name__ == "__main__":
    main()
