"""`edge-hub dev`: a hub, a PostgreSQL, a tenant, a site and its enrolment code, for trying things out."""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import asyncpg
import typer

from sync.central import sites
from sync.central.connection import CentralAddress
from sync.central.embedded import EmbeddedPostgres, EmbeddedPostgresError
from sync.central.migrate import migrate
from sync.errors import SyncError
from sync.hub import registry
from sync.hub.serve import Endpoint, ServeSettings, serve

_LOGIN: Final = "edge_hub_dev"
_WHO: Final = "edge-hub dev"  # in the audit


class CannotTry(SyncError):
    """PostgreSQL cannot be set up here; the text says why."""


def run_dev(endpoint: Endpoint, *, directory: Path | None, tenant: str, site: str) -> None:
    """Serve until Ctrl-C. Raises CannotTry and what `serve` raises."""
    with ExitStack() as held:
        try:
            server = held.enter_context(EmbeddedPostgres(keep_in=directory))
        except EmbeddedPostgresError as exc:
            raise CannotTry(str(exc)) from None
        asyncio.run(_serve(server, endpoint, tenant=tenant, site=site))


async def make_centre(server: EmbeddedPostgres, *, tenants: Sequence[str], site: str) -> tuple[CentralAddress, str]:
    """Tables, tenants, a site and the hub's login; returns the way in for the hub, and the site's enrolment code."""
    owner = CentralAddress(server.dsn())
    await migrate(owner)
    for tenant in tenants:
        await registry.add_tenant(owner, tenant)
    connection = await asyncpg.connect(server.dsn())
    try:
        password = await _make_login(connection)
        if site not in {known.name for known in await sites.read_sites(connection)}:
            await sites.add_site(connection, site, tenants, who=_WHO)
        for tenant in tenants:
            await sites.grant(connection, site, tenant, who=_WHO)
        code = await sites.new_code(connection, site, who=_WHO)
    finally:
        await connection.close()
    return CentralAddress(f"postgresql://{_LOGIN}:{password}@{server.host}:{server.port}/postgres"), code


async def _serve(server: EmbeddedPostgres, endpoint: Endpoint, *, tenant: str, site: str) -> None:
    hub, code = await make_centre(server, tenants=[tenant], site=site)

    def tell(endpoints: Sequence[Endpoint]) -> None:
        typer.echo(
            f"hub         http://{endpoints[0]}\n"
            f"database    {server.dsn()}\n"
            f"tenant      {tenant}\n"
            f"site        {site}\n"
            f"enrol       edge-agent enroll http://{endpoints[0]} {code}\n"
            "Ctrl-C ends it."
        )

    await serve(hub, ServeSettings(listen=[endpoint], connections=4), when_listening=tell)


async def _make_login(connection: asyncpg.Connection) -> str:
    """The hub's own login, with a new password at each start."""
    password = secrets.token_urlsafe(18)  # of letters that need no quoting
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", _LOGIN):
        await connection.execute(f"CREATE ROLE {_LOGIN} LOGIN IN ROLE sentiric_hub")
    await connection.execute(f"ALTER ROLE {_LOGIN} PASSWORD '{password}'")
    return password
