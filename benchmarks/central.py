"""Calls per second into the central PostgreSQL: DirectUplink.send against a raw COPY + merge of the same rows.

    python -m benchmarks.central [--calls 20000]

Both write to the same server, each to a database of its own, in turns; ours as a site's own login, so that row-level
security has its say. Raw means: the rows, ready as tuples with the
tenant's key in them, copied into a temporary table and merged by one INSERT … ON CONFLICT; no verdicts, no
high-water mark, no search for refused records.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter

import asyncpg

from config.settings import CentralSettings
from sync.central.embedded import EmbeddedPostgres
from sync.central.logins import NewLogin, bind_site, new_site_login
from sync.central.migrate import migrate
from sync.central.sites import add_site
from sync.central.uplink import DirectUplink
from sync.records import Batch, CallRecord, Greeting, Verdict
from tests.fakes_sync import a_record

_BATCHES = (100, 1000, 10_000)
_ROUNDS = 5
_HOLDER = "benchmark"
_COLUMNS = tuple(name for name in CallRecord._fields if name not in {"tenant", "tasks", "interactions"})
_values = itemgetter(*(CallRecord._fields.index(name) for name in _COLUMNS))
_JSON = ("legs", "timeline", "full_transcript")
_START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)

Send = Callable[[Sequence[CallRecord]], Awaitable[None]]


def a_large_record(number: int, chance: random.Random) -> CallRecord:
    """A call with 1 to 4 KB of JSON."""
    start = _START + timedelta(seconds=number)
    words = [chance.choice(("arama", "fatura", "randevu", "teşekkürler", "evet", "hayır")) for _ in range(120)]
    transcript = [{"who": "caller", "at": at, "text": " ".join(words[at : at + 20])} for at in range(0, 120, 10)]
    legs = [{"channel": f"PJSIP/trunk-{number:08x}", "number": f"+90532{number:07}", "start": start.isoformat()}] * 2
    return a_record(
        number,
        trace_id=f"{chance.getrandbits(128):032x}",
        caller_id=f"+90532{number:07}",
        legs=json.dumps(legs, ensure_ascii=False),
        timeline=json.dumps([{"at": start.isoformat(), "what": "ringing"}] * 4),
        full_transcript=json.dumps(transcript[: chance.randint(2, 12)], ensure_ascii=False),
    )


def raw_sender(connection: asyncpg.Connection) -> Send:
    """COPY + merge and nothing else."""
    types = dict.fromkeys(_COLUMNS, "text")
    types |= dict.fromkeys(("revision", "hangup_cause", "queue_position"), "integer")
    types |= dict.fromkeys([name for name in _COLUMNS if name.endswith("_seconds")], "double precision")
    types |= dict.fromkeys([name for name in _COLUMNS if name.endswith(("_time", "_at"))], "timestamptz")
    types |= dict.fromkeys(("transferred", "start_estimated", "end_estimated"), "boolean")
    columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
    values = ", ".join(f"{name}::jsonb" if name in _JSON else name for name in _COLUMNS)
    changes = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name != "call_sid")
    merge = (
        f"INSERT INTO call (tenant_id, {', '.join(_COLUMNS)}) SELECT tenant_id, {values} FROM raw"
        f" ON CONFLICT (tenant_id, call_sid) DO UPDATE SET {changes} WHERE call.revision < excluded.revision"
    )

    async def send(records: Sequence[CallRecord]) -> None:
        rows = [(1, *_values(record)) for record in records]
        async with connection.transaction():
            await connection.execute(f"CREATE TEMPORARY TABLE raw (tenant_id integer, {columns}) ON COMMIT DROP")
            await connection.copy_records_to_table("raw", records=rows, columns=["tenant_id", *_COLUMNS])
            await connection.execute(merge)

    return send


def uplink_sender(uplink: DirectUplink, lease: str) -> Send:
    """What the agent does."""

    async def send(records: Sequence[CallRecord]) -> None:
        receipt = await uplink.send(Batch("istanbul", records, 1, _HOLDER, lease))
        assert {verdict.verdict for verdict in receipt.verdicts} <= {Verdict.ACCEPTED, Verdict.SUPERSEDED}
        assert len(receipt.verdicts) == len(records)

    return send


async def seconds_for(send: Send, records: Sequence[CallRecord], batch: int) -> float:
    """How long these records take in batches."""
    started = time.perf_counter()
    for first in range(0, len(records), batch):
        await send(records[first : first + batch])
    return time.perf_counter() - started


async def compare(server: EmbeddedPostgres, calls: int) -> None:
    """Print a line per batch size and way of sending."""
    connections = {name: await _fresh(server, name) for name in ("raw", "uplink")}
    login = await site_login(connections["uplink"], "istanbul")
    url = f"postgresql://{login.role}@{server.host}:{server.port}/uplink"
    settings = CentralSettings.model_validate({"url": url, "password": login.password})
    uplink = DirectUplink(settings, site="istanbul", agent_version="benchmark")
    welcome = await uplink.greet(Greeting("istanbul", "benchmark", _HOLDER, "here", lease=None, lease_seconds=600))
    raw, ours = raw_sender(connections["raw"]), uplink_sender(uplink, welcome.lease)
    chance = random.Random(7)
    records = [a_large_record(number, chance) for number in range(calls)]
    size = statistics.mean(len("".join(getattr(record, name) for name in _JSON).encode()) for record in records)
    print(f"{calls} calls, {size:.0f} B of JSON each; medians of {_ROUNDS} rounds in turns")
    print(f"{'':>10}{'batch':>8}{'raw rows/s':>14}{'uplink rows/s':>16}{'ratio':>8}")
    for batch in _BATCHES:
        new: list[tuple[float, float]] = []
        again: list[tuple[float, float]] = []
        for _ in range(_ROUNDS):
            for connection in connections.values():
                await connection.execute("TRUNCATE call CASCADE")
            for found in (new, again):
                found.append((await seconds_for(raw, records, batch), await seconds_for(ours, records, batch)))
        _tell("new", batch, calls, new)
        _tell("sent again", batch, calls, again)
    await _tell_single(ours, records[:200], connections["uplink"])
    await uplink.close()
    for connection in connections.values():
        await connection.close()


async def _tell_single(send: Send, records: Sequence[CallRecord], connection: asyncpg.Connection) -> None:
    await connection.execute("TRUNCATE call CASCADE")
    spent, times = time.process_time(), []
    for record in records:
        times.append(await seconds_for(send, [record], 1))
    spent = (time.process_time() - spent) / len(records)
    print(f"a batch of one call: {statistics.median(times) * 1000:.1f} ms, {spent * 1000:.1f} ms of our CPU")


def _tell(what: str, batch: int, calls: int, found: Sequence[tuple[float, float]]) -> None:
    raw, ours = (statistics.median(column) for column in zip(*found, strict=True))
    ratio = statistics.median(raw / ours for raw, ours in found)
    print(f"{what:>10}{batch:>8}{calls / raw:>14,.0f}{calls / ours:>16,.0f}{ratio:>8.2f}")


async def _fresh(server: EmbeddedPostgres, name: str) -> asyncpg.Connection:
    administration = await asyncpg.connect(server.dsn())
    await administration.execute(f'CREATE DATABASE "{name}"')
    await administration.close()
    await migrate(server.dsn(name))
    connection = await asyncpg.connect(server.dsn(name))
    await connection.execute("INSERT INTO tenant (name, is_active) VALUES ('acme', true)")
    return connection


async def site_login(owner: asyncpg.Connection, site: str) -> NewLogin:
    """A site of tenant acme, and a database user of its own."""
    login = new_site_login(site)
    await add_site(owner, site, ["acme"], who="benchmark")
    await bind_site(owner, login, site, make_role=True, who="benchmark")
    return login


def main() -> None:
    """Start a PostgreSQL and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    calls: int = parser.parse_args().calls
    with EmbeddedPostgres() as server:
        asyncio.run(compare(server, calls))


if __name__ == "__main__":
    main()
