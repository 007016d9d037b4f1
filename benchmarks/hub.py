"""Calls per second through the hub, several batches under way, against a raw COPY + merge of the same rows.

    python -m benchmarks.hub [--calls 20000] [--lanes 4] [--sites 1]

The agent's own client, `edge-hub serve` as a process of its own, and PostgreSQL, all on this machine, each with a
database of its own, in turns. Of each the time on the processor is told, per call.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
import psutil
from pydantic import SecretStr

from benchmarks.central import a_large_record, raw_sender
from sync import wire
from sync.central.credentials import Credential
from sync.central.embedded import EmbeddedPostgres
from sync.central.migrate import migrate
from sync.hub_client import HubAddress, HubUplink
from sync.records import Batch, CallRecord, Greeting, Verdict
from tests.fakes_sync import body_of, zstd_of
from tests.hub_process import HubProcess, hub_process

_BATCHES = (500, 1000)
_ROUNDS = 5
_LOGIN, _PASSWORD = "hub_of_benchmarks", "of-benchmarks-only"


@dataclass
class Site:
    """One sender with its share of the calls."""

    name: str
    uplink: HubUplink
    lease: str
    records: list[CallRecord]


@dataclass
class Cost:
    """How long a round took, and the processor time of each part."""

    seconds: float
    client: float = 0.0
    hub: float = 0.0
    postgres: float = 0.0


async def through_hub(sites: Sequence[Site], *, batch: int, lanes: int) -> None:
    """All calls of all sites, each site with some batches under way."""
    async with asyncio.TaskGroup() as group:
        for site in sites:
            batches = iter([site.records[first : first + batch] for first in range(0, len(site.records), batch)])
            for _ in range(lanes):
                group.create_task(_lane(site, batches))


async def _lane(site: Site, batches: Iterator[list[CallRecord]]) -> None:
    for records in batches:  # which the lanes share
        receipt = await site.uplink.send(Batch(site.name, records, 1, "holder", site.lease))
        assert len(receipt.verdicts) == len(records)
        assert {verdict.verdict for verdict in receipt.verdicts} == {Verdict.ACCEPTED}


async def compare(server: EmbeddedPostgres, *, calls: int, lanes: int, sites: int) -> None:
    """Print a line per batch size."""
    async with AsyncExitStack() as held:
        for name in ("raw", "hub"):
            await _make_database(server, name)
        raw_connection = await asyncpg.connect(server.dsn("raw"))
        held.push_async_callback(raw_connection.close)
        owner = await asyncpg.connect(server.dsn("hub"))
        held.push_async_callback(owner.close)
        dsn = f"postgresql://{_LOGIN}:{_PASSWORD}@{server.host}:{server.port}/hub"
        hub = await held.enter_async_context(hub_process(dsn))
        chance = random.Random(7)
        senders = [await _enrolled(owner, hub, f"site-{number}", lanes) for number in range(sites)]
        for number in range(calls):
            site = senders[number % sites]
            record = a_large_record(number, chance)
            site.records.append(
                record._replace(site=site.name, call_sid=record.call_sid.replace("istanbul", site.name, 1))
            )
        raw = raw_sender(raw_connection)
        all_records = [record for site in senders for record in site.records]
        encoded = [wire.encode_record(record) for record in all_records[:1000]]
        packed = len(zstd_of(body_of(Batch("s", (), 1), encoded))) / len(encoded)
        size = statistics.mean(map(len, encoded))
        print(
            f"{calls} calls of {size:.0f} B ({packed:.0f} B packed), {sites} site(s), {lanes} batches under way each;"
        )
        print(f"medians of {_ROUNDS} rounds in turns")
        print(f"{'batch':>8}{'raw rows/s':>14}{'hub calls/s':>14}{'ratio':>8}   µs of processor: client, hub, postgres")
        for batch in _BATCHES:
            found: list[tuple[float, Cost]] = []
            for _ in range(_ROUNDS):
                for connection in (raw_connection, owner):
                    await connection.execute("TRUNCATE call CASCADE")
                started = time.perf_counter()
                for first in range(0, calls, batch):
                    await raw(all_records[first : first + batch])
                found.append((time.perf_counter() - started, await _round(server, hub, senders, batch, lanes)))
            _tell(batch, calls, found)
        for site in senders:
            await site.uplink.close()


async def _round(server: EmbeddedPostgres, hub: HubProcess, sites: Sequence[Site], batch: int, lanes: int) -> Cost:
    before = time.process_time(), _processor(hub.pid), _of_postgres(server)
    started = time.perf_counter()
    await through_hub(sites, batch=batch, lanes=lanes)
    seconds = time.perf_counter() - started
    after = time.process_time(), _processor(hub.pid), _of_postgres(server)
    client, of_hub, postgres = (late - early for early, late in zip(before, after, strict=True))
    return Cost(seconds, client, of_hub, postgres)


def _tell(batch: int, calls: int, found: Sequence[tuple[float, Cost]]) -> None:
    raw = statistics.median(seconds for seconds, _ in found)
    ours = statistics.median(cost.seconds for _, cost in found)
    ratio = statistics.median(seconds / cost.seconds for seconds, cost in found)
    parts = [
        statistics.median(getattr(cost, name) for _, cost in found) / calls * 1e6
        for name in ("client", "hub", "postgres")
    ]
    print(
        f"{batch:>8}{calls / raw:>14,.0f}{calls / ours:>14,.0f}{ratio:>8.2f}   "
        + ", ".join(f"{part:.0f}" for part in parts)
    )


def _processor(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _of_postgres(server: EmbeddedPostgres) -> float:
    """Of all its processes: connections stay open, so none of them ends meanwhile."""
    pid = int((server.directory / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
    return sum(_processor(child.pid) for child in psutil.Process(pid).children())


async def _enrolled(owner: asyncpg.Connection, hub: HubProcess, name: str, lanes: int) -> Site:
    credential = Credential.make()
    await owner.execute("INSERT INTO site (name) VALUES ($1)", name)
    await owner.execute("INSERT INTO site_tenant (site, tenant_id) SELECT $1, id FROM tenant", name)
    await owner.execute(
        "INSERT INTO credential (id, site, secret_sha256) VALUES ($1, $2, $3)",
        credential.id,
        name,
        credential.secret_sha256,
    )
    address = HubAddress(f"http://127.0.0.1:{hub.port}", credential=SecretStr(credential.text), timeout_seconds=60)
    uplink = HubUplink(address, lanes=lanes)
    welcome = await uplink.greet(Greeting(name, "benchmark", "holder", "here", lease=None, lease_seconds=600))
    return Site(name, uplink, welcome.lease, [])


async def _make_database(server: EmbeddedPostgres, name: str) -> None:
    administration = await asyncpg.connect(server.dsn())
    await administration.execute(f'CREATE DATABASE "{name}"')
    await administration.close()
    await migrate(server.dsn(name))
    connection = await asyncpg.connect(server.dsn(name))
    await connection.execute("INSERT INTO tenant (name, is_active) VALUES ('acme', true)")
    if name == "hub":
        await connection.execute(f"CREATE ROLE {_LOGIN} LOGIN IN ROLE sentiric_hub PASSWORD '{_PASSWORD}'")
    await connection.close()


def main() -> None:
    """Start a PostgreSQL and a hub, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--lanes", type=int, default=4, help="batches under way at once, of each site")
    parser.add_argument("--sites", type=int, default=1)
    arguments = parser.parse_args()
    with EmbeddedPostgres(options={"shared_buffers": "512MB", "max_wal_size": "4GB"}) as server:
        asyncio.run(compare(server, calls=arguments.calls, lanes=arguments.lanes, sites=arguments.sites))


if __name__ == "__main__":
    main()
