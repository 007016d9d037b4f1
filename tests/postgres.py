"""A real PostgreSQL for tests: one server per session, a fresh database per test.

Fixtures: `postgres_server`, `empty_database`, `central_database` (with the central tables) and, for a test that
stops or freezes the server, the same server's `stop_hard`, `start`, `freeze` and `thaw`; the next test finds it well.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from config.settings import CentralSettings
from sync.central.connection import CentralAddress
from sync.central.embedded import EmbeddedPostgres
from sync.central.migrate import migrate
from tests.fakes_sync import HOLDER, LEASE

_TEMPLATE = "central_template"
_numbers = count(1)


@dataclass(frozen=True)
class PostgresDatabase:
    """One database on the session's server."""

    server: EmbeddedPostgres
    name: str

    @property
    def dsn(self) -> str:
        """Where it is, with the password."""
        return self.server.dsn(self.name)

    @property
    def address(self) -> CentralAddress:
        """Where it is, for our own code."""
        return CentralAddress(self.dsn)

    def settings(self, **changes: Any) -> CentralSettings:  # Any: whatever fields the section has
        """The settings of a site that syncs to it."""
        values = {"url": self.server.url(self.name), "password": SecretStr(self.server.password)} | changes
        return CentralSettings.model_validate(values)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the test's own."""
        connection = await asyncpg.connect(self.dsn)
        try:
            yield connection
        finally:
            await connection.close()

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows of a query."""
        async with self.connection() as connection:
            return list(await connection.fetch(query, *arguments))

    async def execute(self, statements: str) -> None:
        """Run some statements."""
        async with self.connection() as connection:
            await connection.execute(statements)

    async def add_tenants(self, *names: str) -> None:
        """Make these tenants known."""
        async with self.connection() as connection:
            await connection.executemany(
                "INSERT INTO tenant (name, is_active) VALUES ($1, true) ON CONFLICT DO NOTHING",
                [(name,) for name in names],
            )

    async def add_site(self, name: str, *tenants: str) -> None:
        """Make a site known that may write for these tenants, which are made known too."""
        async with self.connection() as connection:
            await connection.execute("INSERT INTO site (name) VALUES ($1)", name)
        await self.grant(name, *tenants)

    async def grant(self, site: str, *tenants: str) -> None:
        """Let a site write for these tenants, which are made known too."""
        await self.add_tenants(*tenants)
        async with self.connection() as connection:
            await connection.execute(
                "INSERT INTO site_tenant (site, tenant_id) SELECT $1, id FROM tenant WHERE name = ANY ($2::text[])",
                site,
                tenants,
            )

    async def add_hub_login(self) -> CentralAddress:
        """A login as a hub has it, bound by row-level security."""
        role = f"hub_of_{self.name}"
        await self.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hub' IN ROLE sentiric_hub")
        return CentralAddress(f"postgresql://{role}:hub@{self.server.host}:{self.server.port}/{self.name}")

    async def add_speaking_site(self, name: str, *tenants: str) -> None:
        """The same, and it has the lease that the batches of `tests.fakes_sync` show."""
        await self.add_site(name, *tenants)
        async with self.connection() as connection:
            await connection.execute(
                "UPDATE site SET lease = $2, holder = $3, holder_host = 'pbx-1', holder_since = now(),"
                " lease_seconds = 60, lease_until = now() + interval '60 s' WHERE name = $1",
                name,
                LEASE,
                HOLDER,
            )


@pytest.fixture(scope="session")
def _postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(options={"fsync": "off"}) as server:
        _finish(_create(server, _TEMPLATE))
        _finish(migrate(server.dsn(_TEMPLATE)))
        yield server


@pytest.fixture
def postgres_server(_postgres: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """The session's server; a test may stop, start, freeze and thaw it."""
    yield _postgres
    _postgres.thaw()
    _postgres.start()


@pytest.fixture
def empty_database(postgres_server: EmbeddedPostgres) -> Iterator[PostgresDatabase]:
    """A database without any tables."""
    yield from _fresh(postgres_server, template="template1")


@pytest.fixture
def central_database(postgres_server: EmbeddedPostgres) -> Iterator[PostgresDatabase]:
    """A database with the central tables, in which nothing is known yet."""
    yield from _fresh(postgres_server, template=_TEMPLATE)


def _fresh(server: EmbeddedPostgres, *, template: str) -> Iterator[PostgresDatabase]:
    name = f"test_{next(_numbers)}"
    _finish(_create(server, name, template=template))
    yield PostgresDatabase(server, name)
    server.thaw()
    server.start()
    _finish(_administer(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _create(server: EmbeddedPostgres, name: str, *, template: str = "template1") -> None:
    await _administer(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


async def _administer(server: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _finish(work: Coroutine[Any, Any, object]) -> None:  # Any: what a coroutine is sent and yields
    """Run it on a loop of its own in a thread, since the test's loop is not to be touched here."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
