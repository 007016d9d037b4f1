"""A real hub for tests: on a socket of its own, over a real PostgreSQL, in the test's loop or as a process.

Fixtures: `hub_address` (the database, as the hub's own login sees it), `hub` (answers, with one site enrolled).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from config.notify import Notifier
from sync import wire
from sync.central.connection import CentralAddress
from sync.central.credentials import Credential
from sync.hub.limits import Limits
from sync.hub.serve import Endpoint, ServeSettings, Serving, TlsFiles, prepare
from sync.records import Batch, Greeting, Welcome
from tests.fakes_sync import body_of, zstd_of
from tests.postgres import PostgresDatabase

_LOGIN, _PASSWORD = "hub_of_tests", "of-tests-only"


@dataclass
class RunningHub:
    """A hub that answers, its database, and a site that may write for `acme`."""

    serving: Serving
    database: PostgresDatabase
    client: httpx.AsyncClient
    credential: str = ""

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self.serving.endpoints[0].port

    @property
    def authorized(self) -> dict[str, str]:
        """The headers of the site's requests."""
        return {"Authorization": f"Bearer {self.credential}"}

    async def greet(self, *, site: str = "istanbul", holder: str = "holder", lease: str | None = None) -> Welcome:
        """Take the site's lease."""
        body = wire.encode_greeting(Greeting(site, "1.0", holder, "pbx-1", lease, 60.0))
        answer = await self.client.post("/v1/handshake", content=body, headers=self.authorized)
        assert answer.status_code == 200, answer.text
        return wire.decode_welcome(answer.content)

    async def send(self, batch: Batch, **headers: str) -> httpx.Response:
        """Send a batch as an agent does."""
        body = body_of(batch, [wire.encode_record(record) for record in batch.values])
        return await self.send_raw(zstd_of(body), **({"Content-Encoding": "zstd"} | headers))

    async def send_raw(self, body: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
        """Send any bytes as a batch."""
        return await self.client.post("/v1/batches", content=body, headers=self.authorized | headers)


@pytest.fixture
async def hub_address(central_database: PostgresDatabase) -> CentralAddress:
    """The database as a login that row-level security binds."""
    return await make_hub_login(central_database)


@pytest.fixture
async def hub(central_database: PostgresDatabase) -> AsyncIterator[RunningHub]:
    """A hub with the limits it has by default."""
    async with running_hub(central_database) as running:
        yield running


async def make_hub_login(database: PostgresDatabase) -> CentralAddress:
    """The way in for a hub; the login belongs to the whole server."""
    await database.execute(
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{_LOGIN}') THEN"
        f" CREATE ROLE {_LOGIN} LOGIN IN ROLE sentiric_hub PASSWORD '{_PASSWORD}'; END IF; END $$"
    )
    server = database.server
    return CentralAddress(f"postgresql://{_LOGIN}:{_PASSWORD}@{server.host}:{server.port}/{database.name}")


async def make_credential(database: PostgresDatabase, site: str) -> str:
    """A credential of the site, as an enrolment gives it."""
    credential = Credential.make()
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO credential (id, site, secret_sha256) VALUES ($1, $2, $3)",
            credential.id,
            site,
            credential.secret_sha256,
        )
    return credential.text


@asynccontextmanager
async def running_hub(
    database: PostgresDatabase,
    *,
    limits: Limits | None = None,
    connections: int = 4,
    tls: TlsFiles | None = None,
    trusted_proxies: tuple[str, ...] = (),
    site: str = "istanbul",
) -> AsyncIterator[RunningHub]:
    """A hub in this loop, and one site that may write for `acme`."""
    settings = ServeSettings(
        listen=[Endpoint("127.0.0.1", 0)],
        tls=tls,
        connections=connections,
        limits=limits or Limits(stop_seconds=2),
        trusted_proxies=trusted_proxies,
    )
    serving = await prepare(await make_hub_login(database), settings, Notifier({}))
    task = asyncio.create_task(serving.run(), name="hub")
    await serving.started.wait()
    scheme = "https" if tls else "http"
    try:
        async with httpx.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{serving.endpoints[0].port}", trust_env=False, timeout=60
        ) as client:
            running = RunningHub(serving, database, client)
            if site:
                await database.add_site(site, "acme")
                running.credential = await make_credential(database, site)
            yield running
    finally:
        serving.stop()
        await task
