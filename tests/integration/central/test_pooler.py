"""Behind a real pgbouncer that gives each transaction any of two sessions: nothing of ours relies on a session."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sync.central.connection import CentralAddress
from sync.central.database import CentralDatabase
from sync.errors import UplinkUnavailable
from sync.records import Batch, Receipt, Verdict
from tests.fakes_sync import NOON, a_batch, a_record
from tests.postgres import PostgresDatabase

_PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
_SETTINGS = """[databases]
{name} = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = plain
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = 2
"""

pytestmark = pytest.mark.skipif(
    _PROGRAM is None and os.environ.get("CI") != "true", reason="Debian's pgbouncer is not installed"
)


@pytest.fixture
async def login(central_database: PostgresDatabase) -> CentralAddress:
    """A hub's way into PostgreSQL itself."""
    return await central_database.add_hub_login()


@pytest.fixture
def pooler(central_database: PostgresDatabase, login: CentralAddress) -> Iterator[CentralAddress]:
    """The way through the pooler; it runs as nobody, since it refuses to run as root."""
    server, role = central_database.server, f"hub_of_{central_database.name}"
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="pgbouncer-") as directory:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        Path(directory).chmod(0o755)
        Path(directory, "users").write_text(f'"{role}" "hub"\n')
        file = Path(directory, "pgbouncer.ini")
        file.write_text(
            _SETTINGS.format(
                name=central_database.name, host=server.host, port=server.port, listen=port, directory=directory
            )
        )
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        with subprocess.Popen([str(_PROGRAM), "-q", *as_user, str(file)], stderr=subprocess.DEVNULL) as process:
            yield CentralAddress(f"postgresql://{role}:hub@127.0.0.1:{port}/{central_database.name}")
            process.send_signal(signal.SIGINT)
            process.wait(10)
            process.kill()


@pytest.fixture
async def hubs(central_database: PostgresDatabase, pooler: CentralAddress) -> AsyncIterator[list[CentralDatabase]]:
    """Five connections of hubs, more than the pooler has sessions."""
    await central_database.add_speaking_site("istanbul", "acme")
    hubs = [CentralDatabase(pooler, application_name="test", timeout_seconds=20) for _ in range(5)]
    yield hubs
    for hub in hubs:
        await hub.close()


async def stored(hub: CentralDatabase, batch: Batch) -> Receipt:
    """Send as a site does: again, if the pooler has not started or its client has just found out about it."""
    async with asyncio.timeout(20):
        while True:
            with suppress(UplinkUnavailable):
                return await hub.store(batch)


async def test_batches_of_many_connections_are_stored_once_over_few_sessions(
    hubs: list[CentralDatabase],
) -> None:
    receipts = await asyncio.gather(
        *(stored(hub, a_batch(a_record(number), a_record(0))) for number in range(1, 11) for hub in hubs)
    )

    verdicts = [verdict.verdict for receipt in receipts for verdict in receipt.verdicts]
    assert (verdicts.count(Verdict.ACCEPTED), verdicts.count(Verdict.SUPERSEDED)) == (11, 89)
    assert sorted(receipt.number for receipt in receipts) == list(range(1, 51))
    days = await asyncio.gather(*(hub.days("istanbul", NOON.date(), NOON.date()) for hub in hubs))
    assert [[day.calls for day in found] for found in days] == [[11]] * 5


async def test_nothing_that_speaks_for_a_site_stays_in_the_session(
    hubs: list[CentralDatabase],
) -> None:
    await asyncio.gather(*(stored(hub, a_batch(a_record(number))) for number, hub in enumerate(hubs)))

    async def told(hub: CentralDatabase) -> str | None:
        async with hub._in_time() as connection:
            found: str | None = await connection.fetchval("SELECT current_site()")
            return found

    assert await asyncio.gather(*(told(hub) for hub in hubs)) == [None] * 5
