"""Records lost and doubled under faults, 20,000 in each row: this agent, and rsyslog and syslog-ng where installed.

    python -m benchmarks.faults [--records 20000] [--only agent|rsyslog|syslog-ng]

The agent reads a growing Master.csv beside a simulated PBX and sends to a real PostgreSQL. The others take the same
number of records of 2.5 KB over TCP and send them over TCP to a receiver of this driver, the kindest target they can
have: nothing is lost between them and a database. Faults: SIGKILL in an outage of the target; ten while draining; three
while receiving; the target stopped hard five times while draining.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import asyncpg

from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from sync.central.embedded import EmbeddedPostgres
from sync.central.migrate import migrate
from tests.agent_process import AgentProcess
from tests.integration.sources.cdr_lines import START, cdr
from tests.postgres import PostgresDatabase

_SITE: Final = "faults"
_KILLS_DRAINING: Final = 10
_KILLS_RECEIVING: Final = 3
_STOPS: Final = 5
_PAUSE_SECONDS: Final = 1.0  # between two faults
_SETTLE_SECONDS: Final = 5.0  # for those that cannot tell what they have
_QUIET_SECONDS: Final = 15.0  # nothing more came for so long: it is over
_RECORD_BYTES: Final = 2500
_IN_AT_ONCE: Final = 500

_SETTINGS: Final = """site = "{site}"
[[pbx]]
name = "main"
port = {port}
username = "bench"
secret = "bench"
reconnect_max_seconds = 1
[[pbx.sources]]
kind = "cdr-csv"
path = "{file}"
time_zone = "UTC"
settle_seconds = 0
poll_seconds = 0.1
history_days = 3
[tenancy]
default = "acme"
[central]
url = "{url}"
password = "{password}"
retry_max_seconds = 1
timeout_seconds = 5
"""

_RSYSLOG: Final = """module(load="imtcp")
global(workDirectory="{work}" maxMessageSize="64k")
main_queue(queue.type="{kind}" queue.filename="main" queue.maxDiskSpace="4g" queue.saveOnShutdown="on" {sync})
input(type="imtcp" address="127.0.0.1" port="{port_in}")
template(name="raw" type="string" string="%msg%\\n")
action(type="omfwd" target="127.0.0.1" port="{port_out}" protocol="tcp" template="raw" action.resumeRetryCount="-1"
       action.resumeInterval="1" queue.type="{kind}" queue.filename="out" queue.maxDiskSpace="4g"
       queue.saveOnShutdown="on" {sync})
"""
_DISK_ASSISTED: Final = ("LinkedList", "")
_DISK_AND_SYNC: Final = ("Disk", 'queue.syncQueueFiles="on" queue.checkpointInterval="1"')

_SYSLOG_NG: Final = """@version: 3.38
options {{ time-reopen(1); keep-hostname(yes); }};
source s {{ network(ip("127.0.0.1") port({port_in}) transport("tcp") flags(no-parse) log-msg-size(65536)); }};
destination d {{ network("127.0.0.1" port({port_out}) transport("tcp") template("$MSG\\n")
    disk-buffer(reliable(yes) disk-buf-size(4294967296) mem-buf-size(16777216) dir("{work}"))); }};
log {{ source(s); destination(d); flags(flow-control); }};
"""


_OTHERS: Final = {
    "rsyslog, disk-assisted queue": "rsyslogd",
    "rsyslog, disk queue + sync": "rsyslogd",
    "syslog-ng, reliable disk buffer": "syslog-ng",
}
_FIRST_PORT: Final = 25_140


class Carrier(Protocol):
    """What carries records from where they are made to a target that may be away."""

    name: str

    async def start(self) -> None: ...

    async def kill(self) -> None: ...

    async def give(self, first: int, last: int) -> None:
        """Hand over records of these numbers, without the last."""
        ...

    async def taken(self) -> int:
        """How many it has, as far as can be told."""
        ...

    async def target_down(self) -> None: ...

    async def target_up(self) -> None: ...

    async def arrived(self) -> Counter[int]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One fault's outcome."""

    carrier: str
    fault: str
    lost: int
    doubled: int

    def __str__(self) -> str:
        return f"| {self.carrier} | {self.fault} | {self.lost} | {self.doubled} |"


async def kill_in_the_outage(carrier: Carrier, records: int) -> None:
    """All are taken while the target is away, then the carrier is killed."""
    await carrier.target_down()
    await carrier.start()
    await carrier.give(0, records)
    await _until_taken(carrier, records)
    await carrier.kill()
    await carrier.target_up()
    await carrier.start()


async def kills_while_draining(carrier: Carrier, records: int) -> None:
    """Ten kills, from when the target is back."""
    await carrier.target_down()
    await carrier.start()
    await carrier.give(0, records)
    await _until_taken(carrier, records)
    await carrier.target_up()
    for _ in range(_KILLS_DRAINING):
        await asyncio.sleep(_PAUSE_SECONDS)
        await carrier.kill()
        await carrier.start()


async def kills_while_receiving(carrier: Carrier, records: int) -> None:
    """Three kills while records come."""
    await carrier.start()
    killing = asyncio.create_task(_kill_now_and_then(carrier), name="kills")
    for first in range(0, records, _IN_AT_ONCE):
        await carrier.give(first, min(first + _IN_AT_ONCE, records))
        await asyncio.sleep(4.0 * _IN_AT_ONCE / records)
    await killing


async def target_stopped_while_draining(carrier: Carrier, records: int) -> None:
    """Five hard stops of the target."""
    await carrier.target_down()
    await carrier.start()
    await carrier.give(0, records)
    await _until_taken(carrier, records)
    await carrier.target_up()
    for _ in range(_STOPS):
        await asyncio.sleep(_PAUSE_SECONDS)
        await carrier.target_down()
        await asyncio.sleep(_PAUSE_SECONDS / 2)
        await carrier.target_up()


FAULTS: Final[dict[str, Callable[[Carrier, int], Awaitable[None]]]] = {
    "kill -9 in the outage": kill_in_the_outage,
    "ten kills while draining": kills_while_draining,
    "three kills while receiving": kills_while_receiving,
    "target stopped hard five times while draining": target_stopped_while_draining,
}


async def _kill_now_and_then(carrier: Carrier) -> None:
    for _ in range(_KILLS_RECEIVING):
        await asyncio.sleep(_PAUSE_SECONDS)
        await carrier.kill()
        await carrier.start()


async def _until_taken(carrier: Carrier, records: int) -> None:
    await _until_quiet(carrier.taken, records)
    await asyncio.sleep(_SETTLE_SECONDS)


async def _until_quiet(count: Callable[[], Awaitable[int]], wanted: int) -> None:
    """Until it is as many as wanted, or no more come."""
    last, since = -1, 0.0
    loop = asyncio.get_running_loop()
    while (found := await count()) < wanted:
        if found != last:
            last, since = found, loop.time()
        elif loop.time() - since > _QUIET_SECONDS:
            return
        await asyncio.sleep(0.2)


class Agent:
    """This agent: records are CDRs in a growing file, the target is PostgreSQL."""

    name = "this agent"

    def __init__(self, directory: Path, simulator: Simulator, database: PostgresDatabase) -> None:
        self._records = directory / "Master.csv"
        self._records.touch()
        self._began = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1) - START
        self._database = database
        server = database.server
        settings = _SETTINGS.format(
            site=_SITE, port=simulator.port, file=self._records, url=server.url(database.name), password=server.password
        )
        self._process = AgentProcess(directory, settings)

    async def start(self) -> None:
        await asyncio.to_thread(self._process.start)

    async def kill(self) -> None:
        await asyncio.to_thread(self._process.kill)

    async def give(self, first: int, last: int) -> None:
        lines = "".join(cdr(number, after=self._began + timedelta(seconds=number)) for number in range(first, last))
        with self._records.open("a", encoding="utf-8") as file:
            file.write(lines)

    async def taken(self) -> int:
        status = await asyncio.to_thread(self._process.status)
        return int(status["backlog"]["waiting"])

    async def target_down(self) -> None:
        await asyncio.to_thread(self._database.server.stop_hard)

    async def target_up(self) -> None:
        await asyncio.to_thread(self._database.server.start)

    async def arrived(self) -> Counter[int]:
        rows = await self._database.fetch("SELECT call_sid FROM call WHERE site = $1", _SITE)
        return Counter(int(row["call_sid"].rpartition(".")[2]) for row in rows)


class Relay:
    """A syslog daemon between a sender and a receiver of ours, over TCP."""

    def __init__(self, name: str, command: list[str], *, port_in: int, port_out: int) -> None:
        self.name = name
        self._command = command
        self._port_in, self._port_out = port_in, port_out
        self._process: asyncio.subprocess.Process | None = None
        self._receiver: asyncio.Server | None = None
        self._lines: set[asyncio.StreamWriter] = set()
        self._arrived: Counter[int] = Counter()
        self._given = 0

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command)
        if self._receiver is None:
            return
        await self._connect()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def give(self, first: int, last: int) -> None:
        """As any sender over TCP does: what the kernel took is sent; after a break, what it did not take is sent."""
        at = first
        while at < last:
            writer = await self._connect()
            with suppress(OSError):
                while at < last:
                    writer.write(f'{{"n":{at},"rest":"{"x" * _RECORD_BYTES}"}}\n'.encode())
                    await writer.drain()
                    at += 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        self._given = last

    async def taken(self) -> int:
        return self._given  # nobody tells

    async def target_down(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()
        for writer in list(self._lines):
            writer.transport.abort()

    async def target_up(self) -> None:
        self._receiver = await asyncio.start_server(self._receive, "127.0.0.1", self._port_out, limit=2**20)

    async def arrived(self) -> Counter[int]:
        return self._arrived

    async def _connect(self) -> asyncio.StreamWriter:
        async with asyncio.timeout(30):
            while True:
                with suppress(OSError):
                    return (await asyncio.open_connection("127.0.0.1", self._port_in))[1]
                await asyncio.sleep(0.05)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        with suppress(OSError, ValueError):
            while line := await reader.readline():
                _, found, rest = line.partition(b'"n":')
                if found and line.endswith(b"\n"):
                    self._arrived[int(rest.partition(b",")[0])] += 1
        self._lines.discard(writer)
        writer.close()


@asynccontextmanager
async def the_agent() -> AsyncIterator[Agent]:
    """The agent, its PBX and a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres() as server:
        connection = await asyncpg.connect(server.dsn())
        await connection.execute("CREATE DATABASE faults")
        await connection.close()
        await migrate(server.dsn("faults"))
        database = PostgresDatabase(server, "faults")
        await database.add_site(_SITE, "acme")
        async with Simulator(account=Account("bench", "bench")) as simulator:
            agent = Agent(Path(directory), simulator, database)
            try:
                yield agent
            finally:
                with suppress(AssertionError):
                    await agent.kill()


@asynccontextmanager
async def a_relay(name: str, port_in: int) -> AsyncIterator[Relay]:
    """A syslog daemon with a directory of its own."""
    port_out = port_in + 1
    with tempfile.TemporaryDirectory() as work:
        settings = Path(work, "settings.conf")
        if name.startswith("syslog-ng"):
            settings.write_text(_SYSLOG_NG.format(port_in=port_in, port_out=port_out, work=work))
            files = ["-f", str(settings), "-R", f"{work}/persist", "-p", f"{work}/pid", "-c", f"{work}/control"]
            command = ["syslog-ng", "-F", "--no-caps", *files]
        else:
            kind, sync = _DISK_AND_SYNC if name.endswith("sync") else _DISK_ASSISTED
            told = _RSYSLOG.format(kind=kind, sync=sync, work=work, port_in=port_in, port_out=port_out)
            settings.write_text(told)
            command = ["rsyslogd", "-n", "-f", str(settings), "-i", f"{work}/pid"]
        relay = Relay(name, command, port_in=port_in, port_out=port_out)
        await relay.target_up()
        try:
            yield relay
        finally:
            with suppress(ProcessLookupError):
                await relay.kill()
            await relay.target_down()


async def _run(carrier: Carrier, fault: str, records: int) -> Row:
    await FAULTS[fault](carrier, records)

    async def distinct() -> int:
        return len(await carrier.arrived())

    await _until_quiet(distinct, records)
    arrived = await carrier.arrived()
    return Row(carrier.name, fault, records - len(arrived), sum(times - 1 for times in arrived.values()))


async def _main(records: int, only: str | None) -> int:
    makers: dict[str, Callable[[], AbstractAsyncContextManager[Carrier]]] = {"agent": the_agent}
    for port, (name, program) in enumerate(_OTHERS.items()):
        if shutil.which(program):
            makers[name] = partial(a_relay, name, _FIRST_PORT + 10 * port)
        else:
            print(f"{name}: {program} is not installed", file=sys.stderr)
    print(f"| {records} records | fault | lost | doubled |\n|---|---|---|---|", flush=True)
    for name, make in makers.items():
        if only is not None and not name.startswith(only):
            continue
        for fault in FAULTS:
            async with make() as carrier:
                print(await _run(carrier, fault, records), flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--only", choices=("agent", "rsyslog", "syslog-ng"))
    wishes = parser.parse_args()
    sys.exit(asyncio.run(_main(wishes.records, wishes.only)))
