"""What the centre's operator asks and changes: tenants, sites, and how many calls there are."""

import asyncio
import os
import pwd
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from sync.central import sites
from sync.central.connection import CentralAddress, connect, explain
from sync.central.migrate import check
from sync.errors import SyncError

_ANSWER_SECONDS = 120.0  # counting the calls of a large centre takes its time


class UnknownTenant(SyncError):
    """There is no tenant of that name; the text says which there are."""


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """One tenant and its calls."""

    name: str
    is_active: bool
    calls: int
    last_call_at: datetime | None


@dataclass(frozen=True, slots=True)
class CentralStatus:
    """What the centre holds."""

    sites: tuple[sites.SiteStatus, ...]
    tenants: tuple[TenantStatus, ...]


async def add_tenant(address: CentralAddress, name: str) -> None:
    """Make a tenant known, or active again."""
    async with session(address) as connection:
        await connection.execute(
            "INSERT INTO tenant (name, is_active) VALUES ($1, true) ON CONFLICT (name) DO UPDATE SET is_active = true",
            name,
        )


async def deactivate_tenant(address: CentralAddress, name: str) -> None:
    """Take no more calls for a tenant; those it has stay."""
    async with session(address) as connection:
        done = await connection.execute("UPDATE tenant SET is_active = false WHERE name = $1", name)
        if done == "UPDATE 0":
            names = ", ".join(tenant.name for tenant in await _read_tenants(connection)) or "none yet"
            raise UnknownTenant(f"the centre knows no tenant {name!r}; there are: {names}")


async def read_tenants(address: CentralAddress) -> tuple[TenantStatus, ...]:
    """All tenants by name."""
    async with session(address) as connection:
        return await _read_tenants(connection)


async def read_status(address: CentralAddress) -> CentralStatus:
    """All sites and tenants by name."""
    async with session(address) as connection:
        return CentralStatus(await sites.read_sites(connection), await _read_tenants(connection))


async def add_site(address: CentralAddress, name: str, tenants: Sequence[str]) -> None:
    """Make a site known that may write for these tenants. Raises CannotDo."""
    async with session(address) as connection:
        await sites.add_site(connection, name, tenants, who=operator())


async def new_code(address: CentralAddress, site: str) -> str:
    """A one-time enrolment code for a site. Raises CannotDo."""
    async with session(address) as connection:
        return await sites.new_code(connection, site, who=operator())


def operator() -> str:
    """Who runs this program, for the audit."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"{os.environ.get('SUDO_USER') or name}@{socket.gethostname()}"


async def _read_tenants(connection: asyncpg.Connection) -> tuple[TenantStatus, ...]:
    tenants = await connection.fetch(
        "SELECT name, is_active, coalesce(calls, 0), last_call_at FROM tenant LEFT JOIN"
        " (SELECT tenant_id, count(*) AS calls, max(start_time) AS last_call_at FROM call GROUP BY tenant_id) AS held"
        " ON held.tenant_id = tenant.id ORDER BY name"
    )
    return tuple(TenantStatus(*tenant) for tenant in tenants)


@asynccontextmanager
async def session(address: CentralAddress) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner's, whose tables fit. Raises UplinkUnavailable, UplinkRefused or SchemaMismatch."""
    connection = await connect(address, application_name="edge-hub")
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await check(connection, address.label)
            yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as exc:
        raise explain(exc, address.label) from None
    finally:
        connection.terminate()
