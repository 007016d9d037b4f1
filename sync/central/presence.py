"""A site's own row: greetings, the lease, receipt numbers, and a note of whoever was sent away.

All of it happens under the row's lock and inside a transaction that speaks for the site.
"""

from datetime import datetime

import asyncpg

from sync.central.lease import KeptLease, Standing, bounded, fenced, held, next_token, standing
from sync.central.transaction import disabled_site, unknown_site
from sync.errors import CentreBehind, LeaseLost, UplinkUnavailable
from sync.records import Batch, Greeting, Welcome

_TEXT_CHARS = 255  # of what an installation tells of itself

_LOCK = """
SELECT is_disabled, receipts, lease, lease_before, holder, holder_host, holder_since,
    coalesce(extract(epoch FROM lease_until - clock_timestamp()), 0)::float8 AS left_seconds
FROM site WHERE name = $1 FOR UPDATE
"""
_SEEN = """
UPDATE site SET last_seen_at = clock_timestamp(), first_seen_at = coalesce(first_seen_at, clock_timestamp()),
    agent_version = $2, lease_seconds = $3::float8, lease_until = clock_timestamp() + $3::float8 * interval '1 second',
    holder_host = $4
WHERE name = $1
"""
_NEW_LEASE = """
UPDATE site SET lease_before = coalesce(lease, lease_before), lease = $2, holder = $3,
    holder_since = clock_timestamp()
WHERE name = $1
"""
# The token stays known as the one before, so that the next is of a later generation.
GIVE_UP_LEASE = """
UPDATE site SET lease_before = coalesce(lease, lease_before), lease = NULL, lease_until = NULL, holder = NULL,
    holder_host = NULL, holder_since = NULL
WHERE name = $1
"""
_NOTE_REFUSED = """
UPDATE site SET refused_at = clock_timestamp(), refused_why = $2, refused_holder = $3,
    refused_host = coalesce($4, CASE WHEN refused_holder = $3 THEN refused_host END)
WHERE name = $1
"""
_WELCOME = """
SELECT centre.id::text AS centre, clock_timestamp() AS server_time, ARRAY(
    SELECT tenant.name FROM site_tenant JOIN tenant ON tenant.id = site_tenant.tenant_id
    WHERE site_tenant.site = $1 AND site_tenant.ended_at IS NULL AND tenant.is_active ORDER BY tenant.name) AS tenants
FROM centre
"""
# The whole of a batch's admission in one statement, because each costs a round trip to a centre that may be far away.
_ADMIT = """
WITH seen AS (
    UPDATE site SET last_seen_at = clock_timestamp(), high_water = greatest(high_water, $2), receipts = receipts + 1,
        agent_version = coalesce($3, agent_version),
        lease_until = clock_timestamp() + lease_seconds * interval '1 second'
    WHERE name = $1 AND NOT is_disabled AND lease = $4 AND holder = $5 AND receipts >= $6
    RETURNING receipts
)
SELECT seen.receipts, granted.name, granted.id FROM seen LEFT JOIN (
    SELECT tenant.name, tenant.id FROM site_tenant JOIN tenant ON tenant.id = site_tenant.tenant_id
    WHERE site_tenant.site = $1 AND site_tenant.ended_at IS NULL AND tenant.is_active AND tenant.name = ANY ($7::text[])
) AS granted ON true
"""


async def greet(connection: asyncpg.Connection, greeting: Greeting, *, max_records: int, max_bytes: int) -> Welcome:
    """Answer a greeting. Raises SiteRefused, LeaseHeld or Fenced, of which the row then holds a note."""
    site, holder, host = greeting.site, _plain(greeting.holder), _plain(greeting.host)
    row = await _locked(connection, site)
    kept = _kept(row)
    match standing(kept, shown=greeting.lease, holder=holder):
        case Standing.HELD:
            await connection.execute(_NOTE_REFUSED, site, "held", holder, host)
            raise held(kept, site)
        case Standing.FENCED:
            await connection.execute(_NOTE_REFUSED, site, "fenced", holder, host)
            raise fenced(kept, site)
        case Standing.NEW:
            lease = next_token(kept, shown=greeting.lease)
            await connection.execute(_NEW_LEASE, site, lease, holder)
        case Standing.SAME:
            lease = row["lease"]
    lease_seconds = bounded(greeting.lease_seconds)
    await connection.execute(_SEEN, site, _plain(greeting.agent_version)[:64], lease_seconds, host)
    told = await connection.fetchrow(_WELCOME, site)
    if told is None:
        raise UplinkUnavailable("the centre does not know who it is: its table `centre` has no row")
    server_time: datetime = told["server_time"]
    return Welcome(
        centre=told["centre"],
        receipts=row["receipts"],
        lease=lease,
        lease_seconds=lease_seconds,
        server_time=server_time,
        tenants=tuple(told["tenants"]),
        max_records=max_records,
        max_bytes=max_bytes,
    )


async def admit(
    connection: asyncpg.Connection, batch: Batch, *, agent_version: str | None, tenants: list[str]
) -> tuple[int, dict[str, int]]:
    """Let a batch in: its receipt number, and the keys of those of these tenants that its site may write for.

    Raises SiteRefused, LeaseHeld, Fenced, LeaseLost or CentreBehind; nothing of the batch is stored then.
    """
    rows = await connection.fetch(
        _ADMIT,
        batch.site,
        batch.high_water,
        agent_version,
        None if batch.lease is None else _plain(batch.lease),
        _plain(batch.holder),
        batch.receipts,
        tenants,
    )
    if not rows:
        await _send_away(connection, batch)
    return rows[0]["receipts"], {row["name"]: row["id"] for row in rows if row["name"] is not None}


async def _send_away(connection: asyncpg.Connection, batch: Batch) -> None:
    """Say why the batch was not let in; the lock shows the row as the admission saw it, or newer."""
    row = await _locked(connection, batch.site)
    kept, holder = _kept(row), _plain(batch.holder)
    match standing(kept, shown=batch.lease, holder=holder):
        case Standing.HELD:
            await connection.execute(_NOTE_REFUSED, batch.site, "held", holder, None)
            raise held(kept, batch.site)
        case Standing.FENCED:
            await connection.execute(_NOTE_REFUSED, batch.site, "fenced", holder, None)
            raise fenced(kept, batch.site)
    if (
        kept.token is not None
        and kept.token == batch.lease
        and kept.holder == holder
        and row["receipts"] < batch.receipts
    ):
        raise CentreBehind(
            f"the centre has given {row['receipts']} receipts to site {batch.site!r}, which holds {batch.receipts}: "
            "it was restored from a backup"
        )
    raise LeaseLost(f"site {batch.site!r} has to greet the centre anew", retry_after_seconds=0.0)


async def _locked(connection: asyncpg.Connection, site: str) -> asyncpg.Record:
    row = await connection.fetchrow(_LOCK, site)
    if row is None:
        raise unknown_site(site)
    if row["is_disabled"]:
        raise disabled_site(site)
    return row


def _kept(row: asyncpg.Record) -> KeptLease:
    return KeptLease(
        row["lease"], row["lease_before"], row["holder"], row["holder_host"], row["holder_since"], row["left_seconds"]
    )


def _plain(text: str) -> str:
    """Text that PostgreSQL can hold and an operator can read, of bounded length."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:_TEXT_CHARS])
