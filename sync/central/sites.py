"""What the centre's operator decides about sites: which there are, what they may write, how they come in.

Each function is one transaction on a connection of the tables' owner and leaves a line in the audit.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from sync.central.credentials import CODE_HOURS, hash_of_code, make_code
from sync.central.presence import GIVE_UP_LEASE
from sync.errors import SyncError

_LIST = """
SELECT site.name, site.is_disabled, site.added_at, site.first_seen_at, site.last_seen_at, site.agent_version,
    site.high_water, site.receipts, site.holder_host, site.holder_since, site.lease_until,
    site.refused_at, site.refused_why, site.refused_host, bound_role.role AS database_user,
    ARRAY(SELECT tenant.name::text FROM site_tenant JOIN tenant ON tenant.id = site_tenant.tenant_id
          WHERE site_tenant.site = site.name AND site_tenant.ended_at IS NULL ORDER BY tenant.name) AS tenants,
    EXISTS (SELECT FROM credential WHERE credential.site = site.name AND revoked_at IS NULL
            AND (expires_at > now() OR expires_at IS NULL)) AS has_credential,
    (SELECT max(expires_at) FROM credential WHERE credential.site = site.name AND revoked_at IS NULL)
        AS credential_expires_at,
    (SELECT max(expires_at) FROM enrolment_code WHERE enrolment_code.site = site.name AND used_at IS NULL
        AND expires_at > now()) AS code_expires_at
FROM site LEFT JOIN bound_role ON bound_role.site = site.name ORDER BY site.name
"""
_GRANT = """
INSERT INTO site_tenant (site, tenant_id) VALUES ($1, $2)
ON CONFLICT (site, tenant_id) DO UPDATE SET granted_at = now(), ended_at = NULL WHERE site_tenant.ended_at IS NOT NULL
"""
_UNGRANT = "UPDATE site_tenant SET ended_at = now() WHERE site = $1 AND tenant_id = $2 AND ended_at IS NULL"
_NOTE = "INSERT INTO audit (who, what, site, detail) VALUES ($1, $2, $3, $4)"


class CannotDo(SyncError):
    """The registry cannot do what the operator asks; the text says why, and what there is."""


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """One installation: what it may, how it comes in, which machine speaks for it, who was sent away last."""

    name: str
    is_disabled: bool
    added_at: datetime
    first_seen_at: datetime | None
    last_seen_at: datetime | None
    agent_version: str | None
    high_water: int
    receipts: int
    holder_host: str | None
    holder_since: datetime | None
    lease_until: datetime | None
    refused_at: datetime | None
    refused_why: str | None  # held, fenced, credential_revoked, credential_expired
    refused_host: str | None
    database_user: str | None  # of a site that comes directly
    tenants: tuple[str, ...]
    has_credential: bool
    credential_expires_at: datetime | None
    code_expires_at: datetime | None  # of an enrolment code that waits to be used


@dataclass(frozen=True, slots=True)
class AuditLine:
    """What somebody did at the registry."""

    at: datetime
    who: str
    what: str
    site: str | None
    detail: str | None


async def read_sites(connection: asyncpg.Connection) -> tuple[SiteStatus, ...]:
    """All sites by name."""
    rows = await connection.fetch(_LIST)
    return tuple(SiteStatus(**{**row, "tenants": tuple(row["tenants"])}) for row in rows)


async def read_audit(connection: asyncpg.Connection, site: str | None, limit: int) -> tuple[AuditLine, ...]:
    """The newest lines, the newest first."""
    rows = await connection.fetch(
        "SELECT at, who, what, site, detail FROM audit WHERE site = $1 OR $1 IS NULL"
        " ORDER BY at DESC, id DESC LIMIT $2",
        site,
        limit,
    )
    return tuple(AuditLine(*row) for row in rows)


async def add_site(connection: asyncpg.Connection, name: str, tenants: Sequence[str], *, who: str) -> None:
    """Make a site known that may write for these tenants. Raises CannotDo if there is one or a tenant is unknown."""
    async with connection.transaction():
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO site (name) VALUES ($1)", name)
        except asyncpg.UniqueViolationError:
            raise CannotDo(
                f"there is a site {name!r} already; `edge-hub sites code {name}` makes a new enrolment code for it, "
                f"`edge-hub sites grant {name} TENANT` lets it write for another tenant"
            ) from None
        for tenant in tenants:
            await connection.execute(_GRANT, name, await _tenant_id(connection, tenant))
        await note(connection, who, "added", name, f"for {', '.join(tenants)}" if tenants else None)


async def grant(connection: asyncpg.Connection, site: str, tenant: str, *, who: str) -> None:
    """Let a site write for a tenant from now on. Raises CannotDo."""
    async with _changing(connection, site):
        if await connection.execute(_GRANT, site, await _tenant_id(connection, tenant)) != "INSERT 0 0":
            await note(connection, who, "granted", site, tenant)


async def ungrant(connection: asyncpg.Connection, site: str, tenant: str, *, who: str) -> None:
    """Take no more calls of a tenant from a site; those it sent stay. Raises CannotDo."""
    async with _changing(connection, site):
        if await connection.execute(_UNGRANT, site, await _tenant_id(connection, tenant)) == "UPDATE 0":
            raise CannotDo(f"site {site!r} may not write for {tenant!r} anyway")
        await note(connection, who, "ungranted", site, tenant)


async def new_code(connection: asyncpg.Connection, site: str, *, who: str, hours: float = CODE_HOURS) -> str:
    """A one-time enrolment code; one made before and not used is void. Raises CannotDo."""
    code = make_code()
    async with _changing(connection, site):
        await connection.execute("DELETE FROM enrolment_code WHERE site = $1 AND used_at IS NULL", site)
        await connection.execute(
            "INSERT INTO enrolment_code (code_sha256, site, expires_at) VALUES ($1, $2, now() + $3)",
            hash_of_code(code),
            site,
            timedelta(hours=hours),
        )
        await note(connection, who, "code made", site, None)
    return code


async def set_disabled(connection: asyncpg.Connection, site: str, *, is_disabled: bool, who: str) -> None:
    """Refuse a site as a whole, or let it in again. Raises CannotDo."""
    async with _changing(connection, site):
        await connection.execute("UPDATE site SET is_disabled = $2 WHERE name = $1", site, is_disabled)
        await note(connection, who, "disabled" if is_disabled else "enabled", site, None)


async def expire(connection: asyncpg.Connection, site: str, within: timedelta, *, who: str) -> bool:
    """Let the site's credential end after this time; tell whether it has one. Raises CannotDo."""
    async with _changing(connection, site):
        done = await connection.execute(
            "UPDATE credential SET expires_at = least(expires_at, now() + $2) WHERE site = $1 AND revoked_at IS NULL",
            site,
            within,
        )
        if done != "UPDATE 0":
            await note(connection, who, "expires", site, f"in {within.total_seconds() / 3600:g} h")
        return bool(done != "UPDATE 0")


async def revoke(connection: asyncpg.Connection, site: str, *, who: str) -> None:
    """Take away every credential and code of a site, now. Raises CannotDo."""
    async with _changing(connection, site):
        await connection.execute(
            "UPDATE credential SET revoked_at = clock_timestamp() WHERE site = $1 AND revoked_at IS NULL", site
        )
        await connection.execute("DELETE FROM enrolment_code WHERE site = $1 AND used_at IS NULL", site)
        await note(connection, who, "revoked", site, None)


async def release(connection: asyncpg.Connection, site: str, *, who: str) -> str | None:
    """Let whichever installation greets next speak for the site; return the host that did. Raises CannotDo."""
    async with _changing(connection, site):
        host: str | None = await connection.fetchval("SELECT holder_host FROM site WHERE name = $1", site)
        await connection.execute(GIVE_UP_LEASE, site)
        await note(connection, who, "released", site, f"from {host}" if host else None)
    return host


async def note(connection: asyncpg.Connection, who: str, what: str, site: str | None, detail: str | None) -> None:
    """A line in the audit."""
    await connection.execute(_NOTE, who, what, site, detail)


async def tenant_names(connection: asyncpg.Connection) -> str:
    """The tenants there are, in words."""
    rows = await connection.fetch("SELECT name FROM tenant ORDER BY name")
    return ", ".join(row["name"] for row in rows) or "none yet"


async def _tenant_id(connection: asyncpg.Connection, tenant: str) -> int:
    found: int | None = await connection.fetchval("SELECT id FROM tenant WHERE name = $1", tenant)
    if found is None:
        raise CannotDo(
            f"the centre knows no tenant {tenant!r}; there are: {await tenant_names(connection)}; "
            f"`edge-hub tenants add {tenant}` makes it known"
        )
    return found


@asynccontextmanager
async def _changing(connection: asyncpg.Connection, site: str) -> AsyncIterator[None]:
    """A transaction that holds the site's row."""
    async with connection.transaction():
        if await connection.fetchval("SELECT 1 FROM site WHERE name = $1 FOR UPDATE", site) is None:
            names = ", ".join(row["name"] for row in await connection.fetch("SELECT name FROM site ORDER BY name"))
            raise CannotDo(f"the centre knows no site {site!r}; there are: {names or 'none yet'}")
        yield
